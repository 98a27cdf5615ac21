//! Whatever bytes come in, the parsers of what others write hold their promises: no
//! panic, no hang, and what each target below says beside that.
//!
//! Every run plays the corpus (`fixtures/fuzz/TARGET/*`) and a fixed number of inputs
//! made from it, the same ones each time. `SEAWALL_FUZZ_SECONDS=300 cargo test --release
//! --test fuzz` goes on for so long with ever new ones.

#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/targets.rs"]
mod targets;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mutate::Mutator;
use targets::Target;

/// The same inputs in every run.
const SEED: u64 = 0x5EA_3A11;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/fuzz").join(target);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("every target has a corpus")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.iter().map(|file| fs::read(file).expect("a file")).collect()
}

/// Says which input it was, and keeps it.
fn play(target: &Target, input: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        let digest = input
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        let file = std::env::temp_dir().join(format!("seawall-fuzz-{}-{digest:016x}", target.name));
        fs::write(&file, input).expect("the temporary folder takes files");
        eprintln!("{}: this input fails, kept as {}:\n{}", target.name, file.display(), input.escape_ascii());
        resume_unwind(panic);
    }
}

fn fuzz(name: &str, cases: u32) {
    let target = targets::of(name);
    let corpus = corpus(name);
    corpus.iter().for_each(|input| play(target, input));
    let mut mutator = Mutator::new(SEED, &corpus, target.words);
    for _ in 0..cases {
        play(target, &mutator.next_input());
    }
    let Ok(seconds) = std::env::var("SEAWALL_FUZZ_SECONDS") else { return };
    let until = Instant::now() + Duration::from_secs(seconds.parse().expect("SEAWALL_FUZZ_SECONDS is a number"));
    let seed = rand::random();
    let mut mutator = Mutator::new(seed, &corpus, target.words);
    let mut executions = 0_u64;
    while Instant::now() < until {
        play(target, &mutator.next_input());
        executions += 1;
    }
    eprintln!("{name}: {executions} inputs from seed {seed:#x}");
}

#[test]
fn lines_of_a_server() {
    fuzz("lines", 5_000);
}

#[test]
fn a_servers_side_of_a_connection() {
    fuzz("peer", 1_000);
}

#[test]
fn event_streams() {
    fuzz("events", 5_000);
}

#[test]
fn servers_toml() {
    fuzz("config", 1_500);
}

#[test]
fn redaction() {
    fuzz("redact", 300);
}

#[test]
fn arguments_that_are_repeated_in_headers() {
    fuzz("params", 3_000);
}

#[test]
fn connections_to_the_http_front() {
    fuzz("http", 300);
}

#[test]
fn connections_to_the_control_socket() {
    fuzz("control", 200);
}
