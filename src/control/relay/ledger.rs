//! What has to be known of a conversation so that it can go on with another gateway: what is
//! open, what the client said of itself once, and which ids are whose. Pure.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use crate::{
    call::{Answer, Edit, Message, Method, Payload},
    failure::{Class, Failure},
    respond, text,
    wire::{
        batch,
        envelope::{Envelope, Parts},
    },
};

use super::open::{Handshake, Open};

/// A gateway has 1024 of one client at most, and refuses what comes on top at once.
const OPEN_MAX_REQUESTS: usize = 2048;
const SUBSCRIPTIONS_MAX: usize = 1024;
const QUESTIONS_MAX: usize = 1024;

/// The ids of the relay's own requests. Answers to the second kind interest nobody.
const HELLO: Payload = Payload::literal("\"seawall-relay-hello\"");
const AGAIN: Payload = Payload::literal("\"seawall-relay-again\"");
const CANCELLED: Method = Method::of("notifications/cancelled");

#[derive(Default)]
pub(super) struct Ledger {
    /// What the client asked and has no answer to, by the id's text; and the number of the batch
    /// that it came in, which is answered as one.
    open: HashMap<Payload, (Open, Option<u64>)>,
    batches: u64,
    /// What the gateway asked and has no answer to: the id that the client knows, and the gateway's.
    questions: HashMap<Payload, Payload>,
    /// How many gateways there were before this one. Each counts its questions from the start.
    life: u32,
    hello: Option<Hello>,
    log_level: Option<Payload>,
    /// URIs, as JSON.
    subscriptions: BTreeSet<String>,
}

/// What becomes of all that was open with a gateway that is gone.
pub(super) struct Bereaved {
    /// What the client is told.
    pub(super) last: Vec<Bytes>,
    /// What can be asked of the next gateway: nothing was done yet.
    pub(super) again: Vec<Bytes>,
}

/// What a gateway that is back says to the handshake that its predecessor had.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Welcome {
    Taken,
    /// It cannot serve this client now.
    NotYet,
    Refused(String),
}

/// The handshake that the client had.
#[derive(Debug)]
struct Hello {
    params: Option<Payload>,
    /// Which lists it was promised to hear about.
    promised: Vec<&'static str>,
    is_initialized: bool,
}

const LISTS: [&str; 3] = ["tools", "prompts", "resources"];

impl Ledger {
    /// The line as the gateway is to get it; `None` if it is not for this gateway.
    pub(super) fn hear_client(&mut self, line: Bytes) -> Option<Bytes> {
        match Envelope::parse(&line) {
            Ok(Envelope::Message(message)) => self.heard(message, None),
            Ok(Envelope::Response { id, answer }) => match self.questions.remove(&id) {
                // To a gateway that is gone. Of the first, it is the client's mistake, and heard.
                None => return (self.life == 0).then_some(line),
                Some(theirs) if theirs != id => {
                    return Some(Parts::response(&theirs, answer.on_one_line()).joined());
                }
                Some(_) => {}
            },
            Err(_) if batch::is_batch(&line) => {
                self.batches += 1;
                for envelope in batch::parse(&line).into_iter().flatten().flatten() {
                    match envelope {
                        Envelope::Message(message) => self.heard(message, Some(self.batches)),
                        Envelope::Response { id, .. } => drop(self.questions.remove(&id)),
                    }
                }
            }
            // The gateway says what is wrong with it.
            Err(_) => {}
        }
        Some(line)
    }

    fn heard(&mut self, message: Message, batch: Option<u64>) {
        match message {
            Message::Request { id, method, params } => {
                self.open.insert(id.apart(), (Open::of(&id, method, params), batch));
            }
            Message::Notification { method, params } => match method.as_str() {
                "notifications/initialized" => {
                    if let Some(hello) = &mut self.hello {
                        hello.is_initialized = true;
                    }
                    for (open, _) in self.open.values_mut() {
                        if let Open::Initialize(handshake) = open {
                            handshake.is_initialized = true;
                        }
                    }
                }
                "notifications/cancelled" => {
                    if let Some(id) = params.and_then(|params| params.member("requestId")) {
                        self.open.remove(&id);
                    }
                }
                _ => {}
            },
        }
    }

