//! Batches of JSON-RPC: several messages in one array. Of MCP's versions only 2025-03-26
//! has them; whoever reads one takes it apart, and nothing further in knows of it.

use std::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{
    Deserializer as _,
    de::{self, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::envelope::{Envelope, Malformed, OVERLOADED, Parts, rpc_error};
use crate::call::{Answer, Payload};

/// The version of MCP that has them.
pub const BATCH_VERSION: &str = "2025-03-26";
pub const BATCH_MAX_MESSAGES: usize = 100;
/// What the answers to one batch may take together; one alone may be of any size.
const ANSWERS_MAX_BYTES: usize = 16 * 1024 * 1024;

pub fn is_batch(text: &[u8]) -> bool {
    text.trim_ascii_start().starts_with(b"[")
}

/// The messages of an array, each for itself: what is wrong with one is no matter to the
/// others. Payloads share the memory of `text`.
pub fn parse(text: &Bytes) -> Result<Vec<Result<Envelope, Malformed>>, Malformed> {
    let malformed = |is_json, reason: String| Malformed { id: None, is_json, reason };
    let mut reader = serde_json::Deserializer::from_slice(text);
    let items = reader.deserialize_seq(Items).and_then(|items| reader.end().map(|()| items)).map_err(|error| {
        let is_json = serde_json::from_slice::<&RawValue>(text).is_ok();
        malformed(is_json, if is_json { format!("no batch: {error}") } else { format!("no JSON: {error}") })
    })?;
    if items.is_empty() {
        return Err(malformed(true, "no batch: an empty array".to_owned()));
    }
    Ok(items.into_iter().map(|item| Envelope::parse(&text.slice_ref(item.get().as_bytes()))).collect())
}

/// The one message that this is, or those of an array, which must all be well formed.
pub fn messages(text: &Bytes) -> Result<Vec<Envelope>, Malformed> {
    if is_batch(text) { parse(text)?.into_iter().collect() } else { Ok(vec![Envelope::parse(text)?]) }
}

/// An array of whole messages.
pub fn joined(messages: &[Bytes]) -> Bytes {
    let mut array = BytesMut::with_capacity(messages.iter().map(|message| message.len() + 1).sum::<usize>() + 1);
    for (place, message) in messages.iter().enumerate() {
        array.put_u8(if place == 0 { b'[' } else { b',' });
        array.put_slice(message);
    }
    array.put_u8(b']');
    array.freeze()
}

/// Puts the answers to one batch together, and counts what they take: they wait for each
/// other, and may wait for a client that does not read.
#[derive(Debug, Default)]
pub struct Answers(AtomicUsize);

impl Answers {
    /// The reply to one request, with an error in place of an answer that does not fit beside
    /// those before it.
    pub fn reply(&self, id: &Payload, answer: Answer) -> Bytes {
        let reply = Parts::response(id, answer.on_one_line());
        let before = self.0.fetch_add(reply.len(), Ordering::Relaxed);
        if before == 0 || before + reply.len() <= ANSWERS_MAX_BYTES {
            return reply.joined();
        }
        self.0.fetch_sub(reply.len(), Ordering::Relaxed);
        let max = crate::text::bytes(ANSWERS_MAX_BYTES as u64);
        let why = format!(
            "seawall: this was answered, but the answers to one batch may take {max} together; the call may have \
             taken effect. Ask for it alone"
        );
        Parts::response(id, Answer::Error(rpc_error(OVERLOADED, why))).joined()
    }
}

/// Stops at the bound: an array of millions costs no more than one of a hundred.
struct Items;

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = array.next_element()? {
            if items.len() == BATCH_MAX_MESSAGES {
                return Err(de::Error::custom(format!("more than {BATCH_MAX_MESSAGES} messages at once")));
            }
            items.push(item);
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Message;

    fn of(text: &str) -> Result<Vec<Result<Envelope, Malformed>>, Malformed> {
        parse(&Bytes::from(text.to_owned()))
    }

    #[test]
    fn answers_that_do_not_fit_beside_the_others_are_errors() {
        let answers = Answers::default();
        let half = || Answer::Result(Payload::of(&"x".repeat(ANSWERS_MAX_BYTES / 2)));
        let ids = [1, 2, 3].map(|id: u32| Payload::of(&id));
        assert!(answers.reply(&ids[0], half()).len() > ANSWERS_MAX_BYTES / 2);
        let refused = answers.reply(&ids[1], half());
        let refused = std::str::from_utf8(&refused).expect("UTF-8");
        assert!(refused.contains(r#""id":2,"error""#) && refused.contains("16 MiB together"), "{refused}");
        assert!(answers.reply(&ids[2], Answer::Result(Payload::literal("{}"))).ends_with(b"\"result\":{}}"));
        let whole = Answer::Result(Payload::of(&"x".repeat(2 * ANSWERS_MAX_BYTES)));
        assert!(Answers::default().reply(&ids[0], whole).len() > ANSWERS_MAX_BYTES, "one alone may be of any size");
    }

    #[test]
    fn each_message_stands_for_itself() {
        let items = of(
            r#" [{"id":1,"method":"ping"}, 7, {"method":"x","params":{"n":1e400}},{"id":2,"result":null}, {"id":3}]"#,
        )
        .expect("a batch");
        let [request, number, notification, answer, nothing] = &items[..] else { panic!("{items:?}") };
        assert!(matches!(request, Ok(Envelope::Message(Message::Request { .. }))));
        assert!(matches!(number, Err(malformed) if malformed.id.is_none() && malformed.is_json));
        let Ok(Envelope::Message(Message::Notification { params: Some(params), .. })) = notification else {
            panic!("{notification:?}")
        };
        assert_eq!(params.as_str(), r#"{"n":1e400}"#);
        assert!(matches!(answer, Ok(Envelope::Response { .. })));
        assert!(matches!(nothing, Err(malformed) if malformed.id.as_ref().is_some_and(|id| id.as_str() == "3")));
    }

    #[test]
    fn what_is_no_batch_is_told_apart_and_costs_little() {
        for (text, is_json) in [("[]", true), ("[1,", false), ("[1] 2", false), ("[INFO] started", false)] {
            assert_eq!(of(text).expect_err(text).is_json, is_json, "{text}");
        }
        let many = format!("[{}7]", "7,".repeat(BATCH_MAX_MESSAGES));
        assert!(of(&many).expect_err("too many").reason.contains("more than 100"));
        assert_eq!(of(&many.replacen("7,", "", 1)).expect("just so many").len(), BATCH_MAX_MESSAGES);
    }

    #[test]
    fn messages_are_joined_to_an_array() {
        assert_eq!(joined(&[Bytes::from_static(b"1"), Bytes::from_static(b"{}")]), "[1,{}]");
    }
}
