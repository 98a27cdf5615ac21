//! The ceiling: an HTTP server that does nothing. It reads the body, looks for the
//! size that is wanted and answers a result made at the start. No gateway can be
//! faster, so that its numbers say what the machine gave in this run.

use std::{convert::Infallible, pin::Pin, task::Context, task::Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

const SIZES_BYTES: [usize; 3] = [100, 10 << 10, 1 << 20];

#[tokio::main]
pub(crate) async fn serve() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    println!("listening on http://{}", listener.local_addr().expect("a listener has an address"));
    let answers: &'static [Bytes] = Box::leak(Box::new(SIZES_BYTES.map(answer)));
    loop {
        let (stream, _) = listener.accept().await.expect("connections are taken");
        stream.set_nodelay(true).expect("a stream takes its options");
        tokio::spawn(async move {
            let service = service_fn(move |request| respond(request, answers));
            // A client that goes away ends its connection, nothing else.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn respond(request: Request<Incoming>, answers: &[Bytes]) -> Result<Response<Whole>, Infallible> {
    let body = read(request.into_body()).await;
    let has = |part: &str| memchr::memmem::find(&body[..body.len().min(200)], part.as_bytes()).is_some();
    let size = SIZES_BYTES.iter().position(|size| has(&format!("\"bytes\":{size}")));
    let (status, answer) = match size {
        Some(place) => (200, answers[place].clone()),
        None if has("\"initialize\"") => (200, Bytes::from_static(WELCOME.as_bytes())),
        None if has("\"tools/list\"") => (200, Bytes::from_static(TOOLS.as_bytes())),
        None => (202, Bytes::new()),
    };
    let response = Response::builder().status(status).header("content-type", "application/json");
    Ok(response.body(Whole(answer)).expect("constant headers are valid"))
}

const WELCOME: &str = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"ceiling","version":"1"}}}"#;
const TOOLS: &str = r#"{"jsonrpc":"2.0","id":0,"result":{"tools":[{"name":"size","inputSchema":{"type":"object"}}]}}"#;

fn answer(size: usize) -> Bytes {
    let text = "x".repeat(size);
    format!(r#"{{"jsonrpc":"2.0","id":0,"result":{{"content":[{{"type":"text","text":"{text}"}}]}}}}"#).into()
}

/// The whole body; of a long one only the beginning is kept.
async fn read(mut body: Incoming) -> Bytes {
    let mut first = None;
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(frame) = frame else { break };
        if let Ok(data) = frame.into_data() {
            first.get_or_insert(data);
        }
    }
    first.unwrap_or_default()
}

/// A body of known length in one piece.
struct Whole(Bytes);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = std::mem::take(&mut self.get_mut().0);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}