    /// No more may be asked until something was answered. An array may go a little beyond.
    pub(super) fn is_full(&self) -> bool {
        self.open.len() >= OPEN_MAX_REQUESTS
    }

    /// The line as the client is to get it; `None` if it is not for the client.
    pub(super) fn hear_gateway(&mut self, line: Bytes) -> Option<Bytes> {
        match Envelope::parse(&line) {
            Ok(Envelope::Response { id, .. }) if id == AGAIN => return None,
            Ok(Envelope::Response { id, answer }) => self.answered(&id, &answer),
            Ok(Envelope::Message(Message::Request { id, method, params })) => {
                let known = self.known_as(&id);
                if self.questions.len() < QUESTIONS_MAX {
                    self.questions.insert(known.apart(), id.apart());
                }
                if known != id {
                    return Some(Parts::asking(known.as_bytes(), &method, params).joined());
                }
            }
            Ok(Envelope::Message(Message::Notification { method, params: Some(params) })) if method == CANCELLED => {
                let Some(id) = params.member("requestId") else { return Some(line) };
                let known = self.known_as(&id);
                self.questions.remove(&known);
                if known != id {
                    let params = params.edit(&[("requestId", Edit::Set(known))]);
                    return Some(Parts::notification(&method, Some(params)).joined());
                }
            }
            Ok(Envelope::Message(_)) => {}
            Err(_) => {
                for envelope in batch::parse(&line).into_iter().flatten().flatten() {
                    if let Envelope::Response { id, answer } = envelope {
                        self.answered(&id, &answer);
                    }
                }
            }
        }
        Some(line)
    }

    /// Which id the client sees in place of this gateway's, which may have been its predecessor's.
    fn known_as(&self, id: &Payload) -> Payload {
        match self.life {
            0 => id.clone(),
            life => Payload::of(&format!("seawall-relay-{life}-{}", id.as_str())),
        }
    }

    fn answered(&mut self, id: &Payload, answer: &Answer) {
        let Some((open, _)) = self.open.remove(id) else { return };
        let Answer::Result(result) = answer else { return };
        match open {
            Open::Initialize(Handshake { params, is_initialized, .. }) => {
                self.hello = Some(Hello { params, promised: promised(result), is_initialized });
            }
            Open::LogLevel(level) => self.log_level = level,
            Open::Subscribe(Some(uri)) if self.subscriptions.len() < SUBSCRIPTIONS_MAX => {
                self.subscriptions.insert(uri.as_str().to_owned());
            }
            Open::Unsubscribe(Some(uri)) => {
                self.subscriptions.remove(uri.as_str());
            }
            Open::Subscribe(_) | Open::Unsubscribe(_) | Open::Call(_) | Open::Other(_) => {}
        }
    }

