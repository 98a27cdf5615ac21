//! Whose process is at the other end of a loopback connection: one question to the kernel
//! about this connection, and its table of all of them only where it takes none. With
//! ten thousand connections the table is long, and everybody who connects would wait for it.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
    time::Duration,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, netlink::SocketAddrNetlink, recv, sendto,
    socket_with, sockopt,
};

/// `struct nlmsghdr`, then `struct inet_diag_req_v2`; linux/netlink.h, linux/inet_diag.h.
const HEADER_BYTES: usize = 16;
const QUESTION_BYTES: usize = HEADER_BYTES + 56;
/// Enough for the answer, which is one `struct inet_diag_msg` with its attributes.
const ANSWER_MAX_BYTES: usize = 1024;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
/// -ENOENT.
const NO_SUCH_CONNECTION: u32 = 2_u32.wrapping_neg();
/// Ports and addresses.
const QUESTION_ID_AT: Range<usize> = HEADER_BYTES + 8..HEADER_BYTES + 44;
const ANSWER_ID_AT: Range<usize> = HEADER_BYTES + 4..HEADER_BYTES + 40;
/// In the answer: after the header, the socket's id and its queues.
const UID_AT: usize = HEADER_BYTES + 64;
const INODE_AT: usize = HEADER_BYTES + 68;
/// A user and an inode.
const NOBODY: (u32, u32) = (0, 0);
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    User(u32),
    /// No process holds that end, any more or at all. Of a closed one the kernel says
    /// that it is root's.
    Nobody,
    /// This machine does not tell.
    Unknown,
}

/// Whose process holds `peer`'s end.
pub(super) fn of(peer: SocketAddr, local: SocketAddr) -> Owner {
    if let Some(found) = asked(peer, local) {
        return owner(found);
    }
    match listed(peer, local) {
        Some(found) => found.map_or(Owner::Nobody, owner),
        None => Owner::Unknown,
    }
}

fn owner((uid, inode): (u32, u32)) -> Owner {
    if inode == 0 { Owner::Nobody } else { Owner::User(uid) }
}

/// `None` where the kernel does not take the question.
fn asked(peer: SocketAddr, local: SocketAddr) -> Option<(u32, u32)> {
    let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
    let socket = socket_with(AddressFamily::NETLINK, kind, flags, Some(netlink::SOCK_DIAG)).ok()?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE)).ok()?;
    let kernel = SocketAddrNetlink::new(0, 0);
    let question = question(peer, local);
    sendto(&socket, &question, SendFlags::empty(), &kernel).ok()?;
    let mut answer = [0; ANSWER_MAX_BYTES];
    let (received, _) = recv(&socket, &mut answer[..], RecvFlags::empty()).ok()?;
    let answer = &answer[..received];
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let number = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    match kind {
        SOCK_DIAG_BY_FAMILY if answer.get(ANSWER_ID_AT)? == &question[QUESTION_ID_AT] => {
            Some((number(UID_AT)?, number(INODE_AT)?))
        }
        // Where it knows no such connection it names whoever listens at that address.
        SOCK_DIAG_BY_FAMILY => Some(NOBODY),
        NLMSG_ERROR if number(HEADER_BYTES)? == NO_SUCH_CONNECTION => Some(NOBODY),
        _ => None,
    }
}

fn question(peer: SocketAddr, local: SocketAddr) -> Vec<u8> {
    const EVERY_STATE: u32 = u32::MAX;
    const NO_COOKIE: [u8; 8] = [0xff; 8];
    const ANY_INTERFACE: u32 = 0;
    let family = if peer.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let family = u8::try_from(family.as_raw()).expect("a family is small");
    let mut bytes = Vec::with_capacity(QUESTION_BYTES);
    bytes.extend(u32::try_from(QUESTION_BYTES).expect("it is small").to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence and sender: there is one question on this socket.
    bytes.extend([0; 8]);
    // TCP is 6; no extensions; padding.
    bytes.extend([family, 6, 0, 0]);
    bytes.extend(EVERY_STATE.to_ne_bytes());
    bytes.extend(peer.port().to_be_bytes());
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(sixteen(peer.ip()));
    bytes.extend(sixteen(local.ip()));
    bytes.extend(ANY_INTERFACE.to_ne_bytes());
    bytes.extend(NO_COOKIE);
    bytes
}

fn sixteen(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The same from /proc/net/tcp; `None` where that cannot be read.
fn listed(peer: SocketAddr, local: SocketAddr) -> Option<Option<(u32, u32)>> {
    let file = if peer.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let table = std::fs::read_to_string(file).ok()?;
    let (theirs, ours) = (proc_address(peer), proc_address(local));
    Some(table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let is_theirs = fields.next() == Some(&theirs) && fields.next() == Some(&ours);
        if !is_theirs {
            return None;
        }
        // After both addresses: state, queues, timer, retransmits, uid, timeout, inode.
        let uid = fields.nth(4)?.parse().ok()?;
        Some((uid, fields.nth(1)?.parse().ok()?))
    }))
}

/// An address as /proc/net/tcp writes it: each 32 bits in the machine's byte order.
fn proc_address(address: SocketAddr) -> String {
    let octets = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = octets.chunks_exact(4).map(|c| format!("{:08X}", u32::from_ne_bytes([c[0], c[1], c[2], c[3]])));
    format!("{}:{:04X}", words.collect::<String>(), address.port())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn connected(address: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(address).expect("a port is free");
        let ours = TcpStream::connect(listener.local_addr().expect("an address")).expect("it listens");
        let (theirs, _) = listener.accept().expect("one came");
        (ours, theirs)
    }

    #[test]
    fn both_ways_to_ask_say_who_is_at_the_other_end() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (client, server) = connected(address);
            let (peer, local) = (client.local_addr().expect("bound"), server.local_addr().expect("bound"));
            let own = rustix::process::getuid().as_raw();
            assert_eq!(asked(peer, local).map(|(uid, _)| uid), Some(own), "{address}");
            assert_eq!(Some(asked(peer, local)), listed(peer, local), "{address}");
            assert_eq!(of(peer, local), Owner::User(own));
        }
    }

    #[test]
    fn who_listens_is_not_who_connects() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("an address");
        assert_eq!(asked(address, "127.0.0.1:1".parse().expect("an address")), Some(NOBODY));
    }

    #[test]
    fn who_has_closed_is_nobody_and_not_root() {
        let (client, server) = connected("127.0.0.1:0");
        let (peer, local) = (client.local_addr().expect("bound"), server.local_addr().expect("bound"));
        drop(client);
        assert_eq!(of(peer, local), Owner::Nobody);
        assert_eq!(asked(peer, local).map(|(_, inode)| inode), Some(0));
        assert_eq!(of("127.0.0.1:1".parse().expect("an address"), local), Owner::Nobody);
    }
}
