//! `subscriptions/listen`: which of the notifications that a client wants it gets.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Inner, dispatch};
use crate::{
    call::{Answer, Method, Payload},
    session::Session,
    wire::envelope::{INVALID_PARAMS, rpc_error},
};

/// Of one stream.
const RESOURCES_MAX: usize = 1000;

/// The filter as the client sends it, and as it is granted.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    #[serde(skip_serializing_if = "is_false")]
    tools_list_changed: bool,
    #[serde(skip_serializing_if = "is_false")]
    prompts_list_changed: bool,
    #[serde(skip_serializing_if = "is_false")]
    resources_list_changed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resource_subscriptions: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

pub(super) async fn listen(router: Arc<Inner>, session: Arc<Session>, wanted: Payload) -> Result<Payload, Payload> {
    let mut filter: Filter = wanted
        .read()
        .map_err(|error| rpc_error(INVALID_PARAMS, format!("seawall: \"notifications\" cannot be read: {error}")))?;
    if filter.resource_subscriptions.len() > RESOURCES_MAX {
        return Err(rpc_error(INVALID_PARAMS, format!("seawall: more than {RESOURCES_MAX} resources on one stream")));
    }
    let changes = [
        (filter.tools_list_changed, "notifications/tools/list_changed"),
        (filter.prompts_list_changed, "notifications/prompts/list_changed"),
        (filter.resources_list_changed, "notifications/resources/list_changed"),
    ];
    let changes = changes.into_iter().filter(|(wanted, _)| *wanted).map(|(_, method)| method).collect();
    router.join_for(&session, changes);
    let mut granted = Vec::new();
    for uri in std::mem::take(&mut filter.resource_subscriptions) {
        let request = dispatch::Request {
            session: session.clone(),
            request_id: Payload::literal("0"),
            method: Method::of("resources/subscribe"),
            params: Some(Payload::of(&serde_json::json!({ "uri": uri }))),
            back: session.back.clone(),
        };
        if matches!(dispatch::dispatch(router.clone(), request).await, Answer::Result(_)) {
            granted.push(uri);
        }
    }
    filter.resource_subscriptions = granted;
    Ok(Payload::of(&filter))
}
