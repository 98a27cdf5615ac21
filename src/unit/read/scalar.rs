//! What the text of an XML element or entity stands for.

use plist::{Date, Value};

/// The character that `&name;` stands for.
pub(super) fn entity(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = name.strip_prefix('#')?;
            let number = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            // XML has no such character, and a path that holds it is none.
            char::from_u32(number.ok()?).filter(|c| *c != '\0')?
        }
    })
}

/// What an element of this name holds; `None` where it cannot. What data say is not kept,
/// only that they are some.
pub(super) fn scalar(name: &str, content: &str) -> Option<Value> {
    let word = content.trim();
    Some(match name {
        "string" => Value::String(content.to_owned()),
        "integer" => return integer(word),
        "real" => Value::Real(word.parse().ok()?),
        "date" => Value::Date(Date::from_xml_format(word).ok()?),
        _ => {
            let is_data = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c) || c.is_ascii_whitespace();
            content.chars().all(is_data).then_some(Value::Data(Vec::new()))?
        }
    })
}

/// Decimal, or hexadecimal with 0x.
fn integer(word: &str) -> Option<Value> {
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", word.strip_prefix('+').unwrap_or(word)),
    };
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let signed = i64::from_str_radix(&format!("{sign}{digits}"), radix).map(Value::from);
    signed.ok().or_else(|| u64::from_str_radix(digits, radix).ok().filter(|_| sign.is_empty()).map(Value::from))
}
