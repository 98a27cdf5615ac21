//! How much memory the arguments of calls under way may take. A call keeps its arguments
//! until it is answered: to be sent again where it may be, and to be recorded if it fails.
//! So clients whose calls hang would otherwise fill the machine.
//!
//! Never waits: while a call waited, its arguments would be there already.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::Either;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service};

use crate::{
    call::{BoxFuture, Call, Outcome, Reply},
    failure::{Class, Failure},
    text,
};

/// Arguments up to this size need none: how many calls there can be is bounded too.
pub const SMALL_MAX_BYTES: usize = 64 * 1024;
/// Of all calls of a gateway.
pub const ALL_MAX_BYTES: usize = 256 * 1024 * 1024;
/// Of the calls of one server: one that hangs leaves its neighbours their half.
pub const SERVER_MAX_BYTES: usize = ALL_MAX_BYTES / 2;
/// Nobody knows when a call ends, and asking again costs next to nothing.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Memory of a certain size, taken in KiB.
struct Room {
    free: Arc<Semaphore>,
    bytes: usize,
}

impl Room {
    fn of(bytes: usize) -> Self {
        Room { free: Arc::new(Semaphore::new(bytes / 1024)), bytes }
    }

    fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        self.free.clone().try_acquire_many_owned(kib).ok()
    }
}

/// The memory for arguments: that of the whole gateway, and one server's share of it.
#[derive(Clone)]
pub struct Memory {
    all: Arc<Room>,
    of_server: Arc<Room>,
}

impl Default for Memory {
    fn default() -> Self {
        Memory { all: Arc::new(Room::of(ALL_MAX_BYTES)), of_server: Arc::new(Room::of(SERVER_MAX_BYTES)) }
    }
}

impl Memory {
    /// The same memory, for the calls of a server that has taken nothing of it.
    #[must_use]
    pub fn of_another_server(&self) -> Self {
        Memory { all: self.all.clone(), ..Memory::default() }
    }

    fn take(&self, bytes: usize) -> Result<[OwnedSemaphorePermit; 2], Failure> {
        // What is larger than a server's share has that to itself: `max_message` may be of any size.
        let bytes = bytes.min(SERVER_MAX_BYTES);
        let of = |room: &Room, whose: &str| {
            room.take(bytes).ok_or_else(|| {
                let max = text::bytes(room.bytes as u64);
                let why = format!("the arguments of {whose} calls under way may take {max} together");
                Failure::new(Class::Overloaded, why).retry_after(RETRY_AFTER)
            })
        };
        Ok([of(&self.of_server, "its")?, of(&self.all, "all")?])
    }
}

#[derive(Clone)]
pub struct MemoryLayer(Memory);

impl MemoryLayer {
    pub fn new(memory: Memory) -> Self {
        MemoryLayer(memory)
    }
}

impl<S> Layer<S> for MemoryLayer {
    type Service = Remembering<S>;

    fn layer(&self, inner: S) -> Remembering<S> {
        Remembering { inner, memory: self.0.clone() }
    }
}

#[derive(Clone)]
pub struct Remembering<S> {
    inner: S,
    memory: Memory,
}

impl<S> Service<Call> for Remembering<S>
where
    S: Service<Call, Response = Reply, Error = Failure>,
    S::Future: Send + 'static,
{
    type Response = Reply;
    type Error = Failure;
    /// Nearly all calls are small, and those cost nothing.
    type Future = Either<S::Future, BoxFuture<'static, Outcome>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let bytes = call.params.len();
        let under_way = self.inner.call(call);
        if bytes <= SMALL_MAX_BYTES {
            return Either::Left(under_way);
        }
        let memory = self.memory.clone();
        Either::Right(Box::pin(async move {
            let _held = memory.take(bytes)?;
            under_way.await
        }))
    }
}
