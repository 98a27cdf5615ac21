//! What a command line of `npx` or `uvx` asks for. Only what names packages of a registry
//! is understood; the rest is refused in words, since guessing would run something else.

use std::{ffi::OsString, fmt, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    process::Command,
    sandbox::{Launcher, Profile},
};

mod npx;
mod uvx;

pub(super) use uvx::bare;

/// Packages, and the program among theirs that is to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) manager: Manager,
    /// As the manager itself reads them, the one with the program first.
    pub(super) packages: Vec<String>,
    /// `None` is the one that the package is named after.
    pub(super) bin: Option<String>,
    /// Which Python shall run it.
    pub(super) python: Option<String>,
    /// For the manager: where from, which versions.
    pub(super) options: Vec<String>,
    /// Of the program itself; they make no other installation.
    pub(super) args: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Manager {
    #[default]
    Npx,
    Uvx,
}

impl Request {
    pub(super) fn of(server: &Command) -> Result<Option<Request>, String> {
        let program = Path::new(&server.program).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_tool_run = program == "uv" && server.args.starts_with(&["tool".into(), "run".into()]);
        match server.sandbox.launcher {
            _ if server.sandbox.profile == Profile::Off => Ok(None),
            Launcher::None => Ok(None),
            Launcher::Auto if program == "npx" => npx::read(&server.args).map(Some),
            Launcher::Npx => npx::read(&server.args).map(Some),
            Launcher::Auto | Launcher::Uvx if is_tool_run => uvx::read(&server.args[2..]).map(Some),
            Launcher::Auto if program == "uvx" => uvx::read(&server.args).map(Some),
            Launcher::Uvx => uvx::read(&server.args).map(Some),
            Launcher::Auto => Ok(None),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.packages.join(", "))
    }
}
