//! What gateway and launcher say to each other over the control socket: one
//! [`Order`] inwards, one [`Answer`] back, each a line of JSON. Afterwards a byte
//! [`STOP_POLITELY`] asks for the end, and the end of the stream demands it.

use std::{
    ffi::OsString,
    io::{self, IoSliceMut},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::{Deserialize, Serialize};

use crate::sandbox::{Plan, Refusal, Report};

/// Every process of the tree is sent SIGTERM.
pub(super) const STOP_POLITELY: u8 = b't';

/// What to start. It travels through a socket, so that nobody can read it in a list of
/// processes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) program: PathBuf,
    pub(super) args: Vec<OsString>,
    /// All of it: nothing is inherited.
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: PathBuf,
    pub(super) plan: Plan,
    /// Its standard streams are a terminal, which shall be its own.
    pub(super) has_terminal: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Started { pid: u32, report: Report },
    Failed(LaunchError),
}

/// Why the launcher did not get as far as the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "why", content = "message")]
pub enum LaunchError {
    /// The program, or the interpreter in its first line, is not there.
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    NotPermitted(String),
    /// A part of the sandbox cannot be had.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Other(String),
}

impl From<Refusal> for LaunchError {
    fn from(refusal: Refusal) -> Self {
        LaunchError::Refused(refusal.to_string())
    }
}

impl LaunchError {
    pub(super) fn other(what: &str, error: impl std::fmt::Display) -> Self {
        LaunchError::Other(format!("{what}: {error}"))
    }
}

/// More descriptors than a launcher sends at once.
const FDS_MAX: usize = 64;

/// Reads what is there, and takes the descriptors that came along; zero at the end.
pub(super) fn receive(stream: impl AsFd, bytes: &mut Vec<u8>, fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut chunk = [0; 4096];
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut chunk)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    bytes.extend_from_slice(&chunk[..received.bytes]);
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok(received.bytes)
}