    pub(super) fn bereave(&mut self) -> Bereaved {
        const ENDED: &str = "the gateway ended while it was open";
        let (lost, unknown) = (Failure::new(Class::Lost, ENDED), Failure::new(Class::Lost, ENDED).outcome_unknown());
        let mut last = Vec::with_capacity(self.open.len() + self.questions.len());
        let mut again = Vec::new();
        let mut batches: HashMap<u64, Vec<Bytes>> = HashMap::new();
        for (id, (open, batch)) in self.open.drain() {
            let failure = match open {
                Open::Initialize(handshake) => {
                    again.extend(handshake.lines());
                    continue;
                }
                Open::Call(_) => &unknown,
                _ => &lost,
            };
            let answer = Parts::response(&id, open.failed(failure)).joined();
            match batch {
                Some(batch) => batches.entry(batch).or_default().push(answer),
                None => last.push(answer),
            }
        }
        last.extend(batches.into_values().map(|answers| batch::joined(&answers)));
        for (known, _) in self.questions.drain() {
            let params = Payload::literal(r#"{"reason":"the gateway that asked has ended"}"#)
                .edit(&[("requestId", Edit::Set(known))]);
            last.push(Parts::notification(&CANCELLED, Some(params)).joined());
        }
        self.life += 1;
        Bereaved { last, again }
    }

    /// What a client hears that asks while there is no gateway.
    pub(super) fn refuse(&mut self, line: Bytes) -> Vec<Bytes> {
        let none = Failure::new(Class::Unavailable, "no gateway is running, start one with `seawall serve`");
        let mut answers = Vec::new();
        for envelope in batch::messages(&line).unwrap_or_default() {
            match envelope {
                Envelope::Message(Message::Request { id, method, params }) => {
                    answers.push(Parts::response(&id, Open::of(&id, method, params).failed(&none)).joined());
                }
                Envelope::Message(notification) => self.heard(notification, None),
                // To a gateway that is gone.
                Envelope::Response { .. } => {}
            }
        }
        match batch::is_batch(&line) && !answers.is_empty() {
            true => vec![batch::joined(&answers)],
            false => answers,
        }
    }

    /// What a gateway that is back has to be told, the handshake first; nothing for a client
    /// that needs none or had none yet.
    pub(super) fn greeting(&self) -> Vec<Bytes> {
        let Some(hello) = &self.hello else { return Vec::new() };
        let mut lines = vec![Parts::asking(HELLO.as_bytes(), &Method::of("initialize"), hello.params.clone()).joined()];
        if !hello.is_initialized {
            return lines;
        }
        lines.push(Parts::notification(&Method::of("notifications/initialized"), None).joined());
        let mut again = |method, key, value: Payload| {
            let params = Payload::literal("{}").edit(&[(key, Edit::Set(value))]);
            lines.push(Parts::asking(AGAIN.as_bytes(), &Method::of(method), Some(params)).joined());
        };
        if let Some(level) = &self.log_level {
            again("logging/setLevel", "level", level.clone());
        }
        for uri in &self.subscriptions {
            again("resources/subscribe", "uri", as_payload(uri));
        }
        lines
    }

    /// What may have changed between two gateways.
    pub(super) fn news(&self) -> Vec<Bytes> {
        let Some(hello) = self.hello.as_ref().filter(|hello| hello.is_initialized) else { return Vec::new() };
        let lists = hello
            .promised
            .iter()
            .map(|list| Parts::notification(&Method::from(&*format!("notifications/{list}/list_changed")), None));
        let resources = self.subscriptions.iter().map(|uri| {
            let params = Payload::literal("{}").edit(&[("uri", Edit::Set(as_payload(uri)))]);
            Parts::notification(&Method::of("notifications/resources/updated"), Some(params))
        });
        lists.chain(resources).map(Parts::joined).collect()
    }
}

impl Welcome {
    /// `None` if this line is not the answer to the handshake.
    pub(super) fn of(line: &Bytes) -> Option<Welcome> {
        match Envelope::parse(line) {
            Ok(Envelope::Response { id, answer: Answer::Result(_) }) if id == HELLO => Some(Welcome::Taken),
            Ok(Envelope::Response { id, answer: Answer::Error(error) }) if id == HELLO => {
                Some(match error.error_code() == Some(respond::SERVER_FAILED) {
                    true => Welcome::NotYet,
                    false => Welcome::Refused(text::quote(&error.text("message").unwrap_or_default(), 200)),
                })
            }
            _ => None,
        }
    }
}

/// Which lists a client was promised to hear about.
fn promised(result: &Payload) -> Vec<&'static str> {
    let capabilities = result.member("capabilities");
    let is_promised = |list: &&str| {
        let told = capabilities.as_ref()?.member(list)?.member("listChanged")?;
        Some(told.as_str() == "true")
    };
    LISTS.into_iter().filter(|list| is_promised(list).unwrap_or(false)).collect()
}

/// `json` was a payload's text.
fn as_payload(json: &str) -> Payload {
    Payload::concatenated(json.as_bytes().into())
}
