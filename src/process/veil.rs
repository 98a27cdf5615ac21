//! What somebody was told in confidence, and what is said without it: a process may well
//! repeat the value of a variable, and a message an argument. Never says what is a secret:
//! that is its maker's word.

use std::{fmt, sync::Arc};

use serde_json::Value;

/// Names and values in all forms in which they may be repeated, the longest first: one within
/// another would leave the rest of that.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Veil(Arc<Vec<(String, String)>>);

/// A shorter value is too common a word to be hidden wherever it stands.
const HIDDEN_MIN_CHARS: usize = 8;

/// Of a value with more lines, such as many certificates, only the first are found alone.
const LINES_MAX: usize = 256;

/// A stream under a veil: a value that comes in pieces is found all the same.
#[derive(Debug)]
pub struct Stream {
    veil: Veil,
    /// Which values begin with each byte.
    by_first: Vec<Vec<usize>>,
    /// What may be the beginning of a value; shorter than the longest one.
    held: Vec<u8>,
}

impl Veil {
    /// Over the values of these variables, each shown as its name in brackets; also as JSON has
    /// them, and of those with several lines each line alone.
    pub fn over(variables: impl Iterator<Item = (String, String)>) -> Self {
        let forms = variables.flat_map(|(name, value)| forms(&value).into_iter().map(move |form| (name.clone(), form)));
        let mut hidden: Vec<_> = forms.collect();
        hidden.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        Veil(Arc::new(hidden))
    }

