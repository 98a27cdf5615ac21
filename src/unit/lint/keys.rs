//! The keys that launchd knows, with what their values may be: launchd.plist(5).

use plist::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// One of these, in any case of letters.
    OneOf(&'static [&'static str]),
    Integer,
    /// From, and up to.
    Range(i64, i64),
    /// Of which there are none below zero.
    Seconds,
    Boolean,
    /// Of keys that launchd does not look into.
    Dictionary,
    /// With these keys.
    Table(Keys),
    /// With keys that name something, each with such a value.
    Named(&'static Kind),
    Each(&'static Kind),
    Either(&'static [Kind]),
}

pub(super) type Keys = &'static [(&'static str, Kind)];

impl Kind {
    /// The kind that a value is to be judged by; `None` where it is of another type.
    pub(super) fn of(&self, value: &Value) -> Option<&Kind> {
        let is_one = match self {
            Kind::Text | Kind::OneOf(_) => value.as_string().is_some(),
            Kind::Integer | Kind::Range(..) | Kind::Seconds => matches!(value, Value::Integer(_)),
            Kind::Boolean => value.as_boolean().is_some(),
            Kind::Dictionary | Kind::Table(_) | Kind::Named(_) => value.as_dictionary().is_some(),
            Kind::Each(_) => value.as_array().is_some(),
            Kind::Either(kinds) => return kinds.iter().find_map(|kind| kind.of(value)),
        };
        is_one.then_some(self)
    }

    pub(super) fn wanted(&self) -> String {
        match self {
            Kind::Text | Kind::OneOf(_) => "a <string>".to_owned(),
            Kind::Integer | Kind::Range(..) | Kind::Seconds => "an <integer>".to_owned(),
            Kind::Boolean => "<true/> or <false/>".to_owned(),
            Kind::Dictionary | Kind::Table(_) | Kind::Named(_) => "a <dict>".to_owned(),
            Kind::Each(kind) => format!("an <array> of {}", kind.wanted().trim_start_matches("a ")),
            Kind::Either(kinds) => kinds.iter().map(Kind::wanted).collect::<Vec<_>>().join(" or "),
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

use Kind::{Boolean, Dictionary, Each, Either, Integer, Named, OneOf, Range, Seconds, Table, Text};

const TEXTS: Kind = Each(&Text);
const TEXT_OR_TEXTS: Kind = Either(&[Text, TEXTS]);
const SESSION: Kind = OneOf(&["Aqua", "Background", "LoginWindow", "StandardIO", "System"]);

pub(super) const JOB: Keys = &[
    ("AbandonProcessGroup", Boolean),
    ("AssociatedBundleIdentifiers", TEXT_OR_TEXTS),
    ("BundleProgram", Text),
    ("Debug", Boolean),
    ("Disabled", Boolean),
    ("EnableGlobbing", Boolean),
    ("EnablePressuredExit", Boolean),
    ("EnableTransactions", Boolean),
    ("EnvironmentVariables", Named(&Text)),
    ("ExitTimeOut", Seconds),
    ("GroupName", Text),
    ("HardResourceLimits", LIMITS),
    ("HopefullyExitsFirst", Boolean),
    ("HopefullyExitsLast", Boolean),
    ("InitGroups", Boolean),
    ("KeepAlive", Either(&[Boolean, KEEP_ALIVE])),
    ("Label", Text),
    ("LaunchEvents", Named(&Dictionary)),
    ("LaunchOnlyOnce", Boolean),
    ("LegacyTimers", Boolean),
    ("LimitLoadFromHardware", Dictionary),
    ("LimitLoadFromHosts", TEXTS),
    ("LimitLoadToHardware", Dictionary),
    ("LimitLoadToHosts", TEXTS),
    ("LimitLoadToSessionType", Either(&[SESSION, Each(&SESSION)])),
    ("LowPriorityBackgroundIO", Boolean),
    ("LowPriorityIO", Boolean),
    ("MachServices", Named(&Either(&[Boolean, MACH_SERVICE]))),
    ("MaterializeDatalessFiles", Boolean),
    ("Nice", Range(-20, 20)),
    ("OnDemand", Boolean),
    ("POSIXSpawnType", Text),
    ("ProcessType", OneOf(&["Background", "Standard", "Adaptive", "Interactive"])),
    ("Program", Text),
    ("ProgramArguments", TEXTS),
    ("QueueDirectories", TEXTS),
    ("RootDirectory", Text),
    ("RunAtLoad", Boolean),
    ("ServiceIPC", Boolean),
    ("SessionCreate", Boolean),
    ("Sockets", Named(&Either(&[SOCKET, Each(&SOCKET)]))),
    ("SoftResourceLimits", LIMITS),
    ("SpawnConstraint", Dictionary),
    ("StandardErrorPath", Text),
    ("StandardInPath", Text),
    ("StandardOutPath", Text),
    ("StartCalendarInterval", Either(&[CALENDAR, Each(&CALENDAR)])),
    ("StartInterval", Integer),
    ("StartOnMount", Boolean),
    ("ThrottleInterval", Integer),
    ("TimeOut", Seconds),
    ("Umask", Either(&[Integer, Text])),
    ("UserName", Text),
    ("WaitForDebugger", Boolean),
    ("WatchPaths", TEXTS),
    ("WorkingDirectory", Text),
    ("inetdCompatibility", Table(&[("Instances", Integer), ("Wait", Boolean)])),
];

const KEEP_ALIVE: Kind = Table(&[
    ("AfterInitialDemand", Boolean),
    ("Crashed", Boolean),
    ("NetworkState", Boolean),
    ("OtherJobEnabled", Named(&Boolean)),
    ("PathState", Named(&Boolean)),
    ("SuccessfulExit", Boolean),
]);

const CALENDAR: Kind = Table(&[
    ("Day", Range(1, 31)),
    ("Hour", Range(0, 23)),
    ("Minute", Range(0, 59)),
    ("Month", Range(1, 12)),
    ("Weekday", Range(0, 7)),
]);

const LIMITS: Kind = Table(&[
    ("CPU", Integer),
    ("Core", Integer),
    ("Data", Integer),
    ("FileSize", Integer),
    ("MemoryLock", Integer),
    ("NumberOfFiles", Integer),
    ("NumberOfProcesses", Integer),
    ("ResidentSetSize", Integer),
    ("Stack", Integer),
]);

const MACH_SERVICE: Kind = Table(&[("HideUntilCheckIn", Boolean), ("ResetAtClose", Boolean)]);

const SOCKET: Kind = Table(&[
    ("Bonjour", Either(&[Boolean, Text, TEXTS])),
    ("MulticastGroup", Text),
    ("ReceivePacketInfo", Boolean),
    ("SecureSocketWithKey", Text),
    ("SockFamily", OneOf(&["IPv4", "IPv6", "IPv4v6", "Unix"])),
    ("SockNodeName", Text),
    ("SockPassive", Boolean),
    ("SockPathGroup", Integer),
    ("SockPathMode", Integer),
    ("SockPathName", Text),
    ("SockPathOwner", Integer),
    ("SockProtocol", OneOf(&["TCP", "UDP"])),
    ("SockServiceName", Either(&[Text, Integer])),
    ("SockType", OneOf(&["stream", "dgram", "seqpacket"])),
]);
