//! The HTTP proxy: CONNECT for what is encrypted, whole URLs for what is not.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::TcpStream,
    time::timeout,
};

use super::Egress;

const HEAD_MAX_BYTES: usize = 8 << 10;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What the head of a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Tunnel {
        host: String,
        port: u16,
    },
    /// The head as the server there shall see it.
    Forward {
        host: String,
        port: u16,
        head: String,
    },
}

pub(super) async fn serve(egress: &Egress, mut inside: TcpStream) -> std::io::Result<()> {
    let Ok(Ok(Some((head, rest)))) = timeout(HEAD_TIMEOUT, read_head(&mut inside)).await else { return Ok(()) };
    let Some(wanted) = understand(&head) else {
        return refuse(&mut inside, "400 Bad Request", "this proxy takes CONNECT host:port and http:// URLs").await;
    };
    let (host, port) = match &wanted {
        Wanted::Tunnel { host, port } | Wanted::Forward { host, port, .. } => (host, *port),
    };
    let mut outside = match egress.connect(host, port).await {
        Ok(outside) => outside,
        Err(denial) => {
            let status = if denial.is_rule { "403 Forbidden" } else { "502 Bad Gateway" };
            return refuse(&mut inside, status, &denial.message).await;
        }
    };
    match wanted {
        Wanted::Tunnel { .. } => inside.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n").await?,
        Wanted::Forward { head, .. } => outside.write_all(head.as_bytes()).await?,
    }
    outside.write_all(&rest).await?;
    copy_bidirectional(&mut inside, &mut outside).await.map(drop)
}

/// The head, and what came after it; `None` where it does not end in time or in bounds.
async fn read_head(inside: &mut TcpStream) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok(String::from_utf8(bytes).ok().map(|head| (head, rest)));
        }
        if bytes.len() >= HEAD_MAX_BYTES || inside.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
}

fn understand(head: &str) -> Option<Wanted> {
    let (first, headers) = head.split_once("\r\n")?;
    let mut words = first.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || !version.starts_with("HTTP/1.") {
        return None;
    }
    if method == "CONNECT" {
        let (host, port) = host_and_port(target)?;
        return Some(Wanted::Tunnel { host, port: port? });
    }
    let (authority, path) = match target.strip_prefix("http://")? {
        rest if rest.contains('/') => rest.split_at(rest.find('/')?),
        rest => (rest, "/"),
    };
    let (host, port) = host_and_port(authority)?;
    // One request a connection: the next one may be for somebody else.
    let dropped = ["connection", "proxy-connection", "proxy-authorization", "keep-alive", "host"];
    let kept = headers.split("\r\n").filter(|line| {
        let name = line.split(':').next().unwrap_or_default().trim().to_ascii_lowercase();
        !line.is_empty() && !dropped.contains(&&*name)
    });
    let mut forwarded = format!("{method} {path} {version}\r\nHost: {authority}\r\nConnection: close\r\n");
    for line in kept {
        forwarded.push_str(line);
        forwarded.push_str("\r\n");
    }
    forwarded.push_str("\r\n");
    Some(Wanted::Forward { host, port: port.unwrap_or(80), head: forwarded })
}

/// `host`, `host:port`, `[v6]:port`; nothing that means a user, a path or two hosts.
fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    let is_plain = |host: &str| {
        !host.is_empty()
            && host.len() <= 255
            && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']'))
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().ok()?)),
        _ => (authority, None),
    };
    is_plain(host).then(|| (host.to_ascii_lowercase(), port))
}

async fn refuse(inside: &mut TcpStream, status: &str, why: &str) -> std::io::Result<()> {
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{why}\n",
        why.len() + 1
    );
    inside.write_all(answer.as_bytes()).await?;
    inside.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_names_its_host_and_its_port() {
        let head = |target: &str| format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        let tunnel = |host: &str, port| Some(Wanted::Tunnel { host: host.to_owned(), port });
        assert_eq!(understand(&head("API.example.com:443")), tunnel("api.example.com", 443));
        assert_eq!(understand(&head("[::1]:443")), tunnel("[::1]", 443));
        for bad in ["api.example.com", "a@b:443", "a/b:443", "a b:443", "a:99999", ":443", "a%2eb:443"] {
            assert_eq!(understand(&head(bad)), None, "{bad}");
        }
    }

    #[test]
    fn a_url_is_asked_for_as_its_server_expects_it() {
        let head =
            "GET http://example.com:8080/a?b HTTP/1.1\r\nHost: other.example\r\nProxy-Authorization: x\r\nA: b\r\n\r\n";
        let forwarded = "GET /a?b HTTP/1.1\r\nHost: example.com:8080\r\nConnection: close\r\nA: b\r\n\r\n";
        let wanted = Wanted::Forward { host: "example.com".to_owned(), port: 8080, head: forwarded.to_owned() };
        assert_eq!(understand(head), Some(wanted));
        assert_eq!(understand("GET /a HTTP/1.1\r\n\r\n"), None);
        assert_eq!(understand("GET https://a/ HTTP/1.1\r\n\r\n"), None);
    }
}
