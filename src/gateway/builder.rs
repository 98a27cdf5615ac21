//! Puts a gateway together and starts it.

use std::{
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Instant,
};

use rmcp::ServerHandler;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Current, Gateway, Inner, connect::Own, introspect, route_settings, tidy};
use crate::{
    config::{self, Config},
    layer::memory::Memory,
    link::Connector,
    process::ledger::Ledger,
    route::{OfferCache, Router},
    store::{EventType, Settings, Store},
    upstream::local::LocalConnector,
};

/// Puts a gateway together: what a servers.toml says, servers of the embedder's own,
/// or both. Without a servers.toml nothing is kept on disk.
#[derive(Default)]
pub struct Builder {
    config: Option<Config>,
    in_process: Vec<(String, Arc<dyn Connector>)>,
}

impl Builder {
    /// Adds a server inside this process: any handler of rmcp's. It gets the same
    /// stack, limits and records as every other server, and a runtime of its own.
    #[must_use]
    pub fn in_process(mut self, name: &str, handler: impl ServerHandler) -> Self {
        self.in_process.push((name.to_owned(), Arc::new(LocalConnector::new(name, handler))));
        self
    }

    /// Serves what this servers.toml lists, and keeps its database and its state.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = Some(config);
        self
    }

    /// Starts every server, side by side, and waits for none of them.
    pub fn start(self) -> Gateway {
        let Builder { config, in_process } = self;
        let tasks = TaskTracker::new();
        let (store, cache) = match &config {
            Some(Config { gateway, .. }) => {
                (Store::open(Settings::at(&gateway.database)), OfferCache::in_folder(&gateway.state.join("catalog")))
            }
            None => (Store::discarding(), OfferCache::none()),
        };
        let own = match &config {
            Some(config) => Own::of(config, store.clone()),
            None => Own::nowhere(store.clone()),
        };
        if let Some(ended @ 1..) = own.ledger.as_ref().map(Ledger::sweep) {
            tracing::warn!("ended {ended} processes of servers that a killed seawall had left behind");
        }
        let mut config = config.unwrap_or_default();
        for (name, _) in &in_process {
            config.servers.push(config::Server::in_process(name, &config.folder));
        }
        let router = Router::new(route_settings(&config), cache.clone(), &tasks);
        let gateway = Gateway(Arc::new_cyclic(|inner| Inner {
            router: router.clone(),
            is_recorded: crate::service::is_recorded(),
            in_process: introspect::builtins(inner, &config, &store).into_iter().chain(in_process).collect(),
            store,
            cache,
            own,
            memory: Memory::default(),
            current: Mutex::new(Current {
                config: config.clone(),
                served: Vec::new(),
                fronts: Vec::new(),
                config_problem: None,
            }),
            tasks: tasks.clone(),
            shutdown: CancellationToken::new(),
            farewell: CancellationToken::new(),
            draining: AtomicBool::new(false),
            broken: Arc::default(),
            began: Instant::now(),
        }));
        gateway.tell_of_itself(EventType::ServiceStart, serde_json::json!({ "pid": std::process::id() }));
        let _retired = gateway.apply(config);
        gateway.spawn(router.announce());
        gateway.spawn(tidy::tidy(Arc::downgrade(&gateway.0)));
        gateway
    }
}
