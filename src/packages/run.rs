//! Runs a package manager to its end and hears what it says.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use crate::{
    egress::Egress,
    link::StartError,
    process::{Command, Exit, SpawnError, tail::Tail},
};

/// What is said beyond that is read and forgotten.
const OUTPUT_MAX_BYTES: u64 = 1 << 20;
/// How long a manager that was told to end may take.
const GRACE: Duration = Duration::from_secs(2);

/// What it has said.
pub(super) struct Said {
    pub(super) succeeded: bool,
    pub(super) output: String,
    /// The last of its stderr, or how it ended.
    pub(super) last_words: String,
}

pub(super) async fn run(
    command: &Command,
    egress: Option<Egress>,
    max: Duration,
    tasks: &TaskTracker,
) -> Result<Said, StartError> {
    let (child, pipes) = command.spawn(tasks).await.map_err(start_error)?;
    drop(pipes.stdin);
    let tail = Tail::hiding(command.told());
    let talk = async {
        let (output, ()) = tokio::join!(read(pipes.stdout), tail.clone().follow(pipes.stderr));
        (output, child.exited().await)
    };
    let served = async {
        if let Some(egress) = egress {
            egress.serve(pipes.listeners).await;
        }
        std::future::pending().await
    };
    let ended = timeout(max, async {
        tokio::select! {
            ended = talk => ended,
            never = served => never,
        }
    });
    let Ok((output, exit)) = ended.await else {
        child.stop(GRACE).await;
        let waited = crate::text::duration(max);
        return Err(StartError::Transient(format!("{} did not end within {waited}", command.program)));
    };
    let last_words = tail.text().unwrap_or_else(|| exit.to_string());
    Ok(Said { succeeded: exit == Exit::Code(0), output, last_words })
}

async fn read(mut stream: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    // An error ends it like the end does.
    let _ = (&mut stream).take(OUTPUT_MAX_BYTES).read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(super) fn start_error(error: SpawnError) -> StartError {
    match error {
        SpawnError::Refused(why) => StartError::Refused(format!("the sandbox was refused: {why}")),
        error if error.is_permanent() => StartError::Permanent(error.to_string()),
        error => StartError::Transient(error.to_string()),
    }
}
