//! A raw HTTP/1.1 client: one kept connection, Content-Length and chunked bodies,
//! server-sent events. Tests need to send what no library sends, the load driver
//! needs a client that costs next to nothing; both include this file.

use std::{io, net::SocketAddr};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The longest head taken for one; nothing of ours comes near it.
const HEAD_MAX_BYTES: usize = 64 << 10;

/// One kept connection. After an error it is of no further use.
pub struct Connection {
    stream: TcpStream,
    /// Read but not yet consumed.
    buffer: BytesMut,
}

/// How a body's end is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// The head of a response.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: u16,
    text: Bytes,
    framing: Framing,
}

/// A response with its whole body.
#[derive(Clone, Debug)]
pub struct Response {
    pub head: Head,
    pub body: Bytes,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: BytesMut::with_capacity(16 << 10) })
    }

    /// Bytes as they are: a test may say half a request.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    pub async fn request(&mut self, head: &str, body: &[u8]) -> io::Result<Response> {
        self.send(&[head.as_bytes(), body].concat()).await?;
        self.response().await
    }

    pub async fn response(&mut self) -> io::Result<Response> {
        let head = self.head().await?;
        let body = self.rest(&head).await?;
        Ok(Response { head, body })
    }

    pub async fn head(&mut self) -> io::Result<Head> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                return Head::parse(self.buffer.split_to(at + 4).freeze());
            }
            if self.buffer.len() > HEAD_MAX_BYTES {
                return Err(broken("a head without an end"));
            }
            self.fill().await?;
        }
    }

    /// The whole body.
    pub async fn rest(&mut self, head: &Head) -> io::Result<Bytes> {
        match head.framing {
            Framing::Length(length) => {
                self.have(length).await?;
                Ok(self.buffer.split_to(length).freeze())
            }
            Framing::Chunked => {
                // One chunk is the whole body of most answers: no copy then.
                let first = self.chunk().await?.unwrap_or_default();
                if first.is_empty() {
                    return Ok(first);
                }
                let Some(second) = self.chunk().await? else { return Ok(first) };
                let mut body = BytesMut::from(&first[..]);
                body.extend_from_slice(&second);
                while let Some(chunk) = self.chunk().await? {
                    body.extend_from_slice(&chunk);
                }
                Ok(body.freeze())
            }
            Framing::UntilClose => loop {
                match self.fill().await {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        return Ok(self.buffer.split().freeze());
                    }
                    Err(error) => return Err(error),
                }
            },
        }
    }

    /// The next piece of a body that is still being written; `None` at its end.
    pub async fn piece(&mut self, head: &Head) -> io::Result<Option<Bytes>> {
        match head.framing {
            Framing::Chunked => self.chunk().await,
            _ => self.rest(head).await.map(|body| Some(body).filter(|body| !body.is_empty())),
        }
    }

    /// Consumes nothing before the whole chunk is there, so that a caller may give
    /// up waiting and come back later.
    async fn chunk(&mut self) -> io::Result<Option<Bytes>> {
        let line = self.line_end(0).await?;
        let digits = std::str::from_utf8(&self.buffer[..line]).unwrap_or_default();
        let digits = digits.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).map_err(|_| broken("a chunk without a size"))?;
        let begin = line + 2;
        if size == 0 {
            // Trailers, then the empty line that ends the body.
            let mut from = begin;
            loop {
                let end = self.line_end(from).await?;
                if end == from {
                    self.buffer.advance(end + 2);
                    return Ok(None);
                }
                from = end + 2;
            }
        }
        self.have(begin + size + 2).await?;
        self.buffer.advance(begin);
        let chunk = self.buffer.split_to(size).freeze();
        self.buffer.advance(2);
        Ok(Some(chunk))
    }

    /// Where the line that begins at `from` ends, CRLF excluded.
    async fn line_end(&mut self, from: usize) -> io::Result<usize> {
        loop {
            let unread = self.buffer.get(from..).unwrap_or_default();
            if let Some(length) = memchr::memmem::find(unread, b"\r\n") {
                return Ok(from + length);
            }
            if unread.len() > HEAD_MAX_BYTES {
                return Err(broken("a line without an end"));
            }
            self.fill().await?;
        }
    }

    async fn have(&mut self, length: usize) -> io::Result<()> {
        self.buffer.reserve(length.saturating_sub(self.buffer.len()));
        while self.buffer.len() < length {
            self.fill().await?;
        }
        Ok(())
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

impl Head {
    fn parse(text: Bytes) -> io::Result<Head> {
        let status = text.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let status = status.ok_or_else(|| broken("no status line"))?;
        let mut head = Head { status, text, framing: Framing::UntilClose };
        head.framing = if status == 204 || status == 304 || (100..200).contains(&status) {
            Framing::Length(0)
        } else if let Some(length) = head.header("content-length") {
            Framing::Length(length.parse().map_err(|_| broken("Content-Length is no number"))?)
        } else if head.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            Framing::Chunked
        } else {
            Framing::UntilClose
        };
        Ok(head)
    }

    /// The first header of that name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let lines = std::str::from_utf8(&self.text).unwrap_or_default().split("\r\n").skip(1);
        lines.filter_map(|line| line.split_once(':').map(|(key, value)| (key.trim(), value.trim())))
    }

    pub fn is_event_stream(&self) -> bool {
        self.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"))
    }
}

impl Response {
    pub fn status(&self) -> u16 {
        self.head.status
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; of an event stream, the data of its events.
    pub fn messages(&self) -> Vec<serde_json::Value> {
        let texts = match self.head.is_event_stream() {
            true => Events::default().feed(&self.body).into_iter().map(|event| event.data).collect(),
            false => vec![self.text()],
        };
        texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect()
    }
}

/// One server-sent event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub id: Option<String>,
    pub kind: Option<String>,
    pub retry: Option<String>,
    pub data: String,
}

/// Puts events together from pieces of a stream.
#[derive(Debug, Default)]
pub struct Events {
    unread: Vec<u8>,
    event: Event,
    /// Comment lines, which is how a stream is kept alive.
    pub comments: usize,
}

impl Events {
    /// The events that end within `piece`.
    pub fn feed(&mut self, piece: &[u8]) -> Vec<Event> {
        self.unread.extend_from_slice(piece);
        let mut events = Vec::new();
        let mut from = 0;
        while let Some(length) = memchr::memchr(b'\n', &self.unread[from..]) {
            let line = String::from_utf8_lossy(&self.unread[from..from + length]).trim_end_matches('\r').to_owned();
            from += length + 1;
            events.extend(self.line(&line));
        }
        self.unread.drain(..from);
        events
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            return Some(std::mem::take(&mut self.event)).filter(|event| *event != Event::default());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.comments += 1,
            "id" => self.event.id = Some(value.to_owned()),
            "event" => self.event.kind = Some(value.to_owned()),
            "retry" => self.event.retry = Some(value.to_owned()),
            "data" if self.event.data.is_empty() => value.clone_into(&mut self.event.data),
            "data" => self.event.data = format!("{}\n{value}", self.event.data),
            _ => {}
        }
        None
    }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
