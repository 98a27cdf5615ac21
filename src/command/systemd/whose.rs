//! The files of a service's units, and whose each of them is.

use std::path::{Path, PathBuf};

use super::installed::Units;
use crate::{
    command::units::{
        file::{There, is_there},
        whose::{Reads, Whose},
    },
    unit::{Unit, systemd},
};

impl Units {
    /// In this order: a timer that goes first starts nothing any more.
    pub(super) fn paths(&self, name: &str) -> [PathBuf; 2] {
        ["timer", "service"].map(|kind| self.folder.join(format!("seawall-{name}.{kind}")))
    }

    /// There from before the first step of a change until after its last.
    pub(super) fn mark(&self, name: &str) -> PathBuf {
        self.folder.join(format!("seawall-{name}.unfinished"))
    }

    /// The timer of a service that has no schedule any more: it would go on starting it.
    pub(super) fn spare_timer(&self, unit: &Unit) -> Option<PathBuf> {
        let [timer, _] = self.paths(&unit.name);
        (unit.schedule.is_none() && is_there(&timer)).then_some(timer)
    }

    /// Whose a file of the service of this name is. A timer that seawall wrote is its service's.
    pub(super) fn whose(&self, path: &Path, name: &str) -> Whose {
        let there = There::at(path);
        let reads = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            Reads { installed: systemd::installed(&text), starts: systemd::starts(&text) }
        };
        if path.extension().is_none_or(|kind| kind != "timer") {
            return Whose::of(&there, name, &self.wanted, reads);
        }
        match there.text() {
            None => Whose::of(&there, name, &self.wanted, reads),
            Some(text) if systemd::is_timer_of(&text, name) => {
                let [_, service] = self.paths(name);
                let whose = self.whose(&service, name);
                if whose == Whose::Nobodys { Whose::Ours } else { whose }
            }
            Some(_) => Whose::Foreign("is a timer that seawall did not write".to_owned()),
        }
    }

    /// One that may be removed.
    pub(super) fn own_spare_timer(&self, unit: &Unit) -> Option<PathBuf> {
        self.spare_timer(unit).filter(|timer| self.whose(timer, &unit.name).may_be_changed())
    }
}
