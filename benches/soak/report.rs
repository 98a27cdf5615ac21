//! What a run says, as Markdown, and where it is written.

use std::{fmt, time::Duration};

use crate::machine;

/// The result of one run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    text: String,
    complaints: Vec<String>,
}

impl Report {
    pub(crate) fn say(&mut self, text: impl fmt::Display) {
        self.text += &format!("{text}\n");
    }

    pub(crate) fn blame(&mut self, complaints: impl IntoIterator<Item = String>) {
        self.complaints.extend(complaints);
    }

    /// For what must be so.
    pub(crate) fn demand(&mut self, is_so: bool, otherwise: impl fmt::Display) {
        if !is_so {
            self.complaints.push(otherwise.to_string());
        }
    }

    pub(crate) fn is_good(&self) -> bool {
        self.complaints.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the path of the program, which says where somebody keeps their files.
        let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
        let profile = if cfg!(debug_assertions) { "--profile dev " } else { "" };
        writeln!(f, "`cargo bench {profile}--bench soak -- {}`", words.join(" "))?;
        writeln!(f, "\non {}.\n", machine::describe())?;
        writeln!(f, "{}", self.text.trim_end())?;
        if self.complaints.is_empty() {
            return writeln!(f, "\nPassed.");
        }
        writeln!(f, "\n**Failed:**\n")?;
        self.complaints.iter().try_for_each(|complaint| writeln!(f, "- {complaint}"))
    }
}

/// A table of one line.
pub(crate) fn times(what: &str, times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |percent: usize| {
        let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    let (count, median, p99, most) = (times.len(), at(50), at(99), at(100));
    format!(
        "| {what} | median | p99 | most |\n|---|---:|---:|---:|\n| ms, of {count} | {median:.1} | {p99:.1} | {most:.1} |\n"
    )
}
