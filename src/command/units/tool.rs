//! The program that a supervisor is spoken to with: launchctl, systemctl, loginctl.

use std::{
    io,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, bail};

use crate::{say::say, text};

/// The program that a supervisor is spoken to with.
#[derive(Clone, Debug)]
pub(in crate::command) struct Tool {
    pub(in crate::command) program: String,
    pub(in crate::command) dry_run: bool,
}

impl Tool {
    /// Asks something that changes nothing; `None` where it cannot be asked or says no.
    pub(in crate::command) fn ask(&self, words: &[&str]) -> Option<String> {
        let output = self.output(words).ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Tells it to do something, and says so.
    pub(in crate::command) fn tell(&self, words: &[&str]) -> anyhow::Result<()> {
        say!("  {} {} {}", if self.dry_run { "would run" } else { "run" }, self.program, words.join(" "))?;
        if self.dry_run {
            return Ok(());
        }
        let output = self.output(words).with_context(|| format!("{} cannot be run", self.program))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} {} failed ({}): {}", self.program, words.join(" "), output.status, text::quote(said.trim(), 400))
    }

    pub(in crate::command) fn is_there(&self) -> bool {
        self.output(&["--version"]).is_ok() || self.output(&["help"]).is_ok()
    }

    fn output(&self, words: &[&str]) -> io::Result<Output> {
        Command::new(&self.program).args(words).stdin(Stdio::null()).output()
    }
}
