//! npm: what it is configured to, how it installs, and which program a package has.
//!
//! It is asked itself which registries there are, with the user's own files and
//! variables; the installation then gets these alone, and the credentials for them.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use tokio_util::task::TaskTracker;

use super::{
    Outside, Site,
    place::{self, Note},
    run,
    site::Hosts,
};
use crate::{
    link::StartError,
    process::Command,
    sandbox::{Destination, HOME, Identity, Policy, Profile},
    text,
};

mod failure;
mod program;

use program::program;

const CONFIG_TIMEOUT: Duration = Duration::from_secs(60);
const CONFIG_MAX_BYTES: u64 = 256 << 10;
/// What is said to it, with credentials: in its private home, and nowhere on a disk.
const RC: &str = "seawall-npmrc";
/// Of its own in the folder, gone when it is complete.
const CACHE: &str = "seawall-npm-cache";
/// What the installation shall do as the user's own would.
const KEPT: [&str; 6] = ["ca", "cafile", "strict-ssl", "replace-registry-host", "before", "min-release-age"];
/// Who else says whose certificates are good.
const CERTIFICATES: [&str; 3] = ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// What the user has configured.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Their URLs, by `registry` or `@scope:registry`.
    pub(super) registries: BTreeMap<String, String>,
    /// Of a file of settings with these alone.
    lines: Vec<String>,
    pub(super) read: Vec<PathBuf>,
    /// Variables that the lines refer to, or that say where certificates are.
    pub(super) env: Vec<String>,
}

pub(super) async fn settings(server: &Command, outside: &Outside, tasks: &TaskTracker) -> Result<Settings, StartError> {
    let is_set = |name: &str| std::env::var_os(name).is_some();
    let certificates = CERTIFICATES.iter().filter(|name| is_set(name)).map(|name| (*name).to_owned());
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let is_for_npm = |name: &str| name.to_ascii_lowercase().starts_with("npm_config_");
    let names = names.filter(|name| is_for_npm(name));
    // Those that the server is given are for npm by their name: elsewhere the package would be
    // somebody else's.
    let env = server.env.iter().filter(|(name, _)| is_for_npm(name)).cloned().collect();
    // The user's own program reads the user's own files: nothing of the package is there yet.
    let sandbox =
        Policy { profile: Profile::Off, env: names.chain(certificates.clone()).collect(), ..Policy::default() };
    let args = ["config", "list", "--json"].map(OsString::from).to_vec();
    // Not in the server's folder: a server that may write there, this one or another, would say
    // with an .npmrc where the package of the next start comes from.
    let cwd = PathBuf::from("/");
    let program = npm_beside(&server.program);
    // It may well be a script for the node beside it, or for that of PATH.
    let node = Path::new(&program).with_file_name("node").display().to_string();
    [&*program, &*node, "node"].into_iter().try_for_each(|program| outside.program(program))?;
    let ask = Command { program, args, env, cwd, sandbox, ..server.clone() };
    let said = run::run(&ask, None, CONFIG_TIMEOUT, tasks).await?;
    let config = serde_json::from_str(&said.output).ok().filter(|_| said.succeeded);
    let Some(Value::Object(config)) = config else {
        let why = text::quote(&said.last_words, 200);
        return Err(StartError::Transient(format!("npm does not say how it is configured: {why}")));
    };
    let files =
        ["globalconfig", "userconfig"].iter().filter_map(|key| Some(PathBuf::from(config.get(*key)?.as_str()?)));
    files.clone().try_for_each(|file| outside.settings(&file))?;
    let written: Vec<String> = files.filter_map(|file| place::read(&file, CONFIG_MAX_BYTES)).collect();
    let mut settings = Settings::of(&config, &written);
    let named = certificates.clone().filter_map(|name| std::env::var_os(name).map(PathBuf::from));
    settings.read.extend(named);
    settings.read.retain(|path| path.exists());
    settings.env.extend(certificates);
    Ok(settings)
}

/// The npm of the same installation.
fn npm_beside(npx: &str) -> String {
    match Path::new(npx).parent() {
        Some(folder) if npx.contains('/') => folder.join("npm").display().to_string(),
        _ => "npm".to_owned(),
    }
}

