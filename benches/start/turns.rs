//! The workers, each asked for one start in its turn.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use crate::{
    report::{Report, Row, Table},
    spawn,
};

/// As the table calls it, as the worker does, and whether it is kept from namespaces.
const WAYS: [(&str, &str, bool); 5] = [
    ("the program itself, no launcher", "direct", false),
    ("`\"off\"`: the launcher alone", "off", false),
    ("`\"standard\"` without namespaces (core)", "core", true),
    ("`\"standard\"` with namespaces (full)", "full", false),
    ("`\"strict\"`", "strict", false),
];

pub(crate) fn all(starts: u32) -> Report {
    let mut tables = vec![table("a small server of Rust", starts, &[spawn::fixture_server().display().to_string()])];
    if let Some(words) = node_server() {
        tables.push(table("`@modelcontextprotocol/server-memory`, by node", starts.div_ceil(3), &words));
    }
    Report { tables, starts }
}

fn table(name: &'static str, starts: u32, words: &[String]) -> Table {
    let mut workers: Vec<Worker> = WAYS.iter().map(|(_, how, is_poor)| Worker::start(how, *is_poor, words)).collect();
    // The first of each has the files to read.
    for worker in &mut workers {
        worker.turn();
    }
    let mut samples = vec![Vec::new(); WAYS.len()];
    for _ in 0..starts {
        for (worker, samples) in workers.iter_mut().zip(&mut samples) {
            samples.push(worker.turn());
        }
    }
    workers.into_iter().for_each(Worker::end);
    let rows = WAYS.iter().zip(samples).map(|((name, ..), mut samples)| {
        samples.sort_unstable();
        Row { name, median: samples[samples.len() / 2], least: samples[0] }
    });
    Table { name, starts, rows: rows.collect() }
}

/// Where the tests have installed it, and a node to run it.
fn node_server() -> Option<Vec<String>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/.cache/npm/node_modules/@modelcontextprotocol/server-memory/dist/index.js");
    let path = std::env::var_os("PATH")?;
    let node: PathBuf = std::env::split_paths(&path).map(|folder| folder.join("node")).find(|file| file.is_file())?;
    script.is_file().then(|| [node, script].map(|path| path.display().to_string()).to_vec())
}

struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    fn start(how: &str, is_poor: bool, words: &[String]) -> Self {
        let own = std::env::current_exe().expect("a program knows its path");
        let mut command = match is_poor {
            false => Command::new(&own),
            true => {
                let mut command = Command::new(spawn::example("hostile"));
                command.arg("without-namespaces").arg(&own);
                command
            }
        };
        command.args(["--work", how]).args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a worker can be started");
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Worker { child, stdin, stdout: BufReader::new(stdout) }
    }

    fn turn(&mut self) -> Duration {
        writeln!(self.stdin, "go").and_then(|()| self.stdin.flush()).expect("the worker reads");
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the worker answers");
        Duration::from_micros(line.trim().parse().expect("the worker says microseconds; see its complaint above"))
    }

    fn end(self) {
        let Worker { mut child, stdin, .. } = self;
        drop(stdin);
        child.wait().expect("the worker ends");
    }
}
