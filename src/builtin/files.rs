//! The server `files`: the files of one or more directories, and of nowhere else.
//!
//! The promise is kept where files are opened (see `files/confine.rs`), not by looking at
//! paths; what is refused is refused with a sentence that names the path.

use std::{path::PathBuf, sync::Arc};

use rmcp::{
    Json, ServerHandler,
    handler::server::{router::tool::ToolRouter, wrapper::Parameters},
    model::{CallToolResult, Implementation, ServerCapabilities, ServerConfig},
    schemars::{self, JsonSchema},
    service::{RequestContext, RoleServer},
    tool, tool_handler, tool_router,
};
use serde::Deserialize;

use self::roots::{Place, Roots};
use super::blocking;
use crate::text::glob::Glob;

mod base64;
mod confine;
mod list;
mod read;
mod roots;
mod search;
mod write;

pub use roots::OpenError;

/// What the tools may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The tools that write are not offered.
    ReadOnly,
    ReadWrite,
}

/// The tools that [`Access::ReadOnly`] does without.
const WRITING_TOOLS: [&str; 2] = ["write_file", "append_file"];

/// The handler of the server `files`.
#[derive(Clone)]
pub struct FilesServer {
    roots: Arc<Roots>,
    access: Access,
    tools: ToolRouter<Self>,
}

#[derive(Deserialize, JsonSchema)]
struct ListParams {
    /// The directory: the top unless given.
    path: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
struct ReadParams {
    path: String,
    /// The first line to return, counted from 1.
    #[schemars(range(min = 1))]
    offset: Option<u64>,
    /// How many lines to return: 2000 unless given.
    #[schemars(range(min = 1))]
    limit: Option<usize>,
    #[serde(default)]
    encoding: Encoding,
}

#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    /// Lines of UTF-8 text.
    #[default]
    Text,
    /// The whole file, for what is no text: images as images, all else as base64. Up to 1 MiB.
    Base64,
}

#[derive(Deserialize, JsonSchema)]
struct WriteParams {
    path: String,
    /// The whole new content of the file.
    content: String,
    /// Make the directories above the file where they are missing.
    #[serde(default)]
    create_directories: bool,
}

#[derive(Deserialize, JsonSchema)]
struct AppendParams {
    path: String,
    /// What to add at the end. A line needs its own line break.
    content: String,
}

#[derive(Deserialize, JsonSchema)]
struct SearchParams {
    /// The directory to search, with everything below it: the top unless given.
    path: Option<String>,
    /// Only names like this: `*` and `?` as in a shell, `**` also across directories. With a `/`
    /// in it, it is compared with the path below the searched directory, else with the name alone.
    name: Option<String>,
    /// Only text files that contain this, as it is written (no regular expression).
    content: Option<String>,
    /// Take upper and lower case of the content for the same.
    #[serde(default)]
    ignore_case: bool,
    /// How many matches to return: 100 unless given, 1000 at most.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
}

#[derive(Deserialize, JsonSchema)]
struct PathParams {
    path: String,
}

#[tool_router]
impl FilesServer {
    /// Opens the directories; one that is moved later is still the one that was opened.
    pub fn open(directories: &[PathBuf], access: Access) -> Result<Self, OpenError> {
        let mut tools = Self::tool_router();
        if access == Access::ReadOnly {
            for name in WRITING_TOOLS {
                tools.remove_route(name);
            }
        }
        Ok(FilesServer { roots: Arc::new(Roots::open(directories)?), access, tools })
    }

    /// Finds the place that `path` names and works on it where blocking is allowed.
    async fn on<T: Send + 'static>(
        &self,
        path: String,
        work: impl FnOnce(&Place<'_>) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let roots = self.roots.clone();
        blocking(move || work(&roots.find(&path)?)).await
    }

