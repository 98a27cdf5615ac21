//! The merged catalog: an immutable snapshot of all shelves, replaced as a whole.

use std::{collections::HashMap, sync::Arc};

use bytes::{BufMut, BytesMut};

use super::shelf::{Item, Shelf};
use crate::{
    call::{Payload, ServerName},
    session::Scope,
    wire::envelope::{INVALID_PARAMS, rpc_error},
};

/// Lists longer than this come in pages.
const PAGE_MAX_ITEMS: usize = 1000;

#[derive(Default)]
pub(super) struct Catalog {
    /// In the order of servers.toml.
    pub(super) shelves: Vec<Arc<Shelf>>,
    tools: HashMap<Arc<str>, (usize, usize)>,
    prompts: HashMap<Arc<str>, (usize, usize)>,
    resources: HashMap<Arc<str>, usize>,
    /// Resources of two servers: the URI, the one that answers at `/mcp`, the other.
    pub(super) shared: Vec<(Arc<str>, ServerName, ServerName)>,
}

/// The four lists of MCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Tools,
    Prompts,
    Resources,
    Templates,
}

impl Kind {
    pub(super) const ALL: [Kind; 4] = [Kind::Tools, Kind::Prompts, Kind::Resources, Kind::Templates];

    pub(super) fn of_method(method: &str) -> Option<Kind> {
        Some(match method {
            "tools/list" => Kind::Tools,
            "prompts/list" => Kind::Prompts,
            "resources/list" => Kind::Resources,
            "resources/templates/list" => Kind::Templates,
            _ => return None,
        })
    }

    fn member(self) -> &'static str {
        match self {
            Kind::Tools => "tools",
            Kind::Prompts => "prompts",
            Kind::Resources => "resources",
            Kind::Templates => "resourceTemplates",
        }
    }

    pub(super) fn list_changed(self) -> &'static str {
        match self {
            Kind::Tools => "notifications/tools/list_changed",
            Kind::Prompts => "notifications/prompts/list_changed",
            // MCP has one notification for both.
            Kind::Resources | Kind::Templates => "notifications/resources/list_changed",
        }
    }

    fn items(self, shelf: &Shelf) -> &[Item] {
        match self {
            Kind::Tools => &shelf.tools,
            Kind::Prompts => &shelf.prompts,
            Kind::Resources => &shelf.resources,
            Kind::Templates => &shelf.templates,
        }
    }
}

impl Catalog {
    pub(super) fn of(shelves: Vec<Arc<Shelf>>) -> Self {
        let mut catalog = Catalog::default();
        for (at, shelf) in shelves.iter().enumerate() {
            for (i, tool) in shelf.tools.iter().enumerate() {
                catalog.tools.entry(tool.public.clone()).or_insert((at, i));
            }
            for (i, prompt) in shelf.prompts.iter().enumerate() {
                catalog.prompts.entry(prompt.public.clone()).or_insert((at, i));
            }
            for resource in &shelf.resources {
                let owner = *catalog.resources.entry(resource.own.clone()).or_insert(at);
                if owner != at {
                    let (first, second) = (shelves[owner].server.clone(), shelf.server.clone());
                    catalog.shared.push((resource.own.clone(), first, second));
                }
            }
        }
        catalog.shelves = shelves;
        catalog
    }

    pub(super) fn shelf(&self, server: &str) -> Option<&Arc<Shelf>> {
        self.shelves.iter().find(|shelf| &*shelf.server == server)
    }

    /// The server and its own name of a public tool.
    pub(super) fn tool(&self, public: &str) -> Option<(&Shelf, &Item)> {
        let (at, i) = *self.tools.get(public)?;
        Some((&self.shelves[at], &self.shelves[at].tools[i]))
    }

    /// Every tool that its public name stands for.
    pub(super) fn each_tool(&self) -> impl Iterator<Item = (&Shelf, &Item)> {
        self.shelves.iter().enumerate().flat_map(move |(at, shelf)| {
            let items = shelf.tools.iter().enumerate();
            items
                .filter(move |(i, item)| self.is_first(Kind::Tools, (at, *i), item))
                .map(move |(_, item)| (&**shelf, item))
        })
    }

