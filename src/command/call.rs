//! `seawall call`: one tool, once, through all layers.

use std::{
    io::{Read as _, Write},
    path::PathBuf,
    process::ExitCode,
};

use super::gateway_or_own;
use crate::{
    call::Payload,
    control::{self, Request},
    say, text,
};
use anyhow::Context as _;

/// Call one tool and print its result
///
/// Goes through the running gateway and all its layers, as a client's call would;
/// where there is none, starts the tool's server for the length of the call. Exits
/// with 1 if the result is an error.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  seawall call files__list_directory '{\"path\":\".\"}'\n  \
    echo '{\"path\":\"a.txt\"}' | seawall call files__read_file -\n  seawall call seawall__servers")]
pub struct Args {
    /// The tool's public name, as `seawall tools` lists it
    tool: String,
    /// Its arguments, a JSON object; - reads them from stdin
    #[arg(default_value = "{}", value_name = "JSON")]
    arguments: String,
    /// The whole result, as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args, config: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let arguments = arguments(&args.arguments)?;
    let request = Request::Call { tool: args.tool.clone(), arguments: arguments.as_str().to_owned() };
    let tool = args.tool.clone();
    let server = tool.split_once("__").map(|(server, _)| server.to_owned());
    let result = gateway_or_own(config, &request, server.as_deref(), move |gateway| {
        Box::pin(async move {
            let result = control::call_tool(&gateway, &tool, &arguments).await?;
            Ok(serde_json::value::to_raw_value(&result)?)
        })
    })?;
    let result = Payload::from_json(result.get().to_owned())?;
    let failed = result.says_is_error();
    let mut out = say::out();
    match args.json {
        true => writeln!(out, "{}", result.as_str()),
        false => write_text(&mut out, &result),
    }?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn write_text(out: &mut impl Write, result: &Payload) -> std::io::Result<()> {
    result.items("content").unwrap_or_default().iter().try_for_each(|block| match block.text("text") {
        Some(words) => writeln!(out, "{}", text::harmless(&words)),
        None => writeln!(
            out,
            "[{} content, {}; --json shows it]",
            block.text("type").unwrap_or_default(),
            text::bytes(block.len() as u64)
        ),
    })
}

fn arguments(given: &str) -> anyhow::Result<Payload> {
    let mut text = given.to_owned();
    if given == "-" {
        text.clear();
        std::io::stdin().read_to_string(&mut text).context("stdin could not be read")?;
    }
    let hint = "the arguments must be a JSON object, such as '{\"path\":\".\"}'";
    let arguments = Payload::from_json(text.trim().to_owned()).context(hint)?;
    anyhow::ensure!(arguments.as_bytes().starts_with(b"{"), hint);
    Ok(arguments)
}
