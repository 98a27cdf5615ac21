//! Who may speak to a listener of seawall's: one guard for all of them.
//!
//! A page in the user's browser can send requests to loopback; what it cannot do is
//! choose its Host, hide its Origin, or send `application/json` without asking first.

use std::net::{IpAddr, SocketAddr};

use hyper::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN},
};
use tokio::{net::TcpStream, sync::Semaphore};

#[cfg(target_os = "linux")]
use super::owner::Owner;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Hosts beside loopback, with or without a port.
    pub allowed_hosts: Vec<String>,
    /// Origins beside the listener's own, as a browser writes them.
    pub allowed_origins: Vec<String>,
    /// `Authorization: Bearer TOKEN` is then required.
    pub token: Option<String>,
    /// Where in servers.toml all this is written, for those who are turned away.
    pub table: &'static str,
}

impl Default for Guard {
    fn default() -> Self {
        Guard { allowed_hosts: Vec::new(), allowed_origins: Vec::new(), token: None, table: "[gateway]" }
    }
}

/// Why a request was turned away.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    pub reason: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Refusal { status, reason: reason.into() }
    }
}

impl Guard {
    /// Who it is, where that can be known, and then all that [`Guard::admit`] looks at.
    pub fn admit_from(&self, is_stranger: bool, headers: &HeaderMap) -> Result<(), Refusal> {
        if is_stranger {
            let table = self.table;
            let reason =
                format!("this connection is of another user of this machine; set token under {table} to allow that");
            return Err(Refusal::new(StatusCode::FORBIDDEN, reason));
        }
        self.admit(headers)
    }

    /// Host, Origin and token.
    pub fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        // Who comes after might look at the other one.
        if headers.get_all(HOST).iter().count() > 1 || headers.get_all(ORIGIN).iter().count() > 1 {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "more than one Host or Origin header"));
        }
        let host = text(headers, &HOST).unwrap_or_default();
        if !is_loopback_host(host) && !listed(&self.allowed_hosts, host) {
            let host = crate::text::quote(host, 100);
            let table = self.table;
            let reason =
                format!("host \"{host}\" is not allowed; add it to allowed_hosts under {table} in servers.toml");
            return Err(Refusal::new(StatusCode::FORBIDDEN, reason));
        }
        if let Some(origin) = headers.get(ORIGIN) {
            let origin = origin.to_str().unwrap_or_default();
            let is_own = origin.strip_prefix("http://").is_some_and(|rest| rest.eq_ignore_ascii_case(host));
            if !is_own && !self.allowed_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) {
                let origin = crate::text::quote(origin, 100);
                let table = self.table;
                let reason = format!(
                    "origin \"{origin}\" is not allowed; add it to allowed_origins under {table} in servers.toml"
                );
                return Err(Refusal::new(StatusCode::FORBIDDEN, reason));
            }
        }
        match &self.token {
            Some(token) if !bears(headers, token) => Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "a token is asked for: send the header Authorization: Bearer TOKEN",
            )),
            _ => Ok(()),
        }
    }
}

/// A POST must be `application/json`, which no page sends elsewhere unasked.
pub fn must_be_json(headers: &HeaderMap) -> Result<(), Refusal> {
    must_be_one_of(headers, &["application/json"]).map(|_| ())
}

/// The same for a listener that takes more than one kind: which of them it is. None of
/// `kinds` may be one that a page sends elsewhere unasked.
pub fn must_be_one_of(headers: &HeaderMap, kinds: &[&'static str]) -> Result<&'static str, Refusal> {
    let kind = text(headers, &CONTENT_TYPE).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if let Some(known) = kinds.iter().find(|known| essence.eq_ignore_ascii_case(known)) {
        return Ok(known);
    }
    let kind = crate::text::quote(kind, 100);
    let reason = format!("Content-Type must be {}, not \"{kind}\"", kinds.join(" or "));
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason))
}

