//! The fronts that clients connect to. Era, session ids and headers end here:
//! further in there is a [`Session`](crate::session::Session) and its messages.

pub mod http;
mod mailbox;
mod questions;
mod rounds;
mod stateless;
pub mod stdio;
