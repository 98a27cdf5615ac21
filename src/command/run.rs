//! `seawall run NAME`: what the unit of a service starts.

use std::{collections::BTreeMap, io::Read as _, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Parser as _;
use rustix::process::{Pid, Resource, Rlimit, Signal, getpid, kill_process, setrlimit};

use super::{block_on, load_config};
use crate::{
    config::{Alert, Config, MemoryWatch, Notify, Options, Secret, Service, ServiceKind},
    embedding,
    gateway::reload::Overrides,
    heap,
    process::{HELPER, veil::Veil},
    say::{self, note},
    service::{
        escort, exec, memory,
        notify::Sink,
        overdue::Overseen,
        own::{self, Own},
        run::{self, Job, Outcome},
    },
    store::Settings,
};

const EXAMPLES: &str = "\
Examples:
  seawall run gateway               in the foreground, watched and recorded
  seawall run daily-tasks --now     a scheduled one, although it is not due
  seawall services                  how they all are";

/// Run a service of servers.toml, watched: what its unit starts
///
/// Starts the service as a child, forwards signals, records how it ends, and ends the
/// same way, so that launchd or systemd decides what is next. A scheduled one runs only
/// if it is due.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The NAME of [services.NAME]
    name: String,

    /// Run a scheduled service although it is not due
    #[arg(long)]
    now: bool,

    /// From SIGTERM to SIGKILL
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, hide = true)]
    stop_within: Option<Duration>,

    /// How often memory is looked at
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, hide = true)]
    sample_every: Option<Duration>,
}

pub fn run(args: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let (_, config) = load_config(config, Overrides::default())?;
    hold(&args.name, &config, |job| {
        job.now = args.now;
        job.stop_within = args.stop_within.unwrap_or(job.stop_within);
        job.sample_every = args.sample_every.unwrap_or(job.sample_every);
    })
}

/// The service of that name.
pub(super) fn find<'c>(name: &str, config: &'c Config) -> anyhow::Result<&'c Service> {
    let found = config.services.iter().find(|service| service.name == name);
    found.with_context(|| {
        let there: Vec<&str> = config.services.iter().map(|service| service.name.as_str()).collect();
        format!("there is no [services.{name}] in {}; there are: {}", config.path.display(), there.join(", "))
    })
}

/// Runs a service to its end, and ends as it ended.
pub(super) fn hold(name: &str, config: &Config, adjust: impl FnOnce(&mut Job)) -> anyhow::Result<ExitCode> {
    say::wait_for_nobody();
    let service = find(name, config)?;
    let seawall = std::env::current_exe().context("this program has no path of its own")?;
    let argv = match &service.kind {
        ServiceKind::Command { argv } => argv.clone(),
        ServiceKind::Builtin { name, .. } => match own::find(name, &service.name, &seawall, &config.path) {
            Own::Started(argv) => argv,
            Own::NotBuiltIn => {
                // Ends with 0, so that no supervisor tries again.
                note!("seawall: {}: {}", service.name, embedding::NOT_BUILT_IN);
                return Ok(ExitCode::SUCCESS);
            }
        },
    };
    service.warnings.iter().for_each(|warning| note!("seawall: {}: {warning}", service.name));
    config.alerts.iter().flat_map(|alert| &alert.warnings).for_each(|warning| note!("seawall: an alert: {warning}"));
    let mut job = job(service, argv, config, seawall);
    // The commands of a task would get it too.
    if matches!(service.kind, ServiceKind::Builtin { .. }) && service.schedule.is_none() {
        sample_the_heap(&mut job.env);
    }
    adjust(&mut job);
    let outcome = run::run(&job)?;
    say::farewell();
    end_as(outcome)
}

fn end_as(outcome: Outcome) -> anyhow::Result<ExitCode> {
    match outcome {
        Outcome::Code(code) => std::process::exit(code),
        Outcome::Signal(signal) => end_by(signal),
    }
}

fn job(service: &Service, argv: Vec<String>, config: &Config, seawall: PathBuf) -> Job {
    let is_embedding = matches!(&service.kind, ServiceKind::Builtin { name, .. } if name == "embedding");
    let usual_growth = match is_embedding {
        true => memory::GROWTH_PER_HOUR_EMBEDDING_BYTES,
        false => memory::GROWTH_PER_HOUR_BYTES,
    };
    // A task that works through something grows, and ends.
    let watched = service.memory.as_ref().filter(|_| service.schedule.is_none());
    let growth = |watch: &MemoryWatch| watch.growth_per_hour_bytes.unwrap_or(usual_growth);
    Job {
        name: service.name.clone(),
        argv,
        env: exposed(&service.env),
        cwd: service.cwd.clone(),
        schedule: service.schedule,
        missed: service.missed,
        now: false,
        health: service.health.clone(),
        bearer: token_of(service, config).map(|token| format!("Bearer {token}")),
        growth_per_hour_bytes: watched.map(growth),
        max_bytes: service.memory.as_ref().and_then(|watch| watch.max_bytes),
        sample_every: memory::SAMPLE_EVERY,
        sinks: config.alerts.iter().filter_map(sink).collect(),
        veil: veil(service, config),
        overseen: overseen(service, config),
        database: Settings::at(&config.gateway.database),
        state: config.gateway.state.clone(),
        seawall,
        stop_within: run::STOP_WITHIN,
        problem: service.problem.clone(),
    }
}

/// Unless the user has words of their own for the allocator.
fn sample_the_heap(env: &mut Vec<(String, String)>) {
    let (name, value) = heap::SAMPLING;
    if std::env::var_os(name).is_none() && !env.iter().any(|(known, _)| known == name) {
        env.push((name.to_owned(), value.to_owned()));
    }
}

