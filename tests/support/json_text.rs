//! JSON as text, taken apart and put together. No number is ever read as one, no string
//! as one: what is compared is what was written.

/// A member of an object: its key with quotes, and its value.
pub type Member = (String, String);

pub fn object(members: &[Member]) -> String {
    let members: Vec<String> = members.iter().map(|(key, value)| format!("{key}:{value}")).collect();
    format!("{{{}}}", members.join(","))
}

/// Without the blanks between tokens, which mean nothing.
pub fn compact(json: &str) -> String {
    let (mut out, mut at) = (String::with_capacity(json.len()), 0);
    while at < json.len() {
        let end = end_of_token(json, at);
        if !json[at..end].trim().is_empty() {
            out.push_str(&json[at..end]);
        }
        at = end;
    }
    out
}

/// A string is one token; anything else, one byte.
fn end_of_token(json: &str, at: usize) -> usize {
    if json.as_bytes()[at] != b'"' {
        return at + 1;
    }
    let mut at = at + 1;
    loop {
        let next = memchr::memchr2(b'"', b'\\', &json.as_bytes()[at..]).expect("a string ends");
        match json.as_bytes()[at + next] {
            b'"' => return at + next + 1,
            _ => at += next + 2,
        }
    }
}

/// The members of a compact object as they are written, in their order.
pub fn taken_apart(object: &str) -> Vec<Member> {
    let inner = object.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let inner = inner.unwrap_or_else(|| panic!("no object: {object}"));
    let (mut members, mut from, mut colon, mut depth, mut at) = (Vec::new(), 0, None, 0, 0);
    while at <= inner.len() {
        let byte = inner.as_bytes().get(at).copied().unwrap_or(b',');
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b':' if depth == 0 && colon.is_none() => colon = Some(at),
            b',' if depth == 0 => {
                if let Some(colon) = colon.take() {
                    members.push((inner[from..colon].to_owned(), inner[colon + 1..at].to_owned()));
                }
                from = at + 1;
            }
            _ => {}
        }
        at = if at < inner.len() { end_of_token(inner, at) } else { at + 1 };
    }
    members
}

pub fn member<'a>(members: &'a [Member], key: &str) -> Option<&'a str> {
    members.iter().find(|(name, _)| name[1..name.len() - 1] == *key).map(|(_, value)| value.as_str())
}
