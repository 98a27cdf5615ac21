//! The threads that one in-process server runs on.
//!
//! A runtime serves its server for as long as the handler keeps yielding. Threads
//! cannot be killed, so a runtime whose handlers do not come back is given up: a
//! new one takes its place, and a thread of its own waits for the old one.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::{call::ServerName, link::StartError};

/// Two, so that one handler that does not yield leaves a thread to the others.
const WORKER_THREADS: usize = 2;
const BLOCKING_THREADS_MAX: usize = 32;
/// Runtimes of one server that were given up and still hang.
const HANGING_RUNTIMES_MAX: usize = 4;

/// The runtimes of one server: the one in use, and a count of those that hang.
pub(super) struct Homes {
    name: ServerName,
    current: Option<Arc<Home>>,
    hanging: Arc<AtomicUsize>,
}

impl Homes {
    pub(super) fn new(name: ServerName) -> Self {
        Homes { name, current: None, hanging: Arc::default() }
    }

    /// The runtime to start on.
    pub(super) fn current(&mut self) -> Result<Arc<Home>, StartError> {
        if let Some(home) = &self.current
            && !home.given_up.load(Ordering::Relaxed)
        {
            return Ok(home.clone());
        }
        self.current = None;
        let hanging = self.hanging.load(Ordering::Relaxed);
        if hanging >= HANGING_RUNTIMES_MAX {
            return Err(StartError::Transient(format!(
                "handlers of its last {hanging} instances still run and never yield"
            )));
        }
        let home = Home::start(&self.name, self.hanging.clone())
            .map_err(|error| StartError::Transient(format!("its threads could not be started: {error}")))?;
        Ok(self.current.insert(Arc::new(home)).clone())
    }
}

pub(super) struct Home {
    /// `None` only while it is being dropped.
    runtime: Option<Runtime>,
    handle: Handle,
    given_up: AtomicBool,
    hanging: Arc<AtomicUsize>,
}

impl Home {
    fn start(name: &ServerName, hanging: Arc<AtomicUsize>) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKER_THREADS)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name(format!("mcp-{name}"))
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Home { runtime: Some(runtime), handle, given_up: AtomicBool::new(false), hanging })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Its handlers do not come back: nothing shall be started here any more.
    pub(super) fn give_up(&self) {
        if !self.given_up.swap(true, Ordering::Relaxed) {
            self.hanging.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        if !*self.given_up.get_mut() {
            // Waiting for its threads is forbidden inside another runtime, and may take forever.
            runtime.shutdown_background();
            return;
        }
        let hanging = self.hanging.clone();
        let reaper = std::thread::Builder::new().name("mcp-reaper".to_owned());
        // Without a thread to wait, the closure is dropped here, and the runtime in
        // it with it: a wrapper makes that harmless.
        let runtime = InBackground(Some(runtime));
        let _ = reaper.spawn(move || {
            runtime.wait();
            hanging.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// A runtime that never blocks whoever drops it.
struct InBackground(Option<Runtime>);

impl InBackground {
    fn wait(mut self) {
        drop(self.0.take());
    }
}

impl Drop for InBackground {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
