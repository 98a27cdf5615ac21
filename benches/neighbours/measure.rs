//! Turn by turn: quiet, failing, quiet, failing; then the samples of each side together.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};

use crate::{
    Options,
    faults::{FAULTS, Fault},
    report::{Ratio, Report, Row},
    shape::{SHAPES, Shape},
    spawn,
    trouble::Maker,
    web::WebLane,
};

const START: Duration = Duration::from_secs(60);
/// No turn may take longer than this beyond its own time.
const OVERTIME: Duration = Duration::from_secs(30);
/// What a fault leaves behind, such as the start of a process, is over by then.
const SETTLE: Duration = Duration::from_millis(20);
const HEALTHY: &str = "healthy";

pub(crate) async fn all(options: &Options) -> Report {
    let folder = tempfile::Builder::new().prefix("seawall-neighbours-").tempdir().expect("a temporary folder");
    let faults: Vec<&'static Fault> = FAULTS
        .iter()
        .filter(|fault| options.only.is_empty() || options.only.iter().any(|name| name == fault.name))
        .collect();
    let rounds = if options.quick { 3 } else { options.rounds };
    let turn = Duration::from_millis(options.turn_ms);
    let mut rows = Vec::new();
    for (number, fault) in (1..).zip(&faults) {
        eprintln!("{number} of {}: {}", faults.len(), fault.name);
        rows.push(beside(fault, folder.path(), rounds, turn).await);
    }
    Report { rows, rounds, turn }
}

/// A gateway of its own for each fault: what one leaves behind is not the next one's.
async fn beside(fault: &'static Fault, folder: &Path, rounds: u32, turn: Duration) -> Row {
    let folder = folder.join(fault.name);
    std::fs::create_dir(&folder).expect("a folder can be made");
    let config = folder.join("servers.toml");
    std::fs::write(&config, servers_toml(fault)).expect("the config can be written");
    let mut command = Command::new(spawn::seawall());
    command.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(&config);
    let mut child = spawn::start(command);
    let address = spawn::address(&mut child).await;
    let mut healthy = lane(address, HEALTHY).await;
    let mut sibling = if fault.has_sibling { Some(lane(address, fault.name).await) } else { None };
    let maker = Maker::start(&fault.trouble, fault.name, address, folder.join("seawall.db"));
    let (mut of_other, mut of_same) = (Sides::default(), Sides::default());
    for _ in 0..rounds {
        for is_failing in [false, true] {
            maker.set(is_failing);
            sleep(SETTLE).await;
            calls(&mut healthy, turn, of_other.side(is_failing)).await;
            if let Some(sibling) = &mut sibling {
                calls(sibling, turn, of_same.side(is_failing)).await;
            }
        }
    }
    maker.set(false);
    drop(maker);
    drop((healthy, sibling.take()));
    spawn::stop(child).await;
    Row { name: fault.name, other: of_other.ratio(), same: fault.has_sibling.then(|| of_same.ratio()) }
}

fn servers_toml(fault: &Fault) -> String {
    let program = spawn::fixture_server().display().to_string();
    let words: Vec<String> =
        std::iter::once(&*program).chain(fault.flags.iter().copied()).map(|word| format!("{word:?}")).collect();
    format!(
        "[defaults]\nrate_limit = \"off\"\nbreaker = \"off\"\n\n[servers.{HEALTHY}]\ncommand = [{program:?}]\n\n\
         [servers.{}]\ncommand = [{}]\ntimeout = \"100ms\"\nmax_duration = \"300ms\"\n\n\
         [servers.{0}.tools.size]\ntimeout = \"50s\"\nmax_duration = \"50s\"\n",
        fault.name,
        words.join(", ")
    )
}

async fn lane(address: SocketAddr, server: &str) -> WebLane {
    let until = Instant::now() + START;
    loop {
        match WebLane::open(address, &format!("/mcp/{server}")).await {
            Ok(lane) => return lane,
            Err(error) => assert!(Instant::now() < until, "{server}: {error}"),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// One call after the other for `time`; an answer that is not the one asked for ends the run.
async fn calls(lane: &mut WebLane, time: Duration, samples: &mut Vec<Duration>) {
    let shape: &Shape = &SHAPES[0];
    let mut request = lane.request(shape);
    let until = Instant::now() + time;
    let measured = async {
        while Instant::now() < until {
            let began = Instant::now();
            lane.call(&mut request, shape).await?;
            samples.push(began.elapsed());
        }
        io::Result::Ok(())
    };
    timeout(time + OVERTIME, measured).await.expect("a turn ends in time").expect("every call is answered");
}

#[derive(Default)]
struct Sides {
    quiet: Vec<Duration>,
    failing: Vec<Duration>,
}

impl Sides {
    fn side(&mut self, is_failing: bool) -> &mut Vec<Duration> {
        if is_failing { &mut self.failing } else { &mut self.quiet }
    }

    fn ratio(mut self) -> Ratio {
        self.quiet.sort_unstable();
        self.failing.sort_unstable();
        let at = |samples: &[Duration], percent: usize| samples[samples.len() * percent / 100];
        Ratio {
            median: (at(&self.quiet, 50), at(&self.failing, 50)),
            p99: (at(&self.quiet, 99), at(&self.failing, 99)),
            calls: self.quiet.len() + self.failing.len(),
        }
    }
}
