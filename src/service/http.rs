//! As much of HTTP/1.1 as asking a service on this machine for its health takes: one
//! request, one connection, one deadline, an answer of bounded size; given up early by one
//! who does not want it any more.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

const ANSWER_MAX_BYTES: u64 = 4 << 20;
/// So often it is asked whether the answer is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) struct Answer {
    pub(super) status: u16,
    /// In lower case, and its value.
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Sends a GET, or a POST where there is a body.
pub(super) fn ask(
    url: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
    timeout: Duration,
    is_unwanted: &dyn Fn() -> bool,
) -> Result<Answer, String> {
    let url = reqwest::Url::parse(url).map_err(|error| error.to_string())?;
    let host = url.host_str().ok_or("no host")?;
    let port = url.port_or_known_default().unwrap_or(80);
    let until = Instant::now() + timeout;
    let stream = connect(host.trim_matches(['[', ']']), port, until)?;
    let mut request = format!(
        "{} {}{} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n",
        if body.is_some() { "POST" } else { "GET" },
        url.path(),
        url.query().map(|query| format!("?{query}")).unwrap_or_default(),
    );
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = body.unwrap_or_default();
    request.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    let mut stream = Until { stream, until, is_unwanted };
    stream.write_all(request.as_bytes()).map_err(|error| in_words(&error))?;
    let mut bytes = Vec::new();
    match (&mut stream).take(ANSWER_MAX_BYTES).read_to_end(&mut bytes) {
        Ok(_) => parse(&bytes),
        // A stream of events may stay open behind the one that was wanted.
        Err(error) => parse(&bytes).map_err(|_| in_words(&error)),
    }
}

fn connect(host: &str, port: u16, until: Instant) -> Result<TcpStream, String> {
    let addresses = (host, port).to_socket_addrs().map_err(|error| format!("{host} has no address: {error}"))?;
    let mut last = format!("{host} has no address");
    for address in addresses {
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = format!("{address} does not take a connection: {error}"),
        }
    }
    Err(last)
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        _ => format!("the connection broke: {error}"),
    }
}

/// A socket whose every wait ends at the same moment.
struct Until<'a> {
    stream: TcpStream,
    until: Instant,
    is_unwanted: &'a dyn Fn() -> bool,
}

impl Until<'_> {
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() || (self.is_unwanted)() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.set_read_timeout(Some(self.left()?.min(LOOK_EVERY)))?;
            match self.stream.read(buffer) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                known => return known,
            }
        }
    }
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn parse(bytes: &[u8]) -> Result<Answer, String> {
    let text = String::from_utf8_lossy(bytes);
    let mut rest: &str = &text;
    let (status, lines, body) = loop {
        let (head, body) = rest.split_once("\r\n\r\n").ok_or("no answer that is HTTP")?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse::<u16>().ok());
        match status.ok_or("no answer that is HTTP")? {
            // A server may say first that it is at it: the answer follows.
            100..200 => rest = body,
            status => break (status, lines, body),
        }
    };
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut answer = Answer { status, headers, body: body.to_owned() };
    if answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        answer.body = joined(&answer.body);
    }
    Ok(answer)
}

/// The chunks without their lengths. Lengths count bytes, and the text is what it was
/// as long as it is UTF-8, which JSON is.
fn joined(chunks: &str) -> String {
    let mut out = String::new();
    let mut rest = chunks;
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = length.split(';').next().and_then(|hex| usize::from_str_radix(hex.trim(), 16).ok());
        match length.and_then(|length| Some((after.get(..length)?, after.get(length..)?))) {
            Some((chunk, after)) if !chunk.is_empty() => {
                out.push_str(chunk);
                rest = after.trim_start_matches("\r\n");
            }
            _ => break,
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_nobody_wants_any_more_is_not_waited_for() {
        let deaf = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/", deaf.local_addr().expect("an address"));
        let asked = std::cell::Cell::new(0);
        let is_unwanted = || asked.replace(asked.get() + 1) > 3;
        // Else it would be waited for for an hour.
        assert!(ask(&url, &[], None, Duration::from_secs(3600), &is_unwanted).is_err());
    }

    #[test]
    fn an_answer_is_read_whole_or_in_chunks() {
        let answer = parse(b"HTTP/1.1 200 OK\r\nMcp-Session-Id: abc\r\n\r\n{}").expect("an answer");
        assert_eq!((answer.status, answer.header("mcp-session-id"), &*answer.body), (200, Some("abc"), "{}"));
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).expect("an answer").body, "abcde");
        let announced =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 503 No\r\n\r\n";
        assert_eq!(parse(announced).expect("an answer").status, 503);
        assert!(parse(b"HTTP/1.1 100 Continue\r\n\r\n").is_err(), "it has not answered");
        assert!(parse(b"SSH-2.0-OpenSSH\r\n").is_err());
    }
}
