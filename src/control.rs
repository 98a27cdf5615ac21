//! The control socket: what `seawall status`, `tools`, `call`, `restart`, `reload`
//! and `breaker reset` speak to, and how `seawall stdio` joins a running gateway.
//!
//! One request a connection: a line of JSON, answered by a line of JSON. `stdio` goes
//! on as an MCP client on the same stream. Only the same user, or root, is heard.

use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream, unix},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{MissedTickBehavior, timeout},
};

use crate::{
    call::{Payload, ServerName},
    downstream,
    gateway::{Gateway, reload},
    session::{Gate as _, Scope},
};

mod asking;
mod relay;
mod tools;

pub use asking::{ControlError, ask, join};
pub use relay::relay;
pub use tools::{CallError, ToolLine, call_tool, list_tools};

/// Paths of Unix sockets are limited to about a hundred bytes.
const SOCKET_PATH_MAX_BYTES: usize = 100;
const CONNECTIONS_MAX: usize = 256;
/// Of `seawall stdio`, which stay: apart, so that the gateway can still be asked.
const JOINED_MAX_CLIENTS: usize = 256;
/// A request must have arrived by then.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Answers that were given as the gateway ended have so long to be read.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);
/// How often it is looked whether the socket is still there: folders of temporary files
/// are cleaned, and a gateway that nobody can ask looks like none.
const STILL_THERE: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    Status,
    Tools,
    /// `arguments` is JSON as text, so that its numbers arrive as they were written.
    Call {
        tool: String,
        arguments: String,
    },
    Restart {
        server: String,
    },
    Reload,
    ResetBreaker {
        tool: String,
    },
    Stdio {
        server: Option<String>,
    },
}

/// What comes back: a value, or a sentence.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Ok(Box<RawValue>),
    Error(String),
}

/// Where the socket of a state folder is.
pub fn socket_path(state: &Path) -> PathBuf {
    let path = state.join("control.sock");
    if path.as_os_str().len() <= SOCKET_PATH_MAX_BYTES {
        return path;
    }
    let uid = rustix::process::getuid().as_raw();
    let digest = crate::text::digest(&state.to_string_lossy());
    std::env::temp_dir().join(format!("seawall-{uid}-{digest}.sock"))
}

fn is_same_user(stream: &UnixStream) -> bool {
    let own = rustix::process::getuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

/// Binds the socket, for its owner only. The state's lock is held, so that whatever
/// lies at its path is a leftover.
pub fn bind(state: &Path) -> io::Result<UnixListener> {
    let path = socket_path(state);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until dropped.
pub async fn serve(mut listener: UnixListener, state: &Path, gateway: Gateway, reloader: Arc<reload::Reloader>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let joined = Arc::new(Semaphore::new(JOINED_MAX_CLIENTS));
    let mut look = tokio::time::interval(STILL_THERE);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = look.tick() => {
                if !socket_path(state).exists() {
                    bind_again(&mut listener, state);
                }
                continue;
            }
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("the control socket does not accept: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        if !is_same_user(&stream) {
            continue;
        }
        let (gateway, reloader, joined) = (gateway.clone(), reloader.clone(), joined.clone());
        let farewell = gateway.farewell_signal();
        gateway.tasks().clone().spawn(async move {
            tokio::select! {
                () = connection(stream, &gateway, &reloader, place, joined) => {}
                // Who has been silent, or does not read, must not keep the gateway.
                () = async { farewell.cancelled().await; tokio::time::sleep(LAST_WORDS_TIMEOUT).await } => {}
            }
        });
    }
}

fn bind_again(listener: &mut UnixListener, state: &Path) {
    match bind(state) {
        Ok(bound) => {
            tracing::warn!("the control socket {} had been removed, and was made again", socket_path(state).display());
            *listener = bound;
        }
        Err(error) => tracing::warn!("the control socket was removed and cannot be made again: {error}"),
    }
}

async fn connection(
    stream: UnixStream,
    gateway: &Gateway,
    reloader: &Arc<reload::Reloader>,
    place: OwnedSemaphorePermit,
    joined: Arc<Semaphore>,
) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    let arrival = timeout(REQUEST_TIMEOUT, (&mut read).take(REQUEST_MAX_BYTES).read_until(b'\n', &mut line)).await;
    if !matches!(arrival, Ok(Ok(_))) || line.is_empty() {
        return;
    }
    let request: Request = match serde_json::from_slice(&line) {
        Ok(request) => request,
        Err(error) => return send(&mut write, Reply::Error(format!("this gateway does not know that: {error}"))).await,
    };
    if let Request::Stdio { server } = request {
        let Ok(_seat) = joined.try_acquire_owned() else {
            let full = format!("{JOINED_MAX_CLIENTS} clients have joined this gateway already; end one of them");
            return send(&mut write, Reply::Error(full)).await;
        };
        drop(place);
        return stdio(gateway, server, read, write).await;
    }
    let reply = answer(gateway, reloader, request).await;
    send(&mut write, reply).await;
}

