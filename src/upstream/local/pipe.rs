//! rmcp's `Transport` between its service loop and the link.

use std::{future::ready, sync::Arc};

use rmcp::{
    model::{ClientJsonRpcMessage, RequestId, ServerJsonRpcMessage},
    service::RoleServer,
    transport::Transport,
};
use tokio::sync::mpsc;

use super::{
    desk::Desk,
    typed::{self, Outgoing},
};
use crate::{
    call::{Message, Method, Payload},
    link::{Answerer, Inbox, LinkError},
};

pub(super) struct Pipe {
    pub(super) outlet: mpsc::Receiver<ClientJsonRpcMessage>,
    /// The other end of `outlet`, for answers to the handler's questions.
    pub(super) inlet: mpsc::Sender<ClientJsonRpcMessage>,
    pub(super) desk: Arc<Desk>,
    pub(super) inbox: Arc<dyn Inbox>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum PipeError {
    #[error("it is no JSON: {0}")]
    NoJson(#[from] serde_json::Error),
    #[error("too many messages wait already for an answer to be taken")]
    Full,
}

impl Transport<RoleServer> for Pipe {
    type Error = PipeError;

    /// Delivers before it returns. rmcp spawns the future, which would lose the
    /// order of messages; it calls this function in order.
    fn send(&mut self, message: ServerJsonRpcMessage) -> impl Future<Output = Result<(), PipeError>> + Send + 'static {
        ready(self.deliver(message))
    }

    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        self.outlet.recv().await
    }

    async fn close(&mut self) -> Result<(), PipeError> {
        self.outlet.close();
        Ok(())
    }
}

impl Pipe {
    fn deliver(&self, message: ServerJsonRpcMessage) -> Result<(), PipeError> {
        match typed::outgoing(message)? {
            Outgoing::Answer { id, answer } => {
                let outcome = answer.map_err(|error| LinkError::Protocol(format!("its answer is no JSON: {error}")));
                self.desk.settle(id, outcome);
                Ok(())
            }
            Outgoing::Request { id, method, params } => self.question(id, method, params),
            Outgoing::Notification { method, params } => {
                self.inbox.on(Message::Notification { method, params }, None);
                Ok(())
            }
            Outgoing::Nothing => Ok(()),
        }
    }

    fn question(&self, id: RequestId, method: Method, params: Option<Payload>) -> Result<(), PipeError> {
        // The way back is reserved first, so that an answer can always be taken.
        let place = self.inlet.clone().try_reserve_owned().map_err(|_| PipeError::Full)?;
        let message = Message::Request { id: Payload::of(&id), method, params };
        let answerer = Answerer::new(move |answer| {
            place.send(typed::answer(id, &answer));
        });
        self.inbox.on(message, Some(answerer));
        Ok(())
    }
}
