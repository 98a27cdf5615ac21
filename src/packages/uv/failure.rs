//! Why a package was not installed, in words, and whether trying again may help.

use super::super::{Said, Site, request::Request};
use crate::{link::StartError, sandbox::Destination, text};

/// uv was led to a place that it was not let reach; `is_known` where an index names it and
/// its address is what forbids it.
pub(super) fn elsewhere(site: &Site<'_>, said: &Said, place: &Destination, is_known: bool) -> StartError {
    let (request, why) = (site.request, told(said));
    let host = format!("{}:{}", text::quote(&place.host, 100), place.port);
    let what = match is_known {
        false => "none of uv's indexes, and which none of them names",
        true => "in a private network, and uv's indexes are not",
    };
    let how = site.how_to_allow(place);
    StartError::Permanent(format!(
        "{request} cannot be installed: it comes from {host}, which is {what} ({why}); {how}"
    ))
}

pub(super) fn why(request: &Request, said: &Said) -> StartError {
    let why = told(said);
    let has = |words: &[&str]| words.iter().any(|word| said.last_words.contains(word));
    if has(&["building from source is disabled", "has no usable wheels", "have no usable wheels", "no-build"]) {
        return StartError::Permanent(format!(
            "{request} has no wheels for this Python and would have to be built, which runs its code; install it \
             yourself, and name its program in command ({why})"
        ));
    }
    if has(&["401 Unauthorized", "403 Forbidden", "credentials"]) {
        return StartError::Permanent(format!(
            "an index of uv's does not give {request}: {why}; its credentials belong into uv.toml or \
             UV_INDEX_NAME_PASSWORD, those of netrc, keyrings and uv auth are not given to an installation"
        ));
    }
    if has(&["does not satisfy Python", "requires-python", "Requires-Python"]) {
        return StartError::Permanent(format!(
            "{request} cannot be installed for the Python that uv finds here: {why}; write uvx --python VERSION"
        ));
    }
    if has(&["no version of", "there are no versions of"]) {
        return StartError::Permanent(format!("there is no such version of {request}: {why}"));
    }
    if has(&["not found in the package registry", "not found in the provided package locations"]) {
        return StartError::Permanent(format!("there is no package {request} in uv's indexes: {why}"));
    }
    if has(&["Failed to install entrypoints", "No executables are provided"]) {
        return StartError::Permanent(format!("the package of {request} has no program to run: {why}"));
    }
    if has(&["Failed to fetch", "error sending request", "Could not connect", "network was disabled"]) {
        return StartError::Transient(format!("uv's index cannot be reached to install {request}: {why}"));
    }
    StartError::Transient(format!("{request} cannot be installed: {why}"))
}

fn told(said: &Said) -> String {
    let words: Vec<&str> = said.last_words.split_whitespace().collect();
    text::quote(&words.join(" "), 250)
}
