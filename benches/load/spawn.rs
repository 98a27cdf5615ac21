//! Child processes of the driver: started, listened to, ended by pid.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Child,
    sync::mpsc,
    time::timeout,
};

const START: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(5);

/// `cargo bench` builds no examples, and a stale one would be worse than none.
pub(crate) fn build_fixture_server() {
    build_example("fixture-server");
}

pub(crate) fn build_example(name: &str) {
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--locked", "--release", "--example", name]);
    let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo can be run");
    assert!(status.success(), "{name} does not build");
}

pub(crate) fn fixture_server() -> PathBuf {
    example("fixture-server")
}

pub(crate) fn example(name: &str) -> PathBuf {
    // target/release/deps/load-… is this program.
    let own = std::env::current_exe().expect("a program knows its path");
    let profile = own.ancestors().nth(2).expect("a bench lives in target/PROFILE/deps");
    profile.join("examples").join(name)
}

pub(crate) fn seawall() -> &'static str {
    env!("CARGO_BIN_EXE_seawall")
}

/// A child with its standard streams piped. Killed when the value goes, whatever happens.
pub(crate) fn start(command: Command) -> Child {
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", command.as_std()))
}

pub(crate) fn ignore_output(child: &mut Child) {
    let (sender, _) = mpsc::channel(1);
    drain(child.stdout.take().expect("stdout is piped"), sender.clone());
    drain(child.stderr.take().expect("stderr is piped"), sender);
}

pub(crate) fn stderr_lines(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(1000);
    drain(child.stderr.take().expect("stderr is piped"), sender);
    lines
}

/// What was said until now, for a complaint.
pub(crate) fn so_far(mut lines: mpsc::Receiver<String>) -> String {
    let mut said = Vec::new();
    while let Ok(line) = lines.try_recv() {
        said.push(line);
    }
    said.join("\n")
}

/// Reads a stream to its end so that its writer never blocks; the lines go to
/// `lines` while somebody listens.
fn drain(stream: impl AsyncRead + Unpin + Send + 'static, lines: mpsc::Sender<String>) {
    tokio::spawn(async move {
        let mut reader = BufReader::new(stream).lines();
        while let Ok(Some(line)) = reader.next_line().await {
            // A full or forgotten channel is no reason to stop reading.
            let _ = lines.try_send(line);
        }
    });
}

/// The address that a child says it listens on.
pub(crate) async fn address(child: &mut Child) -> SocketAddr {
    let (sender, mut lines) = mpsc::channel(1000);
    drain(child.stdout.take().expect("stdout is piped"), sender.clone());
    drain(child.stderr.take().expect("stderr is piped"), sender);
    let mut said = String::new();
    let found = timeout(START, async {
        while let Some(line) = lines.recv().await {
            if let Some(address) = parse_address(&line) {
                return Some(address);
            }
            said += &format!("{line}\n");
        }
        None
    });
    let found = found.await.ok().flatten();
    found.unwrap_or_else(|| panic!("nothing listens:\n{said}"))
}

fn parse_address(line: &str) -> Option<SocketAddr> {
    let address = line.split("listening on http://").nth(1)?;
    address.split(|end: char| !end.is_ascii_digit() && !".:[]".contains(end)).next()?.parse().ok()
}

/// Asked to end, then made to.
pub(crate) async fn stop(mut child: Child) {
    drop(child.stdin.take());
    if let Some(pid) = child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)) {
        // It may have ended on its own in this moment.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if timeout(STOP, child.wait()).await.is_err() {
        child.kill().await.expect("a child can be killed");
    }
}
