//! `seawall doctor`: what this machine can enforce, found out by doing it.

use std::{io::Write as _, process::ExitCode};

use tokio::io::AsyncReadExt as _;
use tokio_util::task::TaskTracker;

use super::{
    block_on,
    print::{Colour, Style},
    sandbox::{bare, in_a_line, with_words},
};
use crate::{
    process::Command,
    sandbox::{Network, Policy, Profile, Report, WantedTier},
    say, text,
};

/// Find out what this machine can enforce
///
/// Starts a small program under each kind of sandbox, lets it try what it must not do,
/// and says what held. Exits with 1 where servers of the default profile would be
/// refused.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  seawall doctor\n  seawall doctor --json")]
pub struct Args {
    /// Everything, as JSON
    #[arg(long)]
    json: bool,
}

/// One kind of sandbox, tried.
struct Finding {
    what: &'static str,
    /// How it went; why not, where it was refused or did not hold.
    held: Result<Report, String>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let secret = tempfile_with_secret()?;
    let findings = block_on(async {
        let mut findings = Vec::new();
        for (what, policy) in policies() {
            let held = tried(bare("doctor", policy)?, &secret).await.map_err(|error| format!("{error:#}"));
            findings.push(Finding { what, held });
        }
        Ok(findings)
    });
    let _ = std::fs::remove_file(&secret);
    let findings = findings?;
    let default_holds = findings.iter().any(|finding| finding.what == DEFAULT && finding.held.is_ok());
    let mut out = say::out();
    if args.json {
        let each = findings.iter().map(|Finding { what, held }| match held {
            Ok(report) => serde_json::json!({ "sandbox": what, "held": true, "report": report }),
            Err(why) => serde_json::json!({ "sandbox": what, "held": false, "why": why }),
        });
        writeln!(out, "{}", each.collect::<serde_json::Value>())?;
    } else {
        write_text(&mut out, &findings)?;
    }
    Ok(if default_holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const DEFAULT: &str = "standard";

fn policies() -> [(&'static str, Policy); 5] {
    let of = |profile| Policy { profile, ..Policy::default() };
    let with = |network| Policy { network, ..Policy::default() };
    [
        ("off", Policy { network: Network::Open, ..of(Profile::Off) }),
        (DEFAULT, Policy::default()),
        ("strict", Policy { tier: WantedTier::Full, ..of(Profile::Strict) }),
        ("standard, network = \"loopback\"", with(Network::Loopback)),
        ("standard, network = { allow = [] }", with(Network::Allow(Vec::new()))),
    ]
}

/// A file that only the sandbox keeps anybody from reading.
fn tempfile_with_secret() -> anyhow::Result<std::path::PathBuf> {
    let path = std::env::temp_dir().join(format!("seawall-doctor-{}", crate::id::Id::now()));
    std::fs::write(&path, "secret\n")?;
    Ok(path)
}

/// The program says `file` if it can read the secret, `proc` if it sees this process.
async fn tried(command: Command, secret: &std::path::Path) -> anyhow::Result<Report> {
    let is_off = command.sandbox.profile == Profile::Off;
    let script = format!(
        "cat '{}' >/dev/null 2>&1 && echo file; cat /proc/{}/environ >/dev/null 2>&1 && echo proc; echo done",
        secret.display(),
        std::process::id()
    );
    let command = with_words(command, &["/bin/sh".to_owned(), "-c".to_owned(), script]);
    let (child, mut pipes) = command.spawn(&TaskTracker::new()).await?;
    let mut said = String::new();
    pipes.stdout.read_to_string(&mut said).await?;
    anyhow::ensure!(said.ends_with("done\n"), "the program did not run: it ended with {}", child.exited().await);
    if !is_off {
        anyhow::ensure!(!said.contains("file"), "it could read a file that it was not given: report this");
        anyhow::ensure!(!said.contains("proc"), "it could look into seawall's own process: report this");
    }
    Ok(child.report().clone())
}

fn write_text(out: &mut impl std::io::Write, findings: &[Finding]) -> std::io::Result<()> {
    let style = Style::of_stdout();
    for Finding { what, held } in findings {
        match held {
            Ok(report) => {
                writeln!(out, "holds    sandbox = {what}")?;
                writeln!(out, "         {}", in_a_line(report))?;
            }
            Err(why) => {
                writeln!(out, "{}", style.paint(Colour::Red, &format!("refused  sandbox = {what}")))?;
                writeln!(out, "         {}", text::harmless(why))?;
            }
        }
    }
    Ok(())
}
