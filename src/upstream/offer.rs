//! What a server offers: its handshake and its lists, as the JSON they came as.

use std::{collections::HashSet, sync::Arc};

use serde::{Deserialize, Serialize};

use super::handshake::own_params;
use crate::{
    call::{Answer, Method, Payload, Trail},
    era::Era,
    link::{Link, LinkError},
};

const LIST_MAX_PAGES: usize = 1000;
const LIST_MAX_ITEMS: usize = 50_000;

/// Kept in the catalog while the server is away, and across restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The result of `initialize`: protocolVersion, capabilities, serverInfo, instructions.
    pub hello: Payload,
    pub tools: Vec<Payload>,
    pub prompts: Vec<Payload>,
    pub resources: Vec<Payload>,
    pub templates: Vec<Payload>,
}

impl Offer {
    /// Asks for every list that the server's capabilities promise.
    pub async fn read(link: &dyn Link, era: Era, hello: Payload) -> Result<Offer, String> {
        let has = |capability: &str| {
            hello.member("capabilities").is_some_and(|capabilities| capabilities.member(capability).is_some())
        };
        let (tools, prompts, resources) = (has("tools"), has("prompts"), has("resources"));
        Ok(Offer {
            tools: if tools { list(link, era, "tools/list", "tools").await? } else { Vec::new() },
            prompts: if prompts { list(link, era, "prompts/list", "prompts").await? } else { Vec::new() },
            resources: if resources { list(link, era, "resources/list", "resources").await? } else { Vec::new() },
            templates: if resources {
                list(link, era, "resources/templates/list", "resourceTemplates").await?
            } else {
                Vec::new()
            },
            hello,
        })
    }

    pub fn tool(&self, name: &str) -> Option<&Payload> {
        self.tools.iter().find(|tool| tool.text("name").as_deref() == Some(name))
    }

    /// Whether the tool says of itself that a second call does no harm.
    pub fn is_repeatable(&self, tool: &str) -> bool {
        let Some(annotations) = self.tool(tool).and_then(|tool| tool.member("annotations")) else { return false };
        ["readOnlyHint", "idempotentHint"]
            .iter()
            .any(|hint| annotations.member(hint).is_some_and(|value| value.as_str() == "true"))
    }
}

/// All pages of one list.
async fn list(link: &dyn Link, era: Era, method: &'static str, member: &str) -> Result<Vec<Payload>, String> {
    let mut items = Vec::new();
    let mut cursors = HashSet::new();
    let mut params = None;
    for _ in 0..LIST_MAX_PAGES {
        let params_of_page = match era {
            Era::Legacy => params.take(),
            Era::Modern => Some(own_params(&params.take().unwrap_or(Payload::literal("{}")))),
        };
        let page = match link.ask(Method::of(method), params_of_page, Arc::new(Trail::new())).await {
            Ok(Answer::Result(page)) => page,
            // Declared but not there: some servers declare more than they have.
            Ok(Answer::Error(error)) if error.error_code() == Some(crate::wire::envelope::METHOD_NOT_FOUND) => break,
            Ok(Answer::Error(error)) => return Err(format!("it answered {method} with an error: {}", message(&error))),
            Err(error) => return Err(explain(method, &error)),
        };
        items.extend(page.items(member).ok_or_else(|| format!("its answer to {method} has no array \"{member}\""))?);
        if items.len() > LIST_MAX_ITEMS {
            return Err(format!("its answer to {method} has more than {LIST_MAX_ITEMS} items"));
        }
        match page.text("nextCursor") {
            Some(cursor) if cursors.insert(cursor.clone()) => params = Some(Payload::of(&Cursor { cursor })),
            Some(_) => return Err(format!("its pages of {method} go round in a circle")),
            None => break,
        }
    }
    Ok(items)
}

#[derive(Serialize)]
struct Cursor {
    cursor: String,
}

fn explain(method: &str, error: &LinkError) -> String {
    format!("{method} got no answer: {error}")
}

/// The message of a JSON-RPC error, which is text of the server's.
pub(super) fn message(error: &Payload) -> String {
    crate::text::quote(&error.text("message").unwrap_or_else(|| "no message".to_owned()), 200)
}
