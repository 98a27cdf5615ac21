//! What a client does with a server, one feature a function: `Err` is the sentence with
//! which it is refused.

use std::{path::PathBuf, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    raw::{Era, RawClient},
    wait::poll,
};

pub(crate) type Outcome = Result<(), String>;

/// One client in front of one server.
pub(crate) struct Cell<'a> {
    pub(crate) client: &'a mut RawClient,
    /// `SERVER__` at `/mcp`, nothing at `/mcp/NAME`.
    pub(crate) prefix: String,
    pub(crate) journal: PathBuf,
    /// A resource of the server's that is this client's alone.
    pub(crate) uri: String,
}

pub(crate) struct Feature {
    pub(crate) name: &'static str,
    /// The first version that has it.
    pub(crate) since: &'static str,
    pub(crate) run: fn(&mut Cell<'_>) -> Outcome,
    /// Asked at `/mcp/NAME` alone.
    pub(crate) is_of_one: bool,
}

const fn feature(name: &'static str, run: fn(&mut Cell<'_>) -> Outcome) -> Feature {
    Feature { name, since: "2024-11-05", run, is_of_one: false }
}

pub(crate) const FEATURES: &[Feature] = &[
    feature("tools/list, pages", tools_list),
    feature("tools/call", tools_call),
    feature("resources: list, templates, read", resources),
    feature("resources: subscribe, updated", subscribe),
    feature("prompts: list, get", prompts),
    feature("completion", completion),
    feature("logging", logging),
    feature("progress", progress),
    feature("cancellation", cancellation),
    feature("ping", ping),
    feature("sampling", sampling),
    feature("roots", roots),
    Feature { since: "2025-06-18", ..feature("elicitation: form", elicitation_form) },
    Feature { since: "2025-11-25", ..feature("elicitation: URL", elicitation_url) },
    Feature { since: "2025-11-25", is_of_one: true, ..feature("tasks", tasks) },
    Feature { is_of_one: true, ..feature("methods unknown to seawall", unknown) },
];

/// The answer, and what came before it.
struct Answered {
    answer: Value,
    heard: Vec<Value>,
    questions: Vec<String>,
}

impl Answered {
    /// The result, or the sentence of the refusal.
    fn result(&self) -> Result<&Value, String> {
        match self.answer["error"]["message"].as_str() {
            Some(sentence) => Err(sentence.to_owned()),
            None => Ok(&self.answer["result"]),
        }
    }

    fn heard(&self, method: &str) -> usize {
        self.heard.iter().filter(|message| message["method"] == method).count()
    }
}

pub(crate) fn in_era(client: &RawClient, mut params: Value) -> String {
    if client.who.era() == Era::Modern {
        for (key, value) in client.who.members() {
            let key: String = serde_json::from_str(&key).expect("a key is JSON");
            params["_meta"][key] = serde_json::from_str(&value).expect("a value is JSON");
        }
    }
    params.to_string()
}

