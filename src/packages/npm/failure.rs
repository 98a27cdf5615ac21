//! Why npm has not installed a package, by what it says as JSON, and whether trying again
//! may help.

use serde::Deserialize;

use super::super::{Said, Site, request::Request};
use crate::{link::StartError, sandbox::Destination, text};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Failed {
    error: Problem,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    code: String,
    summary: String,
}

fn problem(said: &Said) -> (String, String) {
    let Failed { error } = serde_json::from_str(&said.output).unwrap_or_default();
    let summary = if error.summary.is_empty() { &said.last_words } else { &error.summary };
    (error.code, text::quote(summary.trim(), 250))
}

/// It was led to a place that it was not let reach.
pub(super) fn elsewhere(site: &Site<'_>, said: &Said, place: &Destination) -> StartError {
    let (request, (_, why)) = (site.request, problem(said));
    let host = format!("{}:{}", text::quote(&place.host, 100), place.port);
    StartError::Permanent(format!(
        "{request} cannot be installed: it comes from {host}, which is none of npm's registries here ({why}); {}",
        site.how_to_allow(place)
    ))
}

/// Why it was not installed, and whether trying again may help.
pub(super) fn why(request: &Request, said: &Said) -> StartError {
    let (code, why) = problem(said);
    match &*code {
        "E404" => StartError::Permanent(format!("there is no package {request} in npm's registry: {why}")),
        "ETARGET" | "ENOVERSIONS" => StartError::Permanent(format!("there is no such version of {request}: {why}")),
        "E401" | "E403" | "ENEEDAUTH" => {
            StartError::Permanent(format!("npm's registry does not give {request}: {why}; see npm login"))
        }
        code if code.starts_with("E5") || UNREACHABLE.contains(&code) => {
            StartError::Transient(format!("npm's registry cannot be reached to install {request}: {why}"))
        }
        _ => StartError::Transient(format!("{request} cannot be installed: {why}")),
    }
}

const UNREACHABLE: [&str; 8] = [
    "ECONNREFUSED",
    "ECONNRESET",
    "ENOTFOUND",
    "EAI_AGAIN",
    "ETIMEDOUT",
    "ENETUNREACH",
    "EHOSTUNREACH",
    "ERR_SOCKET_TIMEOUT",
];
