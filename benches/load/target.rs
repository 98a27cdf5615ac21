//! What is measured: a process, and the lanes into it.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use tokio::{
    process::Child,
    time::{sleep, timeout},
};

use crate::{
    lane::{IN_FLIGHT, Lanes},
    options::{Options, Subject},
    pipe::PipeLane,
    spawn,
    web::WebLane,
};

const START: Duration = Duration::from_secs(30);
/// The MCP server's name in servers.toml.
const SERVER: &str = "load";

type Start = Box<dyn Fn() -> Command>;

/// How to start a target.
pub(crate) struct Plan {
    pub(crate) name: String,
    start: Start,
    reach: Reach,
}

enum Reach {
    /// Streamable HTTP at this path, the address said on stdout or stderr.
    Said(String),
    /// Streamable HTTP at this path of a port chosen by us.
    Port(String, SocketAddr),
    Pipes,
}

/// A running target.
pub(crate) struct Target {
    child: Child,
    pub(crate) pid: u32,
    pub(crate) lanes: Lanes,
    /// From spawning it to its first list of tools.
    pub(crate) startup: Duration,
    at: Option<(SocketAddr, String)>,
}

/// Everything that the options ask for, the ceiling first.
pub(crate) fn plans(options: &Options, folder: &Path) -> Vec<Plan> {
    let config = folder.join("servers.toml");
    std::fs::write(&config, servers_toml(&options.sandbox)).expect("the config can be written");
    let seawall = move |words: &'static [&'static str]| {
        let config = config.clone();
        let start: Start = Box::new(move || {
            let mut command = Command::new(spawn::seawall());
            command.args(words).arg("--config").arg(&config);
            command
        });
        start
    };
    let own = std::env::current_exe().expect("a program knows its path");
    let all: [(&str, Subject, Start, Reach); 4] = [
        (
            "ceiling (an HTTP server that does nothing)",
            Subject::Ceiling,
            Box::new(move || {
                let mut command = Command::new(&own);
                command.arg("--ceiling");
                command
            }),
            Reach::Said("/mcp".to_owned()),
        ),
        ("the server over pipes", Subject::Pipes, Box::new(|| Command::new(spawn::fixture_server())), Reach::Pipes),
        (
            "seawall, HTTP",
            Subject::Http,
            seawall(&["serve", "--listen", "127.0.0.1:0"]),
            Reach::Said(format!("/mcp/{SERVER}")),
        ),
        ("seawall, stdio", Subject::Stdio, seawall(&["stdio", "--own"]), Reach::Pipes),
    ];
    let mut plans: Vec<Plan> = all
        .into_iter()
        .filter(|(_, subject, ..)| options.only.contains(subject))
        .map(|(name, _, start, reach)| Plan { name: name.to_owned(), start, reach })
        .collect();
    plans.extend(options.gateway_cmd.as_deref().map(|command| other(options, command)));
    plans
}

/// Another gateway, run by a shell that becomes it.
fn other(options: &Options, command: &str) -> Plan {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("a listener has an address");
    let command = command
        .replace("{port}", &address.port().to_string())
        .replace("{server}", &spawn::fixture_server().display().to_string());
    Plan {
        name: options.gateway_name.clone(),
        start: Box::new(move || {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("exec {command}")]);
            shell
        }),
        reach: Reach::Port(options.gateway_path.clone(), address),
    }
}

/// Every layer on; only the rate limit is too high to be met.
fn servers_toml(sandbox: &str) -> String {
    let server = spawn::fixture_server();
    let sandbox = if sandbox.starts_with('{') { sandbox.to_owned() } else { format!("{sandbox:?}") };
    format!(
        "[gateway]\ndatabase = \"seawall.db\"\n\n[defaults]\n\
         rate_limit = {{ per_minute = 60000000, burst = 1000000 }}\n\n\
         [servers.{SERVER}]\ncommand = [{:?}]\nsandbox = {sandbox}\n",
        server.display().to_string()
    )
}

impl Plan {
    /// Starts it, up to its first list of tools.
    pub(crate) async fn run(&self) -> Target {
        let began = Instant::now();
        let mut child = spawn::start((self.start)());
        let pid = child.id().expect("a child just started has a pid");
        let at = match &self.reach {
            Reach::Said(path) => Some((spawn::address(&mut child).await, path.clone())),
            Reach::Port(path, address) => {
                spawn::ignore_output(&mut child);
                Some((*address, path.clone()))
            }
            Reach::Pipes => None,
        };
        let lanes = match &at {
            Some((address, path)) => Lanes::Web(vec![self.first_lane(*address, path).await]),
            None => Lanes::Pipe(self.only_lane(&mut child).await),
        };
        Target { child, pid, lanes, startup: began.elapsed(), at }
    }

    /// A gateway may take connections before it knows its tools.
    async fn first_lane(&self, address: SocketAddr, path: &str) -> WebLane {
        let until = Instant::now() + START;
        loop {
            match WebLane::open(address, path).await {
                Ok(lane) => return lane,
                Err(error) => assert!(Instant::now() < until, "{}: {error}", self.name),
            }
            sleep(Duration::from_millis(2)).await;
        }
    }

    async fn only_lane(&self, child: &mut Child) -> PipeLane {
        let stderr = spawn::stderr_lines(child);
        match timeout(START, PipeLane::open(child)).await {
            Ok(Ok(lane)) => lane,
            Ok(Err(error)) => panic!("{}: {error}\n{}", self.name, spawn::so_far(stderr)),
            Err(_) => panic!("{}: no list of tools in {START:?}\n{}", self.name, spawn::so_far(stderr)),
        }
    }
}

impl Target {
    /// As many connections as there will be calls in flight.
    pub(crate) async fn widen(&mut self) -> io::Result<()> {
        if let (Lanes::Web(lanes), Some((address, path))) = (&mut self.lanes, &self.at) {
            while lanes.len() < IN_FLIGHT {
                lanes.push(WebLane::open(*address, path).await?);
            }
        }
        Ok(())
    }

    pub(crate) async fn stop(self) {
        drop(self.lanes);
        spawn::stop(self.child).await;
    }
}