fn text<'a>(headers: &'a HeaderMap, name: &hyper::header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn is_loopback_host(host: &str) -> bool {
    let name = without_port(host);
    name.eq_ignore_ascii_case("localhost")
        || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

fn listed(allowed: &[String], host: &str) -> bool {
    !host.is_empty()
        && allowed
            .iter()
            .any(|entry| entry.eq_ignore_ascii_case(host) || entry.eq_ignore_ascii_case(without_port(host)))
}

/// Compares in a time that does not tell how much of the token was right.
fn bears(headers: &HeaderMap, token: &str) -> bool {
    let sent = text(headers, &AUTHORIZATION).and_then(|value| {
        let (scheme, sent) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(sent.trim())
    });
    let sent = sent.unwrap_or_default().as_bytes();
    let differing = sent.iter().zip(token.as_bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    sent.len() == token.len() && differing == 0
}

/// Tells connections of other users of this machine from the user's own.
pub struct Strangers {
    /// Whose turn it is to look up who is at the other end.
    lookups: Semaphore,
}

const LOOKUPS_MAX: usize = 2;

impl Default for Strangers {
    fn default() -> Self {
        Strangers { lookups: Semaphore::new(LOOKUPS_MAX) }
    }
}

impl Strangers {
    /// Another user of this machine, where the kernel can tell and no token tells better.
    pub async fn is_one(&self, guard: &Guard, stream: &TcpStream, peer: SocketAddr) -> bool {
        if guard.token.is_some() || !peer.ip().is_loopback() {
            return false;
        }
        let Ok(local) = stream.local_addr() else { return true };
        // The kernel's table is long where there are many connections: a flood of them must
        // not take every thread that blocks.
        let Ok(_turn) = self.lookups.acquire().await else { return true };
        !tokio::task::spawn_blocking(move || same_user(peer, local)).await.unwrap_or(false)
    }
}

/// Whether the process behind a loopback connection is the user's own, or root's.
/// Elsewhere than on Linux nobody can tell, and nobody is refused.
#[cfg(target_os = "linux")]
pub fn same_user(peer: SocketAddr, local: SocketAddr) -> bool {
    let own = rustix::process::getuid().as_raw();
    match super::owner::of(peer, local) {
        Owner::User(uid) => uid == own || uid == 0,
        Owner::Nobody => false,
        Owner::Unknown => true,
    }
}

#[cfg(not(target_os = "linux"))]
pub fn same_user(_: SocketAddr, _: SocketAddr) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                let name: hyper::header::HeaderName = name.parse().expect("a header name");
                (name, HeaderValue::from_str(value).expect("a header value"))
            })
            .collect()
    }

    fn status(guard: &Guard, pairs: &[(&str, &str)]) -> u16 {
        guard.admit(&headers(pairs)).map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn only_loopback_hosts_and_listed_ones() {
        let guard = Guard { allowed_hosts: vec!["box.lan".into(), "other:81".into()], ..Guard::default() };
        for host in
            ["localhost", "LOCALHOST:8420", "127.0.0.1:1", "[::1]:8420", "[::1]", "box.lan", "box.lan:99", "other:81"]
        {
            assert_eq!(status(&guard, &[("host", host)]), 200, "{host}");
        }
        for host in
            ["evil.example", "evil.example:8420", "127.0.0.1.evil.example", "localhost.evil", "", "other:82", "0.0.0.0"]
        {
            assert_eq!(status(&guard, &[("host", host)]), 403, "{host}");
        }
    }

    #[test]
    fn only_own_origins_and_listed_ones() {
        let guard = Guard { allowed_origins: vec!["https://app.example".into()], ..Guard::default() };
        let with = |origin| status(&guard, &[("host", "127.0.0.1:8420"), ("origin", origin)]);
        assert_eq!(with("http://127.0.0.1:8420"), 200);
        assert_eq!(with("https://app.example"), 200);
        assert_eq!(with("http://127.0.0.1:9999"), 403, "another port is another page");
        assert_eq!(with("null"), 403);
        assert_eq!(with("https://app.example.evil"), 403);
    }

    #[test]
    fn a_token_must_match_to_the_last_character() {
        let guard = Guard { token: Some("s3cret".into()), ..Guard::default() };
        let with = |value| status(&guard, &[("host", "localhost"), ("authorization", value)]);
        assert_eq!(with("Bearer s3cret"), 200);
        assert_eq!(with("bearer s3cret"), 200);
        for wrong in ["Bearer s3creT", "Bearer s3cre", "Bearer s3cret2", "Bearer ", "Basic s3cret", "s3cret"] {
            assert_eq!(with(wrong), 401, "{wrong}");
        }
        assert_eq!(status(&guard, &[("host", "localhost")]), 401);
    }

    #[test]
    fn json_only() {
        assert!(must_be_json(&headers(&[("content-type", "application/json; charset=utf-8")])).is_ok());
        assert!(must_be_json(&headers(&[("content-type", "text/plain")])).is_err());
        assert!(must_be_json(&HeaderMap::new()).is_err());
    }

    #[test]
    fn a_connection_of_this_process_is_of_the_same_user() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let stream = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (peer, local) = (stream.local_addr().expect("bound"), stream.peer_addr().expect("connected"));
        assert!(same_user(peer, local));
        #[cfg(target_os = "linux")]
        assert!(!same_user(local, "127.0.0.1:1".parse().expect("an address")), "an unknown peer is refused");
    }
}
