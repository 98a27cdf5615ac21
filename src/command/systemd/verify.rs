//! What is wrong with the units before they are installed: by servers.toml, by this machine,
//! and by `systemd-analyze verify`, which is systemd's own judgement.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::bail;

use super::{given, installed::Units};
use crate::{
    command::units::print_findings,
    say::say,
    unit::{
        lint::{Finding, Severity},
        systemd,
    },
};

/// What systemd has to say.
enum Verdict {
    /// It is not here to be asked.
    NotHere,
    Sound,
    /// It would start them, and has something to say.
    Grumbles(String),
    Refuses(String),
}

impl Units {
    pub(super) fn lint(&self, strict: bool) -> anyhow::Result<ExitCode> {
        let mut failed = print_findings("servers.toml", &self.findings(), strict)?;
        match self.verdict()? {
            Verdict::Sound => {}
            Verdict::NotHere => say!("systemd-analyze is not here: not verified by systemd itself")?,
            Verdict::Grumbles(said) | Verdict::Refuses(said) => {
                say!("{}", said.trim_end())?;
                failed = true;
            }
        }
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Errors of all of them are said before anything is touched; warnings stop nothing.
    pub(super) fn refuse_what_cannot_work(&self) -> anyhow::Result<()> {
        let mut wrong = Vec::new();
        if print_findings("servers.toml", &self.findings(), false)? {
            wrong.push("servers.toml");
        }
        match self.verdict()? {
            Verdict::Sound | Verdict::NotHere => {}
            Verdict::Grumbles(said) => say!("{}", said.trim_end())?,
            Verdict::Refuses(said) => {
                say!("{}", said.trim_end())?;
                wrong.push("systemd-analyze verify");
            }
        }
        if !wrong.is_empty() {
            bail!("nothing was installed: see the errors of {} above", wrong.join(" and "));
        }
        Ok(())
    }

    fn findings(&self) -> Vec<Finding> {
        let program = &self.wanted.place.program;
        let mut findings = self.wanted.variables(given(self.is_daemon));
        if self.wanted.is_here && !program.exists() {
            findings.push(Finding {
                severity: Severity::Warning,
                line: None,
                key: "ExecStart".to_owned(),
                message: format!("{} does not exist on this machine", program.display()),
            });
        }
        findings
    }

    /// systemd complains of a program that is missing, which is of this machine only.
    fn verdict(&self) -> anyhow::Result<Verdict> {
        let folder = std::env::temp_dir().join(format!("seawall-lint-{}-{}", std::process::id(), crate::id::Id::now()));
        fs::create_dir_all(&folder)?;
        let here = std::env::current_exe()?;
        let mut paths = Vec::new();
        for unit in &self.wanted.units {
            let mut unit = unit.clone();
            if let Some(program) = unit.argv.first_mut().filter(|program| !Path::new(program).exists()) {
                *program = here.to_string_lossy().into_owned();
            }
            for file in systemd::files(&unit, self.version) {
                fs::write(folder.join(&file.name), file.text)?;
                paths.push(folder.join(file.name).to_string_lossy().into_owned());
            }
        }
        let scope = if self.is_daemon { "--system" } else { "--user" };
        let mut analyze = Command::new("systemd-analyze");
        analyze.args([scope, "--man=no", "verify"]).args(&paths);
        if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
            // It insists on one for units of a user, and needs nothing in it.
            analyze.env("XDG_RUNTIME_DIR", &folder);
        }
        let output = analyze.output();
        fs::remove_dir_all(&folder)?;
        let Ok(output) = output else { return Ok(Verdict::NotHere) };
        let said = String::from_utf8_lossy(&output.stderr).replace(&*folder.to_string_lossy(), "");
        Ok(match (output.status.success(), said.trim().is_empty()) {
            (true, true) => Verdict::Sound,
            (true, false) => Verdict::Grumbles(said),
            (false, _) => Verdict::Refuses(said),
        })
    }
}
