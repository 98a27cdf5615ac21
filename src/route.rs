//! The router: who asks what of whom.
//!
//! It owns the catalog and the list of connected clients, finds the server that a
//! request is for, and hands the call to that tool's stack. It answers by itself
//! only what is about the whole: `initialize`, lists, `ping`, log levels.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::{
    call::{Answer, Back, BoxFuture, Method, Payload, ServerName, Stack, ToolName},
    session::{Gate, Hello, Scope, Session},
    upstream::Upstream,
};

mod audience;
mod cache;
mod catalog;
mod dispatch;
mod hello;
mod listen;
mod names;
mod shelf;

pub use cache::OfferCache;
use catalog::{Catalog, Kind};
use shelf::Shelf;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Public names are cut to this.
    pub name_max_chars: usize,
    pub instructions: Instructions,
}

/// What `/mcp` says in its instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Instructions {
    /// A line of seawall's own, then each server's under its name.
    #[default]
    All,
    /// Only seawall's own.
    Own,
}

/// One server as the router sees it.
#[derive(Clone)]
pub struct Route {
    pub upstream: Upstream,
    /// For requests that name no tool.
    pub stack: Stack,
    pub stacks: Arc<dyn Stacks>,
}

/// Makes the stacks of one server's tools.
pub trait Stacks: Send + Sync + 'static {
    /// `None` for a tool that is switched off.
    fn stack_of(&self, tool: &ToolName) -> Option<Stack>;
    /// These are the tools that the catalog has now: what is kept of others may go.
    fn keep_only(&self, tools: &HashSet<ToolName>);
}

/// Clones are the same router.
#[derive(Clone)]
pub struct Router(Arc<Inner>);

struct Inner {
    settings: RwLock<Settings>,
    /// In the order of servers.toml.
    routes: ArcSwap<Vec<Route>>,
    catalog: ArcSwap<Catalog>,
    /// Held while the catalog is made anew, so that no change is lost.
    building: Mutex<()>,
    members: Mutex<Members>,
    /// The catalog has changed: clients are to be told.
    changed: Notify,
    cache: OfferCache,
    tasks: TaskTracker,
}

/// Who is connected, and who wants to hear of which resource.
#[derive(Default)]
struct Members {
    sessions: BTreeMap<u64, Arc<Session>>,
    subscribers: HashMap<(ServerName, String), HashSet<u64>>,
    /// Which list changes a listening session asked for; others hear of all.
    filters: HashMap<u64, Vec<&'static str>>,
}

impl Router {
    pub fn new(settings: Settings, cache: OfferCache, tasks: &TaskTracker) -> Self {
        Router(Arc::new(Inner {
            settings: RwLock::new(settings),
            routes: ArcSwap::default(),
            catalog: ArcSwap::default(),
            building: Mutex::default(),
            members: Mutex::default(),
            changed: Notify::new(),
            cache,
            tasks: tasks.clone(),
        }))
    }

    /// Puts other servers, or other stacks, in place. Calls that are under way keep
    /// those that they began with.
    pub fn set_routes(&self, settings: Settings, routes: Vec<Route>) {
        *self.0.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
        self.0.routes.store(Arc::new(routes));
        self.0.rebuild(Rebuild::Everything);
    }

    /// The tools of all servers as `/mcp` names them: public name, server, own name. Also those
    /// that it does not list because clients could not read them; a name that a server lists
    /// twice, once.
    pub fn tools(&self) -> Vec<Tool> {
        let catalog = self.0.catalog.load();
        let tool = |shelf: &Shelf, item: &shelf::Item| Tool {
            public: item.public.clone(),
            server: shelf.server.clone(),
            own: item.own.clone(),
            json: item.own_json.clone(),
        };
        catalog.each_tool().map(|(shelf, item)| tool(shelf, item)).collect()
    }

    pub fn session_count(&self) -> usize {
        self.0.members().sessions.len()
    }
}

/// One line of the merged list.
#[derive(Clone, Debug)]
pub struct Tool {
    pub public: Arc<str>,
    pub server: ServerName,
    pub own: Arc<str>,
    pub json: Payload,
}

/// How much of the catalog is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rebuild {
    /// Stacks may have changed although no offer did.
    Everything,
    ChangedOffers,
}

