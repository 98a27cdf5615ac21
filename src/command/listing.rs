//! What `failures` and `events` have in common: a page of rows, the newest last, and
//! the rows that follow.

use std::{
    io::{self, Write},
    process::ExitCode,
    thread,
    time::Duration,
};

use clap::Args;
use serde::Serialize;

use super::print::{Cell, Columns, Style, moment};
use crate::{
    say::{self, note},
    store::{ReadError, Reader, Table},
};

const POLL_EVERY: Duration = Duration::from_millis(500);

/// A table that can be listed.
pub(super) trait Listing {
    type Row: Serialize;
    const TABLE: Table;
    const HEADER: &'static [&'static str];

    /// The newest rows, or without a bound those stored after `after_seq`.
    fn rows(&self, reader: &Reader, after_seq: Option<i64>) -> Result<Vec<Self::Row>, ReadError>;
    fn seq(row: &Self::Row) -> i64;
    fn cells(row: &Self::Row, style: &Style) -> Vec<Cell>;
}

// How much of it, and in what form: with `//`, for clap takes a doc comment here for the
// help of the command.
#[derive(Args, Clone, Debug)]
pub(super) struct Extent {
    /// Only since then: 2h, 90m, 3d, 14:30, 2026-11-24, "2026-11-24 14:30"
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    pub(super) since: Option<i64>,
    /// At most so many, the newest
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u32,
    /// Go on printing new ones as they come
    #[arg(long, short)]
    follow: bool,
    /// One JSON object a line, with every column
    #[arg(long)]
    json: bool,
}

impl Extent {
    /// What follows is not bounded: every row is wanted once.
    pub(super) fn limit(&self, after_seq: Option<i64>) -> Option<u32> {
        after_seq.is_none().then_some(self.limit)
    }

    fn form(&self) -> Form {
        if self.json { Form::Json } else { Form::Table }
    }
}

/// How to show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Table,
    /// One object a line, complete and as it is stored.
    Json,
}

pub(super) fn run<L: Listing>(listing: &L, reader: &Reader, extent: &Extent) -> anyhow::Result<ExitCode> {
    let mut page = Page::new(listing, say::out(), Style::of_stdout(), extent.form());
    let mut seen = reader.last_seq(L::TABLE)?;
    page.first(reader, seen)??;
    if page.printed == 0 && !extent.follow {
        note!("nothing found");
    }
    while extent.follow && page.out.is_heard() {
        thread::sleep(POLL_EVERY);
        page.next(reader, &mut seen)??;
    }
    Ok(ExitCode::SUCCESS)
}

/// The output so far.
struct Page<'a, L: Listing, W> {
    listing: &'a L,
    out: W,
    style: Style,
    form: Form,
    columns: Columns,
    printed: usize,
}

impl<'a, L: Listing, W: Write> Page<'a, L, W> {
    fn new(listing: &'a L, out: W, style: Style, form: Form) -> Self {
        Page { listing, out, style, form, columns: Columns::new(L::HEADER), printed: 0 }
    }

    /// The newest rows, of those stored up to `seen`.
    fn first(&mut self, reader: &Reader, seen: i64) -> Result<io::Result<()>, ReadError> {
        let mut rows = self.listing.rows(reader, None)?;
        rows.retain(|row| L::seq(row) <= seen);
        Ok(self.print(&rows))
    }

    /// The rows stored after `seen`, which moves on.
    fn next(&mut self, reader: &Reader, seen: &mut i64) -> Result<io::Result<()>, ReadError> {
        match reader.last_seq(L::TABLE) {
            // The database was made anew, and its rows count from the beginning.
            Ok(last) if last < *seen => *seen = 0,
            Ok(_) => {}
            // It is being made anew just now.
            Err(ReadError::NoDatabase(_) | ReadError::NoTables(_)) => return Ok(Ok(())),
            Err(error) => return Err(error),
        }
        let rows = self.listing.rows(reader, Some(*seen))?;
        if let Some(last) = rows.last() {
            *seen = L::seq(last);
        }
        Ok(self.print(&rows))
    }

    fn print(&mut self, rows: &[L::Row]) -> io::Result<()> {
        match self.form {
            Form::Json => {
                for row in rows {
                    serde_json::to_writer(&mut self.out, row)?;
                    writeln!(self.out)?;
                }
            }
            Form::Table => {
                let cells: Vec<Vec<Cell>> = rows.iter().map(|row| L::cells(row, &self.style)).collect();
                self.columns.widen(&cells);
                if self.printed == 0
                    && let Some(first) = cells.first()
                {
                    let header: Vec<Cell> = L::HEADER.iter().zip(first).map(|(name, cell)| cell.header(name)).collect();
                    writeln!(self.out, "{}", self.columns.line(&header, &self.style))?;
                }
                for row in &cells {
                    writeln!(self.out, "{}", self.columns.line(row, &self.style))?;
                }
            }
        }
        self.printed += rows.len();
        self.out.flush()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::command::print::tests::plain;

    /// What is printed at first, and then of the rows that `meanwhile` makes.
    pub(in crate::command) fn printed<L: Listing>(
        listing: &L,
        reader: &Reader,
        form: Form,
        meanwhile: impl FnOnce(),
    ) -> (String, String) {
        let mut page = Page::new(listing, Vec::new(), plain(), form);
        let mut seen = reader.last_seq(L::TABLE).expect("seq");
        page.first(reader, seen).expect("read").expect("printed");
        let first = String::from_utf8(std::mem::take(&mut page.out)).expect("UTF-8");
        meanwhile();
        page.next(reader, &mut seen).expect("read").expect("printed");
        (first, String::from_utf8(page.out).expect("UTF-8"))
    }
}
