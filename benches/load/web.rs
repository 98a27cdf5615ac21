//! A lane over Streamable HTTP: one kept connection with a session of its own.

use std::{io, net::SocketAddr};

use bytes::Bytes;

use crate::{
    http::{Connection, Events, Response},
    shape::{FIRST_ID, Request, Shape},
};

pub(crate) struct WebLane {
    connection: Connection,
    head: String,
    tool: String,
    echoes_ids: bool,
}

impl WebLane {
    /// Opens a session and finds the tool: what a client does before its first call.
    pub(crate) async fn open(address: SocketAddr, path: &str) -> io::Result<WebLane> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nAccept: application/json, text/event-stream\r\n\
             Content-Type: application/json\r\n"
        );
        let connection = Connection::open(address).await?;
        let mut lane = WebLane { connection, head, tool: String::new(), echoes_ids: true };
        let welcome = lane.say(HELLO).await?;
        if let Some(session) = welcome.header("mcp-session-id") {
            lane.head += &format!("Mcp-Session-Id: {session}\r\n");
        }
        lane.head += "MCP-Protocol-Version: 2025-11-25\r\n";
        lane.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await?;
        let tools = lane.say(LIST).await?;
        lane.tool = find_tool(&tools.text()).ok_or_else(|| io::Error::other("the tool is not listed"))?;
        // The ceiling knows no ids, and no sessions.
        lane.echoes_ids = welcome.header("mcp-session-id").is_some();
        Ok(lane)
    }

    async fn say(&mut self, body: &str) -> io::Result<Response> {
        let head = format!("{}Content-Length: {}\r\n\r\n", self.head, body.len());
        let response = self.connection.request(&head, body.as_bytes()).await?;
        if response.status() >= 300 {
            return Err(io::Error::other(format!("status {}: {}", response.status(), response.text())));
        }
        Ok(response)
    }

    pub(crate) fn request(&self, shape: &Shape) -> Request {
        let body = shape.message(&self.tool);
        let head = format!("{}Content-Length: {}\r\n\r\n", self.head, body.len());
        // The head comes first, and no header of ours looks like an id.
        debug_assert!(!head.contains(&FIRST_ID.to_string()));
        Request::new([head, body].concat().into_bytes())
    }

    pub(crate) async fn call(&mut self, request: &mut Request, shape: &Shape) -> io::Result<()> {
        let id = request.next();
        self.connection.send(&request.bytes).await?;
        let response = self.connection.response().await?;
        assert_eq!(response.status(), 200, "{}", response.text());
        shape.check(&answer(response), self.echoes_ids.then_some(id));
        Ok(())
    }
}

/// The reply of a JSON body or of a stream, where it is the last event.
fn answer(response: Response) -> Bytes {
    if response.head.is_event_stream() {
        let last = Events::default().feed(&response.body).pop().expect("a stream has its reply");
        return last.data.into();
    }
    response.body
}

pub(crate) const HELLO: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"load","version":"1"}}}"#;
pub(crate) const LIST: &str = r#"{"jsonrpc":"2.0","id":0,"method":"tools/list","params":{}}"#;

/// The public name of the fixture server's `size`: some gateways put a prefix before it.
pub(crate) fn find_tool(list: &str) -> Option<String> {
    let names =
        list.split("\"name\":").skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
    let mut names =
        names.filter(|name| name.strip_suffix("size").is_some_and(|rest| !rest.ends_with(char::is_alphanumeric)));
    names.next().map(str::to_owned)
}
