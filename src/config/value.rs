//! The typed values of a servers.toml: durations, sizes, numbers, words, paths, URLs.
//! Each knows what to say where something else was written.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use toml_edit::Value;

use super::{
    reader::{Entry, Owner},
    secret::Secret,
    variables,
};

impl Entry<'_> {
    /// `"50s"`, `"1h 30m"`, within `allowed`.
    pub(super) fn duration(&self, allowed: RangeInclusive<Duration>) -> Option<Duration> {
        const WANTED: &str = "not a duration; write something like \"50s\" or \"5m\"";
        let Ok(duration) = humantime::parse_duration(&self.word(WANTED)?) else { return self.refuse(WANTED) };
        if allowed.contains(&duration) {
            return Some(duration);
        }
        let (from, to) = (show_duration(*allowed.start()), show_duration(*allowed.end()));
        self.refuse(format!("out of range; write a duration from \"{from}\" to \"{to}\""))
    }

    /// `"16MiB"`, `"512MB"`, or a number of bytes, within `allowed`.
    pub(super) fn size(&self, allowed: RangeInclusive<u64>) -> Option<u64> {
        const WANTED: &str = "not a size; write something like \"16MiB\", \"512MB\" or a number of bytes";
        let bytes = match self.value() {
            Some(Value::Integer(bytes)) => u64::try_from(*bytes.value()).ok(),
            _ => parse_size(&self.word(WANTED)?),
        };
        match bytes {
            Some(bytes) if allowed.contains(&bytes) => Some(bytes),
            Some(_) => self.refuse(format!(
                "out of range; write a size from \"{}\" to \"{}\"",
                show_size(*allowed.start()),
                show_size(*allowed.end())
            )),
            None => self.refuse(WANTED),
        }
    }

    pub(super) fn integer(&self, allowed: RangeInclusive<u32>) -> Option<u32> {
        let number = self.value().and_then(Value::as_integer).and_then(|number| u32::try_from(number).ok());
        match number.filter(|number| allowed.contains(number)) {
            Some(number) => Some(number),
            None => self.refuse(format!("write a whole number from {} to {}", allowed.start(), allowed.end())),
        }
    }

    pub(super) fn number(&self, allowed: RangeInclusive<f64>) -> Option<f64> {
        let number = match self.value() {
            Some(Value::Float(number)) => Some(*number.value()),
            #[expect(clippy::cast_precision_loss, reason = "the allowed numbers are small")]
            Some(Value::Integer(number)) => Some(*number.value() as f64),
            _ => None,
        };
        // NaN is in no range.
        match number.filter(|number| allowed.contains(number)) {
            Some(number) => Some(number),
            None => self.refuse(format!("write a number from {} to {}", allowed.start(), allowed.end())),
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        match self.value().and_then(Value::as_bool) {
            Some(boolean) => Some(boolean),
            None => self.refuse("write true or false, without quotes"),
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let words: Vec<_> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let wanted = format!("write {}", words.join(" or "));
        let word = self.word(&wanted)?;
        match choices.iter().find(|(choice, _)| *choice == word) {
            Some((_, value)) => Some(*value),
            None => self.refuse(wanted),
        }
    }

    /// `"off"`, which is `None`, or what `read` reads.
    pub(super) fn or_off<T>(&self, read: impl FnOnce(&Self) -> Option<T>) -> Option<Option<T>> {
        if self.is_word("off") { Some(None) } else { read(self).map(Some) }
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        self.value().and_then(Value::as_str) == Some(word)
    }

    /// A string with something in it.
    pub(super) fn nonempty(&self) -> Option<String> {
        match self.text()? {
            text if text.is_empty() => self.refuse("empty; write something or take the key out"),
            text => Some(text),
        }
    }

    pub(super) fn hidden(&self) -> Option<Secret> {
        self.secret().text().map(Secret::from)
    }

    /// A list of whatever `read` reads.
    pub(super) fn list<T>(&self, wanted: &str, read: impl Fn(&Self) -> Option<T>) -> Option<Vec<T>> {
        Some(self.items(wanted)?.iter().filter_map(read).collect())
    }

    /// A path, absolute: relative ones are of servers.toml's folder.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.nonempty().map(|written| self.locate(written))
    }

    fn locate(&self, written: String) -> PathBuf {
        match variables::resolve_path(&written, self.around(), self.folder()) {
            Ok(path) => path,
            // For people to look at: the server is parked.
            Err(why) => self.unavailable(why).unwrap_or(written.into()),
        }
    }

    pub(super) fn paths(&self) -> Option<Vec<PathBuf>> {
        self.list("not a list of paths; write [\"./notes\"]", Self::path)
    }

    /// Program and arguments. `~` expands in each; a relative program with a slash in
    /// it is of servers.toml's folder, one without is for the PATH of whoever starts it.
    pub(super) fn command(&self) -> Option<Vec<String>> {
        const WANTED: &str = "not a command; write program and arguments as a list: [\"program\", \"argument\"]";
        let items = self.items(WANTED)?;
        self.warn(self.exposed());
        let Some((program, arguments)) = items.split_first() else { return self.refuse(WANTED) };
        let program = match program.nonempty() {
            Some(name) if name.contains('/') => Some(program.locate(name).to_string_lossy().into_owned()),
            name => name,
        };
        let argument = |entry: &Self| {
            let text = entry.text()?;
            let home = variables::expand_home(&text, entry.around());
            home.map_or_else(|why| entry.unavailable(why).or(Some(text)), Some)
        };
        Some(program.into_iter().chain(arguments.iter().filter_map(argument)).collect())
    }

    /// Of a command, what would put secrets where everybody can read them.
    fn exposed(&self) -> Vec<String> {
        let Some(Value::Array(words)) = self.value() else { return Vec::new() };
        let words = words.iter().enumerate().filter_map(|(index, word)| Some((index, word.as_str()?)));
        let (key, owner) = self.key_within();
        let exposed = words.flat_map(|(index, word)| {
            variables::secrets(word).into_iter().map(move |inside| {
                let variable = shown_variable(inside);
                let instead = match owner {
                    Owner::Server => {
                        format!("where the server can take it from a variable, write env = {{ NAME = \"{variable}\" }}")
                    }
                    Owner::Service => {
                        format!(
                            "where the service can take it from a variable, write env = {{ NAME = \"{variable}\" }}"
                        )
                    }
                    Owner::Alert => "let it read that from a file".to_owned(),
                };
                format!(
                    "{key}[{index}] holds {variable}, and everybody on this machine can read the arguments of a \
                     process; {instead} instead"
                )
            })
        });
        exposed.collect()
    }

    /// An `http` or `https` URL.
    pub(super) fn url(&self) -> Option<String> {
        const WANTED: &str = "not a URL; write something like \"https://example.com/mcp\"";
        let raw = self.raw(WANTED)?;
        // Not there yet, so not to be judged: the server is parked.
        let Some(url) = self.word(WANTED) else { return Some(raw.to_owned()) };
        match reqwest::Url::parse(&url) {
            Ok(parsed) if !matches!(parsed.scheme(), "http" | "https") => {
                self.refuse("not an http or https URL; write something like \"https://example.com/mcp\"")
            }
            Ok(parsed) if parsed.has_host() => Some(url),
            _ => self.refuse(WANTED),
        }
    }

    /// Any TOML value as JSON, strings with their variables filled in.
    pub(super) fn json(&self) -> Option<serde_json::Value> {
        if self.is_table() {
            let read = |(key, entry): (&str, Self)| Some((key.to_owned(), entry.json()?));
            return self.table("", |table| table.all().into_iter().filter_map(read).collect());
        }
        match self.value() {
            Some(Value::String(_)) => self.text().map(Into::into),
            Some(Value::Integer(number)) => Some((*number.value()).into()),
            Some(Value::Float(number)) if number.value().is_finite() => Some((*number.value()).into()),
            Some(Value::Float(_)) => self.refuse("not a finite number"),
            Some(Value::Boolean(boolean)) => Some((*boolean.value()).into()),
            Some(Value::Datetime(when)) => Some(when.value().to_string().into()),
            _ => self.list("", Self::json).map(Into::into),
        }
    }
}

