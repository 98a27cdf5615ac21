//! How commands look: local times, aligned columns, colour where it is wanted.
//!
//! Text that came from a server reaches a terminal only through here or `text`.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal},
    time::Duration,
};

use jiff::{Timestamp, civil, tz::TimeZone};

use crate::{id::unix_ms, text};

/// What stdout is like.
#[derive(Clone, Debug)]
pub(super) struct Style {
    pub(super) colour: bool,
    pub(super) zone: TimeZone,
    /// Columns of the terminal; lines that go elsewhere are not cut.
    pub(super) width: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Plain,
    Bold,
    Dim,
    Red,
    Yellow,
}

impl Style {
    pub(super) fn of_stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        let width = terminal.then(|| rustix::termios::tcgetwinsize(io::stdout()).ok()).flatten();
        Style {
            colour: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            zone: TimeZone::system(),
            width: width.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0),
        }
    }

    pub(super) fn paint(&self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Bold => "1",
            Colour::Dim => "2",
            Colour::Red => "31",
            Colour::Yellow => "33",
            Colour::Plain => return text.to_owned(),
        };
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// `2026-11-24 20:34:05`, local.
    pub(super) fn time(&self, unix_ms: i64) -> String {
        self.formatted(unix_ms, "%Y-%m-%d %H:%M:%S")
    }

    /// `Tuesday 24 November 2026, 20:34:05`, local.
    pub(super) fn time_in_words(&self, unix_ms: i64) -> String {
        self.formatted(unix_ms, "%A %-d %B %Y, %H:%M:%S")
    }

    /// `20:34:05`, local.
    pub(super) fn time_of_day(&self, unix_ms: i64) -> String {
        self.formatted(unix_ms, "%H:%M:%S")
    }

    fn formatted(&self, unix_ms: i64, format: &str) -> String {
        match Timestamp::from_millisecond(unix_ms) {
            Ok(time) => self.zone.to_datetime(time).strftime(format).to_string(),
            Err(_) => format!("{unix_ms} ms"),
        }
    }
}

/// The text of one place in a table.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    colour: Colour,
    right: bool,
}

impl Cell {
    /// Any text: it becomes harmless and one line.
    pub(super) fn of(text: &str) -> Self {
        Cell { text: text::quote(text, CELL_MAX_CHARS), colour: Colour::Plain, right: false }
    }

    /// The head of the column of this cell.
    pub(super) fn header(&self, name: &str) -> Self {
        Cell { text: name.to_owned(), colour: Colour::Dim, right: self.right }
    }

    pub(super) fn painted(mut self, colour: Colour) -> Self {
        self.colour = colour;
        self
    }

    pub(super) fn on_the_right(mut self) -> Self {
        self.right = true;
        self
    }
}

const CELL_MAX_CHARS: usize = 2000;
/// Below this a last column is not cut to the terminal but wraps.
const LAST_MIN_CHARS: usize = 20;

/// The widths of columns, which only grow, so that rows that follow stay in line.
#[derive(Debug)]
pub(super) struct Columns(Vec<usize>);

impl Columns {
    pub(super) fn new(header: &[&str]) -> Self {
        Columns(header.iter().map(|name| name.chars().count()).collect())
    }

