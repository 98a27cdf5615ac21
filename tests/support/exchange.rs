//! One request under way: what comes back, message by message.

use std::{collections::VecDeque, time::Duration};

use serde_json::Value;
use tokio::time::timeout;

use super::{
    http::{Connection, Event, Events, Head},
    mcp::{Client, PATIENCE},
};

/// One request under way. Dropped before its end, it closes its connection.
pub struct Exchange<'a> {
    pub id: u64,
    client: &'a Client,
    connection: Option<Connection>,
    pub head: Head,
    events: Events,
    ready: VecDeque<Event>,
    /// Of the last event that was handed over, empty ones included.
    pub last_event_id: Option<String>,
    /// What the server asks to be waited before a broken connection is made anew.
    pub retry: Option<String>,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(id: u64, client: &'a Client, connection: Connection, head: Head) -> Exchange<'a> {
        let connection = Some(connection);
        let (events, ready) = (Events::default(), VecDeque::new());
        Exchange { id, client, connection, head, events, ready, last_event_id: None, retry: None }
    }

    /// The next message; `None` at the end of the answer. Giving up loses nothing.
    pub async fn next(&mut self) -> Option<Value> {
        self.next_text().await.map(|text| parse(&text))
    }

    pub async fn next_text(&mut self) -> Option<String> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.last_event_id = event.id.or(self.last_event_id.take());
                self.retry = event.retry.or(self.retry.take());
                // The first event of a stream may be empty: it only carries an id.
                match event.data.is_empty() {
                    true => continue,
                    false => return Some(event.data),
                }
            }
            let connection = self.connection.as_mut()?;
            if !self.head.is_event_stream() {
                let body = connection.rest(&self.head).await.expect("the body is whole");
                self.client.keep(self.connection.take());
                return Some(String::from_utf8_lossy(&body).into_owned()).filter(|body| !body.is_empty());
            }
            match connection.piece(&self.head).await.expect("the stream ends in order") {
                Some(piece) => self.ready.extend(self.events.feed(&piece)),
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
