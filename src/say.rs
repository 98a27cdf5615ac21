//! What commands say, on stdout and on stderr: `println!` and `eprintln!` panic where
//! nobody reads any more, and nothing else in the house may be used for it. Never decides
//! what is said.
//!
//! A reader that goes, as in `| head`, has read enough: the command does the rest of its
//! work unheard, and ends as it would have ended. Any other trouble with stdout, such as a
//! full disk behind it, is an error.

use std::{
    fmt,
    io::{self, Write},
};

/// A line on stdout, as `println!` would write it; an `io::Result`.
macro_rules! say {
    ($($words:tt)*) => { $crate::say::line(format_args!($($words)*)) };
}

/// A line on stderr, as `eprintln!` would write it; whether anybody hears it or not.
macro_rules! note {
    ($($words:tt)*) => { $crate::say::aside(format_args!($($words)*)) };
}

pub(crate) use {note, say};

mod stderr;

pub(crate) use stderr::pass_on;
pub use stderr::{Stderr, farewell, wait_for_nobody};

pub(crate) fn line(words: fmt::Arguments<'_>) -> io::Result<()> {
    writeln!(out(), "{words}")
}

/// See [`note`].
#[doc(hidden)]
pub fn aside(words: fmt::Arguments<'_>) {
    stderr::own(format!("{words}\n").as_bytes());
}

/// Stdout, held until it is dropped.
pub(crate) fn out() -> Out<io::StdoutLock<'static>> {
    Out { to: io::stdout().lock(), is_heard: true }
}

#[derive(Debug)]
pub(crate) struct Out<W> {
    to: W,
    is_heard: bool,
}

impl<W> Out<W> {
    /// Whether the reader has not gone yet, as far as is known: a write finds it out.
    pub(crate) fn is_heard(&self) -> bool {
        self.is_heard
    }

    fn unheard<T>(&mut self, done: io::Result<T>, instead: T) -> io::Result<T> {
        match done {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.is_heard = false;
                Ok(instead)
            }
            done => done,
        }
    }
}

impl<W: Write> Write for Out<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_heard {
            return Ok(bytes.len());
        }
        let done = self.to.write(bytes);
        self.unheard(done, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.is_heard {
            return Ok(());
        }
        let done = self.to.flush();
        self.unheard(done, ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails every write.
    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_error_and_a_full_disk_is_one() {
        let mut out = Out { to: Failing(io::ErrorKind::BrokenPipe), is_heard: true };
        assert!(writeln!(out, "a line").is_ok() && !out.is_heard());
        assert!(out.write_all(b"more").is_ok() && out.flush().is_ok());
        let mut out = Out { to: Failing(io::ErrorKind::StorageFull), is_heard: true };
        assert!(writeln!(out, "a line").is_err() && out.flush().is_err() && out.is_heard());
    }
}
