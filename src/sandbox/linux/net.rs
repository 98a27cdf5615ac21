//! A network namespace: its own loopback, and sockets in it that seawall serves from
//! outside.

use std::{
    net::{Ipv4Addr, SocketAddrV4, TcpListener},
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::super::{Destination, Refusal, egress};

/// Raises the loopback interface of this namespace.
pub(super) fn up() -> Result<(), Refusal> {
    let refuse = |error: std::io::Error| Refusal::of("the loopback of its own network cannot be raised", error);
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|error| refuse(error.into()))?;
    // SAFETY: all of it is plain data, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = (*from).cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
    // SAFETY: the request is of the type that this ioctl reads, and lives until it returns.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } != 0 {
        return Err(refuse(std::io::Error::last_os_error()));
    }
    Ok(())
}

/// The listeners that an allow list needs, in the order that [`egress::doors`] has.
pub(super) fn listeners(allowed: &[Destination]) -> Result<Vec<OwnedFd>, Refusal> {
    up()?;
    let listen = |address: (Ipv4Addr, u16)| {
        TcpListener::bind(SocketAddrV4::new(address.0, address.1))
            .map(OwnedFd::from)
            .map_err(|error| Refusal::of("nothing can listen in its own network", error))
    };
    egress::doors(allowed).into_iter().map(|door| listen(door.address)).collect()
}