    /// Lists a directory: the names in it, sorted, with kind and size.
    #[tool(annotations(
        title = "List a directory",
        read_only_hint = true,
        idempotent_hint = true,
        open_world_hint = false
    ))]
    async fn list_directory(
        &self,
        Parameters(ListParams { path }): Parameters<ListParams>,
    ) -> Result<Json<list::Listing>, String> {
        let path = path.unwrap_or_default();
        if let Some(names) = list::above(&self.roots, &path) {
            return Ok(Json(list::names(names)));
        }
        self.on(path, list::directory).await.map(Json)
    }

    /// Reads a text file, or some of its lines; a note follows when there is more. Other files
    /// are read whole with encoding "base64".
    #[tool(annotations(title = "Read a file", read_only_hint = true, idempotent_hint = true, open_world_hint = false))]
    async fn read_file(&self, Parameters(wanted): Parameters<ReadParams>) -> Result<CallToolResult, String> {
        let first = wanted.offset.unwrap_or(1).max(1);
        let lines = wanted.limit.unwrap_or(read::LINES_DEFAULT).max(1);
        let content = match wanted.encoding {
            Encoding::Text => self.on(wanted.path, move |place| read::text(place, first, lines)).await?,
            Encoding::Base64 => self.on(wanted.path, read::whole).await?,
        };
        Ok(CallToolResult::success(content))
    }

    /// Writes a file: makes it, or replaces all of its content. Whoever reads it meanwhile sees
    /// the old content or the new, never half of it.
    #[tool(annotations(
        title = "Write a file",
        read_only_hint = false,
        destructive_hint = true,
        idempotent_hint = true,
        open_world_hint = false
    ))]
    async fn write_file(
        &self,
        Parameters(WriteParams { path, content, create_directories }): Parameters<WriteParams>,
    ) -> Result<Json<write::Written>, String> {
        self.on(path, move |place| write::whole(place, &content, create_directories)).await.map(Json)
    }

    /// Adds text to the end of a file, or makes the file with that text.
    #[tool(annotations(
        title = "Add to a file",
        read_only_hint = false,
        destructive_hint = false,
        idempotent_hint = false,
        open_world_hint = false
    ))]
    async fn append_file(
        &self,
        Parameters(AppendParams { path, content }): Parameters<AppendParams>,
    ) -> Result<Json<write::Written>, String> {
        self.on(path, move |place| write::at_end(place, &content)).await.map(Json)
    }

    /// Finds files and directories by name, by content, or by both, below a directory. Links
    /// are not followed.
    #[tool(annotations(
        title = "Search for files",
        read_only_hint = true,
        idempotent_hint = true,
        open_world_hint = false
    ))]
    async fn search(
        &self,
        Parameters(wanted): Parameters<SearchParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<search::Found>, String> {
        if wanted.name.is_none() && wanted.content.is_none() {
            return Err("give a name pattern, a content to look for, or both".to_owned());
        }
        let content_fits =
            |content: &String| !content.is_empty() && content.chars().count() <= search::CONTENT_CHARS_MAX;
        if !wanted.content.as_ref().is_none_or(content_fits) {
            return Err(format!("the content must have 1 to {} characters", search::CONTENT_CHARS_MAX));
        }
        let looked_for = search::Wanted {
            name: wanted.name.as_deref().map(Glob::new).transpose()?,
            content: wanted.content,
            ignore_case: wanted.ignore_case,
            matches_max: wanted.limit.unwrap_or(search::MATCHES_DEFAULT).clamp(1, search::MATCHES_MAX),
        };
        let path = wanted.path.unwrap_or_default();
        let paths = list::above(&self.roots, &path).unwrap_or_else(|| vec![path]);
        let roots = self.roots.clone();
        blocking(move || {
            let places = paths.iter().map(|path| roots.find(path)).collect::<Result<Vec<_>, _>>()?;
            search::search(&places, &looked_for, &context.ct).map(Json)
        })
        .await
    }

    /// Tells what a path is (a file, a directory, a link), its size, when it changed, and its
    /// permissions.
    #[tool(annotations(
        title = "Look at a path",
        read_only_hint = true,
        idempotent_hint = true,
        open_world_hint = false
    ))]
    async fn file_info(
        &self,
        Parameters(PathParams { path }): Parameters<PathParams>,
    ) -> Result<Json<list::About>, String> {
        self.on(path, list::about).await.map(Json)
    }
}

#[tool_handler(router = self.tools)]
impl ServerHandler for FilesServer {
    fn get_info(&self) -> ServerConfig {
        let can = match self.access {
            Access::ReadOnly => "Reads",
            Access::ReadWrite => "Reads and writes",
        };
        let paths = match self.roots.names() {
            None => "Paths are relative to it.".to_owned(),
            Some(_) => "Paths begin with the name of one of them.".to_owned(),
        };
        let instructions = format!("{can} files in {}. {paths} Nothing else can be reached.", self.roots.described());
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("files", env!("CARGO_PKG_VERSION")))
            .with_instructions(instructions)
    }
}
