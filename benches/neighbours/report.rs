//! The table, as Markdown, and where it is written.

use std::{fmt, fs, time::Duration};

use crate::machine;

pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) rounds: u32,
    pub(crate) turn: Duration,
}

pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// A tool of another server.
    pub(crate) other: Ratio,
    /// A tool of the failing server's own process.
    pub(crate) same: Option<Ratio>,
}

/// Quiet, and while the neighbour fails.
pub(crate) struct Ratio {
    pub(crate) median: (Duration, Duration),
    pub(crate) p99: (Duration, Duration),
    pub(crate) calls: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (machine, rounds, turn) = (machine::describe(), self.rounds, self.turn.as_millis());
        let busy = load().map(|load| format!(", {load} others running on average")).unwrap_or_default();
        writeln!(f, "{machine}; {rounds} pairs of turns of {turn} ms{busy}; every call was answered.\n")?;
        writeln!(
            f,
            "| neighbour | median µs, quiet and failing | x | p99 µs, quiet and failing | x | same server: median x | p99 x | calls |"
        )?;
        writeln!(f, "|---|---:|---:|---:|---:|---:|---:|---:|")?;
        for Row { name, other, same } in &self.rows {
            let of_same = |pick: fn(&Ratio) -> (Duration, Duration)| {
                same.as_ref().map_or("–".to_owned(), |same| times(pick(same)))
            };
            writeln!(
                f,
                "| {name} | {} | {} | {} | {} | {} | {} | {} |",
                both(other.median),
                times(other.median),
                both(other.p99),
                times(other.p99),
                of_same(|same| same.median),
                of_same(|same| same.p99),
                other.calls + same.as_ref().map_or(0, |same| same.calls),
            )?;
        }
        Ok(())
    }
}

fn both((quiet, failing): (Duration, Duration)) -> String {
    format!("{}, {}", quiet.as_micros(), failing.as_micros())
}

fn times((quiet, failing): (Duration, Duration)) -> String {
    format!("{:.2}", failing.as_secs_f64() / quiet.as_secs_f64().max(1e-9))
}

/// Processes that wanted to run, on average of the last minute.
fn load() -> Option<String> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next().map(str::to_owned)
}
