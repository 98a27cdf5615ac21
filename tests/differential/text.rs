//! JSON as text, made at random, in every spelling that JSON has.

use proptest::{collection::vec, prelude::*};

use crate::support::json_text::{Member, object};

const NUMBERS: [&str; 14] = [
    "0",
    "-0",
    "-0.0",
    "1.0",
    "0.10",
    "1e400",
    "-1E-400",
    "1e+2",
    "5e-324",
    "9007199254740993",
    "-9223372036854775809",
    "18446744073709551616",
    "123456789012345678901234567890",
    "0.1000000000000000055511151231257827021181583404541015625",
];

/// Spellings that look alike or that a string type cannot hold.
const SPELLINGS: [&str; 22] = [
    r#"\""#,
    r"\\",
    r"\/",
    "/",
    r"\b",
    r"\f",
    r"\n",
    r"\r",
    r"\t",
    r"\u0000",
    r"\u001f",
    r"\u0041",
    "A",
    r"\u2028",
    "\u{2028}",
    r"\ufeff",
    r"\uD83D\uDE00",
    "😀",
    r"\ud83d",
    r"\uDE00",
    r"\uffff",
    "\u{10ffff}",
];

fn spelled(c: char) -> String {
    match c {
        '"' | '\\' => format!("\\{c}"),
        c if c < ' ' => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    }
}

/// With its quotes.
pub(crate) fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<char>().prop_map(spelled),
        prop::sample::select(SPELLINGS.to_vec()).prop_map(str::to_owned),
        "[a-zA-Z_.$-]{1,8}",
    ];
    vec(piece, 0..6).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(NUMBERS.to_vec()).prop_map(str::to_owned),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?",
    ]
}

/// Blanks, where JSON allows them.
fn blank() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just(String::new()), 1 => "[ \t]{1,3}"]
}

/// Arrays and objects as deep as a client could mean it.
fn deep() -> impl Strategy<Value = String> {
    (1..200_usize, any::<bool>()).prop_map(|(depth, arrays)| match arrays {
        true => format!("{}{}", "[".repeat(depth), "]".repeat(depth)),
        false => format!("{}null{}", r#"{"":"#.repeat(depth), "}".repeat(depth)),
    })
}

pub(crate) fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        3 => number(),
        4 => string(),
        1 => prop::sample::select(vec!["null", "true", "false", "[]", "{}"]).prop_map(str::to_owned),
        1 => deep(),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            (vec(inner.clone(), 0..5), blank())
                .prop_map(|(items, blank)| format!("[{}]", items.join(&format!(",{blank}")))),
            vec((string(), inner), 0..5).prop_map(|members| object(&members)),
        ]
    })
}

pub(crate) fn members(most: usize) -> impl Strategy<Value = Vec<Member>> {
    vec((string(), value()), 0..=most)
}