impl Inner {
    fn settings(&self) -> Settings {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn route(&self, server: &str) -> Option<Route> {
        self.routes.load().iter().find(|route| &**route.upstream.name() == server).cloned()
    }

    fn in_scope(&self, scope: &Scope) -> Vec<Upstream> {
        let routes = self.routes.load();
        let seen = routes.iter().filter(|route| match scope {
            Scope::All => true,
            Scope::One(server) => route.upstream.name() == server,
        });
        seen.map(|route| route.upstream.clone()).collect()
    }

    fn rebuild(&self, how: Rebuild) {
        let _building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        let name_max_chars = self.settings().name_max_chars;
        let before = self.catalog.load();
        let mut shelves = Vec::new();
        for route in self.routes.load().iter() {
            let Some(offer) = route.upstream.offer() else { continue };
            let unchanged = before
                .shelf(route.upstream.name())
                .filter(|shelf| how == Rebuild::ChangedOffers && Arc::ptr_eq(&shelf.offer, &offer));
            shelves.push(match unchanged {
                Some(shelf) => shelf.clone(),
                None => {
                    let shelf = Shelf::new(route, offer, name_max_chars);
                    route.stacks.keep_only(&shelf.stacks.keys().cloned().collect());
                    Arc::new(shelf)
                }
            });
        }
        let catalog = Catalog::of(shelves);
        for (uri, first, second) in catalog.shared.iter().filter(|shared| !before.shared.contains(shared)) {
            let uri = crate::text::quote(uri, 200);
            tracing::warn!(
                "resource {uri} is offered by \"{first}\" and by \"{second}\": at /mcp the first one answers"
            );
        }
        self.catalog.store(Arc::new(catalog));
        self.changed.notify_one();
    }
}

impl Gate for Router {
    fn scope(&self, server: &str) -> Option<Scope> {
        self.0.route(server).map(|route| Scope::One(route.upstream.name().clone()))
    }

    fn names(&self) -> Vec<ServerName> {
        self.0.routes.load().iter().map(|route| route.upstream.name().clone()).collect()
    }

    fn open(&self, hello: Hello) -> BoxFuture<'static, Result<(Arc<Session>, Payload), Payload>> {
        Box::pin(hello::open(self.0.clone(), hello))
    }

    fn ask(
        &self,
        session: &Arc<Session>,
        request_id: Payload,
        method: Method,
        params: Option<Payload>,
        back: Back,
    ) -> BoxFuture<'static, Answer> {
        let request = dispatch::Request { session: session.clone(), request_id, method, params, back };
        Box::pin(dispatch::dispatch(self.0.clone(), request))
    }

    fn told(&self, session: &Arc<Session>, method: Method, params: Option<Payload>) {
        match (method.as_str(), &session.scope) {
            // Seawall has shaken hands with the servers itself; whom a cancellation is
            // for, the front knows.
            ("notifications/initialized" | "notifications/cancelled", _) => {}
            ("notifications/roots/list_changed", _) | (_, Scope::One(_)) => {
                for upstream in self.0.in_scope(&session.scope) {
                    upstream.tell(session, method.clone(), params.clone());
                }
            }
            (_, Scope::All) => tracing::debug!(%method, "a notification that is for no one server"),
        }
    }

    fn listen(&self, session: &Arc<Session>, wanted: Payload) -> BoxFuture<'static, Result<Payload, Payload>> {
        Box::pin(listen::listen(self.0.clone(), session.clone(), wanted))
    }

    fn tool_with_headers(&self, scope: &Scope, name: &str) -> Option<Payload> {
        let catalog = self.0.catalog.load();
        let item = match scope {
            Scope::All => catalog.tool(name)?.1,
            Scope::One(server) => catalog.shelf(server)?.tools.iter().find(|tool| &*tool.own == name)?,
        };
        item.has_headers.then(|| item.own_json.clone())
    }

    fn close(&self, session: &Arc<Session>) {
        let unheard = self.0.leave(session);
        for route in self.0.routes.load().iter() {
            route.upstream.leave(session);
            let of_it = unheard.iter().filter(|(server, _)| server == route.upstream.name());
            of_it.for_each(|(_, uri)| route.upstream.unsubscribe(uri));
        }
    }
}
