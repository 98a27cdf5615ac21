//! The only way out for a server with an allow list: seawall itself listens in the
//! server's own network, and connects for it where the list and the addresses permit.
//! Names are resolved here and not by the server.

use std::{
    collections::HashMap,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

mod proxy;
mod rule;

pub use rule::{Denial, OwnListeners, Rule};

use crate::sandbox::{Destination, egress};

/// Connections of one server at a time; the next one waits.
const CONNECTIONS_MAX: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection is ended after so long, whatever it carries.
const CONNECTION_MAX: Duration = Duration::from_secs(3600);
/// Between attempts to take a connection where that fails.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// The same refusal is told once in so long.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// So many different refusals are remembered.
const TOLD_MAX: usize = 256;

/// Hears what was refused.
pub type OnDenied = Arc<dyn Fn(&Denial) + Send + Sync>;

/// What one server may reach, and who hears of the rest.
#[derive(Clone)]
pub struct Egress(Arc<Inner>);

struct Inner {
    rule: Rule,
    on_denied: OnDenied,
    told: Mutex<HashMap<String, Instant>>,
    connections: Arc<Semaphore>,
}

/// Whether a place, as it is resolved now, is in a network that is not the open internet;
/// one that cannot be resolved is in none.
pub async fn leads_inside(place: &Destination) -> bool {
    let bare = place.host.trim_start_matches('[').trim_end_matches(']');
    match timeout(CONNECT_TIMEOUT, tokio::net::lookup_host((bare, place.port))).await {
        Ok(Ok(mut addresses)) => addresses.any(|address| !rule::is_public(rule::plain(address.ip()))),
        _ => false,
    }
}

impl Egress {
    pub fn new(rule: Rule, on_denied: OnDenied) -> Self {
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Egress(Arc::new(Inner { rule, on_denied, told: Mutex::default(), connections }))
    }

    /// Serves the sockets that listen inside, in the order of [`egress::doors`], until
    /// dropped.
    pub async fn serve(self, listeners: Vec<OwnedFd>) {
        let doors = egress::doors(self.0.rule.allowed());
        let served = doors.into_iter().zip(listeners).map(|(door, listener)| {
            let egress = self.clone();
            async move {
                if let Err(error) = egress.serve_door(listener, door.leads_to).await {
                    tracing::warn!("a way out of a sandbox is closed: {error}");
                }
            }
        });
        futures_util::future::join_all(served).await;
    }

    async fn serve_door(&self, listener: OwnedFd, leads_to: Option<Destination>) -> std::io::Result<()> {
        let listener = std::net::TcpListener::from(listener);
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (inside, _) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: others may give some back.
                    tracing::warn!("a way out of a sandbox does not accept: {error}");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            // Behind the arrival: a door that waits for one must not keep a place from the others.
            let Ok(permit) = self.0.connections.clone().acquire_owned().await else { return Ok(()) };
            while connections.try_join_next().is_some() {}
            let (egress, leads_to) = (self.clone(), leads_to.clone());
            connections.spawn(async move {
                let _permit = permit;
                let carried = async {
                    match leads_to {
                        Some(destination) => egress.through_door(inside, &destination).await,
                        None => proxy::serve(&egress, inside).await,
                    }
                };
                // How a connection ends is between the two that talk.
                let _ = timeout(CONNECTION_MAX, carried).await;
            });
        }
    }

    async fn through_door(&self, mut inside: TcpStream, to: &Destination) -> std::io::Result<()> {
        // Nothing can be said to a program that believes to talk to somebody else.
        let Ok(mut outside) = self.connect(&to.host, to.port).await else { return Ok(()) };
        copy_bidirectional(&mut inside, &mut outside).await.map(drop)
    }

    /// Connects, if the rule permits; a refusal is told.
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Denial> {
        let connected = self.try_connect(host, port).await;
        if let Err(denial) = &connected
            && denial.is_rule
            && self.is_news(&format!("{host}:{port}"))
        {
            (self.0.on_denied)(denial);
        }
        connected
    }

    async fn try_connect(&self, host: &str, port: u16) -> Result<TcpStream, Denial> {
        let rule = &self.0.rule;
        rule.permits_name(host, port)?;
        let unreachable = |why: String| Denial::unreachable(host, port, &why);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = timeout(CONNECT_TIMEOUT, tokio::net::lookup_host((bare, port))).await;
        let found = found.map_err(|_| unreachable("its name was not resolved in time".to_owned()))?;
        let addresses: Vec<SocketAddr> = found.map_err(|error| unreachable(error.to_string()))?.collect();
        let permitted = rule.permits_addresses(host, port, &addresses)?;
        // To the very addresses that were looked at: asked again, a name may say others.
        let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(&permitted[..])).await;
        connected.map_err(|_| unreachable("no answer".to_owned()))?.map_err(|error| unreachable(error.to_string()))
    }

    fn is_news(&self, what: &str) -> bool {
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        told.retain(|_, at| now.duration_since(*at) < TELL_EVERY);
        if told.len() >= TOLD_MAX || told.contains_key(what) {
            return false;
        }
        told.insert(what.to_owned(), now);
        true
    }
}