impl Cell<'_> {
    /// Asks, and answers questions with `reply`: as requests, or as rounds.
    fn ask(&mut self, method: &str, mut params: Value, reply: &Value) -> Answered {
        let (mut heard, mut questions) = (Vec::new(), Vec::new());
        for _ in 0..4 {
            let text = in_era(self.client, params.clone());
            let mut came: Vec<Value> =
                self.client.exchange(method, &text, &reply.to_string()).iter().map(|line| parse(line)).collect();
            let answer = came.pop().expect("an answer");
            let asked = came.iter().filter(|message| message.get("id").is_some());
            questions.extend(asked.map(|message| message["method"].as_str().unwrap_or_default().to_owned()));
            heard.extend(came);
            if answer["result"]["resultType"] != "input_required" {
                return Answered { answer, heard, questions };
            }
            assert_eq!(self.client.who.era(), Era::Modern, "a round is no answer for an old client: {answer}");
            for (key, question) in answer["result"]["inputRequests"].as_object().expect("questions") {
                params["inputResponses"][key] = reply.clone();
                questions.push(question["method"].as_str().unwrap_or_default().to_owned());
            }
            params["requestState"] = answer["result"]["requestState"].clone();
        }
        panic!("{method} asks again and again");
    }

    fn get(&mut self, method: &str, params: Value) -> Result<Value, String> {
        self.ask(method, params, &Value::Null).result().cloned()
    }

    fn call(&mut self, tool: &str, arguments: &Value) -> Answered {
        self.call_with(tool, arguments, &Value::Null)
    }

    fn call_with(&mut self, tool: &str, arguments: &Value, reply: &Value) -> Answered {
        let name = format!("{}{tool}", self.prefix);
        self.ask("tools/call", json!({"name": name, "arguments": arguments, "_meta": {"progressToken": "mine"}}), reply)
    }

    /// The names or URIs of a whole list, and how many pages it came in.
    pub(crate) fn list(&mut self, method: &str, member: &str, key: &str) -> Result<(Vec<String>, usize), String> {
        let (mut names, mut params) = (Vec::new(), json!({}));
        for page in 1.. {
            let result = self.get(method, params)?;
            let items = result[member].as_array().unwrap_or_else(|| panic!("no {member} in {result}"));
            names.extend(items.iter().map(|item| item[key].as_str().expect("a name").to_owned()));
            match result.get("nextCursor") {
                Some(cursor) => params = json!({"cursor": cursor}),
                None => return Ok((names, page)),
            }
        }
        unreachable!("pages end")
    }

    /// Changes one of its lists, so that there are so many extra items.
    pub(crate) fn change(&mut self, kind: &str, count: usize) {
        let changed = self.call("change", &json!({"kind": kind, "count": count}));
        assert_eq!(changed.answer["result"]["content"][0]["text"], "changed", "{}", changed.answer);
    }

    /// A tool of the server's asks; the answer must be the client's own.
    fn question(&mut self, method: &str, params: &Value, reply: &Value) -> Outcome {
        let answered = self.call_with("ask", &json!({"method": method, "params": params}), reply);
        let said = answered.result()?["structuredContent"].clone();
        if let Some(sentence) = said["error"]["message"].as_str() {
            return Err(sentence.to_owned());
        }
        assert_eq!(said["result"], *reply, "{}", answered.answer);
        assert_eq!(answered.questions, [method]);
        Ok(())
    }
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

fn tools_list(cell: &mut Cell<'_>) -> Outcome {
    let (names, pages) = cell.list("tools/list", "tools", "name")?;
    let own = names.iter().filter(|name| name.starts_with(&format!("{}extra_", cell.prefix))).count();
    assert!(own >= super::EXTRA_TOOLS, "{own} of {}", names.len());
    // All servers together have more than one page holds.
    assert_eq!(pages > 1, !cell.prefix.is_empty());
    Ok(())
}

fn tools_call(cell: &mut Cell<'_>) -> Outcome {
    let answered = cell.call("echo", &json!({"n": 1}));
    assert_eq!(answered.result()?["structuredContent"], json!({"n": 1}));
    Ok(())
}

fn resources(cell: &mut Cell<'_>) -> Outcome {
    let (uris, _) = cell.list("resources/list", "resources", "uri")?;
    assert!(uris.contains(&cell.uri), "{uris:?}");
    let (templates, _) = cell.list("resources/templates/list", "resourceTemplates", "uriTemplate")?;
    assert!(templates.contains(&"fixture://item/{number}".to_owned()), "{templates:?}");
    let uri = cell.uri.clone();
    let read = cell.get("resources/read", json!({"uri": uri}))?;
    assert!(read["contents"][0]["text"].as_str().is_some_and(|text| text.starts_with(&uri)), "{read}");
    Ok(())
}

/// A modern client has subscribed with its stream.
fn subscribe(cell: &mut Cell<'_>) -> Outcome {
    let uri = cell.uri.clone();
    if cell.client.who.era() == Era::Legacy {
        cell.get("resources/subscribe", json!({"uri": uri}))?;
    }
    let touched = cell.call("touch", &json!({"uri": uri}));
    assert_eq!(touched.result()?["content"][0]["text"], "touched");
    while parse(&cell.client.told("notifications/resources/updated"))["params"]["uri"] != json!(uri) {}
    Ok(())
}

fn prompts(cell: &mut Cell<'_>) -> Outcome {
    let name = format!("{}greet", cell.prefix);
    let (names, _) = cell.list("prompts/list", "prompts", "name")?;
    assert!(names.contains(&name), "{names:?}");
    let got = cell.get("prompts/get", json!({"name": name, "arguments": {"who": "Ada"}}))?;
    assert_eq!(got["messages"][0]["content"]["text"], "Hello, Ada.");
    Ok(())
}

