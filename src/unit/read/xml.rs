//! The XML form, which is a small part of XML: a dozen elements, no attribute that means
//! anything, no entity of one's own.

use plist::Value;

use super::{
    Builder, List, Shape, Trouble,
    scalar::{entity, scalar},
    unreadable,
};
use crate::text::quote;

pub(super) const NOT_ONE: &str =
    "is neither an XML nor a binary property list; `plutil -convert xml1` makes one of other forms";

/// Of what keeps nobody from reading on; who mends these will ask again.
const TROUBLES_MAX: usize = 50;

pub(super) fn read(text: &str) -> List {
    if text.trim().is_empty() {
        return unreadable(Trouble::somewhere("is empty"));
    }
    if !text.trim_start().starts_with('<') {
        return unreadable(Trouble::somewhere(NOT_ONE));
    }
    let mut reader = Reader { text, at: 0, line: 1, builder: Builder::default() };
    let ended = reader.list();
    reader.builder.finished(ended)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Of `at`, counted from one.
    line: usize,
    builder: Builder,
}

/// What comes next, and where it is.
enum Token<'a> {
    /// As it stands there, entities and all.
    Text(&'a str),
    /// Of a CDATA section.
    Literal(&'a str),
    Start {
        name: &'a str,
        is_empty: bool,
    },
    End(&'a str),
    /// A comment, a declaration, an instruction.
    Nothing,
}

impl<'a> Reader<'a> {
    fn list(&mut self) -> Result<(), Trouble> {
        loop {
            let line = self.line;
            let Some(token) = self.next()? else { return self.at_the_end() };
            match token {
                Token::Nothing => {}
                Token::Text(words) | Token::Literal(words) if words.trim().is_empty() => {}
                Token::Text(words) | Token::Literal(words) => {
                    // What stands in front of it need not be in the line of what is wrong.
                    let line = line + words[..words.len() - words.trim_start().len()].matches('\n').count();
                    let words = quote(words.trim(), 40);
                    return Err(Trouble::at(line, format!("has \"{words}\" between its elements")));
                }
                Token::Start { name, is_empty } => self.start(name, is_empty, line)?,
                Token::End(name) => self.end(name, line)?,
            }
        }
    }

    fn at_the_end(&self) -> Result<(), Trouble> {
        match self.builder.open.last() {
            Some(open) => {
                let began = open.line.map(|line| format!(" of line {line}")).unwrap_or_default();
                let name = name_of(open.shape());
                Err(Trouble::at(self.line, format!("breaks off: the <{name}>{began} is not closed")))
            }
            None if self.builder.list.value.is_none() => Err(Trouble::somewhere("holds no value")),
            None => Ok(()),
        }
    }

    fn start(&mut self, name: &str, is_empty: bool, line: usize) -> Result<(), Trouble> {
        let here = |message: String| Trouble::at(line, message);
        let shape = match name {
            "plist" => return Ok(()),
            "dict" => Shape::Dict,
            "array" => Shape::Array,
            "true" | "false" => {
                if !is_empty {
                    self.content(name, line)?;
                }
                return self.builder.value(Value::Boolean(name == "true")).map_err(here);
            }
            "key" | "string" | "integer" | "real" | "date" | "data" => {
                let content = if is_empty { String::new() } else { self.content(name, line)? };
                if name == "key" {
                    return self.builder.key(content, Some(line)).map_err(here);
                }
                let value = scalar(name, &content).ok_or_else(|| {
                    here(format!("has \"{}\" as <{name}>, which it is not", quote(content.trim(), 40)))
                })?;
                return self.builder.value(value).map_err(here);
            }
            _ => return Err(here(format!("has <{}>, which is no element of a property list", quote(name, 40)))),
        };
        self.builder.begin(shape, Some(line)).map_err(here)?;
        if is_empty { self.builder.end(shape).map_err(here) } else { Ok(()) }
    }

    fn end(&mut self, name: &str, line: usize) -> Result<(), Trouble> {
        let shape = match name {
            "plist" if self.builder.open.is_empty() => return Ok(()),
            "dict" => Some(Shape::Dict),
            "array" => Some(Shape::Array),
            _ => None,
        };
        let open = self.builder.open.last().map(|open| (open.shape(), open.line));
        match open {
            Some((open, _)) if Some(open) == shape => {
                self.builder.end(open).map_err(|message| Trouble::at(line, message))
            }
            Some((open, Some(began))) => {
                let (name, open) = (quote(name, 40), name_of(open));
                Err(Trouble::at(line, format!("has </{name}>, where the <{open}> of line {began} is to be closed")))
            }
            _ => Err(Trouble::at(line, format!("has </{}>, and nothing is open", quote(name, 40)))),
        }
    }

    /// What an element holds, up to its end.
    fn content(&mut self, name: &str, began: usize) -> Result<String, Trouble> {
        let mut content = String::new();
        loop {
            let line = self.line;
            match self.next()? {
                Some(Token::Text(text)) => self.resolve(text, line, &mut content),
                Some(Token::Literal(text)) => content.push_str(text),
                Some(Token::Nothing) => {}
                Some(Token::End(end)) if end == name => return Ok(content),
                Some(Token::End(inner)) => {
                    let message = format!("has </{}> within the <{name}> of line {began}", quote(inner, 40));
                    return Err(Trouble::at(line, message));
                }
                Some(Token::Start { name: inner, .. }) => {
                    let message = format!("has <{}> within <{name}>; write &lt; for <", quote(inner, 40));
                    return Err(Trouble::at(line, message));
                }
                None => {
                    return Err(Trouble::at(line, format!("breaks off: the <{name}> of line {began} is not closed")));
                }
            }
        }
    }

    /// Entities become what they stand for. An ampersand of a URL or a command makes the
    /// whole file unreadable to others, whose words for it help nobody.
    fn resolve(&mut self, text: &str, line: usize, content: &mut String) {
        let mut parts = text.split('&');
        let first = parts.next().unwrap_or_default();
        content.push_str(first);
        let mut line = line + first.matches('\n').count();
        for part in parts {
            match part.split_once(';').and_then(|(name, rest)| Some((entity(name)?, rest))) {
                Some((c, rest)) => {
                    content.push(c);
                    content.push_str(rest);
                }
                None => {
                    let is_part = |c: &char| c.is_ascii_alphanumeric() || matches!(c, ';' | '#');
                    let written: String = part.chars().take_while(is_part).take(20).collect();
                    self.complain(
                        line,
                        format!("\"&{written}\" is no entity of a property list; write &amp; for an ampersand"),
                    );
                    content.push('&');
                    content.push_str(part);
                }
            }
            line += part.matches('\n').count();
        }
    }

    fn complain(&mut self, line: usize, message: impl Into<String>) {
        let troubles = &mut self.builder.list.troubles;
        if troubles.len() < TROUBLES_MAX {
            troubles.push(Trouble::at(line, message));
        }
    }

    fn next(&mut self) -> Result<Option<Token<'a>>, Trouble> {
        let (rest, line) = (&self.text[self.at..], self.line);
        let unclosed = |what: &str| Trouble::at(line, format!("has {what} that is not closed"));
        let upto = |end: &str| rest.find(end).map(|at| at + end.len());
        if rest.is_empty() {
            return Ok(None);
        }
        if !rest.starts_with('<') {
            let length = rest.find('<').unwrap_or(rest.len());
            return Ok(Some(Token::Text(self.take(length))));
        }
        if let Some(comment) = rest.strip_prefix("<!--") {
            let length = comment.find("-->").ok_or_else(|| unclosed("a comment"))?;
            self.take("<!---->".len() + length);
            return Ok(Some(Token::Nothing));
        }
        if rest.starts_with("<![CDATA[") {
            let length = upto("]]>").ok_or_else(|| unclosed("a CDATA section"))?;
            return Ok(Some(Token::Literal(&self.take(length)[9..length - 3])));
        }
        if rest.starts_with("<?") {
            let length = upto("?>").ok_or_else(|| unclosed("an instruction"))?;
            self.take(length);
            return Ok(Some(Token::Nothing));
        }
        if rest.starts_with("<!") {
            let is_long = rest.find('>').is_some_and(|end| rest[..end].contains('['));
            let length = if is_long { upto("]>") } else { upto(">") };
            let declared = self.take(length.ok_or_else(|| unclosed("a declaration"))?);
            if let Some(at) = declared.find("<!ENTITY") {
                let line = line + declared[..at].matches('\n').count();
                self.complain(line, "defines an entity; write out what it stands for");
            }
            return Ok(Some(Token::Nothing));
        }
        let length = end_of_tag(rest).ok_or_else(|| unclosed("a tag"))?;
        let tag = &self.take(length)[1..length - 1];
        let name = |tag: &'a str| tag.split_whitespace().next().unwrap_or_default();
        Ok(Some(match (tag.strip_prefix('/'), tag.strip_suffix('/')) {
            (Some(end), _) => Token::End(name(end)),
            (None, Some(empty)) => Token::Start { name: name(empty), is_empty: true },
            (None, None) => Token::Start { name: name(tag), is_empty: false },
        }))
    }

    fn take(&mut self, length: usize) -> &'a str {
        let taken = &self.text[self.at..self.at + length];
        self.at += length;
        self.line += taken.matches('\n').count();
        taken
    }
}

/// The length of the tag that a text begins with; a `>` in an attribute does not end it.
fn end_of_tag(text: &str) -> Option<usize> {
    let mut quoted = None;
    for (at, c) in text.char_indices() {
        match (quoted, c) {
            (None, '>') => return Some(at + 1),
            (None, '<') if at > 0 => return None,
            (None, '"' | '\'') => quoted = Some(c),
            (Some(open), c) if open == c => quoted = None,
            _ => {}
        }
    }
    None
}

fn name_of(shape: Shape) -> &'static str {
    match shape {
        Shape::Dict => "dict",
        Shape::Array => "array",
    }
}
