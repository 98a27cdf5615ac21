//! An error that nobody caught: is it the end of something that was asked to end, the
//! network's weather, or fatal? The one place that decides, for every library in use.

use std::{error::Error, io};

/// What an uncaught error means to the process it reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Something was cancelled or is being shut down: no error at all.
    Shutdown,
    /// A peer or the network: worth a warning, and it passes.
    Transient,
    /// Anything else. The process ends with a code other than 0, and its supervisor
    /// starts it again.
    Fatal,
}

/// Judges by the first cause, from the outside in, that says what it is.
pub fn classify(error: &(dyn Error + 'static)) -> Fault {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(fault) = of_one(error) {
            return fault;
        }
        cause = error.source();
    }
    Fault::Fatal
}

fn of_one(error: &(dyn Error + 'static)) -> Option<Fault> {
    if let Some(error) = error.downcast_ref::<tokio::task::JoinError>() {
        // A task that panicked is a bug, and never the weather.
        return Some(if error.is_cancelled() { Fault::Shutdown } else { Fault::Fatal });
    }
    if error.is::<tokio::time::error::Elapsed>() {
        return Some(Fault::Transient);
    }
    if error.is::<tokio::sync::oneshot::error::RecvError>() {
        // Whoever was to answer is gone: that happens where all is being taken down.
        return Some(Fault::Shutdown);
    }
    if let Some(error) = error.downcast_ref::<reqwest::Error>() {
        return (error.is_timeout() || error.is_connect()).then_some(Fault::Transient);
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        let is_weather = error.is_incomplete_message() || error.is_closed() || error.is_timeout();
        return match error.is_canceled() {
            true => Some(Fault::Shutdown),
            false => is_weather.then_some(Fault::Transient),
        };
    }
    error.downcast_ref::<io::Error>().and_then(of_io)
}

fn of_io(error: &io::Error) -> Option<Fault> {
    use io::ErrorKind::{
        AddrNotAvailable, BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable,
        Interrupted, NetworkDown, NetworkUnreachable, NotConnected, TimedOut, UnexpectedEof, WouldBlock,
    };
    match error.kind() {
        BrokenPipe | ConnectionAborted | ConnectionRefused | ConnectionReset | HostUnreachable | NetworkDown
        | NetworkUnreachable | NotConnected | TimedOut | UnexpectedEof | WouldBlock | Interrupted
        | AddrNotAvailable => Some(Fault::Transient),
        // Another error may be wrapped in it, and knows better; `source` would skip it.
        _ => error.get_ref().map(|inner| classify(inner)).filter(|fault| *fault != Fault::Fatal),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A port that nobody listens on.
    async fn nobody() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address")
    }

    #[tokio::test]
    async fn what_was_cancelled_is_no_error_and_a_panic_is_fatal() {
        let sleeping = tokio::spawn(std::future::pending::<()>());
        sleeping.abort();
        assert_eq!(classify(&sleeping.await.expect_err("aborted")), Fault::Shutdown);
        let panicked = tokio::spawn(async { panic!("a bug") });
        assert_eq!(classify(&panicked.await.expect_err("panicked")), Fault::Fatal);
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        drop(sender);
        assert_eq!(classify(&receiver.await.expect_err("nobody answers")), Fault::Shutdown);
    }

    #[tokio::test]
    async fn the_network_is_weather_through_every_layer() {
        let address = nobody().await;
        let refused = TcpStream::connect(address).await.expect_err("refused");
        assert_eq!(classify(&refused), Fault::Transient);
        let wrapped = io::Error::other(io::Error::other(refused));
        assert_eq!(classify(&wrapped), Fault::Transient);
        let http = reqwest::get(format!("http://{address}/")).await.expect_err("refused");
        assert_eq!(classify(&http), Fault::Transient);

        let deaf = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", deaf.local_addr().expect("an address"));
        let client = reqwest::Client::builder().timeout(Duration::from_millis(50)).build().expect("a client");
        assert_eq!(classify(&client.get(&url).send().await.expect_err("no answer")), Fault::Transient);
        // A peer that takes the request and goes.
        let request = tokio::spawn(async move { reqwest::get(url).await.expect_err("gone") });
        for _ in 0..2 {
            drop(deaf.accept().await.expect("accepted"));
        }
        assert_eq!(classify(&request.await.expect("ran")), Fault::Transient);
        let late = tokio::time::timeout(Duration::from_millis(1), std::future::pending::<()>()).await;
        assert_eq!(classify(&late.expect_err("late")), Fault::Transient);
    }

    /// Sends this and hangs up; a request is read first.
    async fn answers(answer: &'static [u8]) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer).await;
        });
        url
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_weather_and_one_that_is_wrong_is_not() {
        let url = answers(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await;
        let answer = reqwest::get(url).await.expect("a head");
        assert_eq!(classify(&answer.bytes().await.expect_err("broken off")), Fault::Transient);
        let url = answers(b"SSH-2.0-OpenSSH_9.9\r\n").await;
        assert_eq!(classify(&reqwest::get(url).await.expect_err("no HTTP")), Fault::Fatal);
        let url = answers(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        let refused = reqwest::get(url).await.expect("an answer").error_for_status().expect_err("404");
        assert_eq!(classify(&refused), Fault::Fatal);
    }

    #[test]
    fn what_the_database_says_is_fatal_whatever_it_is_wrapped_in() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("seawall.db");
        std::fs::write(&path, "no database at all".repeat(500)).expect("written");
        let unreadable =
            crate::store::Reader::open(&path).and_then(|reader| reader.last_seq(crate::store::Table::Events));
        assert_eq!(classify(&io::Error::other(unreadable.expect_err("no database"))), Fault::Fatal);
    }

    #[test]
    fn anything_else_is_fatal() {
        let missing = std::fs::read("/no/such/file").expect_err("missing");
        assert_eq!(classify(&missing), Fault::Fatal);
        assert_eq!(classify(&serde_json::from_str::<u8>("{").expect_err("no number")), Fault::Fatal);
        let occupied = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let twice = std::net::TcpListener::bind(occupied.local_addr().expect("an address")).expect_err("taken");
        assert_eq!(classify(&twice), Fault::Fatal, "nothing but another port or another process helps");
        let url = "no url at all".parse::<reqwest::Url>().expect_err("no URL");
        assert_eq!(classify(&url), Fault::Fatal);
    }
}
