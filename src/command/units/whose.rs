//! Whose a unit's file is, by what it starts. What is under seawall's names need not be
//! seawall's, nor of this servers.toml: such a file is left alone unless it is asked for in
//! so many words.

use std::path::{Path, PathBuf};

use super::{
    Wanted,
    file::There,
    left::{self, Of},
};
use crate::{text, unit::Installed};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::command) enum Whose {
    /// There is none.
    Nobodys,
    Ours,
    /// Of another servers.toml.
    Another(PathBuf),
    /// Of one that is not there, which a disk that is not mounted may explain.
    Gone(PathBuf),
    /// No unit of seawall's, and what it is instead.
    Foreign(String),
}

/// What a file of this name would start, and whether that is a unit of ours.
pub(in crate::command) struct Reads {
    pub(in crate::command) installed: Option<Installed>,
    pub(in crate::command) starts: Option<String>,
}

impl Whose {
    /// Whose the unit of a service is.
    pub(in crate::command) fn of(
        there: &There,
        name: &str,
        wanted: &Wanted,
        reads: impl FnOnce(&[u8]) -> Reads,
    ) -> Self {
        let bytes = match there {
            There::Nothing => return Whose::Nobodys,
            There::Odd(error) => return Whose::Foreign(error.to_string()),
            There::Bytes(bytes) => bytes,
        };
        let Reads { installed, starts } = reads(bytes);
        match installed.filter(|installed| installed.name == name) {
            Some(installed) => match Of::servers_toml(installed.config, wanted) {
                Of::This => Whose::Ours,
                Of::Another(config) => Whose::Another(config),
                Of::Gone(config) => Whose::Gone(config),
            },
            None => Whose::Foreign(match starts {
                Some(command) => format!("starts `{}`, which seawall did not write", text::quote(&command, 120)),
                None => "holds nothing that seawall wrote".to_owned(),
            }),
        }
    }

    pub(in crate::command) fn may_be_changed(&self) -> bool {
        matches!(self, Whose::Nobodys | Whose::Ours)
    }

    /// Beside "installed"; `None` where there is nothing to be said.
    pub(in crate::command) fn in_words(&self) -> Option<String> {
        match self {
            Whose::Nobodys | Whose::Ours => None,
            Whose::Another(config) => Some(left::another(config)),
            Whose::Gone(config) => Some(left::gone(config)),
            Whose::Foreign(what) => Some(format!("not seawall's: it {what}")),
        }
    }

    /// Why a file is left alone, and what would have to be said for it to be changed all the
    /// same. `words` are those of [`Whose::in_words`].
    pub(in crate::command) fn left_alone(&self, path: &Path, words: &str, verb: &str, name: &str) -> String {
        let foreign = format!("`{verb} {name} --foreign`");
        let accepted = match self {
            Whose::Another(config) if verb == "uninstall" => {
                format!("add `--config {}` to uninstall it, or say {foreign}", config.display())
            }
            _ if verb == "uninstall" => format!("{foreign} removes it and keeps a copy"),
            _ => format!("{foreign} replaces it and keeps a copy"),
        };
        format!("{} is {words}; left alone: {accepted}", path.display())
    }
}
