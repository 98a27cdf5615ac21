//! The composition root: from a [`Config`] to a running gateway, and back to nothing.
//!
//! It builds the store, the upstreams, their stacks and the router, and hands each to
//! the next; afterwards it changes them as servers.toml changes, and takes them down
//! in the order that loses the least.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::AtomicBool},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{net::TcpListener, time::timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    call::Payload,
    config::{self, Config},
    downstream::http::{self, Front},
    layer::{Keeper, memory::Memory},
    listener::guard::Guard,
    route::{self, OfferCache, Router},
    session::Gate,
    store::{Event, EventType, Store},
    upstream::{self, Upstream},
    wire::peer::Limits,
};

mod builder;
mod connect;
mod embed;
mod introspect;
pub mod lock;
pub mod reload;
mod served;
mod shutdown;
pub mod status;
mod task;
mod tidy;

pub use builder::Builder;
pub(crate) use connect::command_of;
use connect::{InProcess, Own};
use served::Served;
pub use status::Status;
use task::Broken;

/// How long a server may be in its first start before nobody waits for it.
const FIRST_START_WAIT: Duration = Duration::from_secs(30);

/// A running gateway. Clones are the same one.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    router: Router,
    /// `seawall run` writes down its start and its end. Asked once: that one may be killed, and
    /// then the next one says what happened.
    is_recorded: bool,
    store: Store,
    cache: OfferCache,
    in_process: InProcess,
    own: Own,
    /// For the arguments of all calls under way.
    memory: Memory,
    current: Mutex<Current>,
    tasks: TaskTracker,
    /// Stops listeners and background tasks.
    shutdown: CancellationToken,
    /// Ends the connections of clients that would stay.
    farewell: CancellationToken,
    draining: AtomicBool,
    broken: Arc<Broken>,
    began: Instant,
}

/// What a reload replaces.
struct Current {
    config: Config,
    served: Vec<Served>,
    fronts: Vec<(String, Weak<Front>)>,
    config_problem: Option<String>,
}

