//! How a task went so far, in a file: written as each step begins and ends, so that it can
//! be said of one that was killed too.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::say::note;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Of the process that runs the steps, by which one run is told from another.
    pub pid: u32,
    pub steps: Vec<StepReport>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    pub name: String,
    pub outcome: Outcome,
    pub attempts: u32,
    pub duration_ms: u64,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Waiting,
    Running,
    Done,
    Failed,
}

/// Keeps a report in a file.
pub(super) struct Kept {
    path: PathBuf,
    pub(super) report: Report,
}

impl Kept {
    pub(super) fn new(path: PathBuf, report: Report) -> Self {
        let kept = Kept { path, report };
        kept.write();
        kept
    }

    pub(super) fn update(&mut self, index: usize, change: impl FnOnce(&mut StepReport)) {
        if let Some(step) = self.report.steps.get_mut(index) {
            change(step);
        }
        self.write();
    }

    /// Put in place whole. The task matters more than what is known of it.
    fn write(&self) {
        if let Err(error) = write(&self.path, &self.report) {
            note!("seawall: {} cannot be written: {error}", self.path.display());
        }
    }
}

fn write(path: &Path, report: &Report) -> io::Result<()> {
    let half = path.with_extension("half-written");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
    file.write_all(&serde_json::to_vec(report)?)?;
    drop(file);
    fs::rename(half, path)
}
