//! The tables, as Markdown, and where they are written.

use std::{fmt, time::Duration};

use crate::{
    lane::IN_FLIGHT,
    machine,
    measure::{Numbers, Row},
    shape::SHAPES,
};

pub(crate) struct Report {
    /// The first one is the ceiling, where it was measured.
    pub(crate) rows: Vec<Row>,
    pub(crate) rounds: u32,
    pub(crate) time: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (machine, rounds, seconds) = (machine::describe(), self.rounds, self.time.as_secs_f64());
        writeln!(f, "{machine}; best of {rounds} round(s) of {seconds} s, no errors.")?;
        let ceiling = self.rows.first().filter(|row| row.name.starts_with("ceiling"));
        for (place, shape) in SHAPES.iter().enumerate() {
            writeln!(f, "\n**{}**\n", shape.name)?;
            writeln!(f, "| | median µs | x | p99 µs | calls/s at {IN_FLIGHT} | of ceiling | CPU µs a call |")?;
            writeln!(f, "|---|---:|---:|---:|---:|---:|---:|")?;
            for row in &self.rows {
                line(f, &row.name, &row.numbers[place], ceiling.map(|ceiling| &ceiling.numbers[place]))?;
            }
        }
        writeln!(f, "\n**The process**\n")?;
        writeln!(f, "| | start to first tools/list, ms | resident idle, MiB | resident at most, MiB |")?;
        writeln!(f, "|---|---:|---:|---:|")?;
        for row in &self.rows {
            let startup_ms = row.startup.as_secs_f64() * 1000.0;
            let (idle, peak) = (mib(row.idle_kib), mib(row.peak_kib));
            writeln!(f, "| {} | {startup_ms:.1} | {idle} | {peak} |", row.name)?;
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, numbers: &Numbers, ceiling: Option<&Numbers>) -> fmt::Result {
    let ratio = |own: Option<f64>, theirs: Option<f64>, digits: usize| match (own, theirs) {
        (Some(own), Some(theirs)) if theirs > 0.0 => format!("{:.digits$}", own / theirs),
        _ => "–".to_owned(),
    };
    let micros = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1e6);
    let shown = |number: Option<f64>| number.map_or("–".to_owned(), |number| grouped(number.round()));
    writeln!(
        f,
        "| {name} | {} | {} | {} | {} | {} | {} |",
        shown(micros(numbers.median)),
        ratio(micros(numbers.median), ceiling.and_then(|ceiling| micros(ceiling.median)), 1),
        shown(micros(numbers.p99)),
        shown(numbers.per_second),
        ratio(numbers.per_second, ceiling.and_then(|ceiling| ceiling.per_second), 2),
        micros(numbers.cpu).map_or("–".to_owned(), |cpu| format!("{cpu:.1}")),
    )
}

fn mib(kib: Option<u64>) -> String {
    kib.map_or("–".to_owned(), |kib| format!("{:.1}", kib as f64 / 1024.0))
}

/// 1234567 as 1 234 567.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}
