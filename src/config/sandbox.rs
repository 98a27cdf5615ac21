//! `[servers.NAME.sandbox]`: what a `command` server may touch.

use super::reader::{Entry, Table};
pub use crate::sandbox::{Destination, Launcher, Limits, Network, Policy as Sandbox, Profile, WantedTier as Tier};

const PROFILES: [(&str, Profile); 3] =
    [("off", Profile::Off), ("standard", Profile::Standard), ("strict", Profile::Strict)];

/// `"off"`, `"standard"`, `"strict"`, or a table.
pub(super) fn read(entry: &Entry<'_>) -> Option<Sandbox> {
    if entry.value().and_then(toml_edit::Value::as_str).is_some() {
        return Some(of_profile(entry.choice(&PROFILES)?));
    }
    entry.table("write \"off\", \"standard\", \"strict\" or a table such as { write = [\"./notes\"] }", |table| {
        let profile = table.take("profile", |entry| entry.choice(&PROFILES)).unwrap_or(Profile::Standard);
        let base = of_profile(profile);
        Sandbox {
            profile,
            read: table.take("read", Entry::paths).unwrap_or_default(),
            write: table.take("write", Entry::paths).unwrap_or_default(),
            network: table.take("network", network).unwrap_or(base.network.clone()),
            env: table.take("env", |entry| entry.list(NOT_NAMES, variable_name)).unwrap_or_default(),
            launcher: table.take("launcher", launcher).unwrap_or(base.launcher),
            install_hosts: table.take("install_hosts", |entry| entry.list(NO_PLACES, destination)).unwrap_or_default(),
            tier: table.take("tier", tier).unwrap_or(base.tier),
            user: table.take("user", Entry::nonempty),
            unix_sockets: table.take("unix_sockets", Entry::boolean).unwrap_or(base.unix_sockets),
            limits: table.section("limits", limits).unwrap_or_default(),
            ..base
        }
    })
}

fn of_profile(profile: Profile) -> Sandbox {
    let network = if profile == Profile::Off { Network::Open } else { Network::None };
    // Strict takes no less than everything.
    let tier = if profile == Profile::Strict { Tier::Full } else { Tier::Auto };
    Sandbox { profile, network, tier, ..Sandbox::default() }
}

const NO_PLACES: &str = "not a list; write [\"api.example.com:443\"]";
const NOT_NAMES: &str = "not a list of names; write [\"GITHUB_TOKEN\"]";

/// The name of a variable of the environment.
pub(super) fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c == '=' || c == '$' || c.is_whitespace() || c.is_control())
}

fn variable_name(entry: &Entry<'_>) -> Option<String> {
    const WANTED: &str = "not the name of a variable; write a name such as \"GITHUB_TOKEN\", without \"$\"";
    // Read as it stands: `${GITHUB_TOKEN}` here would be its value in place of its name.
    let name = entry.raw(WANTED)?;
    if is_variable_name(name) { Some(name.to_owned()) } else { entry.refuse(WANTED) }
}

fn network(entry: &Entry<'_>) -> Option<Network> {
    if !entry.is_table() {
        const WANTED: &str = "write \"none\", \"loopback\", \"open\" or { allow = [\"api.example.com:443\"] }";
        return match entry.word(WANTED)?.as_str() {
            "none" => Some(Network::None),
            "loopback" => Some(Network::Loopback),
            "open" => Some(Network::Open),
            _ => entry.refuse(WANTED),
        };
    }
    let allow = |table: &mut Table<'_>| {
        if !table.has("allow") {
            return table.refuse("needs allow: write { allow = [\"api.example.com:443\"] }");
        }
        table.take("allow", |entry| entry.list(NO_PLACES, destination))
    };
    entry.table("", allow)?.map(Network::Allow)
}

fn destination(entry: &Entry<'_>) -> Option<Destination> {
    const WANTED: &str =
        "not a host with a port; write something like \"api.example.com:443\" or \"*.example.com:443\"";
    let written = entry.word(WANTED)?;
    let is_host = |host: &str| {
        let name = host.strip_prefix("*.").unwrap_or(host);
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:[]".contains(c))
    };
    match written.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
        Some((host, Ok(port))) if port > 0 && is_host(host) => {
            Some(Destination { host: host.to_ascii_lowercase(), port })
        }
        _ => entry.refuse(WANTED),
    }
}

fn launcher(entry: &Entry<'_>) -> Option<Launcher> {
    let none = ("none", Launcher::None);
    entry.choice(&[("auto", Launcher::Auto), ("npx", Launcher::Npx), ("uvx", Launcher::Uvx), none])
}

fn tier(entry: &Entry<'_>) -> Option<Tier> {
    entry.choice(&[("auto", Tier::Auto), ("core", Tier::Core), ("full", Tier::Full)])
}

fn limits(table: &mut Table<'_>) -> Limits {
    // Less would not start anything; more is no limit.
    const BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 44;
    Limits {
        memory_bytes: table.take("memory", |entry| entry.size(BYTES)),
        processes: table.take("processes", |entry| entry.integer(1..=1_000_000)),
        open_files: table.take("open_files", |entry| entry.integer(16..=1_000_000)),
        file_size_bytes: table.take("file_size", |entry| entry.size(1 << 10..=1 << 44)),
        cpu_seconds: table.take("cpu_seconds", |entry| entry.integer(0..=u32::MAX)),
        tmp_bytes: table.take("tmp", |entry| entry.size(BYTES)),
        disk_bytes: table.take("disk", |entry| entry.size(BYTES)),
    }
}