/// The gateway is always there, and looks after those that may never be started.
fn overseen(service: &Service, config: &Config) -> Vec<Overseen> {
    if !matches!(&service.kind, ServiceKind::Builtin { name, .. } if name == "gateway") {
        return Vec::new();
    }
    let scheduled = config.services.iter().filter_map(|service| Some((&service.name, service.schedule?)));
    scheduled.map(|(name, schedule)| Overseen { name: name.clone(), schedule }).collect()
}

/// What a probe of the service has to show.
fn token_of<'c>(service: &'c Service, config: &'c Config) -> Option<&'c str> {
    match &service.kind {
        ServiceKind::Builtin { options: Options::Emit(settings), .. } => settings.token.as_deref(),
        ServiceKind::Builtin { options: Options::Embedding(settings), .. } => settings.token.as_deref(),
        ServiceKind::Builtin { name, .. } if name == "gateway" => config.gateway.token.as_ref().map(Secret::expose),
        _ => None,
    }
}

/// Over all that was told in confidence: to the service, and anywhere in the file.
pub(super) fn veil(service: &Service, config: &Config) -> Veil {
    let of_service = exposed(&service.env).into_iter();
    let told = config.confidences.iter().map(|(name, value)| (name.clone(), value.expose().to_owned()));
    let token = token_of(service, config).map(|token| ("token".to_owned(), token.to_owned()));
    let webhooks = config.alerts.iter().filter_map(|alert| match &alert.notify {
        Notify::Webhook(url) => Some(("webhook".to_owned(), url.expose().to_owned())),
        Notify::Command(_) | Notify::Desktop => None,
    });
    Veil::over(of_service.chain(told).chain(token).chain(webhooks))
}

fn exposed(env: &BTreeMap<String, Secret>) -> Vec<(String, String)> {
    env.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect()
}

fn sink(alert: &Alert) -> Option<Sink> {
    if let Some(problem) = &alert.problem {
        note!("seawall: an alert cannot be told: {problem}");
        return None;
    }
    Some(match &alert.notify {
        Notify::Command(argv) => Sink::Command(argv.clone()),
        Notify::Webhook(url) => Sink::Webhook(url.expose().to_owned()),
        Notify::Desktop => Sink::Desktop,
    })
}

/// Ends as the service ended, so that the supervisor sees the same signal. The memory
/// of the one who watched is of no interest, so no core is left of it.
fn end_by(signal: i32) -> anyhow::Result<ExitCode> {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // No signal ends the first process of a container that it does not want: trying to would
    // end it by another one.
    if getpid() != Pid::INIT {
        if signal == Signal::KILL.as_raw() {
            let _ = kill_process(getpid(), Signal::KILL);
        }
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
    // That, or one that does not end a process: as a shell would say it.
    std::process::exit(128 + signal)
}

/// Processes that `seawall run` starts beside the service.
#[derive(Debug, clap::Parser)]
#[command(name = "seawall service-helper")]
struct HelperArgs {
    #[command(subcommand)]
    help: Help,
}

#[derive(Debug, clap::Subcommand)]
enum Help {
    /// Become a program that ends with its parent
    Exec {
        #[arg(long)]
        parent: u32,
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
    /// Run a program, and end all that it leaves
    Errand {
        /// Wait for all that it leaves, too
        #[arg(long)]
        all: bool,
        #[arg(last = true, required = true)]
        argv: Vec<String>,
    },
    /// Post the rest of stdin to the URL in its first line
    Post,
}

const POST_WITHIN: Duration = Duration::from_secs(8);
const CANNOT_RUN_CODE: u8 = 127;

/// `Some` where this program was started to help: before the command line is read, which
/// nobody types.
pub fn enter() -> Option<ExitCode> {
    if std::env::args_os().nth(1)? != HELPER {
        return None;
    }
    let args = HelperArgs::parse_from(std::env::args_os().skip(1));
    Some(help(args).unwrap_or_else(|error| {
        note!("seawall: {}", super::sentence(&error));
        ExitCode::FAILURE
    }))
}

fn help(args: HelperArgs) -> anyhow::Result<ExitCode> {
    match args.help {
        Help::Exec { parent, argv } => {
            note!("seawall: {}", exec(&argv, parent));
            Ok(ExitCode::from(CANNOT_RUN_CODE))
        }
        Help::Errand { all, argv } => match escort(&argv, all) {
            Ok(outcome) => end_as(outcome),
            Err(error) => {
                note!("seawall: {} cannot be run: {error}", argv.first().map_or("", String::as_str));
                Ok(ExitCode::from(CANNOT_RUN_CODE))
            }
        },
        Help::Post => {
            let mut input = String::new();
            std::io::stdin().read_to_string(&mut input)?;
            let (url, body) = input.split_once('\n').context("no URL")?;
            block_on(post(url.to_owned(), body.trim_end().to_owned()))
        }
    }
}

async fn post(url: String, body: String) -> anyhow::Result<ExitCode> {
    let client = reqwest::Client::builder().timeout(POST_WITHIN).redirect(reqwest::redirect::Policy::none()).build()?;
    let request = client.post(url).header("content-type", "application/json").body(body);
    // Whoever knows the URL may post to it.
    let answer = request.send().await.map_err(reqwest::Error::without_url).context("the webhook cannot be reached")?;
    if !answer.status().is_success() {
        bail!("the webhook answers {}", answer.status());
    }
    Ok(ExitCode::SUCCESS)
}