impl Gateway {
    /// Begins a gateway with all defaults and no servers; see [`Builder`].
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Gateway {
    /// What clients' fronts call.
    pub fn gate(&self) -> Arc<dyn Gate> {
        Arc::new(self.0.router.clone())
    }

    pub fn router(&self) -> &Router {
        &self.0.router
    }

    pub fn config(&self) -> Config {
        self.0.current().config.clone()
    }

    /// Bounds of a client's byte stream.
    pub fn limits(&self) -> Limits {
        let max_line_bytes = self.0.current().config.gateway.max_message_bytes;
        Limits { max_line_bytes, write_timeout: connect::WRITE_TIMEOUT }
    }

    pub fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Cancelled when listeners are to stop.
    pub fn shutdown_signal(&self) -> CancellationToken {
        self.0.shutdown.clone()
    }

    /// Cancelled when no call is under way any more: clients that are still connected,
    /// with a stream or half a request open, would otherwise keep the gateway.
    pub fn farewell_signal(&self) -> CancellationToken {
        self.0.farewell.clone()
    }

    /// Serves Streamable HTTP on `listener` until the shutdown.
    pub fn serve_http(&self, listener: TcpListener) {
        let mut current = self.0.current();
        let settings = http::Settings {
            guard: guard(&current.config.gateway),
            max_message_bytes: current.config.gateway.max_message_bytes,
        };
        let inner = Arc::downgrade(&self.0);
        let readiness: http::Readiness = Arc::new(move || inner.upgrade().map_or_else(gone, |inner| inner.readiness()));
        let front = Front::new(settings, self.gate(), readiness, &self.0.tasks);
        if let Ok(address) = listener.local_addr() {
            self.0.own.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(address);
        }
        let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
        current.fronts.push((address, Arc::downgrade(&front)));
        self.0.keep(front.serve(listener, self.0.shutdown.clone(), self.0.farewell.clone()));
    }

    pub fn status(&self) -> Status {
        self.0.status()
    }

    /// All servers, in the order of servers.toml.
    pub fn upstreams(&self) -> Vec<Upstream> {
        self.0.current().served.iter().map(|one| one.upstream.clone()).collect()
    }

    /// Waits for the first start of one server, or of all, where nobody knows yet what it
    /// offers; not for long, and not for later ones.
    pub async fn first_starts(&self, only: Option<&str>) {
        let upstreams = self.upstreams();
        let starting = upstreams
            .iter()
            .filter(|upstream| upstream.offer().is_none() && only.is_none_or(|only| &**upstream.name() == only));
        let settled = starting.map(|upstream| timeout_at(upstream.began() + FIRST_START_WAIT, upstream.settled()));
        join_all(settled).await;
    }

    /// Waits until every server's first start has ended, one way or the other.
    pub async fn settled(&self) {
        join_all(self.upstreams().iter().map(Upstream::settled)).await;
    }

    /// Replaces a server's running instance; false if there is no such server.
    pub fn restart(&self, server: &str) -> bool {
        let current = self.0.current();
        let found = current.served.iter().find(|one| &**one.name() == server);
        found.map(|one| one.upstream.restart()).is_some()
    }

    /// Closes the breaker of a tool, named as at `/mcp`; false if there is none.
    pub fn reset_breaker(&self, public_tool: &str) -> bool {
        let Some(tool) = self.0.router.tools().into_iter().find(|tool| &*tool.public == public_tool) else {
            return false;
        };
        let current = self.0.current();
        current.served.iter().find(|one| *one.name() == tool.server).is_some_and(|one| one.reset_breaker(&tool.own))
    }

    /// Puts a new config in force. What did not change goes on undisturbed; servers
    /// that are gone or changed finish their calls in the background.
    pub fn apply(&self, config: Config) -> Vec<String> {
        self.0.own.know(&config);
        let mut current = self.0.current();
        let before = std::mem::take(&mut current.served);
        let mut retired = before.clone();
        let mut changes = Vec::new();
        for entry in config.servers.iter().filter(|entry| entry.enabled).cloned().map(Arc::new) {
            let same = before.iter().position(|one| {
                one.name() == &entry.name && one.upstream.fingerprint() == connect::fingerprint(&entry)
            });
            let served = match same {
                Some(at) => {
                    retired.retain(|one| one.name() != &entry.name);
                    if before[at].entry != entry {
                        changes.push(format!("{}: limits changed", entry.name));
                    }
                    before[at].upstream.set_lifecycle(connect::lifecycle(&entry, config.gateway.drain));
                    before[at].under(entry)
                }
                None => {
                    changes.push(format!("{}: started", entry.name));
                    self.0.start(entry, &config.gateway)
                }
            };
            current.served.push(served);
        }
        for front in current.fronts.iter().filter_map(|(_, front)| front.upgrade()) {
            front.set_guard(guard(&config.gateway));
        }
        let routes = current.served.iter().map(Served::route).collect();
        let drain = config.gateway.drain;
        let settings = route_settings(&config);
        current.config = config;
        current.config_problem = None;
        drop(current);
        self.0.router.set_routes(settings, routes);
        for one in retired {
            changes.push(format!("{}: stopped", one.name()));
            self.0.tasks.spawn(async move { one.upstream.retire(drain).await });
        }
        changes
    }

    /// A new config was bad: the last good one stays, and `status` says why.
    pub fn reject(&self, problem: String) {
        self.0.current().config_problem = Some(problem);
    }

    pub(crate) fn event(&self, event_type: EventType, metadata: serde_json::Value) {
        self.0.store.event(Event { category: "gateway", event_type, service_name: "gateway".to_owned(), metadata });
    }

    /// Of its own start and end: under `seawall run` that one writes them down, with more
    /// than is known here.
    fn tell_of_itself(&self, event_type: EventType, metadata: serde_json::Value) {
        if !self.0.is_recorded {
            self.event(event_type, metadata);
        }
    }
}

impl Inner {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, entry: Arc<config::Server>, gateway: &config::Gateway) -> Served {
        let fingerprint = connect::fingerprint(&entry);
        let settings = upstream::Settings {
            name: entry.name.clone(),
            known: self.cache.load(&entry.name, &fingerprint),
            fingerprint,
            connector: match &entry.kind {
                config::Kind::Embed(settings) if entry.problem.is_none() => {
                    embed::connector(&entry.name, settings, &self.tasks, &self.farewell)
                }
                _ => connect::connector(&entry, &self.in_process, gateway.max_message_bytes, &self.own, &self.tasks),
            },
            lifecycle: connect::lifecycle(&entry, gateway.drain),
            instances: connect::instances(&entry),
        };
        let upstream = Upstream::start(settings, Arc::new(self.router.clone()), self.store.clone(), &self.tasks);
        let keeper: Arc<dyn Keeper> = Arc::new(self.store.clone());
        Served::new(entry, upstream, self.memory.of_another_server(), keeper)
    }
}

/// What `/readyz` says in the moment between the gateway's end and the listener's.
fn gone() -> (bool, Payload) {
    (false, Payload::literal(r#"{"ready":false,"servers":{}}"#))
}

fn guard(settings: &config::Gateway) -> Guard {
    Guard {
        allowed_hosts: settings.allowed_hosts.clone(),
        allowed_origins: settings.allowed_origins.clone(),
        token: settings.token.as_ref().map(|token| token.expose().to_owned()),
        table: "[gateway]",
    }
}

fn route_settings(config: &Config) -> route::Settings {
    route::Settings { name_max_chars: config.gateway.tool_name_max_chars, instructions: config.gateway.instructions }
}
