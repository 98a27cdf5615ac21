//! The server `embed`: vectors of texts, for clients that compare meanings themselves.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use rmcp::{
    Json, ServerHandler,
    handler::server::{router::tool::ToolRouter, wrapper::Parameters},
    model::{Implementation, ServerCapabilities, ServerConfig},
    schemars::{self, JsonSchema},
    tool, tool_handler, tool_router,
};
use serde::{Deserialize, Serialize};

use crate::text;

/// An answer is for a model to read or a client to keep: more is for HTTP.
const TEXTS_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 256 * 1024;

const INSTRUCTIONS: &str = "\
Makes vectors of texts with a model on this machine: `embed` gives one vector of length 1 for each \
text, so that the dot product of two says how close their meanings are, from -1 to 1.";

/// Where the vectors come from.
pub trait Embedder: Send + Sync + 'static {
    /// The vectors of these texts, in their order. `Err` is a sentence.
    fn embed(&self, texts: Vec<String>) -> BoxFuture<'_, Result<Vectors, String>>;
}

pub struct Vectors {
    /// What the model is called: vectors of different ones are not to be compared.
    pub model: String,
    pub vectors: Vec<Vec<f32>>,
    /// Of all texts together, as many as the model was given.
    pub tokens: u64,
}

/// The handler of the server `embed`.
#[derive(Clone)]
pub struct EmbedServer {
    embedder: Arc<dyn Embedder>,
    tools: ToolRouter<Self>,
}

#[derive(Deserialize, JsonSchema)]
struct EmbedParams {
    /// The texts, 64 at most; what is longer than the model's limit is cut off at its end.
    #[schemars(length(min = 1, max = 64))]
    texts: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
struct Embedded {
    /// The name of the model; vectors of different models are not to be compared.
    model: String,
    dimensions: usize,
    /// One for each text, in their order.
    vectors: Vec<Vec<f32>>,
    /// How many tokens the model was given.
    tokens: u64,
}

#[tool_router]
impl EmbedServer {
    pub fn new(embedder: Arc<dyn Embedder>) -> Self {
        EmbedServer { embedder, tools: Self::tool_router() }
    }

    /// Makes one vector of each text, such that texts of like meaning have like vectors.
    #[tool(annotations(title = "Embed texts", read_only_hint = true, idempotent_hint = true, open_world_hint = false))]
    async fn embed(&self, Parameters(wanted): Parameters<EmbedParams>) -> Result<Json<Embedded>, String> {
        within_bounds(&wanted.texts)?;
        let Vectors { model, vectors, tokens } = self.embedder.embed(wanted.texts).await?;
        Ok(Json(Embedded { model, dimensions: vectors.first().map_or(0, Vec::len), vectors, tokens }))
    }
}

fn within_bounds(texts: &[String]) -> Result<(), String> {
    match texts.len() {
        0 => return Err("texts is empty: give one text at least".to_owned()),
        1..=TEXTS_MAX => {}
        count => return Err(format!("{count} texts are too many: give {TEXTS_MAX} at most")),
    }
    match texts.iter().position(|text| text.len() > TEXT_BYTES_MAX) {
        Some(index) => {
            let (size, max) = (text::bytes(texts[index].len() as u64), text::bytes(TEXT_BYTES_MAX as u64));
            Err(format!("texts[{index}] is {size} long, and a text may be {max}"))
        }
        None => Ok(()),
    }
}

#[tool_handler(router = self.tools)]
impl ServerHandler for EmbedServer {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("embed", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }
}
