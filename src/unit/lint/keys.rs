//! The keys that launchd knows, with the types of their values: launchd.plist(5).

use std::ops::RangeInclusive;

use plist::Value;

use super::What;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Boolean,
    Dictionary,
    /// Strings only.
    Texts,
    BooleanOrDictionary,
    DictionaryOrArray,
    TextOrTexts,
    IntegerOrText,
    Any,
}

impl Kind {
    pub(super) fn takes(self, value: &Value) -> bool {
        let is_texts = || value.as_array().is_some_and(|all| all.iter().all(|one| one.as_string().is_some()));
        match self {
            Kind::Text => value.as_string().is_some(),
            Kind::Integer => matches!(value, Value::Integer(_)),
            Kind::Boolean => value.as_boolean().is_some(),
            Kind::Dictionary => value.as_dictionary().is_some(),
            Kind::Texts => is_texts(),
            Kind::BooleanOrDictionary => value.as_boolean().is_some() || value.as_dictionary().is_some(),
            Kind::DictionaryOrArray => value.as_dictionary().is_some() || value.as_array().is_some(),
            Kind::TextOrTexts => value.as_string().is_some() || is_texts(),
            Kind::IntegerOrText => matches!(value, Value::Integer(_) | Value::String(_)),
            Kind::Any => true,
        }
    }

    pub(super) fn wanted(self) -> &'static str {
        match self {
            Kind::Text => "a <string>",
            Kind::Integer => "an <integer>",
            Kind::Boolean => "<true/> or <false/>",
            Kind::Dictionary => "a <dict>",
            Kind::Texts => "an <array> of <string>",
            Kind::BooleanOrDictionary => "<true/>, <false/> or a <dict>",
            Kind::DictionaryOrArray => "a <dict> or an <array> of them",
            Kind::TextOrTexts => "a <string> or an <array> of them",
            Kind::IntegerOrText => "an <integer> or a <string>",
            Kind::Any => "something else",
        }
    }
}

pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "an <array>",
        Value::Dictionary(_) => "a <dict>",
        Value::Boolean(_) => "a boolean",
        Value::String(_) => "a <string>",
        Value::Integer(_) => "an <integer>",
        Value::Real(_) => "a <real>",
        Value::Date(_) => "a <date>",
        Value::Data(_) => "<data>",
        _ => "something else",
    }
}

use Kind::{
    Any, Boolean, BooleanOrDictionary, Dictionary, DictionaryOrArray, Integer, IntegerOrText, Text, TextOrTexts, Texts,
};

pub(super) const JOB: &[(&str, Kind)] = &[
    ("AbandonProcessGroup", Boolean),
    ("AssociatedBundleIdentifiers", TextOrTexts),
    ("BundleProgram", Text),
    ("Debug", Boolean),
    ("Disabled", Boolean),
    ("EnableGlobbing", Boolean),
    ("EnablePressuredExit", Boolean),
    ("EnableTransactions", Boolean),
    ("EnvironmentVariables", Dictionary),
    ("ExitTimeOut", Integer),
    ("GroupName", Text),
    ("HardResourceLimits", Dictionary),
    ("HopefullyExitsFirst", Boolean),
    ("HopefullyExitsLast", Boolean),
    ("InitGroups", Boolean),
    ("KeepAlive", BooleanOrDictionary),
    ("Label", Text),
    ("LaunchEvents", Dictionary),
    ("LaunchOnlyOnce", Boolean),
    ("LegacyTimers", Boolean),
    ("LimitLoadFromHardware", Dictionary),
    ("LimitLoadFromHosts", Texts),
    ("LimitLoadToHardware", Dictionary),
    ("LimitLoadToHosts", Texts),
    ("LimitLoadToSessionType", TextOrTexts),
    ("LowPriorityBackgroundIO", Boolean),
    ("LowPriorityIO", Boolean),
    ("MachServices", Dictionary),
    ("MaterializeDatalessFiles", Boolean),
    ("Nice", Integer),
    ("OnDemand", Boolean),
    ("POSIXSpawnType", Text),
    ("ProcessType", Text),
    ("Program", Text),
    ("ProgramArguments", Texts),
    ("QueueDirectories", Texts),
    ("RootDirectory", Text),
    ("RunAtLoad", Boolean),
    ("ServiceIPC", Boolean),
    ("SessionCreate", Boolean),
    ("Sockets", Dictionary),
    ("SoftResourceLimits", Dictionary),
    ("SpawnConstraint", Dictionary),
    ("StandardErrorPath", Text),
    ("StandardInPath", Text),
    ("StandardOutPath", Text),
    ("StartCalendarInterval", DictionaryOrArray),
    ("StartInterval", Integer),
    ("StartOnMount", Boolean),
    ("ThrottleInterval", Integer),
    ("TimeOut", Integer),
    ("Umask", IntegerOrText),
    ("UserName", Text),
    ("WaitForDebugger", Boolean),
    ("WatchPaths", Texts),
    ("WorkingDirectory", Text),
    ("inetdCompatibility", Dictionary),
];

pub(super) const KEEP_ALIVE: &[(&str, Kind)] = &[
    ("AfterInitialDemand", Boolean),
    ("Crashed", Boolean),
    ("NetworkState", Boolean),
    ("OtherJobEnabled", Dictionary),
    ("PathState", Any),
    ("SuccessfulExit", Boolean),
];

pub(super) const CALENDAR: &[(&str, Kind)] =
    &[("Day", Integer), ("Hour", Integer), ("Minute", Integer), ("Month", Integer), ("Weekday", Integer)];

pub(super) const CALENDAR_RANGES: [(&str, RangeInclusive<i64>); 5] =
    [("Day", 1..=31), ("Hour", 0..=23), ("Minute", 0..=59), ("Month", 1..=12), ("Weekday", 0..=7)];

/// Keys whose value is a path.
pub(super) const PATHS: &[(&str, What)] = &[
    ("Program", What::Program),
    ("RootDirectory", What::Folder),
    ("StandardErrorPath", What::FolderOf),
    ("StandardInPath", What::FolderOf),
    ("StandardOutPath", What::FolderOf),
    ("WorkingDirectory", What::Folder),
];
