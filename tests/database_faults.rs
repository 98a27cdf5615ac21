//! Whatever becomes of the database while a gateway runs: every call is answered, `status`
//! says what is wrong, and each failure is in the database, in the spill file, or counted.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use futures_util::future::join_all;
use rusqlite::Connection;
use serde_json::{Value, json};

mod support;

use support::{Client, Gateway, Launch, database, fixture, scratch::Scratch, text_of, wait_until};

const SOON: Duration = Duration::from_secs(60);
/// Failing calls, each of which is a row.
const CALLS: usize = 300;

struct Rig {
    gateway: Gateway,
    client: Client,
    path: PathBuf,
}

impl Rig {
    async fn with_database_at(folder: Scratch, path: PathBuf) -> Rig {
        let database = serde_json::to_string(&path).expect("a path is text");
        let config = format!("[gateway]\ndatabase = {database}\n[defaults]\nrate_limit = \"off\"\n");
        let gateway = Launch::with_folder(folder, &(config + &fixture("fix", &[]))).start().await;
        gateway.ready().await;
        let client = gateway.client("/mcp/fix").await;
        Rig { gateway, client, path }
    }

    async fn start() -> Rig {
        let folder = Scratch::new();
        let path = folder.file("seawall.db");
        Rig::with_database_at(folder, path).await
    }

    /// Every call gets its own answer, whatever the database does.
    async fn calls_are_answered(&self) {
        for batch in 0..CALLS / 30 {
            let replies = join_all((0..30).map(|n| {
                let text = format!("failed {batch} {n}");
                async move { (self.client.call_tool("fail", json!({"text": text})).await, text) }
            }));
            for (reply, text) in replies.await {
                assert_eq!(text_of(&reply), text);
            }
        }
        assert_eq!(text_of(&self.client.call_tool("echo", json!({})).await), "{}");
    }

    fn health(&self) -> Value {
        self.gateway.seawall_json(&["status", "--json"])["gateway"]["database"].clone()
    }

    /// In JSON and in what a person reads.
    async fn is_told(&self, reason: &str) {
        wait_until(SOON, &format!("status to say {reason:?}"), async || {
            self.health()["degraded"].as_str().is_some_and(|degraded| degraded.contains(reason)).then_some(())
        })
        .await;
        let text = String::from_utf8(self.gateway.seawall(&["status"]).stdout).expect("UTF-8");
        assert!(text.contains(reason), "{text}");
    }

    async fn is_mended(&self) {
        wait_until(SOON, "the database to be used again", async || self.health()["degraded"].is_null().then_some(()))
            .await;
    }

    /// Ends it: what is not in the database then was counted as lost.
    fn ends_with_every_row(mut self, produced: usize) {
        let dropped = self.dropped();
        assert_eq!(self.gateway.stop().code(), Some(0));
        let rows = count(&self.path);
        assert_eq!(rows + dropped, produced, "{rows} rows and {dropped} lost");
    }

    fn dropped(&self) -> usize {
        let health = self.health();
        let dropped = health["dropped"].as_object().expect("a table");
        usize::try_from(dropped.values().filter_map(Value::as_u64).sum::<u64>()).expect("few")
    }
}

fn count(path: &Path) -> usize {
    let rows = database::rows(path, "SELECT count(*) AS count FROM failures WHERE class = 'tool_error'");
    usize::try_from(rows.expect("a database")[0]["count"].as_u64().expect("a number")).expect("few")
}

/// The lock is let go only after the last answer: who waited for it would never answer.
#[tokio::test]
async fn a_database_that_is_locked_for_as_long_as_anybody_asks() {
    let rig = Rig::start().await;
    rig.gateway.rows("the first event", "SELECT id FROM events").await;
    let neighbour = Connection::open(&rig.path).expect("opens");
    neighbour.execute_batch("BEGIN IMMEDIATE").expect("locks");
    rig.calls_are_answered().await;
    rig.is_told("locked").await;
    rig.calls_are_answered().await;
    assert_eq!(count(&rig.path), 0, "it was locked all the time");
    assert!(rig.health()["pending"].as_u64() > Some(0), "{}", rig.health());
    neighbour.execute_batch("COMMIT").expect("unlocks");
    rig.is_mended().await;
    rig.ends_with_every_row(2 * CALLS);
}

#[tokio::test]
async fn a_database_that_is_deleted_while_it_is_open() {
    let rig = Rig::start().await;
    rig.gateway.rows("the first event", "SELECT id FROM events").await;
    for name in ["seawall.db", "seawall.db-wal", "seawall.db-shm"] {
        let _ = fs::remove_file(rig.path.with_file_name(name));
    }
    rig.calls_are_answered().await;
    wait_until(SOON, "the rows in a new file", async || {
        let is_there = fs::metadata(&rig.path).is_ok_and(|file| file.len() > 0);
        (is_there && database::rows(&rig.path, "SELECT id FROM failures").is_ok_and(|rows| rows.len() >= CALLS))
            .then_some(())
    })
    .await;
    let told = rig.gateway.sqlite("SELECT id FROM events WHERE event_type = 'database_recreated'");
    assert_eq!(told.len(), 1);
    rig.ends_with_every_row(CALLS);
}