fn completion(cell: &mut Cell<'_>) -> Outcome {
    let reference = json!({"type": "ref/prompt", "name": format!("{}greet", cell.prefix)});
    let got = cell.get("completion/complete", json!({"ref": reference, "argument": {"name": "who", "value": "a"}}))?;
    assert_eq!(got["completion"]["values"], json!(["ada", "alan"]));
    Ok(())
}

/// A modern client says its level with every request: debug.
fn logging(cell: &mut Cell<'_>) -> Outcome {
    let heard = |cell: &mut Cell<'_>, level: &str| {
        let answered = cell.call("log", &json!({"level": level}));
        assert_eq!(answered.answer["result"]["content"][0]["text"], "logged", "{}", answered.answer);
        answered.heard("notifications/message")
    };
    if cell.client.who.era() == Era::Legacy {
        cell.get("logging/setLevel", json!({"level": "error"}))?;
        assert_eq!(heard(cell, "info"), 0, "less than it asked for");
    }
    assert_eq!(heard(cell, "error"), 3);
    Ok(())
}

fn progress(cell: &mut Cell<'_>) -> Outcome {
    let answered = cell.call("progress", &json!({"steps": 3}));
    answered.result()?;
    let steps: Vec<&Value> =
        answered.heard.iter().filter(|message| message["method"] == "notifications/progress").collect();
    assert!(steps.len() == 3 && steps.iter().all(|step| step["params"]["progressToken"] == "mine"), "{steps:?}");
    Ok(())
}

/// By the server's own journal: the call came, and then it was taken back.
fn cancellation(cell: &mut Cell<'_>) -> Outcome {
    let tag = format!("tag-{:032x}", rand::random::<u128>());
    let params = json!({"name": format!("{}hang", cell.prefix), "arguments": {"tag": tag}});
    let params = in_era(cell.client, params);
    let id = cell.client.begin("tools/call", &params);
    let journal = cell.journal.clone();
    let find = |what: &dyn Fn(&Value) -> bool| {
        let found = poll(Duration::from_secs(30), || {
            let text = std::fs::read_to_string(&journal).unwrap_or_default();
            // The newest lines are the ones in question.
            text.lines().rev().take(50).filter_map(|line| serde_json::from_str(line).ok()).find(|line| what(line))
        });
        found.unwrap_or_else(|| panic!("it never came to {}", journal.display()))
    };
    let call = find(&|line| line["params"]["arguments"]["tag"] == json!(tag));
    cell.client.cancel(&id);
    find(&|line| line["method"] == "notifications/cancelled" && line["params"]["requestId"] == call["id"]);
    Ok(())
}

fn ping(cell: &mut Cell<'_>) -> Outcome {
    cell.get("ping", json!({})).map(|_| ())
}

fn sampling(cell: &mut Cell<'_>) -> Outcome {
    let params = json!({"messages": [{"role": "user", "content": {"type": "text", "text": "?"}}], "maxTokens": 5});
    let reply = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "!"}});
    cell.question("sampling/createMessage", &params, &reply)
}

fn roots(cell: &mut Cell<'_>) -> Outcome {
    cell.question("roots/list", &json!({}), &json!({"roots": [{"uri": "file:///home"}]}))
}

fn elicitation_form(cell: &mut Cell<'_>) -> Outcome {
    let params =
        json!({"message": "who?", "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}}});
    cell.question("elicitation/create", &params, &json!({"action": "accept", "content": {"name": "Ada"}}))
}

fn elicitation_url(cell: &mut Cell<'_>) -> Outcome {
    let params = json!({"mode": "url", "message": "go", "elicitationId": "e", "url": "https://example.com/"});
    cell.question("elicitation/create", &params, &json!({"action": "accept"}))
}

fn tasks(cell: &mut Cell<'_>) -> Outcome {
    let params = json!({"name": "echo", "arguments": {}, "task": {"ttl": 60000}});
    cell.get("tools/call", params)?;
    let task = cell.get("tasks/get", json!({"taskId": "t1"}))?;
    assert_eq!((&task["taskId"], &task["status"]), (&json!("t1"), &json!("completed")));
    Ok(())
}

fn unknown(cell: &mut Cell<'_>) -> Outcome {
    let echoed = cell.get("x/echo", json!({"z": 1, "a": [1.5]}))?;
    assert_eq!((&echoed["z"], &echoed["a"]), (&json!(1), &json!([1.5])));
    Ok(())
}
