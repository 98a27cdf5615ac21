//! What servers say to everybody: changed lists, updated resources, log lines of no
//! call. Each client hears what is in its scope and no more.

use std::{sync::Arc, time::Duration};

use super::{Catalog, Inner, Kind, Rebuild, Router};
use crate::{
    call::{Method, Payload, ServerName},
    era::Era,
    session::{LogLevel, Scope, Session},
    upstream::Audience,
};

/// Changes within this time are one notification.
const BURST: Duration = Duration::from_millis(100);

impl Audience for Router {
    fn offer_changed(&self, server: &ServerName) {
        self.0.rebuild(Rebuild::ChangedOffers);
        if let Some(route) = self.0.route(server)
            && let Some(offer) = route.upstream.offer()
        {
            let inner = self.0.clone();
            let fingerprint = route.upstream.fingerprint().to_owned();
            let server = server.clone();
            self.0.tasks.spawn_blocking(move || inner.cache.save(&server, &fingerprint, &offer));
        }
    }

    fn said(&self, server: &ServerName, method: Method, params: Option<Payload>) {
        let hearers: Vec<Arc<Session>> = {
            let members = self.0.members();
            match method.as_str() {
                "notifications/resources/updated" => {
                    let uri = params.as_ref().and_then(|params| params.text("uri")).unwrap_or_default();
                    let subscribers = members.subscribers.get(&(server.clone(), uri));
                    subscribers.into_iter().flatten().filter_map(|n| members.sessions.get(n)).cloned().collect()
                }
                // A subscription hears what it asked for and nothing else.
                _ => {
                    let hears = |session: &&Arc<Session>| sees(session, server) && session.era == Era::Legacy;
                    members.sessions.values().filter(hears).cloned().collect()
                }
            }
        };
        for session in hearers.iter().filter(|session| session.wants(&method, params.as_ref())) {
            session.back.tell(method.clone(), params.clone());
        }
    }
}

fn sees(session: &Session, server: &ServerName) -> bool {
    match &session.scope {
        Scope::All => true,
        Scope::One(one) => one == server,
    }
}

impl Router {
    /// Tells clients of changed lists, bursts merged. Runs until dropped.
    pub async fn announce(self) {
        let mut told = self.0.catalog.load_full();
        loop {
            self.0.changed.notified().await;
            tokio::time::sleep(BURST).await;
            let now = self.0.catalog.load_full();
            self.0.announce(&told, &now);
            told = now;
        }
    }
}

impl Inner {
    fn announce(&self, before: &Catalog, now: &Catalog) {
        let sessions: Vec<Arc<Session>> = self.members().sessions.values().cloned().collect();
        let mut known: Vec<(Scope, Vec<&'static str>)> = Vec::new();
        for session in sessions {
            let methods = match known.iter().find(|(scope, _)| *scope == session.scope) {
                Some((_, methods)) => methods.clone(),
                None => {
                    let changed = Kind::ALL.into_iter().filter(|kind| now.differs(before, *kind, &session.scope));
                    let mut methods: Vec<_> = changed.map(Kind::list_changed).collect();
                    methods.dedup();
                    known.push((session.scope.clone(), methods.clone()));
                    methods
                }
            };
            for method in methods.into_iter().filter(|method| self.wants_change(session.number, method)) {
                session.back.tell(Method::of(method), None);
            }
        }
    }

    pub(super) fn join(&self, session: &Arc<Session>) {
        self.members().sessions.insert(session.number, session.clone());
    }

    /// A session that listens, and to what.
    pub(super) fn join_for(&self, session: &Arc<Session>, changes: Vec<&'static str>) {
        self.members().filters.insert(session.number, changes);
        self.join(session);
    }

    fn wants_change(&self, session: u64, method: &str) -> bool {
        self.members().filters.get(&session).is_none_or(|changes| changes.contains(&method))
    }

    /// Returns the resources that nobody wants to hear of any more.
    pub(super) fn leave(&self, session: &Session) -> Vec<(ServerName, String)> {
        let mut members = self.members();
        members.sessions.remove(&session.number);
        members.filters.remove(&session.number);
        let mut unheard = Vec::new();
        members.subscribers.retain(|resource, hearers| {
            hearers.remove(&session.number);
            if hearers.is_empty() {
                unheard.push(resource.clone());
            }
            !hearers.is_empty()
        });
        unheard
    }

    /// Remembers who wants to hear of a resource; true if the server must be told.
    pub(super) fn subscribe(&self, session: &Session, server: &ServerName, uri: &str) -> bool {
        let mut members = self.members();
        let hearers = members.subscribers.entry((server.clone(), uri.to_owned())).or_default();
        hearers.insert(session.number);
        hearers.len() == 1
    }

    /// True if nobody wants to hear of it any more, and the server must be told.
    pub(super) fn unsubscribe(&self, session: &Session, server: &ServerName, uri: &str) -> bool {
        let mut members = self.members();
        let key = (server.clone(), uri.to_owned());
        let Some(hearers) = members.subscribers.get_mut(&key) else { return true };
        hearers.remove(&session.number);
        let is_last = hearers.is_empty();
        if is_last {
            members.subscribers.remove(&key);
        }
        is_last
    }

    /// Each server in scope hears the most verbose level that any client wants of it.
    pub(super) fn spread_log_level(&self) {
        let sessions: Vec<Arc<Session>> = self.members().sessions.values().cloned().collect();
        for upstream in self.in_scope(&Scope::All) {
            let hearers = sessions.iter().filter(|session| sees(session, upstream.name()));
            upstream.set_log_level(LogLevel::most_verbose(hearers.map(|session| &session.log_level)));
        }
    }
}
