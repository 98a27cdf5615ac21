//! `seawall launchd lint`: any property lists, and those that servers.toml comes to.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{LOGS, given};
use crate::{
    command::units::{Options, absolute, print_findings, read::read},
    unit::{
        launchd,
        lint::{self, Finding, Severity},
    },
};

#[derive(Debug, clap::Args)]
pub(super) struct LintOptions {
    /// Warnings fail the check too
    #[arg(long)]
    strict: bool,
    /// The seawall that the units start [default: this one]
    #[arg(long, value_name = "PATH", value_parser = absolute)]
    program: Option<PathBuf>,
    /// Check for another home
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    home: Option<PathBuf>,
    /// Check what `--daemon` would install
    #[arg(long)]
    daemon: bool,
}

pub(super) fn run(what: &[String], options: &LintOptions, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let (files, names): (Vec<&String>, Vec<&String>) = what.iter().partition(|word| is_file(word));
    let mut failed = false;
    for file in &files {
        let name = Path::new(file).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let findings = match read(Path::new(file)) {
            Ok(bytes) => checked(&bytes, &name, true),
            // Of this file only: the others are looked at all the same.
            Err(error) => {
                vec![Finding { severity: Severity::Error, line: None, key: String::new(), message: error.to_string() }]
            }
        };
        failed |= print_findings(file, &findings, options.strict)?;
    }
    if files.is_empty() || !names.is_empty() {
        let wanted = Options {
            names: names.into_iter().cloned().collect(),
            daemon: options.daemon,
            user: None,
            program: options.program.clone(),
            home: options.home.clone(),
            folder: None,
        }
        .wanted(config, LOGS)?;
        for unit in &wanted.units {
            let name = launchd::file_name(unit);
            let findings = checked(launchd::plist(unit).as_bytes(), &name, wanted.is_here);
            failed |= print_findings(&name, &findings, options.strict)?;
        }
        failed |= print_findings("servers.toml", &wanted.variables(given(options.daemon)), options.strict)?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A property list in another form than XML, or of no such ending, is one all the same.
fn is_file(word: &str) -> bool {
    word.contains('/') || word.contains('.')
}

/// What is wrong with a property list, and, `here`, what this machine lacks for it.
pub(super) fn checked(bytes: &[u8], file_name: &str, here: bool) -> Vec<Finding> {
    let lint::Checked { mut findings, paths } = lint::check(bytes, file_name);
    let missing = paths.iter().filter(|needed| here && !needed.must_exist().exists());
    findings.extend(missing.map(|needed| Finding {
        severity: Severity::Warning,
        line: None,
        key: needed.key.clone(),
        message: format!("{} does not exist on this machine", needed.must_exist().display()),
    }));
    findings
}
