//! A home with servers.toml, the six services installed as `seawall launchd install` does it,
//! and a job of the small launchd for each.

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use plist::Value as Plist;
use rand::{rngs::StdRng, seq::IndexedRandom as _};
use serde_json::Value;

use crate::{
    database,
    disk::Disk,
    lane::Lane,
    launchd::{Job, Seen},
    report::Report,
    scratch::Scratch,
    spawn,
    wait::wait_until,
};

/// Ten seconds of throttling become half a one.
const SCALE: f64 = 0.05;
const DISK_BYTES: u64 = 96 * 1024 * 1024;

/// Those that are struck.
pub(crate) const DAEMONS: &[&str] = &["gateway", "embedding-server", "emit-server", "file-watcher"];
pub(crate) const TASKS: &[&str] = &["daily-tasks", "weekly-tasks"];
/// Not one of the six: it leaks by design, up to 320 MB.
const LEAKY: &str = "leaky";

pub(crate) struct Mac {
    home: Scratch,
    /// Where all state is; `None` where a disk of its own cannot be had.
    disk: Option<Disk>,
    etc: PathBuf,
    pub(crate) gateway: SocketAddr,
    pub(crate) emit: SocketAddr,
    pub(crate) embedding: SocketAddr,
    /// Without one the embedding server runs, and answers that it has none.
    pub(crate) has_model: bool,
    jobs: BTreeMap<&'static str, Job>,
}

/// What a service says of itself.
pub(crate) struct Life {
    pub(crate) wrapper: u32,
    pub(crate) service: u32,
}

/// All taken before one is let go, so that no two are the same.
fn free_addresses() -> [SocketAddr; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port is free"));
    listeners.map(|listener| listener.local_addr().expect("it has an address"))
}

impl Mac {
    pub(crate) fn install(mark: &str, model: Option<&Path>) -> Mac {
        let home = Scratch::new();
        let disk = Disk::of(&format!("size={DISK_BYTES}"));
        let etc = disk.as_ref().map_or_else(|| home.file("etc"), |disk| disk.path().to_owned());
        for folder in [etc.join("in"), home.file("tmp")] {
            fs::create_dir_all(folder).expect("a folder can be made");
        }
        let [gateway, emit, embedding] = free_addresses();
        let config = etc.join("servers.toml");
        fs::write(&config, servers_toml(gateway, emit, embedding, model.unwrap_or(Path::new("./no-model"))))
            .expect("servers.toml can be written");
        let output = Command::new(spawn::seawall())
            .args(["launchd", "install", "--launchctl", "true", "--config"])
            .arg(&config)
            .env("HOME", home.path())
            .stdin(Stdio::null())
            .output()
            .expect("seawall can be run");
        assert!(output.status.success(), "{output:?}");
        let mac = Mac { home, disk, etc, gateway, emit, embedding, has_model: model.is_some(), jobs: BTreeMap::new() };
        for name in mac.names() {
            mac.compress(name, mark);
        }
        mac
    }

    pub(crate) fn etc(&self) -> &Path {
        &self.etc
    }

    fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        DAEMONS.iter().chain(TASKS).copied().chain([LEAKY])
    }

    fn plist(&self, name: &str) -> PathBuf {
        self.home.file(&format!("Library/LaunchAgents/dev.seawall.{name}.plist"))
    }

    /// What is rendered, with time compressed where that can be: a scheduled one is due whenever its calendar is
    /// fired, and a minute of the one that leaks is a tenth of a second.
    fn compress(&self, name: &str, mark: &str) {
        let path = self.plist(name);
        let mut list = Plist::from_file(&path).expect("a property list").into_dictionary().expect("a dictionary");
        // A process takes as long to end as ever.
        let exit_time_out = list.get("ExitTimeOut").and_then(Plist::as_unsigned_integer).expect("seconds");
        list.insert("ExitTimeOut".to_owned(), ((exit_time_out as f64 / SCALE) as u64).into());
        let words = list.get_mut("ProgramArguments").and_then(Plist::as_array_mut).expect("arguments");
        if name == LEAKY {
            words.extend(["--sample-every", "100ms"].map(Plist::from));
        }
        if TASKS.contains(&name) {
            words.push("--now".into());
            list.insert("RunAtLoad".to_owned(), false.into());
        }
        let variables = list.get_mut("EnvironmentVariables").and_then(Plist::as_dictionary_mut).expect("variables");
        variables.insert("CENSUS".to_owned(), mark.into());
        let tmp = self.home.file("tmp").to_str().expect("UTF-8").to_owned();
        variables.insert("TMPDIR".to_owned(), tmp.into());
        Plist::Dictionary(list).to_file_xml(path).expect("it can be written");
    }

    pub(crate) fn load_all(&mut self) {
        self.jobs = self.names().map(|name| (name, Job::load(&self.plist(name), SCALE))).collect();
    }

    /// Its calendar says that it is time.
    pub(crate) fn fire(&self, name: &str) {
        self.jobs[name].fire();
    }

    /// One to all of those that can be struck, those that run for good.
    pub(crate) fn some_of(&self, random: &mut StdRng) -> Vec<&'static str> {
        let count = *[1, 1, 1, 2, DAEMONS.len()].choose(random).expect("there are some");
        DAEMONS.choose_multiple(random, count).copied().collect()
    }

    /// The present life, once it is the one that launchd knows too.
    pub(crate) fn life(&self, name: &str) -> Option<Life> {
        let text = fs::read(self.etc.join(format!(".seawall/services/{name}.json"))).ok()?;
        let marker: Value = serde_json::from_slice(&text).ok()?;
        let life = &marker["life"];
        let pid = |key: &str| u32::try_from(life[key].as_u64()?).ok();
        let wrapper = pid("wrapper_pid")?;
        (life["end"].is_null() && self.jobs[name].seen().pid == Some(wrapper))
            .then_some(Life { wrapper, service: pid("pid")? })
    }

    /// Until each answers those who ask it.
    pub(crate) async fn is_well(&self, when: &str) {
        let waiting = async {
            while self.who_is_down().await.is_some() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(super::WITHIN, waiting).await.is_err() {
            panic!("{:?} is down {when}\n{}", self.who_is_down().await, self.logs());
        }
    }

    async fn who_is_down(&self) -> Option<&'static str> {
        if let Some(name) = DAEMONS.iter().find(|name| self.life(name).is_none()) {
            return Some(name);
        }
        let called = async {
            let mut lane = Lane::open(self.gateway, "/mcp").await?;
            lane.call("seawall__servers", &serde_json::json!({})).await?;
            lane.leave().await
        };
        match () {
            () if called.await.is_err() => Some("gateway"),
            () if super::work::get(self.emit, "/readyz").await != Some(200) => Some("emit-server"),
            () if super::work::get(self.embedding, self.embedding_is_up_at()).await != Some(200) => {
                Some("embedding-server")
            }
            () if !self.watcher_is_up() => Some("file-watcher"),
            () => None,
        }
    }

    fn logs(&self) -> String {
        let log = |name| {
            let text =
                fs::read_to_string(self.home.file(&format!("Library/Logs/seawall/{name}.log"))).unwrap_or_default();
            let last: Vec<&str> = text.lines().rev().take(20).collect();
            format!("---- {name}, last lines first\n{}\n", last.join("\n"))
        };
        self.names().map(log).collect()
    }

    fn embedding_is_up_at(&self) -> &'static str {
        if self.has_model { "/readyz" } else { "/health" }
    }

    fn watcher_is_up(&self) -> bool {
        let mut command = Command::new(spawn::seawall());
        command.args(["file-watcher", "--check", "--config"]).arg(self.etc.join("servers.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// Each task is fired until a run of it has ended well.
    pub(crate) async fn tasks_succeed(&self, within: Duration) {
        for name in TASKS {
            let before = self.count(name, "task_done");
            self.fire(name);
            wait_until(within, "the task to succeed", async || (self.count(name, "task_done") > before).then_some(()))
                .await;
        }
    }

    pub(crate) fn events(&self, name: &str) -> Vec<(String, Value)> {
        let sql = format!("SELECT event_type, metadata FROM events WHERE service_name = '{name}' ORDER BY rowid");
        let rows = self.rows(&sql).unwrap_or_default();
        let of = |row: &Value, key: &str| row[key].as_str().expect("text").to_owned();
        rows.iter()
            .map(|row| (of(row, "event_type"), serde_json::from_str(&of(row, "metadata")).expect("JSON")))
            .collect()
    }

    fn rows(&self, sql: &str) -> rusqlite::Result<Vec<Value>> {
        database::rows(&self.etc.join("seawall.db"), sql)
    }

    /// What stands in the way of reading events, and how much room is left: a report of nothing
    /// at all says neither.
    pub(crate) fn state_of_the_database(&self) -> String {
        let read = self
            .rows("SELECT count(*) AS n FROM events")
            .map_or_else(|error| error.to_string(), |rows| rows[0]["n"].to_string());
        format!("events: {read}; room left on the disk: {} KiB", self.room_bytes() / 1024)
    }

    pub(crate) fn room_bytes(&self) -> u64 {
        let disk = rustix::fs::statvfs(&self.etc).expect("the folder is there");
        disk.f_bavail * disk.f_frsize
    }

    pub(crate) fn count(&self, name: &str, event_type: &str) -> usize {
        self.events(name).iter().filter(|(known, _)| known == event_type).count()
    }

    /// Open descriptors of each wrapper and of its service.
    pub(crate) fn descriptors(&self) -> BTreeMap<String, usize> {
        let count = |pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        let of = |name: &&&str| {
            let life = self.life(name)?;
            Some([(format!("`seawall run {name}`"), count(life.wrapper)), ((**name).to_owned(), count(life.service))])
        };
        DAEMONS.iter().filter_map(|name| of(&name)).flatten().collect()
    }

    /// Fills the disk, and returns what takes the room up.
    pub(crate) fn fill(&self) -> Option<PathBuf> {
        self.disk.as_ref().map(Disk::fill)
    }

    pub(crate) fn bootout_all(&mut self) -> BTreeMap<&'static str, Seen> {
        let jobs = std::mem::take(&mut self.jobs);
        // All at once, as a machine does that shuts down.
        let ends: Vec<_> =
            jobs.into_iter().map(|(name, job)| (name, std::thread::spawn(move || job.bootout()))).collect();
        ends.into_iter().map(|(name, end)| (name, end.join().expect("it ends"))).collect()
    }

    /// launchd and the database agree on how often each of them ended.
    pub(crate) fn every_end_is_on_record(&self, ends: &BTreeMap<&'static str, Seen>, report: &mut Report) {
        for (name, seen) in ends {
            let endings = ["service_crash", "service_stop", "crash_inferred", "task_done", "task_failed"];
            let recorded: usize = endings.iter().map(|known| self.count(name, known)).sum();
            report.demand(
                recorded == seen.ends.len(),
                format!("{name} ended {} times and {recorded} ends are on record", seen.ends.len()),
            );
            report.demand(!seen.killed, format!("{name} had to be killed at the end"));
        }
    }

    pub(crate) fn integrity(&self) -> String {
        crate::gateway::integrity(&self.etc)
    }

    /// Of all that is made to be gone again.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let within = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_passing = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.ends_with(".sock") || name.ends_with(".tmp") || name.ends_with(".half") || name.contains(".new-")
        };
        let state = within(self.etc.join(".seawall")).chain(within(self.etc.join(".seawall/services")));
        let homes = ["homes", "tmp", "run"].map(|folder| self.etc.join(".seawall").join(folder));
        within(self.home.file("tmp"))
            .chain(state.filter(is_passing))
            .chain(homes.into_iter().flat_map(within))
            .collect()
    }
}