impl Settings {
    fn of(config: &serde_json::Map<String, Value>, written: &[String]) -> Self {
        let mut settings = Settings::default();
        for (key, value) in config {
            match value.as_str() {
                Some(url) if key == "registry" || key.ends_with(":registry") => {
                    settings.registries.insert(key.clone(), url.to_owned());
                }
                Some(file) if key == "cafile" => settings.read.push(PathBuf::from(file)),
                _ if KEPT.contains(&&**key) => {}
                _ => continue,
            }
            match value {
                Value::Null => {}
                Value::Array(values) => {
                    settings.lines.extend(values.iter().map(|value| format!("{key}[]={value}")));
                }
                value => settings.lines.push(format!("{key}={value}")),
            }
        }
        let hosts: Vec<String> =
            settings.registries.values().filter_map(|url| authority(url)).map(str::to_owned).collect();
        for line in written.iter().flat_map(|text| text.lines()).map(str::trim) {
            // Credentials are for a place; those for places that are not asked stay here.
            let Some(place) = line.strip_prefix("//") else { continue };
            if hosts.iter().any(|host| place.strip_prefix(&**host).is_some_and(|rest| rest.starts_with(['/', ':']))) {
                settings.lines.push(line.to_owned());
                settings.env.extend(variables(line));
            }
        }
        settings
    }

    fn hosts(&self) -> Result<Vec<Destination>, StartError> {
        let mut hosts = Vec::new();
        for (key, url) in &self.registries {
            let host = destination(url).ok_or_else(|| {
                let shown = text::quote(url, 100);
                StartError::Permanent(format!("npm's {key} is {shown}, which is no http or https URL"))
            })?;
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        Ok(hosts)
    }
}

/// Host and port as they are written, without a user.
fn authority(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    Some(authority.rsplit('@').next().unwrap_or(authority)).filter(|host| !host.is_empty())
}

fn destination(url: &str) -> Option<Destination> {
    let authority = authority(url)?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, if url.starts_with("https:") { 443 } else { 80 }),
    };
    Some(Destination { host: host.to_ascii_lowercase(), port })
}

/// `NAME` of each `${NAME}`.
fn variables(line: &str) -> impl Iterator<Item = String> {
    let parts = line.split("${").skip(1).filter_map(|part| part.split_once('}'));
    parts.map(|(name, _)| name.trim_end_matches('?').to_owned()).filter(|name| std::env::var_os(name).is_some())
}

pub(super) async fn install(site: &Site<'_>, settings: &Settings) -> Result<Note, StartError> {
    let mut hosts = Hosts { configured: settings.hosts()?, ..Hosts::default() };
    hosts.configured.extend(site.server.sandbox.install_hosts.iter().cloned());
    let command = command(site, settings, &hosts);
    let identity = site.identity(&command)?;
    let failed = |error| site.place.failed(error);
    furnish(site.staging, identity.as_ref()).map_err(failed)?;
    let (said, denied) = site.run(&command, &hosts).await?;
    if !said.succeeded {
        return Err(match denied.first() {
            Some(place) => failure::elsewhere(site, &said, place),
            None => failure::why(site.request, &said),
        });
    }
    let note = program(site.request, site.staging).map_err(StartError::Permanent)?;
    tidy(site.staging).await.map_err(failed)?;
    Ok(note)
}

/// The installation as a confined command.
fn command(site: &Site<'_>, settings: &Settings, hosts: &Hosts) -> Command {
    let path = |name: &str| site.staging.join(name).display().to_string();
    let env = [
        ("npm_config_userconfig", format!("{HOME}/{RC}")),
        ("npm_config_globalconfig", path("seawall-no-npmrc")),
        ("npm_config_cache", path(CACHE)),
        ("npm_config_logs_max", "0".to_owned()),
        ("npm_config_update_notifier", "false".to_owned()),
        // The ladder of starts tries again.
        ("npm_config_fetch_retries", "1".to_owned()),
        ("npm_config_fetch_retry_mintimeout", "1000".to_owned()),
    ];
    let args = ["install", "--json", "--ignore-scripts", "--no-audit", "--no-fund", "--"].iter().copied();
    let args = args.chain(site.request.packages.iter().map(String::as_str)).map(OsString::from).collect();
    let mut policy = site.confined(hosts, settings.read.clone(), settings.env.clone());
    policy.laid.push(RC, settings.lines.iter().map(|line| format!("{line}\n")).collect());
    let env = env.map(|(name, value)| (name.to_owned(), value)).into();
    Command { env, ..site.command(npm_beside(&site.server.program), args, policy) }
}

/// What npm finds in its folder, which is handed to whoever installs.
fn furnish(staging: &Path, user: Option<&Identity>) -> std::io::Result<()> {
    // Without one npm would look for a project in the folders above.
    std::fs::File::create_new(staging.join("package.json"))?.write_all(b"{\"private\":true}")?;
    if let Some(user) = user {
        for path in [staging.join("package.json"), staging.to_owned()] {
            std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))?;
        }
    }
    Ok(())
}

/// Caches are not for the server.
async fn tidy(staging: &Path) -> std::io::Result<()> {
    match tokio::fs::remove_dir_all(staging.join(CACHE)).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
