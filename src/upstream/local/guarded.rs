//! The catch around every handler: a panic becomes the outcome of its own request.
//!
//! rmcp answers nothing when a handler panics, and never drops one that was told
//! to stop; both are made good here.

use std::{any::Any, borrow::Cow, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use rmcp::{
    ErrorData,
    model::{ClientNotification, ClientRequest, ProtocolVersion, ServerConfig, ServerResult},
    service::{DynService, NotificationContext, RequestContext, RoleServer, Service},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{desk::Desk, typed};
use crate::link::LinkError;

/// How long a handler may go on after its request was cancelled. Without an end,
/// handlers that hang and ignore `RequestContext::ct` would pile up.
const CANCELLED_GRACE: Duration = Duration::from_secs(30);

pub(super) struct Guarded {
    pub(super) handler: Arc<dyn DynService<RoleServer>>,
    pub(super) desk: Arc<Desk>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Service<RoleServer> for Guarded {
    async fn handle_request(
        &self,
        request: ClientRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<ServerResult, ErrorData> {
        let _under_way = self.tasks.token();
        let id = typed::our_id(&context.id);
        let cancelled = context.ct.clone();
        // The call itself is inside the block: a handler may panic before its first poll.
        let handled = AssertUnwindSafe(async { self.handler.handle_request(request, context).await }).catch_unwind();
        let overdue = async {
            cancelled.cancelled().await;
            tokio::time::sleep(CANCELLED_GRACE).await;
        };
        let panic = tokio::select! {
            biased;
            handled = handled => match handled {
                Ok(answer) => return answer,
                Err(panic) => panic,
            },
            // These errors are for rmcp, which must forget the request; they reach nobody.
            () = self.stop.cancelled() => return Err(ErrorData::internal_error("the server is being stopped", None)),
            () = overdue => return Err(ErrorData::internal_error("the handler did not heed its cancellation", None)),
        };
        if let Some(id) = id {
            self.desk.settle(id, Err(LinkError::Panicked(message_of(panic))));
        }
        Err(ErrorData::internal_error("the handler panicked", None))
    }

    async fn handle_notification(
        &self,
        notification: ClientNotification,
        context: NotificationContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let _under_way = self.tasks.token();
        let handled =
            AssertUnwindSafe(async { self.handler.handle_notification(notification, context).await }).catch_unwind();
        match self.stop.run_until_cancelled(handled).await {
            Some(Ok(done)) => done,
            Some(Err(panic)) => {
                tracing::warn!("a handler of notifications panicked: {}", message_of(panic));
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn get_info(&self) -> ServerConfig {
        self.handler.get_info()
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        self.handler.supported_protocol_versions()
    }
}

/// What a panic said, as a clause.
fn message_of(panic: Box<dyn Any + Send>) -> String {
    let said = panic
        .downcast_ref::<&'static str>()
        .map(|said| (*said).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    if let Some(said) = said {
        return format!("it panicked: {said}");
    }
    // A value of any type may panic once more when it is dropped.
    if let Err(second) = std::panic::catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(second);
    }
    "it panicked with a value that is no text".to_owned()
}
