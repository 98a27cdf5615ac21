//! One request under way: what comes back, message by message.

use std::{collections::VecDeque, time::Duration};

use serde_json::Value;
use tokio::time::timeout;

use super::{
    http::{Connection, Events, Head},
    mcp::{Client, PATIENCE},
};

/// One request under way. Dropped before its end, it closes its connection.
pub struct Exchange<'a> {
    pub id: u64,
    client: &'a Client,
    connection: Option<Connection>,
    pub head: Head,
    events: Events,
    ready: VecDeque<String>,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(id: u64, client: &'a Client, connection: Connection, head: Head) -> Exchange<'a> {
        let connection = Some(connection);
        Exchange { id, client, connection, head, events: Events::default(), ready: VecDeque::new() }
    }

    /// The next message; `None` at the end of the answer. Giving up loses nothing.
    pub async fn next(&mut self) -> Option<Value> {
        self.next_text().await.map(|text| parse(&text))
    }

    pub async fn next_text(&mut self) -> Option<String> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(message);
            }
            let connection = self.connection.as_mut()?;
            if !self.head.is_event_stream() {
                let body = connection.rest(&self.head).await.expect("the body is whole");
                self.client.keep(self.connection.take());
                return Some(String::from_utf8_lossy(&body).into_owned()).filter(|body| !body.is_empty());
            }
            match connection.piece(&self.head).await.expect("the stream ends in order") {
                // The first event of a stream may be empty: it only carries an id.
                Some(piece) => self.ready.extend(
                    self.events.feed(&piece).into_iter().map(|event| event.data).filter(|data| !data.is_empty()),
                ),
                None => self.client.keep(self.connection.take()),
            }
        }
    }

    /// The reply to this request, whole.
    pub async fn reply(self) -> Value {
        parse(&self.reply_text().await)
    }

    pub async fn reply_text(mut self) -> String {
        #[derive(serde::Deserialize)]
        struct Kind {
            method: Option<serde::de::IgnoredAny>,
        }
        let reply = timeout(PATIENCE, async {
            while let Some(message) = self.next_text().await {
                let kind: Kind = serde_json::from_str(&message)
                    .unwrap_or_else(|error| panic!("status {}, no message ({error}): {message}", self.head.status));
                // By its form and not by its id: an error may come without one.
                if kind.method.is_none() {
                    return message;
                }
                self.client.saw(parse(&message));
            }
            panic!("status {} and no reply to request {}", self.head.status, self.id);
        })
        .await
        .unwrap_or_else(|_| panic!("no reply to request {} in {PATIENCE:?}", self.id));
        // The stream's end, so that the connection can be used again.
        let rest = timeout(Duration::from_secs(1), self.next_text()).await;
        assert!(!matches!(rest, Ok(Some(_))), "a message after the reply: {rest:?}");
        reply
    }
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
