//! THE stack around a tool, and the only place where it is built: at the start, at
//! a reload, and for the requests that name no tool.

use std::{convert::Infallible, sync::Arc};

use tower::ServiceBuilder;

use crate::{
    call::{Call, CallService, ServerName, ToolName},
    failure::Failure,
    layer::{
        Keeper, Policy,
        boundary::BoundaryLayer,
        breaker::{self, Breaker, BreakerLayer},
        concurrency::{ConcurrencyLayer, Permits},
        deadline::DeadlineLayer,
        memory::{Memory, MemoryLayer},
        rate_limit::{Limiter, RateLimitLayer},
        record::{RecordLayer, Tally},
    },
};

/// Outermost first. A layer that is `"off"` is not there.
pub fn build(
    policy: &Policy,
    state: &ToolState,
    shared: &Shared,
    upstream: CallService<Failure>,
) -> CallService<Infallible> {
    let replay = policy.replay;
    let stack = ServiceBuilder::new()
        // Outermost, so that whatever happens below, a `Reply` leaves.
        .layer(BoundaryLayer::new(shared.keeper.clone()))
        // Above all that can refuse or fail, so that it sees every outcome, still typed.
        .layer(RecordLayer::new(policy.record, shared.tally.clone(), shared.keeper.clone()))
        // Above all that waits: what waits has its arguments with it.
        .layer(MemoryLayer::new(shared.memory.clone()))
        // Above the breaker: a call too many is no failure of the tool, and must not
        // take the place of a probe.
        .option_layer(state.limiter.clone().map(RateLimitLayer::new))
        // Above everything that ends a call on the tool's account, so that it judges
        // the final outcome.
        .option_layer(state.breaker.clone().map(BreakerLayer::new))
        // Below the breaker: nobody waits for a permit in front of an open breaker. A
        // probe that gets none is neutral, and the next call probes.
        .option_layer(state.permits.clone().map(ConcurrencyLayer::new))
        // Innermost: a hanging server must trip the breaker, and waiting for a
        // permit is not the server's silence.
        .layer(DeadlineLayer::new(policy.deadline))
        // Not a layer: what the upstream, next, may do with a lost call.
        .map_request(move |call: Call| Call { replay, ..call })
        .service(upstream);
    CallService::new(stack)
}

/// What the stacks of one server share.
#[derive(Clone)]
pub struct Shared {
    pub tally: Arc<Tally>,
    pub memory: Memory,
    pub keeper: Arc<dyn Keeper>,
}

impl Shared {
    /// Of a server that nobody has called yet.
    pub fn new(memory: Memory, keeper: Arc<dyn Keeper>) -> Self {
        Shared { tally: Arc::default(), memory, keeper }
    }
}

/// What the calls of one tool share, beyond a reload that does not concern it.
#[derive(Clone)]
pub struct ToolState {
    /// Each is `None` where its layer is off.
    pub breaker: Option<Arc<Breaker>>,
    pub limiter: Option<Arc<Limiter>>,
    pub permits: Option<Arc<Permits>>,
    server: ServerName,
    tool: Option<ToolName>,
    keeper: Arc<dyn Keeper>,
}

impl ToolState {
    /// `tool` is `None` for the stack of a server's other requests.
    pub fn new(server: &ServerName, tool: Option<&ToolName>, policy: &Policy, keeper: &Arc<dyn Keeper>) -> Self {
        let breaker = policy.breaker.clone().map(|settings| {
            let (server, tool, keeper) = (server.clone(), tool.cloned(), keeper.clone());
            let tell = move |transition| keeper.event(breaker::event(&server, tool.as_deref(), transition));
            Arc::new(Breaker::new(settings, Box::new(tell)))
        });
        ToolState {
            breaker,
            limiter: policy.rate_limit.map(|settings| Arc::new(Limiter::new(settings))),
            permits: policy.concurrency.map(|settings| Arc::new(Permits::new(settings))),
            server: server.clone(),
            tool: tool.cloned(),
            keeper: keeper.clone(),
        }
    }

    /// The state under a `new` policy: each piece whose settings did not change stays,
    /// with all it has counted.
    pub fn carried_over(&self, old: &Policy, new: &Policy) -> Self {
        let mut next = ToolState::new(&self.server, self.tool.as_ref(), new, &self.keeper);
        if old.breaker == new.breaker {
            next.breaker.clone_from(&self.breaker);
        }
        if old.rate_limit == new.rate_limit {
            next.limiter.clone_from(&self.limiter);
        }
        if old.concurrency == new.concurrency {
            next.permits.clone_from(&self.permits);
        }
        next
    }
}
