//! `seawall embedding-server`: makes vectors of texts over HTTP, until it is told to stop.

use std::{os::unix::process::CommandExt as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};

use super::{
    block_on, load_config, profile_on_usr2,
    standing::{self, Called},
};
use crate::{
    config::Options,
    embedding::{self, Settings},
    gateway::reload::Overrides,
    heap,
    say::note,
};

const CALLED: Called = Called {
    builtin: "embedding",
    usually: "embedding-server",
    plural: "embedding servers",
    example: "[services.embedding-server]\nbuiltin = \"embedding\"\noptions = { model = \"./models/all-MiniLM-L6-v2\" }",
};

const EXAMPLES: &str = "\
Examples:
  seawall embedding-server                  the one of ./servers.toml, in the foreground
  seawall embedding-server --model ./m      the same with another model
  seawall run embedding-server              watched and recorded: what its unit starts
  curl -H 'Content-Type: application/json' -d '{\"input\":\"some text\"}' http://127.0.0.1:11435/v1/embeddings
  MEMORY_PROFILE=1 seawall embedding-server
                                            says at its end what had filled its memory";

/// Make vectors of texts over HTTP, as OpenAI's embeddings API does
///
/// POST /v1/embeddings takes a text or a list of them. The model is a sentence-transformers
/// folder on this machine, and runs on its CPU. docs/services.md has the rest.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The NAME of [services.NAME], where there is more than one with builtin = "embedding"
    name: Option<String>,

    /// The folder of the model, instead of the one in its options
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
}

pub fn run(args: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    if !embedding::IS_BUILT_IN {
        bail!(embedding::NOT_BUILT_IN);
    }
    sample_the_heap()?;
    let (_, config) = load_config(config, Overrides::default())?;
    let (_, settings) = standing::chosen(args.name.as_deref(), &config, &CALLED, |options| match options {
        Options::Embedding(settings) => Some(&**settings),
        _ => None,
    })?;
    let mut settings = settings.clone();
    if let Some(folder) = args.model {
        settings.model.folder = std::path::absolute(folder).context("the path of the model is no path")?;
    }
    let profiles = config.gateway.state.join("heap");
    let code = block_on(serve(settings, profiles))?;
    heap::report("the embedding server", || ());
    Ok(code)
}

/// The allocator takes samples from the beginning of a process or not at all: with
/// MEMORY_PROFILE=1 this one begins anew.
fn sample_the_heap() -> anyhow::Result<()> {
    let (name, value) = heap::SAMPLING;
    if !heap::is_report_wanted() || std::env::var_os(name).is_some() {
        return Ok(());
    }
    let program = std::env::current_exe().context("this program has no path of its own")?;
    let error = std::process::Command::new(program).args(std::env::args_os().skip(1)).env(name, value).exec();
    Err(error).context("this program cannot be started again with samples of its heap")
}

async fn serve(settings: Settings, profiles: PathBuf) -> anyhow::Result<ExitCode> {
    heap::tidy();
    tokio::spawn(profile_on_usr2(profiles, "embedding-server"));
    let greeting = |address| format!("seawall: embeddings at http://{address}/v1/embeddings");
    let server = |listener, shutdown| embedding::serve(settings.clone(), listener, shutdown);
    if !standing::serve(settings.listen, greeting, server).await? {
        note!("seawall: not every request could be answered, or the model let go, in time");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
