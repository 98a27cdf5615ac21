//! uv: how it installs a tool, and from whom.
//!
//! Which indexes there are it is asked itself; where it has none but the one that it
//! comes with, it is run with nothing in reach, and whom it then asks for is that one. On
//! which hosts an index keeps its files only its pages say: a place that uv asks for is
//! let in if a page that uv has read from an index names it, and no other.

use std::{ffi::OsString, path::Path};

use super::{Site, place::Note, site::Hosts};
use crate::{
    link::StartError,
    process::Command,
    sandbox::{Destination, Network, Policy},
};

mod failure;
mod files;
mod pages;
mod program;
mod settings;
mod shown;

pub(super) use settings::{Settings, settings};

/// So many hosts of files are learned of one after the other.
const LEARNED_MAX: usize = 4;
/// Names of its own files in the folder, gone when it is complete.
const CACHE: &str = "seawall-uv-cache";
const LINKS: &str = "seawall-uv-bin";
/// The folder that the package is installed into.
const TOOLS: &str = "tools";

pub(super) async fn install(site: &Site<'_>, settings: &Settings) -> Result<Note, StartError> {
    let failed = |error| site.place.failed(error);
    let mut hosts = Hosts { configured: settings.hosts.clone(), ..Hosts::default() };
    hosts.configured.extend(site.server.sandbox.install_hosts.iter().cloned());
    let identity = site.identity(&tool_install(site, settings, &hosts))?;
    if let Some(user) = identity {
        std::os::unix::fs::chown(site.staging, Some(user.uid), Some(user.gid)).map_err(failed)?;
    }
    if settings.has_built_in {
        hosts.configured.push(built_in(site, settings).await?);
    }
    loop {
        let command = tool_install(site, settings, &hosts);
        let (said, denied) = site.run(&command, &hosts).await?;
        if said.succeeded {
            break;
        }
        let named = new_hosts(site, &hosts, &denied).await;
        if named.is_empty() || hosts.learned.len() + named.len() > LEARNED_MAX {
            return Err(match denied.first() {
                Some(place) => failure::elsewhere(site, &said, place, hosts.learned.contains(place)),
                None => failure::why(site.request, &said),
            });
        }
        learn(site, &mut hosts, named).await;
    }
    compile(site, settings).await?;
    let note = program::program(site.request, site.staging).map_err(StartError::Permanent)?;
    tidy(site.staging).await.map_err(failed)?;
    Ok(note)
}

/// Those of `denied` that a page of an index names.
async fn new_hosts(site: &Site<'_>, hosts: &Hosts, denied: &[Destination]) -> Vec<Destination> {
    let known = hosts.all();
    let new: Vec<_> = denied.iter().filter(|place| !known.contains(place)).cloned().collect();
    let cache = site.staging.join(CACHE);
    tokio::task::spawn_blocking(move || pages::named(&cache, new)).await.unwrap_or_default()
}

async fn learn(site: &Site<'_>, hosts: &mut Hosts, named: Vec<Destination>) {
    // An index of the open internet has no say in which hosts of a private network are
    // asked; one in there may well have its files there.
    let mut is_inside = false;
    for index in &hosts.configured {
        is_inside |= crate::egress::leads_inside(index).await;
    }
    for Destination { host, port } in &named {
        tracing::info!(server = %site.server.name, "an index keeps files of {} at {host}:{port}", site.request);
    }
    if is_inside {
        hosts.configured.extend(named.iter().cloned())
    }
    hosts.learned.extend(named);
}

/// The index that uv comes with: whom it asks for without any settings and with nobody in
/// reach, so that nothing but uv itself has a say in it.
async fn built_in(site: &Site<'_>, settings: &Settings) -> Result<Destination, StartError> {
    let nobody = Hosts::default();
    let args = ["tool", "install", "--quiet", "--no-config", "--no-build", "--python"].map(OsString::from);
    let args = args.into_iter().chain([settings.python.clone().into_os_string()]);
    let args = args.chain([OsString::from(&site.request.packages[0])]).collect();
    let policy = site.confined(&nobody, settings.read.clone(), Vec::new());
    let ask = Command { env: surroundings(site.staging), ..site.command(settings.uv.clone(), args, policy) };
    let (said, mut asked) = site.run(&ask, &nobody).await?;
    match (asked.pop(), asked.is_empty()) {
        (Some(index), true) => Ok(index),
        _ => Err(StartError::Transient(format!(
            "uv does not say which index it comes with ({}); name it, such as by UV_DEFAULT_INDEX or in uv.toml",
            crate::text::quote(&said.last_words, 200)
        ))),
    }
}

fn tool_install(site: &Site<'_>, settings: &Settings, hosts: &Hosts) -> Command {
    let (package, with) = site.request.packages.split_first().map_or(("", &[][..]), |(first, rest)| (first, rest));
    let mut args: Vec<OsString> = ["tool", "install", "--quiet", "--no-build", "--python"].map(OsString::from).to_vec();
    args.push(settings.python.clone().into_os_string());
    args.extend(site.request.options.iter().map(OsString::from));
    for package in with {
        args.extend([OsString::from("--with"), package.into()]);
    }
    args.push(package.into());
    let mut policy = site.confined(hosts, settings.read.clone(), settings.certificates.clone());
    policy.laid = settings.files.laid();
    let mut env = settings.env.clone();
    env.extend(surroundings(site.staging));
    env.extend(settings.files.variables());
    Command { env, ..site.command(settings.uv.clone(), args, policy) }
}

/// Where everything is that it writes; and nothing is fetched that is no package.
fn surroundings(staging: &Path) -> Vec<(String, String)> {
    let path = |name: &str| staging.join(name).display().to_string();
    [
        ("UV_CACHE_DIR", path(CACHE)),
        ("UV_TOOL_DIR", path(TOOLS)),
        ("UV_TOOL_BIN_DIR", path(LINKS)),
        ("UV_PYTHON_DOWNLOADS", "never".to_owned()),
        ("UV_NO_PROGRESS", "1".to_owned()),
        ("NO_COLOR", "1".to_owned()),
        // The ladder of starts tries again.
        ("UV_HTTP_RETRIES", "0".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// What the server could not keep, as its folder can only be read: without it every start
/// would compile anew. Read as text by the interpreter alone, so that nothing of the package
/// runs; what does not compile would not have run either.
async fn compile(site: &Site<'_>, settings: &Settings) -> Result<(), StartError> {
    let args = ["-I", "-S", "-m", "compileall", "-q", "-j", "2"].map(OsString::from);
    let args = args.into_iter().chain([site.staging.join(TOOLS).into_os_string()]).collect();
    let policy = site.confined(&Hosts::default(), settings.read.clone(), Vec::new());
    let policy = Policy { network: Network::None, ..policy };
    let said = site.run_alone(&site.command(settings.python.display().to_string(), args, policy)).await?;
    if !said.succeeded {
        tracing::debug!(server = %site.server.name, "not all of {} compiles", site.request);
    }
    Ok(())
}

/// Caches, and links to where it was made are not for the server.
async fn tidy(staging: &Path) -> std::io::Result<()> {
    for name in [CACHE, LINKS] {
        match tokio::fs::remove_dir_all(staging.join(name)).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
