//! The table, as Markdown, and where it is written.

use std::{fmt, fs, time::Duration};

use crate::machine;

pub(crate) struct Report {
    pub(crate) tables: Vec<Table>,
    pub(crate) starts: u32,
}

pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) starts: u32,
    /// The first is what the others are compared with.
    pub(crate) rows: Vec<Row>,
}

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) median: Duration,
    pub(crate) least: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let busy = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let busy = busy.split(' ').next().unwrap_or_default();
        let who = if rustix::process::geteuid().is_root() { "root" } else { "an ordinary user" };
        writeln!(f, "{}; as {who}, {} starts, {busy} processes running on average.", machine::describe(), self.starts)?;
        for Table { name, starts, rows } in &self.tables {
            writeln!(f, "\n**{name}** ({starts} starts of each)\n")?;
            writeln!(f, "| started as | median ms | added ms | x | fastest ms | added ms | x |")?;
            writeln!(f, "|---|---:|---:|---:|---:|---:|---:|")?;
            let base = &rows[0];
            for row in rows {
                let (median, least) = (cells(row.median, base.median), cells(row.least, base.least));
                writeln!(f, "| {} | {median} | {least} |", row.name)?;
            }
        }
        Ok(())
    }
}

fn cells(took: Duration, base: Duration) -> String {
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    let (took, base) = (ms(took), ms(base));
    format!("{took:.1} | {:.1} | {:.2}", took - base, took / base.max(1e-6))
}