    /// `text` without the values.
    pub fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, value)| match text.contains(value) {
            true => text.replace(value, &format!("<{name}>")),
            false => text,
        })
    }

    /// The same of every string in it.
    pub fn hide_within(&self, value: &mut Value) {
        self.hide_but_for(&[], value);
    }

    /// The same but for members of these names: words of our own, which a value may well be.
    pub fn hide_but_for(&self, own: &[&str], value: &mut Value) {
        match value {
            Value::String(text) => *text = self.hide(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.hide_but_for(own, item)),
            Value::Object(members) => {
                let foreign = members.iter_mut().filter(|(name, _)| !own.contains(&name.as_str()));
                foreign.for_each(|(_, member)| self.hide_but_for(own, member));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    pub fn stream(&self) -> Stream {
        let mut by_first = vec![Vec::new(); 256];
        for (at, (_, value)) in self.0.iter().enumerate() {
            if let Some(begin) = value.bytes().next().and_then(|first| by_first.get_mut(usize::from(first))) {
                begin.push(at);
            }
        }
        Stream { veil: self.clone(), by_first, held: Vec::new() }
    }
}

impl Stream {
    /// What can be shown by now, with these bytes as the next ones.
    pub fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        let (shown, taken) = self.shown(false);
        self.held.drain(..taken);
        shown
    }

    /// What is left when no more comes.
    pub fn end(mut self) -> Vec<u8> {
        let (shown, _) = self.shown(true);
        self.held.clear();
        shown
    }

    /// Of what is held, all that is decided, and how many bytes of it that is.
    fn shown(&self, is_all: bool) -> (Vec<u8>, usize) {
        let mut shown = Vec::with_capacity(self.held.len());
        let mut at = 0;
        while let Some(rest @ [first, ..]) = self.held.get(at..) {
            let begin = self.by_first.get(usize::from(*first)).into_iter().flatten();
            let mut likely = begin.filter_map(|at| self.veil.0.get(*at));
            if !is_all
                && likely.clone().any(|(_, value)| value.len() > rest.len() && value.as_bytes().starts_with(rest))
            {
                break;
            }
            match likely.find(|(_, value)| rest.starts_with(value.as_bytes())) {
                Some((name, value)) => {
                    shown.extend_from_slice(format!("<{name}>").as_bytes());
                    at += value.len();
                }
                None => {
                    shown.push(*first);
                    at += 1;
                }
            }
        }
        (shown, at)
    }
}

/// As what a value may be repeated.
fn forms(value: &str) -> Vec<String> {
    let mut forms = vec![value.to_owned()];
    if value.contains('\n') {
        // A frame such as `-----BEGIN PRIVATE KEY-----` is no secret.
        let lines = value.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
        forms.extend(lines.take(LINES_MAX).map(str::to_owned));
    }
    forms.retain(|form| form.chars().count() >= HIDDEN_MIN_CHARS && !is_path(form));
    let as_json = forms.iter().map(|form| Value::from(form.as_str()).to_string());
    let unquoted = as_json.filter_map(|json| Some(json.strip_prefix('"')?.strip_suffix('"')?.to_owned()));
    let escaped: Vec<_> = unquoted.filter(|json| !forms.contains(json)).collect();
    forms.extend(escaped);
    forms
}

/// Where things are is no secret, and explains much.
fn is_path(value: &str) -> bool {
    value.starts_with('/') && std::path::Path::new(value).exists()
}

impl fmt::Debug for Veil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn veil() -> Veil {
        let variables = [("TOKEN", "s3cr3t-value"), ("LONGER", "s3cr3t-value-and-more"), ("MODE", "fast")];
        Veil::over(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter())
    }

    #[test]
    fn a_value_that_comes_in_pieces_is_hidden_and_nothing_else_is_lost() {
        let text = "fast: s3cr3t-value, s3cr3t-value-and-more; s3cr3t-valu s3s3cr3t-value\ns3cr3t-val";
        let hidden = "fast: <TOKEN>, <LONGER>; s3cr3t-valu s3<TOKEN>\ns3cr3t-val";
        assert_eq!(veil().hide(text), hidden);
        for piece in 1..text.len() {
            let mut stream = veil().stream();
            let mut shown: Vec<u8> = text.as_bytes().chunks(piece).flat_map(|bytes| stream.pass(bytes)).collect();
            shown.extend(stream.end());
            assert_eq!(String::from_utf8_lossy(&shown), hidden, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_beginning_of_a_value_is_shown_at_once() {
        let mut stream = veil().stream();
        assert_eq!(stream.pass(b"a line\ns3cr"), b"a line\n");
        assert_eq!(stream.pass(b"ipt\n"), b"s3cript\n");
        assert_eq!(Veil::default().stream().pass(b"s3cr3t"), b"s3cr3t");
    }

    #[test]
    fn a_value_is_found_as_json_has_it_and_each_of_its_lines_alone() {
        let key = "-----BEGIN KEY-----\nMIIEowIBAAKCAQEA\nshort\n  q83vEjRWeJq7zN3u \n-----END KEY-----\n";
        let variables = [("WORD", "\"pass\"word\\1\""), ("KEY", key), ("LINE", "one-line-value\n")];
        let veil = Veil::over(variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter());
        let said = serde_json::json!([variables[0].1, format!("it is {key}.")]).to_string();
        let text = format!("{said}\n{}: MIIEowIBAAKCAQEA, q83vEjRWeJq7zN3u\r\n{key}one-line-value", variables[0].1);
        let hidden = "[\"<WORD>\",\"it is <KEY>.\"]\n<WORD>: <KEY>, <KEY>\r\n<KEY><LINE>";
        assert_eq!(veil.hide(&text), hidden);
        for piece in [1, 7, text.len()] {
            let mut stream = veil.stream();
            let mut shown: Vec<u8> = text.as_bytes().chunks(piece).flat_map(|bytes| stream.pass(bytes)).collect();
            shown.extend(stream.end());
            assert_eq!(String::from_utf8_lossy(&shown), hidden, "in pieces of {piece}");
        }
        let frame = "short -----BEGIN KEY-----";
        assert_eq!(veil.hide(frame), frame);
    }

    #[test]
    fn words_of_our_own_are_no_values() {
        let mut value =
            serde_json::json!({ "own": "s3cr3t-value", "a": [{ "own": "s3cr3t-value", "b": "s3cr3t-value" }] });
        veil().hide_but_for(&["own"], &mut value);
        assert_eq!(
            value,
            serde_json::json!({ "own": "s3cr3t-value", "a": [{ "own": "s3cr3t-value", "b": "<TOKEN>" }] })
        );
    }

    #[test]
    fn every_string_is_found_and_a_veil_tells_nothing_of_itself() {
        let mut value = serde_json::json!({ "a": ["s3cr3t-value", 7], "b": { "c": "it is s3cr3t-value" } });
        veil().hide_within(&mut value);
        assert_eq!(value, serde_json::json!({ "a": ["<TOKEN>", 7], "b": { "c": "it is <TOKEN>" } }));
        assert!(!format!("{:?} {:?}", veil(), veil().stream()).contains("s3cr3t"));
    }
}
