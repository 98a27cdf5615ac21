//! Our end of a connection to a server that may write anything: whoever asked gets one
//! answer, and when the server's stream has ended nothing is left.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use seawall::{
    call::{Message, Method, Trail},
    link::{Gone, LinkError},
    wire::peer::{Limits, Listener, Peer},
};
use tokio::{io::AsyncWriteExt as _, time::timeout};
use tokio_util::task::TaskTracker;

const ASKED: u64 = 3;
/// Of a clock that stands still while anything can be done.
const LONG: Duration = Duration::from_secs(60);

struct Deaf;

impl Listener for Deaf {
    fn on(&self, peer: &Peer, message: Message) {
        if let Message::Request { id, .. } = message {
            let _ = peer.try_respond(&id, seawall::call::Answer::Result(seawall::call::Payload::literal("{}")));
        }
    }
}

pub(crate) fn run(input: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(converse(input));
}

async fn converse(input: &[u8]) {
    let (read, mut server) = tokio::io::duplex(1024);
    let tasks = TaskTracker::new();
    let limits = Limits { max_line_bytes: 4096, write_timeout: Duration::from_secs(10) };
    let peer = Peer::start(1, (read, tokio::io::sink()), Arc::new(Deaf), limits, &tasks);
    let asks = (0..ASKED).map(|_| peer.ask(Method::of("tools/list"), None, Arc::new(Trail::new())));
    let server = async {
        // Who is not read any more is cut off.
        let _ = server.write_all(input).await;
        drop(server);
        let end = timeout(LONG, peer.ended()).await.expect("its end is noticed");
        assert!(!end.reason.is_empty());
        peer.fail(&Gone::because(end.reason.clone()), end.guilty);
    };
    let (answers, ()) = timeout(LONG, futures_util::future::join(join_all(asks), server)).await.expect("no ask hangs");
    let guilty = answers.iter().filter(|answer| matches!(answer, Err(LinkError::Protocol(_)))).count();
    assert!(guilty <= ASKED as usize);
    let late = timeout(LONG, peer.ask(Method::of("ping"), None, Arc::new(Trail::new()))).await;
    assert!(matches!(late, Ok(Err(LinkError::NotSent(_)))), "{late:?}");
    drop(peer);
    tasks.close();
    timeout(LONG, tasks.wait()).await.expect("both of its tasks end");
}