fn servers_toml(gateway: SocketAddr, emit: SocketAddr, embedding: SocketAddr, model: &Path) -> String {
    let model = model.display();
    // A hang is one that lasts: a machine that is busy must not look like one.
    let patience = "every = \"300ms\", timeout = \"1500ms\", misses = 3, starts_within = \"60s\"";
    format!(
        r#"
[gateway]
listen = "{gateway}"
drain  = "1s"

[servers.seawall]
builtin = "seawall"

[services.gateway]
builtin = "gateway"
health  = {{ mcp = "http://{gateway}/mcp", tool = "seawall__servers", {patience} }}

[services.embedding-server]
builtin = "embedding"
options = {{ listen = "{embedding}", model = "{model}", recycle = {{ requests = 100 }} }}
health  = {{ url = "http://{embedding}/health", {patience} }}

[services.emit-server]
builtin = "emit"
options = {{ listen = "{emit}" }}
health  = {{ url = "http://{emit}/healthz", {patience} }}

[services.file-watcher]
builtin = "watch"
options = {{ folders = ["./in"], settle = "20ms", rescan = "2s" }}
health  = {{ command = ["${{seawall}}", "file-watcher", "--check"], {patience} }}

[services.daily-tasks]
builtin  = "tasks"
options  = {{ steps = ["retention", "check", {{ run = "backup", keep = 1 }}] }}
schedule = "daily 03:30"

[services.weekly-tasks]
builtin  = "tasks"
options  = {{ steps = [{{ run = "digest", keep = 1 }}] }}
schedule = "weekly sun 04:00"

[services.leaky]
command = ["awk", "BEGIN {{ while (1) {{ for (i = 0; i < 10 && n < 40000; i++) kept[n++] = sprintf(\"%8000s\", \"\"); system(\"sleep 0.05\") }} }}"]
memory  = {{ growth_per_hour = "1MB" }}
"#
    )
}
