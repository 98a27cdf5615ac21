//! Where the means of Linux are not: macOS has a sandbox of its own, and other systems
//! refuse whatever is not `off`.

use std::path::{Path, PathBuf};

use super::{Plan, Refusal, Report};

/// The program to run in place of the one that is asked for, with what goes before its
/// arguments; and what really holds.
pub(crate) struct Confined {
    pub(crate) program: PathBuf,
    pub(crate) before: Vec<String>,
    pub(crate) variables: Vec<(String, PathBuf)>,
    pub(crate) report: Report,
}

pub(crate) fn confine(plan: &Plan, program: &Path) -> Result<Confined, Refusal> {
    if plan.is_off() {
        let not_enforced = ["files", "network", "limits", "certain end of the whole process tree"];
        let report = Report {
            profile: "off".to_owned(),
            tier: "none".to_owned(),
            network: "open".to_owned(),
            tree_kill: "best effort".to_owned(),
            not_enforced: not_enforced.map(str::to_owned).into(),
            ..Report::default()
        };
        return Ok(Confined { program: program.to_owned(), before: Vec::new(), variables: Vec::new(), report });
    }
    by_system(plan, program)
}

#[cfg(target_os = "macos")]
fn by_system(plan: &Plan, program: &Path) -> Result<Confined, Refusal> {
    use super::{Tier, macos};
    use std::os::unix::fs::DirBuilderExt as _;
    let missing = macos::refuse_what_cannot_be_had(plan)?;
    if !Path::new(macos::SANDBOX_EXEC).exists() {
        return Err(Refusal(format!("there is no {}, and without it nothing is confined", macos::SANDBOX_EXEC)));
    }
    let (home, tmp) = plan.private_folders(Tier::Core);
    for folder in [&plan.private, &home, &tmp] {
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(folder)
            .map_err(|error| Refusal(format!("its private folder cannot be made: {error}")))?;
    }
    let report = Report {
        profile: plan.profile.name().to_owned(),
        tier: "core".to_owned(),
        network: plan.network.name().to_owned(),
        tree_kill: "best effort".to_owned(),
        not_enforced: plan.given_up.iter().cloned().chain(missing).collect(),
        ..Report::default()
    };
    Ok(Confined {
        program: macos::SANDBOX_EXEC.into(),
        before: vec!["-p".to_owned(), macos::profile(plan)?, program.display().to_string()],
        variables: vec![("HOME".to_owned(), home), ("TMPDIR".to_owned(), tmp)],
        report,
    })
}

#[cfg(not(target_os = "macos"))]
fn by_system(plan: &Plan, _program: &Path) -> Result<Confined, Refusal> {
    Err(Refusal(format!(
        "seawall cannot confine servers on this system; to run it without protection, write sandbox = \"off\" under \
         [servers.{}]",
        plan.server
    )))
}