async fn send(write: &mut unix::OwnedWriteHalf, reply: Reply) {
    let Ok(mut line) = serde_json::to_vec(&reply) else { return };
    line.push(b'\n');
    let _ = timeout(REQUEST_TIMEOUT, write.write_all(&line)).await;
}

async fn answer(gateway: &Gateway, reloader: &Arc<reload::Reloader>, request: Request) -> Reply {
    match request {
        Request::Status => ok(&gateway.status()),
        Request::Tools => ok(&list_tools(gateway).await),
        Request::Call { tool, arguments } => match Payload::from_json(arguments) {
            Ok(arguments) => match call_tool(gateway, &tool, &arguments).await {
                Ok(answer) => ok(&answer),
                Err(error) => Reply::Error(error.to_string()),
            },
            Err(error) => Reply::Error(format!("the arguments are no JSON: {error}")),
        },
        Request::Restart { server } if gateway.restart(&server) => ok(&()),
        Request::Restart { server } => Reply::Error(format!(
            "there is no server {server:?}; servers are: {}",
            gateway.router().names().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        )),
        Request::Reload => {
            let (gateway, reloader) = (gateway.clone(), reloader.clone());
            match tokio::task::spawn_blocking(move || reloader.reload(&gateway)).await {
                Ok(Ok(changes)) => ok(&changes),
                Ok(Err(complaints)) => Reply::Error(complaints),
                Err(error) => Reply::Error(error.to_string()),
            }
        }
        Request::ResetBreaker { tool } if gateway.reset_breaker(&tool) => ok(&()),
        Request::ResetBreaker { tool } => {
            Reply::Error(format!("there is no tool {tool:?} with a breaker; `seawall tools` lists them"))
        }
        Request::Stdio { .. } => Reply::Error("this is not a question".to_owned()),
    }
}

fn ok<T: Serialize>(value: &T) -> Reply {
    match serde_json::value::to_raw_value(value) {
        Ok(value) => Reply::Ok(value),
        Err(error) => Reply::Error(format!("the answer could not be written down: {error}")),
    }
}

/// The rest of the connection is an MCP client.
async fn stdio(
    gateway: &Gateway,
    server: Option<String>,
    read: BufReader<unix::OwnedReadHalf>,
    mut write: unix::OwnedWriteHalf,
) {
    let scope = match server {
        None => Scope::All,
        Some(name) => match gateway.router().scope(&name) {
            Some(scope) => scope,
            None => {
                return send(&mut write, Reply::Error(format!("there is no server {:?}", ServerName::from(name))))
                    .await;
            }
        },
    };
    send(&mut write, ok(&())).await;
    let (drain, farewell) = (gateway.config().gateway.drain, gateway.farewell_signal());
    let (gate, limits) = (gateway.gate(), gateway.limits());
    downstream::stdio::serve((read, write), gate, scope, limits, drain, farewell, gateway.tasks()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_connects_and_says_nothing_gives_its_place_back() {
        let (_silent, accepted) = UnixStream::pair().expect("a pair of sockets");
        let gateway = Gateway::builder().start();
        let reloader = Arc::new(reload::Reloader::new(Path::new("servers.toml"), reload::Overrides::default()));
        let places = Arc::new(Semaphore::new(1));
        let place = places.clone().try_acquire_owned().expect("there is one");
        let serving = connection(accepted, &gateway, &reloader, place, places);
        let served = timeout(2 * REQUEST_TIMEOUT, serving).await;
        assert!(served.is_ok(), "it was still waited for");
    }
}