    pub(super) fn widen(&mut self, rows: &[Vec<Cell>]) {
        for row in rows {
            for (width, cell) in self.0.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
    }

    pub(super) fn line(&self, row: &[Cell], style: &Style) -> String {
        let mut line = String::new();
        let mut used = 0;
        for (i, (cell, width)) in row.iter().zip(&self.0).enumerate() {
            let is_last = i + 1 == row.len();
            let room = style.width.map(|width| width.saturating_sub(used)).filter(|room| *room >= LAST_MIN_CHARS);
            let text = match room {
                Some(room) if is_last => cut(&cell.text, room),
                _ => cell.text.clone(),
            };
            let padding = if is_last { 0 } else { width.saturating_sub(text.chars().count()) };
            let (before, after) = if cell.right { (padding, 0) } else { (0, padding) };
            let _ = write!(line, "{:before$}{}{:after$}", "", style.paint(cell.colour, &text), "");
            if !is_last {
                line.push_str("  ");
            }
            used += width + 2;
        }
        line
    }
}

fn cut(text: &str, max_chars: usize) -> String {
    if text.chars().count() <= max_chars {
        return text.to_owned();
    }
    text.chars().take(max_chars.saturating_sub(1)).chain(['…']).collect()
}

/// A duration between two times, in words.
pub(super) fn between(earlier_ms: i64, later_ms: i64) -> String {
    text::duration(Duration::from_millis(later_ms.abs_diff(earlier_ms)))
}

pub(super) fn now_ms() -> i64 {
    i64::try_from(unix_ms()).unwrap_or(i64::MAX)
}

/// A moment for `--since`, as Unix milliseconds: how long ago (`2h`, `90m`, `1d 12h`),
/// a time of day (`14:30`, the latest one), a date, or a date and time.
pub(super) fn moment(text: &str) -> Result<i64, String> {
    moment_at(text, Timestamp::now(), &TimeZone::system()).ok_or_else(|| {
        format!("\"{text}\" is no moment: write how long ago (2h, 90m, 3d), or when (14:30, 2026-11-24, \"2026-11-24 14:30\")")
    })
}

fn moment_at(text: &str, now: Timestamp, zone: &TimeZone) -> Option<i64> {
    let text = text.trim();
    if let Ok(ago) = text.parse::<jiff::Span>() {
        let ago = ago.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok()?;
        return now.checked_sub(ago.abs()).ok().map(Timestamp::as_millisecond);
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.as_millisecond());
    }
    let at = |when: civil::DateTime| zone.to_timestamp(when).ok();
    let is_time_of_day = text.len() <= "14:30:05".len() && text.contains(':');
    if is_time_of_day && let Ok(time) = text.parse::<civil::Time>() {
        let today = zone.to_datetime(now).date();
        let then = at(today.to_datetime(time))?;
        let then = if then <= now { then } else { at(today.yesterday().ok()?.to_datetime(time))? };
        return Some(then.as_millisecond());
    }
    // Of a date alone this is its first moment.
    text.parse::<civil::DateTime>().ok().and_then(at).map(Timestamp::as_millisecond)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What a file gets: no colour, no width, one zone for all machines.
    pub(in crate::command) fn plain() -> Style {
        Style { colour: false, zone: TimeZone::UTC, width: None }
    }

    #[test]
    fn moments_are_understood_as_people_write_them() {
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().expect("a time");
        let understood = |text: &str| {
            let moment = moment_at(text, now, &TimeZone::fixed(jiff::tz::offset(1)));
            moment.map(|ms| Timestamp::from_millisecond(ms).expect("in range").to_string())
        };
        for (text, expected) in [
            ("2h", "2026-11-24T10:00:00Z"),
            ("90m", "2026-11-24T10:30:00Z"),
            ("1d 12h", "2026-11-23T00:00:00Z"),
            ("2w", "2026-11-10T12:00:00Z"),
            ("12:30", "2026-11-24T11:30:00Z"),
            ("14:30", "2026-11-23T13:30:00Z"),
            ("2026-11-24", "2026-11-23T23:00:00Z"),
            ("2026-11-24 01:00", "2026-11-24T00:00:00Z"),
            ("2026-11-24T01:00:00Z", "2026-11-24T01:00:00Z"),
        ] {
            assert_eq!(understood(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "yesterday", "2", "-", "25:99"] {
            assert_eq!(understood(text), None, "{text}");
        }
    }

    #[test]
    fn columns_align_and_only_the_last_is_cut_to_the_terminal() {
        let row = |a: &str, b: &str, c: &str| vec![Cell::of(a), Cell::of(b).on_the_right(), Cell::of(c)];
        let rows = [row("files", "5 s", "it\nbroke"), row("a-longer-name", "120 s", "it did not answer within 120 s")];
        let mut columns = Columns::new(&["SERVER", "TOOK", "MESSAGE"]);
        columns.widen(&rows);
        let style = Style { width: Some(45), ..plain() };
        assert_eq!(columns.line(&rows[0], &style), "files            5 s  it\\nbroke");
        assert_eq!(columns.line(&rows[1], &style), "a-longer-name  120 s  it did not answer with…");
        assert_eq!(columns.line(&rows[1], &plain()), "a-longer-name  120 s  it did not answer within 120 s");
    }

    #[test]
    fn colour_does_not_disturb_the_columns() {
        let style = Style { colour: true, ..plain() };
        let row = vec![Cell::of("a").painted(Colour::Red), Cell::of("b")];
        assert_eq!(Columns::new(&["ONE", "TWO"]).line(&row, &style), "\u{1b}[31ma\u{1b}[0m    b");
    }
}
