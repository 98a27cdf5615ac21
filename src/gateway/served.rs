//! One server as the gateway holds it: its entry in servers.toml, its upstream, and
//! the stacks of its tools with the state that outlives a reload.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    call::{ServerName, Stack, ToolName},
    config,
    layer::{
        Keeper, Policy,
        breaker::{BreakerState, BreakerStatus},
        memory::Memory,
    },
    route::{Route, Stacks},
    stack::{self, Shared, ToolState},
    upstream::Upstream,
};

#[derive(Clone)]
pub(super) struct Served {
    pub(super) entry: Arc<config::Server>,
    pub(super) upstream: Upstream,
    pub(super) tools: Arc<ToolStacks>,
}

/// Makes and remembers what the stacks of one server are made of.
pub(super) struct ToolStacks {
    entry: Arc<config::Server>,
    upstream: Upstream,
    pub(super) shared: Shared,
    /// Of requests that name no tool.
    server_state: ToolState,
    /// Of the tools in the catalog, and of no others.
    tool_states: Mutex<HashMap<ToolName, ToolState>>,
}

impl Served {
    pub(super) fn new(entry: Arc<config::Server>, upstream: Upstream, memory: Memory, keeper: Arc<dyn Keeper>) -> Self {
        let tools = ToolStacks {
            server_state: ToolState::new(&entry.name, None, &entry.policy, &keeper),
            entry: entry.clone(),
            upstream: upstream.clone(),
            shared: Shared::new(memory, keeper),
            tool_states: Mutex::default(),
        };
        Served { entry, upstream, tools: Arc::new(tools) }
    }

    /// The same running server under other limits: what did not change keeps its state.
    pub(super) fn under(&self, entry: Arc<config::Server>) -> Self {
        let old = &self.tools;
        let carried =
            |tool: &ToolName, state: &ToolState| state.carried_over(self.entry.policy_of(tool), entry.policy_of(tool));
        let states = old.states().iter().map(|(tool, state)| (tool.clone(), carried(tool, state))).collect();
        let tools = ToolStacks {
            server_state: old.server_state.carried_over(&self.entry.policy, &entry.policy),
            entry: entry.clone(),
            upstream: self.upstream.clone(),
            shared: old.shared.clone(),
            tool_states: Mutex::new(states),
        };
        Served { entry, upstream: self.upstream.clone(), tools: Arc::new(tools) }
    }

    pub(super) fn name(&self) -> &ServerName {
        &self.entry.name
    }

    pub(super) fn route(&self) -> Route {
        let tools = &self.tools;
        let stack = tools.build(&self.entry.policy, &tools.server_state);
        Route { upstream: self.upstream.clone(), stack, stacks: tools.clone() }
    }

    /// The breakers that are not closed, by tool; `None` is that of other requests.
    pub(super) fn open_breakers(&self) -> Vec<(Option<ToolName>, BreakerStatus)> {
        let states = self.tools.states();
        let of_tools = states.iter().map(|(tool, state)| (Some(tool.clone()), state));
        let all = of_tools.chain([(None, &self.tools.server_state)]);
        let status = all.filter_map(|(tool, state)| Some((tool, state.breaker.as_ref()?.status())));
        status.filter(|(_, status)| status.state != BreakerState::Closed).collect()
    }

    /// False if there is no such tool, or if it has no breaker.
    pub(super) fn reset_breaker(&self, tool: &str) -> bool {
        let breaker = self.tools.states().get(tool).and_then(|state| state.breaker.clone());
        breaker.map(|breaker| breaker.reset()).is_some()
    }
}

impl ToolStacks {
    fn states(&self) -> MutexGuard<'_, HashMap<ToolName, ToolState>> {
        self.tool_states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn build(&self, policy: &Policy, state: &ToolState) -> Stack {
        stack::build(policy, state, &self.shared, self.upstream.service())
    }
}

impl Stacks for ToolStacks {
    fn stack_of(&self, tool: &ToolName) -> Option<Stack> {
        if !self.entry.is_tool_enabled(tool) {
            return None;
        }
        let policy = self.entry.policy_of(tool);
        let state = self
            .states()
            .entry(tool.clone())
            .or_insert_with(|| ToolState::new(&self.entry.name, Some(tool), policy, &self.shared.keeper))
            .clone();
        Some(self.build(policy, &state))
    }

    fn keep_only(&self, tools: &HashSet<ToolName>) {
        self.states().retain(|tool, _| tools.contains(tool));
    }
}
