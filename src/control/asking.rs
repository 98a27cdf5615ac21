//! The side that asks: connects, says what it wants, and waits no longer than a gateway that
//! is well may take.

use std::{io, path::Path, time::Duration};

use serde_json::value::RawValue;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::timeout,
};

use super::{Reply, Request, is_same_user, socket_path};

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens: no gateway of this config is running.
    #[error("no gateway is running for this config; start one with `seawall serve`")]
    NoGateway,
    #[error(
        "the gateway, process {pid}, has not answered within {waited}; if it stays so, end it with `kill -9 {pid}` and \
         start it again"
    )]
    Silent { pid: String, waited: String },
    #[error("the gateway did not answer: {0}")]
    Broken(#[from] io::Error),
    #[error("{0}")]
    Refused(String),
}

/// Asks the running gateway, and returns its answer as it came.
pub async fn ask(state: &Path, request: &Request) -> Result<Box<RawValue>, ControlError> {
    let asked = async {
        let mut stream = BufReader::new(connect(state, request).await?);
        read_reply(&mut stream).await
    };
    let Some(patience) = request.patience() else { return asked.await };
    timeout(patience, asked).await.unwrap_or_else(|_| {
        let pid = std::fs::read_to_string(state.join("lock")).unwrap_or_default().trim().to_owned();
        Err(ControlError::Silent { pid, waited: crate::text::duration(patience) })
    })
}

impl Request {
    /// How long a gateway that is well may take; a call takes as long as it takes.
    fn patience(&self) -> Option<Duration> {
        match self {
            Request::Status | Request::Restart { .. } | Request::ResetBreaker { .. } => Some(Duration::from_secs(15)),
            // Servers in their first start are waited for.
            Request::Tools => Some(Duration::from_secs(60)),
            // Values may come from commands, each of which may ask a person.
            Request::Reload => Some(Duration::from_secs(300)),
            Request::Call { .. } | Request::Stdio { .. } => None,
        }
    }
}

/// Joins the running gateway as an MCP client; the stream speaks MCP from here on.
pub async fn join(state: &Path, server: Option<String>) -> Result<BufReader<UnixStream>, ControlError> {
    let mut stream = BufReader::new(connect(state, &Request::Stdio { server }).await?);
    read_reply(&mut stream).await?;
    Ok(stream)
}

async fn connect(state: &Path, request: &Request) -> Result<UnixStream, ControlError> {
    let mut stream = UnixStream::connect(socket_path(state)).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ControlError::NoGateway,
        _ => ControlError::Broken(error),
    })?;
    if !is_same_user(&stream) {
        return Err(ControlError::Refused("the control socket belongs to another user".to_owned()));
    }
    let mut line = serde_json::to_vec(request).map_err(io::Error::from)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    Ok(stream)
}

async fn read_reply(stream: &mut BufReader<UnixStream>) -> Result<Box<RawValue>, ControlError> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(ControlError::Broken(io::ErrorKind::UnexpectedEof.into()));
    }
    match serde_json::from_slice(&line).map_err(io::Error::from)? {
        Reply::Ok(value) => Ok(value),
        Reply::Error(why) => Err(ControlError::Refused(why)),
    }
}
