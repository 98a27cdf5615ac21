//! One case: a request, what its server says while it has it, and the answer; as text
//! for a client and a server of either era.

use proptest::{collection::vec, option, prelude::*};

use crate::{
    support::{
        json_text::{Member, object},
        raw::{Era, Who},
    },
    text,
};

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) kind: Kind,
    /// Members of the params that nobody knows.
    extra: Vec<Member>,
    arguments: Vec<Member>,
    meta: Option<Vec<Member>>,
    token: Option<String>,
    notes: Vec<Note>,
    /// The params of a question, and its answer.
    pub(crate) question: Option<(String, String)>,
    pub(crate) answer: Answer,
    /// Which member comes first.
    turn: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Call,
    Prompt,
    /// Has no place at `/mcp`, where several servers have it.
    Read,
    /// A method that seawall does not know.
    Unknown,
}

#[derive(Clone, Debug)]
enum Note {
    Progress(Vec<Member>),
    Log(String),
    Unknown(Vec<Member>),
}

#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Result { members: Vec<Member>, blocks: Vec<Member>, meta: Option<Vec<Member>>, is_error: Option<bool> },
    Error { code: i64, message: String, members: Vec<Member> },
}

pub(crate) fn case() -> impl Strategy<Value = Case> {
    let kind = prop::sample::select(vec![Kind::Call, Kind::Call, Kind::Call, Kind::Prompt, Kind::Read, Kind::Unknown]);
    let trace = Just(Some(vec![(
        "\"traceparent\"".to_owned(),
        "\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"".to_owned(),
    )]));
    let meta = prop_oneof![option::of(text::members(3)), trace];
    let token = option::of(prop_oneof![text::string(), "[1-9][0-9]{0,25}"]);
    let question = option::of((text::members(3).prop_map(|all| object(&all)), text::members(3)));
    (kind, text::members(3), text::members(4), meta, token, vec(note(), 0..3), question, answer(), 0..8_usize).prop_map(
        |(kind, extra, arguments, meta, token, notes, question, answer, turn)| Case {
            kind,
            extra,
            arguments,
            meta,
            token,
            notes,
            question: question.map(|(params, answer)| (params, object(&answer))),
            answer,
            turn,
        },
    )
}

fn note() -> impl Strategy<Value = Note> {
    prop_oneof![
        text::members(2).prop_map(Note::Progress),
        text::value().prop_map(Note::Log),
        text::members(2).prop_map(Note::Unknown),
    ]
}

fn answer() -> impl Strategy<Value = Answer> {
    let meta = option::of(text::members(2));
    let result = (text::members(3), text::members(3), meta, option::of(any::<bool>()))
        .prop_map(|(members, blocks, meta, is_error)| Answer::Result { members, blocks, meta, is_error });
    // Codes that are the client's fault, one that is the server's, and one that is no code.
    let code = prop::sample::select(vec![-32600, -32601, -32602, -32042, -32000, 99_999_999_999]);
    let error = (code, text::string(), text::members(2)).prop_map(|(code, message, members)| Answer::Error {
        code,
        message,
        members,
    });
    prop_oneof![4 => result, 1 => error]
}

fn member(key: &str, value: impl Into<String>) -> Member {
    (format!("\"{key}\""), value.into())
}

impl Case {
    /// A tool call with a long text in its argument, in what is told and asked meanwhile,
    /// or in its result.
    pub(crate) fn long(argument: String, meanwhile: String, result: String) -> Case {
        let asked = format!("{{\"long\":{meanwhile}}}");
        Case {
            kind: Kind::Call,
            extra: Vec::new(),
            arguments: vec![member("image", argument)],
            meta: None,
            token: None,
            notes: vec![Note::Unknown(vec![member("long", meanwhile)])],
            question: Some((asked.clone(), asked)),
            answer: Answer::Result {
                members: vec![member("long", result)],
                blocks: Vec::new(),
                meta: None,
                is_error: None,
            },
            turn: 0,
        }
    }

