//! The ways out of a network of its own: the proxy, and a door for each place that is
//! named exactly, for programs that take no notice of a proxy. Pure: who listens where,
//! and what the server's file of hosts says.

use std::net::Ipv4Addr;

use super::Destination;
#[cfg(any(target_os = "linux", test))]
use super::Network;

/// Where the proxy is, seen from inside.
pub const PROXY: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 3128);

/// A socket that listens inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    pub address: (Ipv4Addr, u16),
    /// Where it leads; `None` for the proxy, which is told.
    pub leads_to: Option<Destination>,
}

/// The proxy first, then one for each exact name. A name gets one address, whatever its
/// ports.
pub fn doors(allowed: &[Destination]) -> Vec<Door> {
    let mut doors = vec![Door { address: PROXY, leads_to: None }];
    for destination in allowed.iter().filter(|destination| !destination.host.starts_with("*.")) {
        let Some(address) = address_of(&destination.host, allowed) else { continue };
        let door = Door { address: (address, destination.port), leads_to: Some(destination.clone()) };
        if door.address != PROXY && !doors.contains(&door) {
            doors.push(door);
        }
    }
    doors
}

/// The address inside: of a name one of a range for names; a loopback address itself.
/// Others cannot be stood in for.
fn address_of(host: &str, allowed: &[Destination]) -> Option<Ipv4Addr> {
    if host.contains(':') || host.starts_with('[') {
        return None;
    }
    if let Ok(literal) = host.parse::<Ipv4Addr>() {
        return literal.is_loopback().then_some(literal);
    }
    if host == "localhost" {
        return Some(Ipv4Addr::LOCALHOST);
    }
    let at = allowed.iter().position(|other| other.host == host)?;
    let number = u16::try_from(at + 1).ok()?;
    Some(Ipv4Addr::new(127, 1, (number >> 8) as u8, (number & 0xff) as u8))
}

/// What tells programs of the proxy.
#[cfg(any(target_os = "linux", test))]
pub(super) fn variables() -> [(&'static str, String); 7] {
    let proxy = format!("http://{}:{}", PROXY.0, PROXY.1);
    [
        ("HTTP_PROXY", proxy.clone()),
        ("http_proxy", proxy.clone()),
        ("HTTPS_PROXY", proxy.clone()),
        ("https_proxy", proxy),
        ("NO_PROXY", String::new()),
        ("no_proxy", String::new()),
        // Node from 22.21 on looks at them only then.
        ("NODE_USE_ENV_PROXY", "1".to_owned()),
    ]
}

#[cfg(any(target_os = "linux", test))]
pub(super) fn hosts_file(network: &Network) -> String {
    use std::fmt::Write as _;
    let mut text = "127.0.0.1 localhost sandbox\n::1 localhost\n".to_owned();
    let Network::Allow(allowed) = network else { return text };
    let mut seen = Vec::new();
    for Door { address, leads_to } in doors(allowed) {
        let Some(Destination { host, .. }) = leads_to else { continue };
        if host.parse::<Ipv4Addr>().is_err() && host != "localhost" && !seen.contains(&host) {
            let _ = writeln!(text, "{} {host}", address.0);
            seen.push(host);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Destination {
        Destination { host: host.to_owned(), port }
    }

    #[test]
    fn exact_names_have_doors_and_patterns_have_the_proxy() {
        let allowed =
            [at("*.example.com", 443), at("api.example.com", 443), at("api.example.com", 80), at("127.0.0.1", 5432)];
        let doors = doors(&allowed);
        assert_eq!(doors.len(), 4);
        assert_eq!(doors[0], Door { address: PROXY, leads_to: None });
        assert_eq!(doors[1].address, (Ipv4Addr::new(127, 1, 0, 2), 443));
        assert_eq!(doors[2].address, (Ipv4Addr::new(127, 1, 0, 2), 80));
        assert_eq!(doors[3].address, (Ipv4Addr::LOCALHOST, 5432));
        let hosts = hosts_file(&Network::Allow(allowed.to_vec()));
        assert_eq!(hosts.matches("api.example.com").count(), 1);
        assert!(!hosts.contains('*'), "{hosts}");
    }
}