/// As it is written, without what may be a secret itself: a command, a default.
pub(super) fn shown_variable(inside: &str) -> String {
    let shown = match (inside.strip_prefix("cmd:"), inside.split_once(":-")) {
        (Some(_), _) => "cmd:…".to_owned(),
        (None, Some((name, _))) => format!("{name}:-…"),
        (None, None) => crate::text::quote(inside, 100),
    };
    format!("${{{shown}}}")
}

/// In the largest unit that it is a whole number of: what one would write.
pub(super) fn show_duration(duration: Duration) -> String {
    const UNITS: [(&str, u128); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let ms = duration.as_millis();
    match UNITS.into_iter().find(|(_, unit_ms)| ms != 0 && ms.is_multiple_of(*unit_ms)) {
        Some((unit, unit_ms)) => format!("{}{unit}", ms / unit_ms),
        None => "0s".to_owned(),
    }
}

/// MB is 10^6, MiB 2^20; case does not matter.
fn parse_size(text: &str) -> Option<u64> {
    const KILO: u64 = 1000;
    const KIBI: u64 = 1024;
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => KILO,
        "mb" => KILO.pow(2),
        "gb" => KILO.pow(3),
        "tb" => KILO.pow(4),
        "kib" => KIBI,
        "mib" => KIBI.pow(2),
        "gib" => KIBI.pow(3),
        "tib" => KIBI.pow(4),
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// The largest binary unit that divides it: the inverse of [`parse_size`].
fn show_size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let fits = |shift: u32| bytes != 0 && bytes.trailing_zeros() >= shift;
    match units.into_iter().find(|(_, shift)| fits(*shift)) {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal_or_binary_as_written() {
        assert_eq!(parse_size("16MiB"), Some(16 << 20));
        assert_eq!(parse_size("512MB"), Some(512_000_000));
        assert_eq!(parse_size("1 gib"), Some(1 << 30));
        assert_eq!(parse_size("7"), Some(7));
        assert_eq!(parse_size("3B"), Some(3));
        for wrong in ["", "MiB", "-1", "1.5GiB", "1 MiB x", "16M", "99999999999TiB", "１MB"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_duration_is_shown_as_one_would_write_it() {
        let shown = |ms| show_duration(Duration::from_millis(ms));
        assert_eq!([shown(0), shown(1), shown(90_000), shown(7_200_000)], ["0s", "1ms", "90s", "2h"]);
    }

    proptest::proptest! {
        #[test]
        fn a_size_that_is_shown_can_be_written_again(bytes: u64) {
            assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
        }
    }
}
