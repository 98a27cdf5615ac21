//! What a GET asks for: filters, how many, and after which place.

use jiff::{Timestamp, tz::TimeZone};

use crate::{store::intake::IntakeFilter, text};

const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 1000;
const KEYS: [&str; 7] = ["type", "category", "service", "since", "until", "limit", "cursor"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) filter: IntakeFilter,
    pub(super) limit: u32,
    /// `None` asks for the newest.
    pub(super) cursor: Option<Cursor>,
}

/// A place in one file: what comes after it is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) epoch: String,
    pub(super) seq: i64,
}

impl Cursor {
    /// `0` is the very beginning of whatever file there is.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "0" {
            return Some(Cursor { epoch: String::new(), seq: 0 });
        }
        let (epoch, seq) = text.split_once('.')?;
        let is_epoch = !epoch.is_empty() && epoch.len() <= 32 && epoch.chars().all(|c| c.is_ascii_alphanumeric());
        let seq = seq.parse().ok().filter(|seq| *seq >= 0)?;
        is_epoch.then(|| Cursor { epoch: epoch.to_owned(), seq })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.epoch.is_empty() {
            true => f.write_str("0"),
            false => write!(f, "{}.{}", self.epoch, self.seq),
        }
    }
}

/// Understands the part after the question mark; an error is a sentence.
pub(super) fn parse(query: &str, now: Timestamp) -> Result<Question, String> {
    let mut question = Question { filter: IntakeFilter::default(), limit: LIMIT_DEFAULT, cursor: None };
    let filter = &mut question.filter;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value).ok_or_else(|| format!("{}: is not UTF-8 in %XX", text::quote(key, 40)))?;
        match key {
            "type" | "event_type" => filter.event_type = Some(value),
            "category" => filter.category = Some(value),
            "service" | "service_name" => filter.service_name = Some(value),
            "since" => filter.since_ms = Some(moment(key, &value, now)?),
            "until" => filter.until_ms = Some(moment(key, &value, now)?),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                question.limit = limit.ok_or_else(|| format!("limit: write a whole number from 1 to {LIMIT_MAX}"))?;
            }
            "cursor" => {
                let cursor = Cursor::parse(&value);
                question.cursor =
                    Some(cursor.ok_or("cursor: is none; write the \"next\" of an answer, or 0 for the beginning")?);
            }
            _ => return Err(format!("{}: no such parameter; there are {}", text::quote(key, 40), KEYS.join(", "))),
        }
    }
    Ok(question)
}

/// Unix milliseconds, RFC 3339, a date, or how long ago.
fn moment(key: &str, value: &str, now: Timestamp) -> Result<i64, String> {
    let ms = value.parse().ok();
    let time = || value.parse::<Timestamp>().ok().map(Timestamp::as_millisecond);
    let date = || {
        let date: jiff::civil::Date = value.parse().ok()?;
        TimeZone::system().to_timestamp(date.at(0, 0, 0, 0)).ok().map(Timestamp::as_millisecond)
    };
    let ago = || now.checked_sub(humantime::parse_duration(value).ok()?).ok().map(Timestamp::as_millisecond);
    ms.or_else(time).or_else(ago).or_else(date).ok_or_else(|| {
        format!("{key}: is no time; write Unix milliseconds, 2026-11-24T12:00:00Z, 2026-11-24 or how long ago: 2h")
    })
}

/// `%41+b` is `A b`.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                bytes.push(digit(high)? * 16 + digit(low)?);
                rest = after;
            }
            (b'%', _) => return None,
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().expect("a time")
    }

    #[test]
    fn filters_are_read_with_their_escapes() {
        let question = parse("type=a%2Fb&service=x+y&category=%C3%A9&since=1h&until=5000&limit=7&cursor=abc.12", now());
        let question = question.expect("good");
        let filter = question.filter;
        assert_eq!(
            (filter.event_type.as_deref(), filter.service_name.as_deref(), filter.category.as_deref()),
            (Some("a/b"), Some("x y"), Some("é"))
        );
        assert_eq!((filter.since_ms, filter.until_ms), (Some(now().as_millisecond() - 3_600_000), Some(5000)));
        assert_eq!((question.limit, question.cursor), (7, Some(Cursor { epoch: "abc".into(), seq: 12 })));
        assert_eq!(parse("", now()).expect("good").limit, LIMIT_DEFAULT);
    }

    #[test]
    fn times_may_be_written_in_four_ways() {
        let midnight = TimeZone::system().to_timestamp(jiff::civil::date(2026, 11, 24).at(0, 0, 0, 0)).expect("a time");
        for (written, ms) in [
            ("2026-11-24", midnight.as_millisecond()),
            ("1970-01-01T00:00:01Z", 1000),
            ("17", 17),
            ("1s", now().as_millisecond() - 1000),
        ] {
            assert_eq!(moment("since", written, now()), Ok(ms), "{written}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, expected) in [
            ("tipe=x", "tipe: no such parameter; there are type"),
            ("limit=0", "limit: write a whole number"),
            ("limit=1001", "limit: write a whole number"),
            ("since=yesterday", "since: is no time"),
            ("cursor=7", "cursor: is none"),
            ("cursor=a.-1", "cursor: is none"),
            ("type=%zz", "type: is not UTF-8"),
            ("type=%ff", "type: is not UTF-8"),
        ] {
            let error = parse(query, now()).expect_err(query);
            assert!(error.starts_with(expected), "{query}: {error}");
        }
    }

    #[test]
    fn a_cursor_comes_back_as_it_was_given() {
        let cursor = Cursor { epoch: "1qr46d".into(), seq: 9 };
        assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor));
        let beginning = Cursor::parse("0").expect("the beginning");
        assert_eq!((beginning.seq, beginning.to_string().as_str()), (0, "0"));
    }
}
