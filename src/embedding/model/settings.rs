//! What the files of a model say of it: its shape, how long a text may be, how its states
//! become one vector. What is asked for and not known is refused by name: a vector that is
//! almost right is worse than none.

use std::{fs, path::Path};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::ModelError;

pub(super) struct ModelConfig {
    pub(super) bert: BertConfig,
    pub(super) pooling: Pooling,
    pub(super) max_tokens: usize,
    lower_case: bool,
    /// What stands before every text.
    prompt: String,
}

/// config.json
#[derive(Debug, Deserialize)]
pub(super) struct BertConfig {
    pub(super) model_type: String,
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    pub(super) intermediate_size: usize,
    pub(super) max_position_embeddings: usize,
    #[serde(default = "gelu")]
    pub(super) hidden_act: Activation,
    #[serde(default = "epsilon")]
    pub(super) layer_norm_eps: f64,
    #[serde(default)]
    pad_token_id: usize,
    #[serde(default)]
    position_embedding_type: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Activation {
    #[serde(rename = "gelu")]
    Gelu,
    #[serde(rename = "gelu_new", alias = "gelu_pytorch_tanh")]
    GeluTanh,
    #[serde(rename = "relu")]
    Relu,
}

fn gelu() -> Activation {
    Activation::Gelu
}

fn epsilon() -> f64 {
    1e-12
}

/// How the states of a text's tokens become its vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pooling {
    Mean,
    /// The state of the first token.
    Cls,
    Max,
}

impl ModelConfig {
    /// A text as the tokenizer is to see it.
    pub(super) fn prepared(&self, text: &str) -> String {
        // sentence-transformers strips, too.
        let text = format!("{}{text}", self.prompt);
        if self.lower_case { text.trim().to_lowercase() } else { text.trim().to_owned() }
    }
}

impl BertConfig {
    /// RoBERTa counts positions from behind the one of its padding.
    pub(super) fn first_position(&self) -> usize {
        if self.model_type == "bert" { 0 } else { self.pad_token_id + 1 }
    }

    fn check(&self) -> Result<(), ModelError> {
        if !matches!(self.model_type.as_str(), "bert" | "roberta" | "xlm-roberta") {
            let known = "bert, roberta and xlm-roberta";
            return Err(unfit(format!("its model_type is \"{}\"; this server knows {known}", self.model_type)));
        }
        if self.position_embedding_type.as_deref().is_some_and(|kind| kind != "absolute") {
            return Err(unfit("its position_embedding_type is not \"absolute\"".to_owned()));
        }
        let numbers = [self.vocab_size, self.hidden_size, self.num_attention_heads, self.intermediate_size];
        if numbers.contains(&0) || !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(unfit("the sizes in its config.json do not fit each other".to_owned()));
        }
        if self.max_position_embeddings <= self.first_position() {
            return Err(unfit("its max_position_embeddings leaves no place for a token".to_owned()));
        }
        Ok(())
    }
}

fn unfit(what: String) -> ModelError {
    ModelError::Unfit(what)
}

pub(super) fn read(folder: &Path) -> Result<ModelConfig, ModelError> {
    let bert: BertConfig = file(folder, "config.json")?
        .ok_or(ModelError::File { name: "config.json", why: "it is not there".to_owned() })?;
    bert.check()?;
    modules(folder)?;
    let sentences: Sentences = file(folder, "sentence_bert_config.json")?.unwrap_or_default();
    let tokenizer: TokenizerConfig = file(folder, "tokenizer_config.json")?.unwrap_or_default();
    let positions = bert.max_position_embeddings - bert.first_position();
    // A tokenizer without a limit has one of 10^30.
    let of_tokenizer = tokenizer.model_max_length.map(|length| if length < 1e9 { length as usize } else { positions });
    let max_tokens = sentences.max_seq_length.or(of_tokenizer).unwrap_or(positions).min(positions);
    if max_tokens < 3 {
        return Err(unfit(format!("its max_seq_length is {max_tokens}")));
    }
    Ok(ModelConfig {
        pooling: pooling(folder)?,
        max_tokens,
        lower_case: sentences.do_lower_case,
        prompt: prompt(folder)?,
        bert,
    })
}

#[derive(Default, Deserialize)]
struct Sentences {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

#[derive(Default, Deserialize)]
struct TokenizerConfig {
    model_max_length: Option<f64>,
}

#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
}

/// A step that is not known would be left out.
fn modules(folder: &Path) -> Result<(), ModelError> {
    let modules: Vec<Module> = file(folder, "modules.json")?.unwrap_or_default();
    let is_known = |module: &Module| {
        let name = module.kind.rsplit('.').next().unwrap_or_default();
        matches!(name, "Transformer" | "Pooling" | "Normalize")
    };
    match modules.iter().find(|module| !is_known(module)) {
        Some(module) => {
            Err(unfit(format!("its modules.json has a step that this server does not know: {}", module.kind)))
        }
        None => Ok(()),
    }
}

fn pooling(folder: &Path) -> Result<Pooling, ModelError> {
    let Some(written) = file::<Value>(folder, "1_Pooling/config.json")? else { return Ok(Pooling::Mean) };
    let flags = written.as_object().into_iter().flatten().filter(|(_, value)| **value == Value::Bool(true));
    let mut modes: Vec<&str> = flags.filter_map(|(key, _)| key.strip_prefix("pooling_mode_")).collect();
    modes.extend(written.get("pooling_mode").and_then(Value::as_str));
    match modes[..] {
        [] | ["mean_tokens" | "mean"] => Ok(Pooling::Mean),
        // Of the same direction, and all vectors get length 1.
        ["mean_sqrt_len_tokens"] => Ok(Pooling::Mean),
        ["cls_token" | "cls"] => Ok(Pooling::Cls),
        ["max_tokens" | "max"] => Ok(Pooling::Max),
        _ => Err(unfit(format!("its pooling is {}; this server knows one of mean, cls and max", modes.join(" and ")))),
    }
}

#[derive(Default, Deserialize)]
struct Prompts {
    #[serde(default)]
    prompts: serde_json::Map<String, Value>,
    default_prompt_name: Option<String>,
}

fn prompt(folder: &Path) -> Result<String, ModelError> {
    let written: Prompts = file(folder, "config_sentence_transformers.json")?.unwrap_or_default();
    let Some(name) = written.default_prompt_name else { return Ok(String::new()) };
    match written.prompts.get(&name) {
        Some(Value::String(prompt)) => Ok(prompt.clone()),
        _ => Err(unfit(format!("its default prompt \"{name}\" is not among its prompts"))),
    }
}

fn file<T: DeserializeOwned>(folder: &Path, name: &'static str) -> Result<Option<T>, ModelError> {
    let why = |why: String| ModelError::File { name, why };
    match fs::read(folder.join(name)) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| why(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(why(error.to_string())),
    }
}
