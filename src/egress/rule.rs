//! What may be reached: by name first, then by every address that the name leads to.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use crate::sandbox::Destination;

/// Addresses that seawall itself listens at; filled as its listeners are made.
pub type OwnListeners = Arc<Mutex<Vec<SocketAddr>>>;

#[derive(Clone, Debug)]
pub struct Rule {
    pub server: String,
    allowed: Vec<Destination>,
    own: OwnListeners,
    /// Of the list, names that stand for whatever addresses they have.
    trusted: Vec<Destination>,
}

/// Why a connection was not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    pub host: String,
    pub port: u16,
    pub message: String,
    /// Not permitted, rather than not there.
    pub is_rule: bool,
}

impl Denial {
    pub(super) fn unreachable(host: &str, port: u16, why: &str) -> Self {
        let host_shown = crate::text::quote(host, 100);
        let message = format!("{host_shown}:{port} cannot be reached: {why}");
        Denial { host: host.to_owned(), port, message, is_rule: false }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Rule {
    pub fn new(server: &str, allowed: &[Destination], own: OwnListeners) -> Self {
        Rule { server: server.to_owned(), allowed: allowed.to_vec(), own, trusted: Vec::new() }
    }

    /// For names that the user has given to a program of his own, which may well be in
    /// a network of his own. Seawall itself is none of them.
    #[must_use]
    pub fn trusting(self, names: &[Destination]) -> Self {
        Rule { trusted: names.to_vec(), ..self }
    }

    pub fn allowed(&self) -> &[Destination] {
        &self.allowed
    }

    /// Before anything is resolved.
    pub(super) fn permits_name(&self, host: &str, port: u16) -> Result<(), Denial> {
        let host = plain_name(host);
        if is_among(&self.allowed, &host, port) {
            return Ok(());
        }
        let shown = crate::text::quote(&host, 100);
        Err(self.denied(&host, port, &format!("add \"{shown}:{port}\"")))
    }

    /// Those of `addresses` that may be connected to; an error if there is none.
    pub(super) fn permits_addresses(
        &self,
        host: &str,
        port: u16,
        addresses: &[SocketAddr],
    ) -> Result<Vec<SocketAddr>, Denial> {
        let permitted: Vec<_> = addresses.iter().copied().filter(|address| self.permits(host, *address)).collect();
        if !permitted.is_empty() {
            return Ok(permitted);
        }
        let Some(first) = addresses.first() else { return Err(Denial::unreachable(host, port, "it has no address")) };
        if self.is_own(*first) {
            return Err(Denial {
                message: format!("blocked by the sandbox: {host}:{port} is seawall itself, which no server may reach"),
                host: host.to_owned(),
                port,
                is_rule: true,
            });
        }
        Err(self.denied(host, port, &format!("it leads to the private address {first}; add \"{first}\" as well")))
    }

    fn permits(&self, host: &str, address: SocketAddr) -> bool {
        if self.is_own(address) {
            return false;
        }
        let ip = plain(address.ip());
        let is_named = self.allowed.iter().any(|allowed| {
            allowed.port == address.port()
                && allowed.host.trim_start_matches('[').trim_end_matches(']').parse() == Ok(ip)
        });
        is_named
            || is_among(&self.trusted, &plain_name(host), address.port())
            || is_public(ip)
            || (host == "localhost" && ip.is_loopback())
    }

    /// At any address of this machine: a port of seawall's is seawall's.
    fn is_own(&self, address: SocketAddr) -> bool {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.iter().any(|own| leads_to(*own, address, is_here))
    }

    fn denied(&self, host: &str, port: u16, how: &str) -> Denial {
        let shown = crate::text::quote(host, 100);
        let message = format!(
            "blocked by the sandbox: {shown}:{port}; to allow: {how} to network.allow under [servers.{}.sandbox]",
            self.server
        );
        Denial { host: host.to_owned(), port, message, is_rule: true }
    }
}

/// Whether who connects to `address` comes to the listener at `own`.
fn leads_to(own: SocketAddr, address: SocketAddr, is_here: impl Fn(IpAddr) -> bool) -> bool {
    let ip = plain(address.ip());
    // At no address in particular it is at all of this machine, a public one too.
    let is_anywhere = || own.ip().is_unspecified() && is_here(ip);
    own.port() == address.port() && (own.ip() == ip || !is_public(ip) || is_anywhere())
}

/// Only addresses of this machine can be bound to.
fn is_here(ip: IpAddr) -> bool {
    std::net::UdpSocket::bind((ip, 0)).is_ok()
}

fn plain_name(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

fn is_among(places: &[Destination], host: &str, port: u16) -> bool {
    places.iter().any(|place| {
        place.port == port
            && match place.host.strip_prefix('*') {
                // `*.example.com` is every name below it, and not itself.
                Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix) && !is_address(host),
                None => place.host == host,
            }
    })
}

fn is_address(host: &str) -> bool {
    host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
}

/// An address of version 4 in the clothes of one of version 6 is the former.
pub(super) fn plain(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => embedded(v6).map_or(ip, IpAddr::V4),
    }
}

/// Mapped, compatible, NAT64 and 6to4 addresses carry one of version 4.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] if (high, low) > (0, 1) => Some(of(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

/// Of the open internet: nothing of this machine, its network, or of no use.
pub(super) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4.is_documentation()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (b == 18 || b == 19))
                || (a == 192 && b == 0 && c == 0))
        }
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            // What is given out to the world begins with 001.
            (first & 0xe000) == 0x2000 && !(first == 0x2001 && v6.segments()[1] == 0xdb8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allowed: &[(&str, u16)]) -> Rule {
        let allowed: Vec<_> =
            allowed.iter().map(|(host, port)| Destination { host: (*host).to_owned(), port: *port }).collect();
        let own = Arc::new(Mutex::new(vec!["127.0.0.1:8420".parse().expect("an address")]));
        Rule::new("github", &allowed, own)
    }

    fn at(address: &str) -> SocketAddr {
        address.parse().expect("an address")
    }

    #[test]
    fn names_match_exactly_or_below_a_star() {
        let rule = rule(&[("api.example.com", 443), ("*.example.org", 443)]);
        for host in ["api.example.com", "API.Example.com", "api.example.com.", "a.example.org", "a.b.example.org"] {
            assert_eq!(rule.permits_name(host, 443), Ok(()), "{host}");
        }
        for host in
            ["example.com", "x.api.example.com", "example.org", ".example.org", "evilexample.org", "1.2.3.4", "[::1]"]
        {
            assert!(rule.permits_name(host, 443).is_err(), "{host}");
        }
        let denial = rule.permits_name("api.example.com", 80).expect_err("another port");
        assert!(denial.message.contains("to allow: add \"api.example.com:80\""), "{denial}");
        assert!(denial.message.contains("[servers.github.sandbox]"), "{denial}");
    }

    #[test]
    fn a_name_that_leads_inside_is_refused_unless_the_address_is_named_too() {
        let plain = rule(&[("rebound.example.com", 443)]);
        for address in [
            "127.0.0.1:443",
            "10.1.2.3:443",
            "172.16.0.1:443",
            "192.168.1.1:443",
            "169.254.169.254:443",
            "100.64.0.1:443",
            "0.0.0.0:443",
            "[::1]:443",
            "[fe80::1]:443",
            "[fd00::1]:443",
            "[::ffff:127.0.0.1]:443",
            "[::ffff:10.0.0.1]:443",
            "[64:ff9b::a00:1]:443",
            "[2002:a00:1::]:443",
        ] {
            let denied = plain.permits_addresses("rebound.example.com", 443, &[at(address)]);
            assert!(denied.expect_err(address).message.contains("private address"), "{address}");
        }
        let public = [at("10.0.0.1:443"), at("93.184.216.34:443"), at("[2606:2800:220:1::1]:443")];
        assert_eq!(plain.permits_addresses("rebound.example.com", 443, &public).expect("two"), public[1..]);

        let named = rule(&[("git.corp.example", 443), ("10.0.0.1", 443)]);
        assert!(named.permits_addresses("git.corp.example", 443, &[at("10.0.0.1:443")]).is_ok());
        assert!(named.permits_addresses("git.corp.example", 443, &[at("10.0.0.2:443")]).is_err());
    }

    #[test]
    fn trusted_names_may_lead_inside_but_not_to_seawall() {
        let places = [("packages.corp.example", 443), ("packages.corp.example", 8420), ("files.example", 443)];
        let rule = rule(&places);
        let trusted = rule.allowed()[..2].to_vec();
        let rule = rule.trusting(&trusted);
        assert!(rule.permits_addresses("packages.corp.example", 443, &[at("10.0.0.1:443")]).is_ok());
        assert!(rule.permits_addresses("Packages.corp.example.", 443, &[at("10.0.0.1:443")]).is_ok());
        assert!(rule.permits_addresses("files.example", 443, &[at("10.0.0.1:443")]).is_err());
        assert!(rule.permits_addresses("files.example", 443, &[at("93.184.216.34:443")]).is_ok());
        assert!(rule.permits_name("other.example", 443).is_err());
        assert!(rule.permits_addresses("packages.corp.example", 8420, &[at("127.0.0.1:8420")]).is_err());
    }

    #[test]
    fn seawall_itself_is_reached_by_no_name() {
        let rule = rule(&[("localhost", 8420), ("127.0.0.1", 8420), ("127.0.0.1", 5432)]);
        for address in ["127.0.0.1:8420", "127.0.0.2:8420", "[::1]:8420", "192.168.1.5:8420"] {
            let denied = rule.permits_addresses("localhost", 8420, &[at(address)]).expect_err(address);
            assert!(denied.message.contains("seawall itself"), "{denied}");
        }
        assert!(rule.permits_addresses("127.0.0.1", 5432, &[at("127.0.0.1:5432")]).is_ok());
    }

    #[test]
    fn seawall_is_not_reached_at_a_public_address_of_this_machine_either() {
        let ours: IpAddr = "93.184.216.34".parse().expect("an address");
        let leads = |own: &str, to: &str| leads_to(at(own), at(to), |ip| ip == ours);
        for own in ["0.0.0.0:8420", "[::]:8420"] {
            assert!(leads(own, "93.184.216.34:8420"), "{own}");
            assert!(leads(own, "[::ffff:93.184.216.34]:8420"), "{own}");
            assert!(!leads(own, "93.184.216.35:8420") && !leads(own, "93.184.216.34:8421"), "{own}");
        }
        assert!(!leads("127.0.0.1:8420", "93.184.216.34:8420"));
        assert!(is_here("127.0.0.1".parse().expect("an address")) && !is_here("192.0.2.1".parse().expect("another")));
    }
}