    pub(crate) fn method(&self) -> &'static str {
        match self.kind {
            Kind::Call => "tools/call",
            Kind::Prompt => "prompts/get",
            Kind::Read => "resources/read",
            Kind::Unknown => "x/from-another-time",
        }
    }

    /// The params that this client sends, who sees names with a prefix.
    pub(crate) fn params(&self, who: &Who, prefix: &str) -> String {
        let mut members = match self.kind {
            Kind::Call => vec![member("name", format!("\"{prefix}echo\""))],
            Kind::Prompt => vec![member("name", format!("\"{prefix}greet\""))],
            Kind::Read => vec![member("uri", "\"fixture://hello\"")],
            Kind::Unknown => Vec::new(),
        };
        members.push(member("arguments", object(&self.arguments)));
        members.extend(self.extra.clone());
        let mut meta = self.meta.clone().unwrap_or_default();
        meta.extend(self.token.clone().map(|token| member("progressToken", token)));
        if who.era() == Era::Modern {
            meta.extend(who.members());
        }
        self.turned(members, self.meta.is_some() || !meta.is_empty(), &meta)
    }

    /// In some order, which is the same where an era adds or leaves out a member.
    fn turned(&self, mut members: Vec<Member>, has_meta: bool, meta: &[Member]) -> String {
        let turn = self.turn % members.len();
        members.rotate_left(turn);
        if has_meta {
            members.insert(turn, member("_meta", object(meta)));
        }
        object(&members)
    }

    /// What a server of this era says, line by line.
    pub(crate) fn script(&self, era: Era, with_question: bool) -> String {
        let mut lines = Vec::new();
        for (number, note) in self.notes.iter().enumerate() {
            lines.extend(self.note(number, note));
        }
        if let Some((params, _)) = self.question.as_ref().filter(|_| with_question) {
            lines.push(format!(
                "?{{\"jsonrpc\":\"2.0\",\"id\":\"ask-1\",\"method\":\"sampling/createMessage\",\"params\":{params}}}"
            ));
        }
        let (key, answer) = match &self.answer {
            Answer::Result { .. } => ("result", self.result(era)),
            Answer::Error { code, message, members } => {
                let mut all = vec![member("code", code.to_string()), member("message", message.clone())];
                all.extend(members.clone());
                ("error", object(&all))
            }
        };
        // The envelope is each hop's own: a member of it goes no further.
        lines.push(format!("{{\"jsonrpc\":\"2.0\",\"id\":$ID,\"x-hop\":[1.0],\"{key}\":{answer}}}"));
        lines.join("\n") + "\n"
    }

    fn note(&self, number: usize, note: &Note) -> Option<String> {
        let (method, params) = match note {
            Note::Progress(_) if self.token.is_none() => return None,
            Note::Progress(members) => {
                let rest = object(&[&[member("progress", format!("{}.50", number + 1))], &members[..]].concat());
                ("progress", format!("{{\"progressToken\":$TOKEN,{}", &rest[1..]))
            }
            Note::Log(data) => ("message", format!("{{\"level\":\"info\",\"data\":{data}}}")),
            Note::Unknown(members) => ("x/unheard-of", object(members)),
        };
        Some(format!("{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/{method}\",\"params\":{params}}}"))
    }

    fn result(&self, era: Era) -> String {
        let Answer::Result { members, blocks, meta, is_error } = &self.answer else { unreachable!("it is a result") };
        let mut all = members.clone();
        let block = [&[member("type", "\"hologram\"")], &blocks[..]].concat();
        all.push(member("content", format!("[{},{{\"type\":\"text\",\"text\":\"\"}}]", object(&block))));
        all.push(member("structuredContent", object(blocks)));
        all.extend(is_error.map(|is_error| member("isError", is_error.to_string())));
        let mut meta = meta.clone();
        if era == Era::Modern {
            let info = member("io.modelcontextprotocol/serverInfo", r#"{"name":"fixture","version":"1.0"}"#);
            meta.get_or_insert_default().push(info);
        }
        let turned = self.turned(all, meta.is_some(), &meta.unwrap_or_default());
        match (era, self.kind) {
            (Era::Legacy, _) => turned,
            // Without them seawall would have to say what the era demands.
            (Era::Modern, Kind::Read) => {
                format!("{{\"ttlMs\":60000.0,\"cacheScope\":\"public\",\"resultType\":\"complete\",{}", &turned[1..])
            }
            (Era::Modern, _) => format!("{},\"resultType\":\"complete\"}}", &turned[..turned.len() - 1]),
        }
    }
}
