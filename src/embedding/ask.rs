//! The body of `POST /v1/embeddings`: what is asked for, or what is wrong with it and where.

use serde_json::{Map, Value};

use super::{Settings, talk::Input};
use crate::text;

const TOKENS_MAX: usize = 65_536;

/// What is asked for.
pub(super) struct Ask {
    pub(super) inputs: Vec<Input>,
    pub(super) encoding: Encoding,
    pub(super) dimensions: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Float,
    Base64,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The member of the body, where it is one.
    pub(super) param: Option<&'static str>,
    pub(super) what: String,
    pub(super) kind: FaultKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    Wrong,
    TooLarge,
    NoSuchModel,
}

impl Fault {
    pub(super) fn wrong(param: &'static str, what: impl Into<String>) -> Self {
        Fault { param: Some(param), what: what.into(), kind: FaultKind::Wrong }
    }

    fn too_large(what: String) -> Self {
        Fault { param: Some("input"), what, kind: FaultKind::TooLarge }
    }
}

const KNOWN: [&str; 5] = ["input", "model", "encoding_format", "dimensions", "user"];

pub(super) fn read(body: &[u8], settings: &Settings) -> Result<Ask, Fault> {
    let body: Map<String, Value> = serde_json::from_slice(body).map_err(|error| Fault {
        param: None,
        what: format!("not a JSON object: {error}"),
        kind: FaultKind::Wrong,
    })?;
    if let Some(unknown) = body.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        let what = format!("no such member: \"{}\"; there are {}", text::quote(unknown, 40), KNOWN.join(", "));
        return Err(Fault { param: None, what, kind: FaultKind::Wrong });
    }
    model(body.get("model"), settings)?;
    let encoding = match body.get("encoding_format") {
        None | Some(Value::Null) => Encoding::Float,
        Some(Value::String(word)) if word == "float" => Encoding::Float,
        Some(Value::String(word)) if word == "base64" => Encoding::Base64,
        Some(_) => return Err(Fault::wrong("encoding_format", "must be \"float\" or \"base64\"")),
    };
    let dimensions = match body.get("dimensions") {
        None | Some(Value::Null) => None,
        Some(value) => Some(value.as_u64().ok_or_else(|| Fault::wrong("dimensions", "must be a whole number"))?),
    };
    let mut body = body;
    let input = body.remove("input").ok_or_else(|| Fault::wrong("input", "is missing"))?;
    Ok(Ask { inputs: inputs(input, settings)?, encoding, dimensions })
}

/// A client that names no model means the one there is.
fn model(named: Option<&Value>, settings: &Settings) -> Result<(), Fault> {
    let named = match named {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::String(named)) => named,
        Some(_) => return Err(Fault::wrong("model", "must be a string")),
    };
    if is_called(named, settings) {
        return Ok(());
    }
    let what =
        format!("the model \"{}\" does not exist here; there is \"{}\"", text::quote(named, 60), settings.model.name);
    Err(Fault { param: Some("model"), what, kind: FaultKind::NoSuchModel })
}

pub(super) fn is_called(name: &str, settings: &Settings) -> bool {
    let id = &settings.model.name;
    // Hubs put the name of an owner before it.
    name == id
        || name.rsplit_once('/').is_some_and(|(_, last)| last == id)
        || settings.aliases.iter().any(|a| a == name)
}

fn inputs(input: Value, settings: &Settings) -> Result<Vec<Input>, Fault> {
    const WANTED: &str = "must be a string, an array of strings, an array of tokens or an array of arrays of tokens";
    let inputs = match input {
        Value::String(text) => vec![Input::Text(text)],
        Value::Array(items) if items.first().is_some_and(Value::is_number) => {
            vec![Input::Tokens(tokens(&items, None)?)]
        }
        Value::Array(items) => {
            if items.len() > settings.max_inputs {
                let (count, max) = (items.len(), settings.max_inputs);
                return Err(Fault::too_large(format!("has {count} items, and a request may have {max} (max_inputs)")));
            }
            let item = |(index, item)| match item {
                Value::String(text) => Ok(Input::Text(text)),
                Value::Array(items) => Ok(Input::Tokens(tokens(&items, Some(index))?)),
                _ => Err(Fault::wrong("input", format!("[{index}] {WANTED}"))),
            };
            items.into_iter().enumerate().map(item).collect::<Result<_, _>>()?
        }
        _ => return Err(Fault::wrong("input", WANTED)),
    };
    if inputs.is_empty() {
        return Err(Fault::wrong("input", "is an empty array"));
    }
    for (index, input) in inputs.iter().enumerate() {
        within_bounds(index, input, settings)?;
    }
    Ok(inputs)
}

fn tokens(items: &[Value], index: Option<usize>) -> Result<Vec<u32>, Fault> {
    let token = |value: &Value| value.as_u64().and_then(|token| u32::try_from(token).ok());
    let tokens: Option<Vec<u32>> = items.iter().map(token).collect();
    let at = index.map(|index| format!("[{index}] ")).unwrap_or_default();
    match tokens {
        Some(tokens) if !tokens.is_empty() => Ok(tokens),
        Some(_) => Err(Fault::wrong("input", format!("{at}is an empty array"))),
        None => Err(Fault::wrong("input", format!("{at}must be whole numbers, as every token is"))),
    }
}

fn within_bounds(index: usize, input: &Input, settings: &Settings) -> Result<(), Fault> {
    match input {
        Input::Text(text) if text.len() > settings.max_text_bytes => {
            let (size, max) = (text::bytes(text.len() as u64), text::bytes(settings.max_text_bytes as u64));
            Err(Fault::too_large(format!("[{index}] is {size} long, and a text may be {max} (max_text)")))
        }
        Input::Tokens(tokens) if tokens.len() > TOKENS_MAX => {
            let count = tokens.len();
            Err(Fault::too_large(format!("[{index}] has {count} tokens, and a text may have {TOKENS_MAX}")))
        }
        Input::Text(_) | Input::Tokens(_) => Ok(()),
    }
}
