//! `seawall mcp files DIR...`: one of seawall's own MCP servers over stdio, for
//! clients without a gateway in between.

use std::{path::PathBuf, process::ExitCode};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::builtin::{
    self,
    files::{Access, FilesServer},
};

/// Run one of seawall's own MCP servers over stdin and stdout
///
/// For `command` in servers.toml, or for a client without a gateway in between. Needs no
/// servers.toml.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  seawall mcp files --read-only ./docs")]
pub struct Args {
    #[command(subcommand)]
    server: Server,
}

const FILES_EXAMPLES: &str = "\
Examples:
  seawall mcp files ./notes                  read and write below ./notes
  seawall mcp files --read-only ./docs /srv  two directories, nothing is written

In servers.toml:
  [servers.files]
  command = [\"${seawall}\", \"mcp\", \"files\", \"./notes\"]
  sandbox = \"off\"";

#[derive(Debug, clap::Subcommand)]
enum Server {
    /// Serve the files of directories, and of nowhere else
    #[command(after_help = FILES_EXAMPLES)]
    Files(Files),
}

#[derive(Debug, clap::Args)]
struct Files {
    /// Offer no tool that writes
    #[arg(long)]
    read_only: bool,

    /// The directories to serve
    #[arg(required = true, value_name = "DIR")]
    directories: Vec<PathBuf>,
}

/// Serves until the end of input.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    serve(args, tokio::io::stdin(), tokio::io::stdout()).await
}

/// [`run`], over any pair of streams.
pub async fn serve(
    args: Args,
    input: impl AsyncRead + Send + Unpin + 'static,
    output: impl AsyncWrite + Send + Unpin + 'static,
) -> anyhow::Result<ExitCode> {
    let Server::Files(files) = args.server;
    let access = if files.read_only { Access::ReadOnly } else { Access::ReadWrite };
    let server = FilesServer::open(&files.directories, access)?;
    builtin::serve(server, input, output).await?;
    Ok(ExitCode::SUCCESS)
}
