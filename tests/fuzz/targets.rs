//! What is fuzzed: for each target what must hold of any input, and the words that
//! make inputs get far.

#[path = "config.rs"]
mod config;
#[path = "events.rs"]
mod events;
#[path = "house.rs"]
mod house;
#[path = "lines.rs"]
mod lines;
#[path = "params.rs"]
mod params;
#[path = "peer.rs"]
mod peer;
#[path = "redact.rs"]
mod redact;

pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Panics where a promise is broken.
    pub(crate) run: fn(&[u8]),
    pub(crate) words: &'static [&'static str],
}

const TARGETS: [Target; 8] = [
    Target { name: "lines", run: lines::run, words: lines::WORDS },
    Target { name: "peer", run: peer::run, words: lines::WORDS },
    Target { name: "events", run: events::run, words: events::WORDS },
    Target { name: "config", run: config::run, words: config::WORDS },
    Target { name: "redact", run: redact::run, words: redact::WORDS },
    Target { name: "params", run: params::run, words: params::WORDS },
    Target { name: "http", run: house::http, words: house::HTTP_WORDS },
    Target { name: "control", run: house::control, words: house::CONTROL_WORDS },
];

pub(crate) fn of(name: &str) -> &'static Target {
    let found = TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("no target {name:?}; targets are: {}", TARGETS.map(|target| target.name).join(", ")))
}
