//! The stream of a call that broke, or that its server has closed for a while: gone on
//! with where it was, if its events had ids.

use std::time::Duration;

use reqwest::header::{ACCEPT, HeaderName};
use tokio::time::sleep;

use super::{UrlLink, events::Events, reply::kind};
use crate::link::LinkError;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Attempts one after the other. How often a stream may be resumed in all is a matter of
/// the call's own deadlines.
const ATTEMPTS_MAX: u32 = 5;
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(30);

impl UrlLink {
    /// The rest of a stream that ended with `broken`, which it is if there is none.
    pub(super) async fn resume(&self, ended: Events, broken: LinkError) -> Result<Events, LinkError> {
        let (LinkError::Lost(_), Some(last)) = (&broken, ended.last_event_id()) else { return Err(broken) };
        let wait = ended.retry().unwrap_or(RETRY).clamp(RETRY_MIN, RETRY_MAX);
        for _ in 0..ATTEMPTS_MAX {
            sleep(wait).await;
            let request = self.0.client.get(&self.0.url).headers(self.agreed());
            let request = request.header(ACCEPT, "text/event-stream").header(LAST_EVENT_ID, &last);
            match request.send().await {
                Ok(response) if response.status().is_success() && kind(&response) == "text/event-stream" => {
                    return Ok(ended.gone_on_with(response));
                }
                // It does not resume, or it has nothing more to say.
                Ok(response) if !response.status().is_server_error() => return Err(broken),
                Ok(_) | Err(_) => {}
            }
        }
        Err(broken)
    }
}
