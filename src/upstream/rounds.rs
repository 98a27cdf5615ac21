//! Between the eras: params as the server's era wants them, and the questions of a
//! modern server put to a client of the legacy era.
//!
//! A modern server asks in its result and wants the request again with the answers; a
//! legacy client is asked in mid-call and sees one call. Neither notices the other.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::value::RawValue;

use super::instance::Instance;
use crate::{
    call::{Answer, Call, Edit, Method, Payload},
    era::{self, Era},
    link::LinkError,
    wire::envelope::{INVALID_REQUEST, rpc_error},
};

/// A server that asks more often than this for one call asks for ever.
const ROUNDS_MAX: usize = 16;
const QUESTIONS_MAX: usize = 64;

/// Asks the server in its own era, whichever the client's is.
pub(super) async fn ask(instance: &Instance, call: &Call, params: Payload) -> Result<Answer, LinkError> {
    let session = &call.caller.session;
    let ask = |params| instance.link.ask(call.method.clone(), Some(params), call.trail.clone());
    match (instance.era, session.era) {
        (Era::Legacy, Era::Legacy) | (Era::Modern, Era::Modern) => ask(params).await,
        (Era::Legacy, Era::Modern) => ask(era::without_request_meta(&params)).await,
        (Era::Modern, Era::Legacy) => {
            let mut params = era::with_request_meta(&params, &session.client_info, &session.capabilities);
            // Without a level the server says nothing; sessions hear all until they set one.
            params = era::with_log_level(&params, session.log_level.name());
            for _ in 0..ROUNDS_MAX {
                let result = match ask(params.clone()).await? {
                    Answer::Result(result) if era::is_input_required(&result) => result,
                    Answer::Result(result) => {
                        return Ok(Answer::Result(era::as_legacy(call.method.as_str(), &result)));
                    }
                    error => return Ok(error),
                };
                match answers(call, &result).await {
                    Ok(edits) => params = params.edit(&edits),
                    Err(refusal) => return Ok(Answer::Error(refusal)),
                }
            }
            Ok(refused(format!("the server has asked for input {ROUNDS_MAX} times for one call")))
        }
    }
}

fn refused(why: String) -> Answer {
    Answer::Error(rpc_error(INVALID_REQUEST, format!("seawall: {why}")))
}

/// The answer of a legacy server whose question was refused because a modern client had
/// not declared `missing`: that is what failed, and what the client must be told.
pub(super) fn for_want_of(missing: Payload, call: &Call, answer: Answer) -> Answer {
    let has_failed = match &answer {
        Answer::Result(result) => result.says_is_error(),
        Answer::Error(_) => true,
    };
    if !has_failed || call.caller.session.era == Era::Legacy {
        return answer;
    }
    Answer::Error(missing_capability(missing))
}

/// -32021, with the capabilities that are missing.
fn missing_capability(missing: Payload) -> Payload {
    let data = Payload::literal("{}").edit(&[("requiredCapabilities", Edit::Set(missing))]);
    let why = "seawall: this call needs an answer that this client has not declared that it gives";
    rpc_error(era::MISSING_CLIENT_CAPABILITY, why).edit(&[("data", Edit::Set(data))])
}

/// Puts the questions of one round to the client: what to add to the params.
async fn answers(call: &Call, result: &Payload) -> Result<[(&'static str, Edit); 2], Payload> {
    let requests = result.member("inputRequests").unwrap_or(Payload::literal("{}"));
    let unreadable = || rpc_error(INVALID_REQUEST, "seawall: the server's inputRequests cannot be read");
    let questions: BTreeMap<String, &RawValue> = requests.read().map_err(|_| unreadable())?;
    if questions.len() > QUESTIONS_MAX {
        return Err(rpc_error(
            INVALID_REQUEST,
            format!("seawall: the server asks more than {QUESTIONS_MAX} questions at once"),
        ));
    }
    // While a person thinks, the server is not silent.
    let _asking = call.trail.asks();
    let asked = questions.into_iter().map(|(key, question)| async move {
        let question = Payload::from_json(question.get().to_owned()).map_err(|_| unreadable())?;
        Ok::<_, Payload>((key, answer(call, &question).await?))
    });
    let answered: BTreeMap<String, Payload> = join_all(asked).await.into_iter().collect::<Result<_, _>>()?;
    let state = result.member("requestState").map_or(Edit::Remove, Edit::Set);
    Ok([("inputResponses", Edit::Set(Payload::of(&answered))), ("requestState", state)])
}

async fn answer(call: &Call, question: &Payload) -> Result<Payload, Payload> {
    let method = question.text("method").unwrap_or_default();
    let params = question.member("params");
    if call.caller.session.lacks(&method, params.as_ref()).is_some() {
        let method = crate::text::quote(&method, 60);
        return Err(rpc_error(
            INVALID_REQUEST,
            format!("seawall: this call needs an answer to {method}, which this client has not declared that it gives"),
        ));
    }
    let is_elicitation = method == "elicitation/create";
    match call.caller.back.ask(Method::from(&*method), params).await {
        Answer::Result(result) => Ok(result),
        // A round has no place for an error; for a person's refusal it has.
        Answer::Error(_) if is_elicitation => Ok(Payload::literal(r#"{"action":"cancel"}"#)),
        Answer::Error(error) => {
            let message = crate::text::quote(&error.text("message").unwrap_or_default(), 200);
            Err(rpc_error(
                INVALID_REQUEST,
                format!("seawall: the client did not answer the server's question: {message}"),
            ))
        }
    }
}