    pub(super) fn prompt(&self, public: &str) -> Option<(&Shelf, &Item)> {
        let (at, i) = *self.prompts.get(public)?;
        Some((&self.shelves[at], &self.shelves[at].prompts[i]))
    }

    /// The server that answers for a URI: whose list has it, else whose template begins
    /// like it, the longest beginning first.
    pub(super) fn owner_of(&self, uri: &str) -> Option<&ServerName> {
        if let Some(at) = self.resources.get(uri) {
            return Some(&self.shelves[*at].server);
        }
        let literal = |template: &str| template.split('{').next().unwrap_or_default().len();
        self.shelves
            .iter()
            .flat_map(|shelf| shelf.templates.iter().map(move |template| (shelf, literal(&template.own), template)))
            .filter(|(_, length, template)| *length > 0 && uri.starts_with(&template.own[..*length]))
            // The first of equals: `max_by_key` would take the last.
            .reduce(|best, next| if next.1 > best.1 { next } else { best })
            .map(|(shelf, _, _)| &shelf.server)
    }

    /// The server of a `uriTemplate` that is named as it stands.
    pub(super) fn owner_of_template(&self, template: &str) -> Option<&ServerName> {
        let has = |shelf: &&Arc<Shelf>| shelf.templates.iter().any(|item| &*item.own == template);
        self.shelves.iter().find(has).map(|shelf| &shelf.server)
    }

    /// One page of one list.
    pub(super) fn page(&self, kind: Kind, scope: &Scope, cursor: Option<&str>) -> Result<Payload, Payload> {
        let start = match cursor {
            None => 0,
            Some(cursor) => cursor.parse().map_err(|_| {
                rpc_error(INVALID_PARAMS, "this cursor is not one of seawall's; begin the list without one")
            })?,
        };
        let items: Vec<&Payload> = match scope {
            Scope::All => self
                .shelves
                .iter()
                .enumerate()
                .flat_map(|(at, shelf)| kind.items(shelf).iter().enumerate().map(move |(i, item)| (at, i, item)))
                .filter(|(at, i, item)| self.is_first(kind, (*at, *i), item) && item.is_whole)
                .map(|(_, _, item)| &item.public_json)
                .collect(),
            Scope::One(server) => self
                .shelf(server)
                .map(|shelf| kind.items(shelf))
                .unwrap_or_default()
                .iter()
                .map(|i| &i.own_json)
                .collect(),
        };
        Ok(render(kind, &items, start))
    }

    /// Whether an item is the one that its public name stands for.
    fn is_first(&self, kind: Kind, place: (usize, usize), item: &Item) -> bool {
        match kind {
            Kind::Tools => self.tools.get(&item.public) == Some(&place),
            Kind::Prompts => self.prompts.get(&item.public) == Some(&place),
            Kind::Resources => self.resources.get(&item.own) == Some(&place.0),
            Kind::Templates => true,
        }
    }

    /// Whether a list differs between two snapshots, as one scope sees it.
    pub(super) fn differs(&self, other: &Catalog, kind: Kind, scope: &Scope) -> bool {
        let jsons = |catalog: &Catalog| -> Vec<Payload> {
            let seen = |shelf: &&Arc<Shelf>| match scope {
                Scope::All => true,
                Scope::One(server) => shelf.server == *server,
            };
            let shelves = catalog.shelves.iter().filter(seen);
            shelves.flat_map(|shelf| kind.items(shelf).iter().map(|item| item.public_json.clone())).collect()
        };
        jsons(self) != jsons(other)
    }
}

fn render(kind: Kind, items: &[&Payload], start: usize) -> Payload {
    let end = items.len().min(start.saturating_add(PAGE_MAX_ITEMS));
    let page = items.get(start..end).unwrap_or_default();
    let mut out = BytesMut::with_capacity(64 + page.iter().map(|item| item.len() + 1).sum::<usize>());
    out.put_slice(b"{\"");
    out.put_slice(kind.member().as_bytes());
    out.put_slice(b"\":[");
    for (i, item) in page.iter().enumerate() {
        if i > 0 {
            out.put_u8(b',');
        }
        out.put_slice(item.as_bytes());
    }
    out.put_u8(b']');
    if end < items.len() {
        out.put_slice(format!(",\"nextCursor\":\"{end}\"").as_bytes());
    }
    out.put_u8(b'}');
    Payload::concatenated(out)
}
