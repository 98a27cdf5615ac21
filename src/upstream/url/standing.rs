//! The standing GET stream: what a server says when no call is there to say it on.

use std::time::Duration;

use reqwest::{StatusCode, header::ACCEPT};
use tokio::time::sleep;

use super::{UrlLink, events::Events, reply::kind};
use crate::wire::{batch, envelope::Envelope};

const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Listens until the link is closed, or for good if the server offers no such stream.
pub(super) async fn listen(link: UrlLink) {
    let closed = link.0.closed.clone();
    closed.run_until_cancelled(listen_for_ever(&link)).await;
}

async fn listen_for_ever(link: &UrlLink) {
    let mut wait = RETRY_MIN;
    loop {
        match open(link).await {
            Opened::Never => return,
            Opened::NotNow => {}
            Opened::Stream(mut events) => {
                wait = RETRY_MIN;
                while let Ok(Some(text)) = events.next().await {
                    for envelope in batch::messages(&text).unwrap_or_default() {
                        if let Envelope::Message(message) = envelope {
                            link.hand_up(message, None);
                        }
                    }
                }
            }
        }
        sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

enum Opened {
    Stream(Box<Events>),
    NotNow,
    Never,
}

async fn open(link: &UrlLink) -> Opened {
    let request = link.0.client.get(&link.0.url).headers(link.agreed()).header(ACCEPT, "text/event-stream");
    match request.send().await {
        Ok(response) if response.status().is_success() && kind(&response) == "text/event-stream" => {
            Opened::Stream(Box::new(Events::new(response, true, link.0.max_message_bytes)))
        }
        Ok(response) if response.status() == StatusCode::NOT_FOUND => {
            link.end("it has forgotten the session (HTTP 404)");
            Opened::Never
        }
        // 405 is how a server says that it has no such stream.
        Ok(response) if response.status().is_client_error() => Opened::Never,
        Ok(_) | Err(_) => Opened::NotNow,
    }
}
