//! What one server offers, ready to be listed and called: each item under its
//! public name and under its own, each tool with its stack.

use std::{collections::HashMap, sync::Arc};

use super::{Route, names};
use crate::{
    call::{Edit, Payload, ServerName, Stack, ToolName},
    mcp_param,
    upstream::Offer,
};

pub(super) struct Shelf {
    pub(super) server: ServerName,
    pub(super) offer: Arc<Offer>,
    pub(super) tools: Vec<Item>,
    pub(super) prompts: Vec<Item>,
    pub(super) resources: Vec<Item>,
    pub(super) templates: Vec<Item>,
    pub(super) stacks: HashMap<ToolName, Stack>,
}

/// One entry of a list.
pub(super) struct Item {
    /// Its name, or its URI, as the server says it.
    pub(super) own: Arc<str>,
    /// The same at `/mcp`.
    pub(super) public: Arc<str>,
    /// The JSON at `/mcp/NAME`: as it came.
    pub(super) own_json: Payload,
    /// The JSON at `/mcp`.
    pub(super) public_json: Payload,
    /// Clients can read it. One tool without a schema would cost them the whole merged
    /// list, and so its neighbours; alone it is shown as it came.
    pub(super) is_whole: bool,
    /// It wants some of its arguments repeated in HTTP headers.
    pub(super) has_headers: bool,
}

impl Shelf {
    pub(super) fn new(route: &Route, offer: Arc<Offer>, name_max_chars: usize) -> Self {
        let server = route.upstream.name().clone();
        let mut tools = named(&server, &offer.tools, name_max_chars);
        for tool in &mut tools {
            tool.is_whole =
                tool.own_json.member("inputSchema").is_some_and(|schema| schema.as_bytes().starts_with(b"{"));
            if !tool.is_whole {
                let name = crate::text::quote(&tool.own, 100);
                tracing::warn!(%server, "tool {name:?} has no inputSchema: it is not listed at /mcp");
            }
        }
        let mut stacks = HashMap::with_capacity(tools.len());
        // A tool that is switched off in servers.toml is neither listed nor callable.
        tools.retain(|tool| match route.stacks.stack_of(&ToolName::from(tool.own.clone())) {
            Some(stack) => {
                stacks.insert(ToolName::from(tool.own.clone()), stack);
                true
            }
            None => false,
        });
        Shelf {
            tools,
            stacks,
            prompts: named(&server, &offer.prompts, name_max_chars),
            resources: as_they_are(&offer.resources, "uri"),
            templates: as_they_are(&offer.templates, "uriTemplate"),
            server,
            offer,
        }
    }
}

fn named(server: &ServerName, items: &[Payload], max_chars: usize) -> Vec<Item> {
    let (jsons, own): (Vec<&Payload>, Vec<String>) =
        items.iter().filter_map(|json| Some((json, json.text("name")?))).unzip();
    let public = names::public_of_all(server, &own, max_chars);
    let item = |((json, own), public): ((&Payload, String), String)| Item {
        own: own.into(),
        own_json: json.clone(),
        public_json: json.edit(&[("name", Edit::Set(Payload::of(&public)))]),
        public: public.into(),
        is_whole: true,
        has_headers: mcp_param::of_tool(json).is_ok_and(|mirrored| !mirrored.is_empty()),
    };
    jsons.into_iter().zip(own).zip(public).map(item).collect()
}

/// Resources keep their URI at `/mcp` too.
fn as_they_are(items: &[Payload], key: &str) -> Vec<Item> {
    let item = |json: &Payload| {
        let own: Arc<str> = json.text(key)?.into();
        Some(Item {
            public: own.clone(),
            own,
            own_json: json.clone(),
            public_json: json.clone(),
            is_whole: true,
            has_headers: false,
        })
    };
    items.iter().filter_map(item).collect()
}