/// Nothing is lost, so nothing has failed.
#[tokio::test]
async fn a_gateway_that_ends_while_its_database_is_locked_ends_well() {
    let mut rig = Rig::start().await;
    rig.gateway.rows("the first event", "SELECT id FROM events").await;
    let neighbour = Connection::open(&rig.path).expect("opens");
    neighbour.execute_batch("BEGIN IMMEDIATE").expect("locks");
    rig.calls_are_answered().await;
    assert_eq!(rig.gateway.stop().code(), Some(0), "{}", rig.gateway.log.text());
    assert_eq!(count(&rig.path), 0, "it is locked");
    // For the next start.
    let spilled = fs::read_to_string(rig.path.with_file_name("seawall.db.spill.jsonl")).expect("it is there");
    assert!(spilled.lines().count() >= CALLS, "{spilled}");
}

/// The gateway is the only one that still has what was in it.
#[tokio::test]
async fn a_journal_that_is_deleted_while_it_is_open() {
    let rig = Rig::start().await;
    rig.calls_are_answered().await;
    let are_there = async |rows: usize| {
        wait_until(SOON, "the rows", async || {
            database::rows(&rig.path, "SELECT id FROM failures").is_ok_and(|found| found.len() >= rows).then_some(())
        })
        .await;
    };
    are_there(CALLS).await;
    for name in ["seawall.db-wal", "seawall.db-shm"] {
        fs::remove_file(rig.path.with_file_name(name)).expect("it is there");
    }
    rig.calls_are_answered().await;
    are_there(2 * CALLS).await;
    assert!(rig.gateway.log.has("nothing was lost"), "{}", rig.gateway.log.text());
    let told = rig.gateway.sqlite("SELECT id FROM events WHERE event_type = 'database_recreated'");
    assert!(told.is_empty(), "it is the same database");
    rig.ends_with_every_row(2 * CALLS);
}

/// Its pages are overwritten under the gateway's hands.
#[tokio::test]
async fn a_database_that_is_corrupted_while_it_is_open() {
    let rig = Rig::start().await;
    // More than fits a page: what is overwritten must not be what is written next anyway.
    rig.calls_are_answered().await;
    wait_until(SOON, "their rows", async || {
        database::rows(&rig.path, "SELECT id FROM failures").is_ok_and(|rows| rows.len() >= CALLS).then_some(())
    })
    .await;
    for name in ["seawall.db-wal", "seawall.db"] {
        fs::write(rig.path.with_file_name(name), "this is no database ".repeat(4000)).expect("it can be written");
    }
    rig.calls_are_answered().await;
    wait_until(SOON, "the rows in a new file", async || {
        database::rows(&rig.path, "SELECT id FROM events WHERE event_type = 'database_recreated'")
            .is_ok_and(|rows| !rows.is_empty())
            .then_some(())
    })
    .await;
    rig.is_mended().await;
    rig.calls_are_answered().await;
    let mut gateway = rig.gateway;
    assert_eq!(gateway.stop().code(), Some(0));
    assert!(count(&rig.path) >= CALLS, "{}", count(&rig.path));
}

#[tokio::test]
async fn a_folder_that_is_missing_at_the_start_is_made() {
    let folder = Scratch::new();
    let path = folder.file("not/there/yet/seawall.db");
    let rig = Rig::with_database_at(folder, path).await;
    rig.calls_are_answered().await;
    rig.ends_with_every_row(CALLS);
}

#[tokio::test]
async fn a_folder_that_cannot_be_made() {
    let folder = Scratch::new();
    fs::write(folder.file("file"), "").expect("it can be written");
    let path = folder.file("file/seawall.db");
    let rig = Rig::with_database_at(folder, path).await;
    rig.calls_are_answered().await;
    rig.is_told("cannot be used").await;
    let health = rig.health();
    assert!(health["pending"].as_u64().is_some_and(|pending| pending >= CALLS as u64), "{health}");
    let mut gateway = rig.gateway;
    assert_eq!(gateway.stop().code(), Some(1), "it says that not all could be kept");
    assert!(gateway.log.text().contains("not finished: the database"), "{}", gateway.log.text());
}

/// A disk of a megabyte, which takes root on Linux.
#[tokio::test]
async fn a_disk_that_is_full_and_then_has_room() {
    let Some(disk) = Disk::of("size=600k") else { return };
    let folder = Scratch::new();
    let rig = Rig::with_database_at(folder, disk.path().join("seawall.db")).await;
    let mut produced = 0;
    while rig.health()["degraded"].is_null() {
        assert!(produced < 100 * CALLS, "it is never full");
        rig.calls_are_answered().await;
        produced += CALLS;
    }
    rig.calls_are_answered().await;
    produced += CALLS;
    rig.is_told("no space left").await;
    disk.remount("size=64m");
    rig.is_mended().await;
    rig.ends_with_every_row(produced);
}

#[tokio::test]
async fn a_disk_that_is_read_only_and_then_is_not() {
    let Some(disk) = Disk::of("size=64m,ro") else { return };
    let folder = Scratch::new();
    let rig = Rig::with_database_at(folder, disk.path().join("seawall.db")).await;
    rig.calls_are_answered().await;
    rig.is_told("Read-only file system").await;
    disk.remount("size=64m,rw");
    rig.is_mended().await;
    rig.ends_with_every_row(CALLS);
}

/// Unmounted at the end.
struct Disk(Scratch);

impl Disk {
    fn of(options: &str) -> Option<Disk> {
        let folder = Scratch::new();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder.path()).stderr(std::process::Stdio::null());
        let is_mounted = cfg!(target_os = "linux") && mount.status().is_ok_and(|status| status.success());
        if !is_mounted {
            println!("skipped: mounting a disk takes root on Linux");
        }
        is_mounted.then_some(Disk(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let status = Command::new("mount").args(["-o", &options]).arg(self.path()).status();
        assert!(status.is_ok_and(|status| status.success()), "{options}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a test that fails has it still open.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
