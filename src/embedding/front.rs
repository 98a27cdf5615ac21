//! One request: past the guard, to its path, and what the model says as HTTP.

use std::{net::SocketAddr, sync::Arc};

use hyper::{Method, Request, StatusCode, body::Incoming};
use serde_json::{Value, json};

use super::{
    ask::{self, Ask, Fault},
    keeper::Condition,
    reply,
    server::Server,
};
use crate::listener::{
    body, guard,
    reply::{Reply, json},
};

pub(super) async fn respond(
    server: &Arc<Server>,
    request: Request<Incoming>,
    peer: SocketAddr,
    is_stranger: bool,
) -> Reply {
    let path = request.uri().path();
    match path {
        "/health" | "/healthz" => return health(server, peer, |_| true),
        "/readyz" if peer.ip().is_loopback() => return health(server, peer, |condition| condition.state == "ready"),
        _ => {}
    }
    if let Err(refusal) = server.guard.admit_from(is_stranger, request.headers()) {
        return reply::refusal(&refusal);
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    match (path, request.method()) {
        ("/v1/embeddings", &Method::POST) => embed(server, request).await,
        ("/v1/embeddings", _) => reply::not_allowed("POST"),
        ("/v1/models", &Method::GET) => json(StatusCode::OK, &json!({ "object": "list", "data": [card(server)] })),
        ("/v1/models", _) => reply::not_allowed("GET"),
        _ => match (path.strip_prefix("/v1/models/"), request.method()) {
            (Some(name), &Method::GET) if ask::is_called(name, &server.settings) => json(StatusCode::OK, &card(server)),
            (Some(_), &Method::GET) => no_such_model(server),
            (Some(_), _) => reply::not_allowed("GET"),
            (None, _) => {
                let message = "nothing is here: embeddings are at /v1/embeddings, models at /v1/models";
                reply::error(StatusCode::NOT_FOUND, "invalid_request_error", None, None, message)
            }
        },
    }
}

/// Whether this process lives, and to this machine how its model is. One without a model
/// is alive: starting it again would bring none.
fn health(server: &Server, peer: SocketAddr, is_well: fn(&Condition) -> bool) -> Reply {
    let condition = server.keeper.condition();
    let status = if is_well(&condition) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if !peer.ip().is_loopback() {
        return json(status, &json!({ "status": "ok" }));
    }
    let body = json!({
        "status": if condition.trouble.is_none() { "ok" } else { "no model" },
        "model": server.settings.model.name,
        "state": condition.state,
        "trouble": condition.trouble,
        "dimensions": condition.dimensions,
        "max_tokens": condition.max_tokens,
        "waiting": condition.waiting,
        "worker": condition.pid.map(|pid| json!({
            "pid": pid,
            "memory_bytes": condition.memory_bytes,
            "served": condition.served,
        })),
        "recycled": condition.recycled,
    });
    json(status, &body)
}

fn card(server: &Server) -> Value {
    json!({ "id": server.settings.model.name, "object": "model", "created": server.since_s, "owned_by": "seawall" })
}

fn no_such_model(server: &Server) -> Reply {
    let message = format!("there is no such model here; there is \"{}\"", server.settings.model.name);
    let code = Some("model_not_found");
    reply::error(StatusCode::NOT_FOUND, "invalid_request_error", code, Some("model"), &message)
}

async fn embed(server: &Server, request: Request<Incoming>) -> Reply {
    let (parts, incoming) = request.into_parts();
    if let Err(refusal) = guard::must_be_json(&parts.headers) {
        return reply::refusal(&refusal);
    }
    let settings = &server.settings;
    let read = body::read(incoming, &server.body_room, settings.max_body_bytes, "max_body in the options");
    let body = match read.await {
        Ok(read) => read,
        Err(refusal) => return reply::refusal(&refusal),
    };
    let Ask { inputs, encoding, dimensions } = match ask::read(&body, settings) {
        Ok(ask) => ask,
        Err(fault) => return reply::fault(&fault),
    };
    drop(body);
    if let Some(refusal) = server.keeper.dimensions().and_then(|all| other_than(all, dimensions)) {
        return refusal;
    }
    match server.keeper.embed(&inputs).await {
        // Its model was not loaded yet when it came.
        Ok(vectors) => other_than(vectors.dimensions, dimensions)
            .unwrap_or_else(|| reply::vectors(&vectors, encoding, &settings.model.name)),
        Err(refused) => reply::refused(&refused),
    }
}

/// What was not trained to be cut would be worth little afterwards.
fn other_than(all: usize, wanted: Option<u64>) -> Option<Reply> {
    let what = format!("must be {all}: this model's vectors cannot be shortened");
    (wanted? != all as u64).then(|| reply::fault(&Fault::wrong("dimensions", what)))
}
