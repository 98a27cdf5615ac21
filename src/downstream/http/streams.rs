//! The streams that stay open for no call: so that a shutdown can end them.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::{
    call::{Answer, Payload},
    downstream::mailbox::Mailbox,
};

#[derive(Default)]
pub(super) struct Streams(Mutex<Vec<Weak<Mailbox>>>);

impl Streams {
    pub(super) fn add(&self, mailbox: &Arc<Mailbox>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|stream| stream.strong_count() > 0);
        open.push(Arc::downgrade(mailbox));
    }

    /// Each ends with its result.
    pub(super) fn close(&self) {
        for mailbox in self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if let Some(mailbox) = mailbox.upgrade() {
                mailbox.answer(Answer::Result(Payload::literal("{}")));
            }
        }
    }
}
