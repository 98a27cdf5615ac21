//! One way of starting a server, over and over: for each line that comes in, one start, and
//! a line with its microseconds. All but the start itself is done before and after.

use std::{
    io::{BufRead, Write},
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use seawall::{
    process::Command,
    sandbox::{Policy, Profile},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    time::timeout,
};
use tokio_util::task::TaskTracker;

const ANSWER: Duration = Duration::from_secs(60);
const HELLO: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"start","version":"1"}}}"#;

/// `words`: how, then the command.
pub(crate) fn work(words: &[String]) {
    let (how, words) = words.split_first().expect("a way of starting");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    for line in std::io::stdin().lock().lines() {
        line.expect("the driver's lines can be read");
        let took = runtime.block_on(start(how, words));
        println!("{}", took.as_micros());
        std::io::stdout().flush().expect("the driver reads");
    }
}

async fn start(how: &str, words: &[String]) -> Duration {
    match how {
        "direct" => directly(words).await,
        how => by_seawall(how, words).await,
    }
}

async fn directly(words: &[String]) -> Duration {
    let mut command = tokio::process::Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let began = Instant::now();
    let mut child = command.kill_on_drop(true).spawn().expect("the server can be started");
    hello(child.stdin.as_mut().expect("piped"), child.stdout.as_mut().expect("piped")).await;
    let took = began.elapsed();
    child.kill().await.expect("it can be ended");
    took
}

async fn by_seawall(how: &str, words: &[String]) -> Duration {
    let profile = match how {
        "off" => Profile::Off,
        "strict" => Profile::Strict,
        _ => Profile::Standard,
    };
    let command = Command {
        program: words[0].clone(),
        args: words[1..].iter().map(Into::into).collect(),
        env: Vec::new(),
        cwd: PathBuf::from("/"),
        name: "measured".to_owned(),
        sandbox: Policy { profile, ..Policy::default() },
        protected: Vec::new(),
        ledger: None,
    };
    let tasks = TaskTracker::new();
    let began = Instant::now();
    let (child, mut pipes) = command.spawn(&tasks).await.unwrap_or_else(|error| panic!("{how}: {error}"));
    hello(&mut pipes.stdin, &mut pipes.stdout).await;
    let took = began.elapsed();
    assert_eq!(child.report().tier, if how == "off" { "none" } else { tier(how) }, "{how}");
    child.kill();
    child.exited().await;
    took
}

fn tier(how: &str) -> &'static str {
    if how == "core" { "core" } else { "full" }
}

async fn hello(stdin: &mut (impl AsyncWrite + Unpin), stdout: &mut (impl AsyncRead + Unpin)) {
    let answered = timeout(ANSWER, async {
        stdin.write_all(format!("{HELLO}\n").as_bytes()).await?;
        stdin.flush().await?;
        BufReader::new(stdout).lines().next_line().await
    });
    let line = answered.await.expect("it answers in time").expect("its pipes work").expect("it has not ended");
    assert!(line.contains("serverInfo"), "it answered {line}");
}
