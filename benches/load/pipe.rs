//! A lane over a child's pipes: one connection that carries all calls at once.

use std::{
    cell::Cell,
    io,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout},
    sync::Semaphore,
};

use crate::{
    shape::{Request, Shape},
    web::{HELLO, LIST, find_tool},
};

pub(crate) struct PipeLane {
    stdin: ChildStdin,
    lines: Lines,
    tool: String,
}

struct Lines {
    stdout: ChildStdout,
    buffer: BytesMut,
    /// Up to here the buffer holds no newline.
    searched: usize,
}

impl PipeLane {
    pub(crate) async fn open(child: &mut Child) -> io::Result<PipeLane> {
        let stdin = child.stdin.take().expect("stdin is piped");
        let stdout = child.stdout.take().expect("stdout is piped");
        let lines = Lines { stdout, buffer: BytesMut::with_capacity(1 << 16), searched: 0 };
        let mut lane = PipeLane { stdin, lines, tool: String::new() };
        lane.write(HELLO).await?;
        lane.lines.reply().await?;
        lane.write(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await?;
        lane.write(LIST).await?;
        let tools = lane.lines.reply().await?;
        let tool = find_tool(&String::from_utf8_lossy(&tools));
        lane.tool = tool.ok_or_else(|| io::Error::other("the tool is not listed"))?;
        Ok(lane)
    }

    async fn write(&mut self, message: &str) -> io::Result<()> {
        self.stdin.write_all(format!("{message}\n").as_bytes()).await
    }

    pub(crate) fn request(&self, shape: &Shape) -> Request {
        Request::new(format!("{}\n", shape.message(&self.tool)).into_bytes())
    }

    pub(crate) async fn call(&mut self, request: &mut Request, shape: &Shape) -> io::Result<()> {
        let id = request.next();
        self.stdin.write_all(&request.bytes).await?;
        let reply = self.lines.reply().await?;
        shape.check(&reply, Some(id));
        Ok(())
    }

    /// Keeps `in_flight` calls under way for `time`; how many were answered.
    pub(crate) async fn many(&mut self, shape: &Shape, in_flight: usize, time: Duration) -> io::Result<u64> {
        let mut request = self.request(shape);
        let PipeLane { stdin, lines, .. } = self;
        let (room, sent, last) = (Semaphore::new(in_flight), Cell::new(0), Cell::new(false));
        let until = Instant::now() + time;
        let write = async {
            while !last.get() {
                room.acquire().await.expect("nobody closes it").forget();
                // Said before the last one leaves: its reply must find it said.
                last.set(Instant::now() >= until);
                sent.set(sent.get() + 1);
                request.next();
                stdin.write_all(&request.bytes).await?;
            }
            io::Result::Ok(())
        };
        let read = async {
            let mut answered = 0;
            while !(last.get() && answered == sent.get()) {
                let reply = lines.reply().await?;
                shape.check(&reply, None);
                answered += 1;
                room.add_permits(1);
            }
            io::Result::Ok(answered)
        };
        let (written, answered) = tokio::join!(write, read);
        written.and(answered)
    }
}

impl Lines {
    /// The next line that is a reply; notifications are passed over.
    async fn reply(&mut self) -> io::Result<Bytes> {
        loop {
            let line = self.line().await?;
            if memchr::memmem::find(&line[..line.len().min(200)], b"\"method\":\"").is_none() {
                return Ok(line);
            }
        }
    }

    async fn line(&mut self) -> io::Result<Bytes> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let line = self.buffer.split_to(self.searched + at + 1).freeze();
                self.searched = 0;
                return Ok(line);
            }
            self.searched = self.buffer.len();
            self.buffer.reserve(1 << 16);
            if self.stdout.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
