//! Units that are installed and that servers.toml has no service of: left there by one that
//! was taken out of it, or belonging to another servers.toml. They are known by what they
//! start, so that no ledger can be lost or be wrong.

use std::path::{Path, PathBuf};

use super::Wanted;
use crate::unit::Installed;

/// One such unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::command) struct Left {
    /// Of the service that it was for.
    pub(in crate::command) name: String,
    pub(in crate::command) of: Of,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::command) enum Of {
    /// The servers.toml at hand, which no longer has it.
    This,
    /// Another one, which may well have it.
    Another(PathBuf),
    /// One that is gone.
    Gone(PathBuf),
}

impl Left {
    /// `None` where the unit is of a service that there is.
    pub(in crate::command) fn of(installed: Installed, wanted: &Wanted) -> Option<Self> {
        let Installed { name, config } = installed;
        if wanted.config.services.iter().any(|service| service.name == name) {
            return None;
        }
        Some(Left { name, of: Of::servers_toml(config, wanted) })
    }

    pub(in crate::command) fn in_words(&self) -> String {
        match &self.of {
            Of::This => "no longer in servers.toml".to_owned(),
            Of::Another(config) => another(config),
            Of::Gone(config) => gone(config),
        }
    }
}

impl Of {
    pub(super) fn servers_toml(config: PathBuf, wanted: &Wanted) -> Self {
        match is_same(&config, &wanted.config.path) || config == wanted.place.config {
            true => Of::This,
            false if config.exists() => Of::Another(config),
            false => Of::Gone(config),
        }
    }
}

pub(in crate::command) fn another(config: &Path) -> String {
    format!("of another servers.toml, {}", config.display())
}

pub(in crate::command) fn gone(config: &Path) -> String {
    format!("of {}, which is gone", config.display())
}

/// Those of all that are `left` which a command with these words is about: the ones that it
/// names, which must be there, or else every one of this servers.toml.
pub(in crate::command) fn meant(left: Vec<Left>, wanted: &Wanted) -> anyhow::Result<Vec<Left>> {
    if wanted.is_all {
        let left: Vec<Left> = left.into_iter().filter(|one| one.of == Of::This).collect();
        return if left.is_empty() && wanted.units.is_empty() { Err(wanted.none()) } else { Ok(left) };
    }
    let mut meant = Vec::new();
    for name in &wanted.others {
        match left.iter().find(|one| one.name == *name) {
            None => return Err(wanted.unknown(name).context(format!("no unit of {name} is installed, either"))),
            Some(one) => meant.push(one.clone()),
        }
    }
    Ok(meant)
}

fn is_same(one: &Path, other: &Path) -> bool {
    one == other || one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}
