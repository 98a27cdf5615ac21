//! The model behind a server with `builtin = "embed"`: its process starts with the first
//! call, is let go after a while without one, and ends with the gateway.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::connect::Impossible;
use crate::{
    builtin::embed::{EmbedServer, Embedder, Vectors},
    embedding::{IS_BUILT_IN, Input, Keeper, ModelSettings, NOT_BUILT_IN},
    link::Connector,
    upstream::local::LocalConnector,
};

pub(super) fn connector(
    name: &str,
    settings: &ModelSettings,
    tasks: &TaskTracker,
    farewell: &CancellationToken,
) -> Arc<dyn Connector> {
    if !IS_BUILT_IN {
        return Arc::new(Impossible(NOT_BUILT_IN.to_owned()));
    }
    let model = Model {
        name: settings.name.clone(),
        keeper: Keeper::new(settings.clone()),
        tasks: tasks.clone(),
        runtime: Handle::try_current().ok(),
        release: farewell.child_token(),
    };
    Arc::new(LocalConnector::new(name, EmbedServer::new(Arc::new(model))))
}

struct Model {
    name: String,
    keeper: Keeper,
    tasks: TaskTracker,
    /// The gateway's own: handlers run on another one, which may be given up.
    runtime: Option<Handle>,
    release: CancellationToken,
}

impl Embedder for Model {
    fn embed(&self, texts: Vec<String>) -> BoxFuture<'_, Result<Vectors, String>> {
        Box::pin(async move {
            if self.keeper.is_to_be_tended() {
                let runtime = self.runtime.clone().unwrap_or_else(Handle::current);
                let (keeper, release) = (self.keeper.clone(), self.release.clone());
                self.tasks.spawn_on(async move { keeper.tend(release).await }, &runtime);
            }
            let inputs: Vec<Input> = texts.into_iter().map(Input::Text).collect();
            let embedded = self.keeper.embed(&inputs).await.map_err(|refused| refused.to_string())?;
            Ok(Vectors {
                model: self.name.clone(),
                vectors: embedded.values.chunks_exact(embedded.dimensions.max(1)).map(<[f32]>::to_vec).collect(),
                tokens: embedded.tokens.iter().copied().map(u64::from).sum(),
            })
        })
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.release.cancel();
    }
}
