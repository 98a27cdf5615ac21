//! Edits of servers.toml in every way that editors have, and in some that they should
//! not have; restarts and hang-ups in between. Each is waited for until it shows.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, Instant},
};

use rand::{Rng as _, rngs::StdRng};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::sleep;

use crate::gateway::{self, Gateway, fixture, write_config};

const SHOWS_WITHIN: Duration = Duration::from_secs(30);
/// Pieces of a file that is written bit by bit.
const PIECE_BYTES: usize = 400;

#[derive(Debug, Default)]
pub(crate) struct Edited {
    pub(crate) done: usize,
    pub(crate) complaints: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
enum Edit {
    /// As editors do that care: a new file takes the old one's place.
    RenameOver,
    /// Truncated and written again, in pieces.
    HalfWritten,
    /// A link that points elsewhere from now on.
    Symlink,
    /// Moved away and written anew, as vim does with backups.
    MovedAway,
    /// Empty for longer than the gateway waits.
    Emptied,
    /// Other limits for a server that is being called.
    Limits,
    /// What cannot be read as TOML, then the old text again.
    Bad,
    Restart,
    Hangup,
    Reload,
}

const ALL: [Edit; 10] = [
    Edit::RenameOver,
    Edit::Bad,
    Edit::HalfWritten,
    Edit::Restart,
    Edit::Symlink,
    Edit::Limits,
    Edit::MovedAway,
    Edit::Hangup,
    Edit::Emptied,
    Edit::Reload,
];

/// One after the other until the time is over, and each kind at least once.
pub(crate) async fn until(
    gateway: &Gateway,
    folder: &Path,
    base: &str,
    (until, pause_max_ms): (Instant, u64),
    chance: &mut StdRng,
) -> Edited {
    let mut edited = Edited::default();
    let more = format!("{base}{}", fixture("extra", &[]));
    for edit in ALL.iter().copied().cycle() {
        if Instant::now() >= until && edited.done >= ALL.len() {
            return edited;
        }
        // There and gone by turns, so that each kind of edit both adds and removes.
        let with_extra = edited.done.is_multiple_of(2) != (edited.done / ALL.len()).is_multiple_of(2);
        let text = if with_extra { &more } else { base };
        apply(edit, gateway, folder, text, edited.done).await;
        let shown = match edit {
            Edit::Restart | Edit::Hangup | Edit::Reload => Ok(()),
            _ => shows(gateway, with_extra).await,
        };
        edited.complaints.extend(shown.err().map(|why| format!("edit {}, {edit:?}: {why}", edited.done)));
        edited.done += 1;
        sleep(Duration::from_millis(chance.random_range(pause_max_ms / 8..=pause_max_ms))).await;
    }
    edited
}

async fn apply(edit: Edit, gateway: &Gateway, folder: &Path, text: &str, number: usize) {
    let path = folder.join("servers.toml");
    match edit {
        Edit::RenameOver => write_config(folder, text),
        Edit::HalfWritten => {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(PIECE_BYTES).collect();
            for end in 0..=pieces.len() {
                fs::write(&path, pieces[..end].concat()).expect("servers.toml can be written");
                sleep(Duration::from_millis(20)).await;
            }
        }
        Edit::Symlink => {
            let target = format!("version-{number}.toml");
            fs::write(folder.join(&target), text).expect("a version can be written");
            let link = folder.join("link");
            symlink(&target, &link).expect("a link can be made");
            fs::rename(link, path).expect("a link can be renamed");
        }
        Edit::MovedAway => {
            fs::rename(&path, folder.join("servers.toml~")).expect("servers.toml can be moved away");
            sleep(Duration::from_millis(50)).await;
            fs::write(&path, text).expect("servers.toml can be written");
        }
        Edit::Emptied => {
            fs::write(&path, "").expect("servers.toml can be written");
            sleep(Duration::from_millis(600)).await;
            fs::write(&path, text).expect("servers.toml can be written");
        }
        Edit::Limits => {
            let limits = format!("\n[servers.steady.tools.echo]\nconcurrency = {}\n", 20 + number % 100);
            write_config(folder, &format!("{text}{limits}"));
        }
        Edit::Bad => {
            write_config(folder, &format!("{text}\n[servers.steady"));
            shows_trouble(gateway).await;
            write_config(folder, text);
        }
        Edit::Restart => {
            for server in ["steady", "aged", "annotated"] {
                gateway.seawall(&["restart", server]).await;
            }
        }
        Edit::Hangup => gateway::signal(gateway.pid(), Signal::HUP),
        Edit::Reload => {
            gateway.seawall(&["reload"]).await;
        }
    }
}

async fn shows_trouble(gateway: &Gateway) {
    let until = Instant::now() + SHOWS_WITHIN;
    while gateway.status().await["gateway"]["config_problem"].is_null() {
        assert!(Instant::now() < until, "a bad servers.toml is not told in status");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Until status says so.
async fn shows(gateway: &Gateway, has_extra: bool) -> Result<(), String> {
    let until = Instant::now() + SHOWS_WITHIN;
    loop {
        let status: Value = gateway.status().await;
        let is_there = status["servers"].get("extra").is_some();
        let problem = &status["gateway"]["config_problem"];
        if is_there == has_extra && problem.is_null() {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(format!("status does not show it: extra is there: {is_there}, problem: {problem}"));
        }
        sleep(Duration::from_millis(100)).await;
    }
}
