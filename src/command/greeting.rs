//! What `serve` says when it starts: where it listens, each server with its tools as
//! it becomes ready, and what to paste into a client.

use std::{net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::timeout;

use crate::{gateway::Gateway, say, text, upstream::Upstream};

/// Who has not started by then is told about in `status`.
const PATIENCE: Duration = Duration::from_secs(30);
const NAMES_SHOWN: usize = 6;

pub(super) async fn greet(gateway: Gateway, address: SocketAddr) {
    say(&format!("seawall {} listening on http://{address}/mcp", env!("CARGO_PKG_VERSION")));
    let upstreams = gateway.upstreams();
    let width = upstreams.iter().map(|upstream| upstream.name().len()).max().unwrap_or(0);
    let mut starting: FuturesUnordered<_> = upstreams.iter().map(settled).collect();
    let told = timeout(PATIENCE, async {
        while let Some(upstream) = starting.next().await {
            say(&line(upstream, width, upstream.began().elapsed()));
        }
    });
    if told.await.is_err() {
        say("  the others are still starting: `seawall status` shows them");
    }
    say(&snippet(address, &gateway));
}

async fn settled(upstream: &Upstream) -> &Upstream {
    upstream.settled().await;
    upstream
}

fn line(upstream: &Upstream, width: usize, took: Duration) -> String {
    let status = upstream.status();
    let name = upstream.name();
    let Some(offer) = upstream.offer().filter(|_| status.state == "ready") else {
        let reason = status.reason.map(|reason| text::quote(&reason, 300)).unwrap_or_default();
        let retry = status.retry_in_ms.map(|ms| format!("; next try in {}", text::duration(Duration::from_millis(ms))));
        return format!("  {name:width$}  {}: {reason}{}", status.state, retry.unwrap_or_default());
    };
    let names: Vec<String> = offer.tools.iter().filter_map(|tool| tool.text("name")).collect();
    let shown = names.iter().take(NAMES_SHOWN).map(|name| text::quote(name, 40)).collect::<Vec<_>>().join(", ");
    let more = if names.len() > NAMES_SHOWN { ", …" } else { "" };
    let count = match names.len() {
        1 => "1 tool".to_owned(),
        n => format!("{n} tools"),
    };
    format!("  {name:width$}  ready after {}, {count}: {shown}{more}", text::duration(took))
}

/// One line for each client; of a token only how to write it.
fn snippet(address: SocketAddr, gateway: &Gateway) -> String {
    let config = gateway.config();
    let (flag, member) = match config.gateway.token {
        Some(_) => (
            " --header \"Authorization: Bearer $SEAWALL_TOKEN\"",
            ", \"headers\": { \"Authorization\": \"Bearer YOUR_TOKEN\" }",
        ),
        None => ("", ""),
    };
    let seawall = std::env::current_exe().unwrap_or_else(|_| "seawall".into());
    let [seawall, file] = [seawall.display(), config.path.display()].map(|path| serde_json::json!(path.to_string()));
    format!(
        "\nPoint a client at it:\n  \
         Claude Code     claude mcp add --transport http seawall http://{address}/mcp{flag}\n  \
         Cursor, others  {{ \"mcpServers\": {{ \"seawall\": {{ \"type\": \"http\", \"url\": \"http://{address}/mcp\"{member} }} }} }}\n  \
         VS Code         {{ \"servers\": {{ \"seawall\": {{ \"type\": \"http\", \"url\": \"http://{address}/mcp\"{member} }} }} }}\n  \
         Claude Desktop  {{ \"mcpServers\": {{ \"seawall\": {{ \"command\": {seawall}, \"args\": [\"--config\", {file}, \"stdio\"] }} }} }}\n\
         See how it is doing: seawall status"
    )
}

/// To stdout; whoever closed it is not told again.
fn say(line: &str) {
    let _ = say::line(format_args!("{line}"));
}
