//! What is kept of a call's arguments. Values must not get past here unless the
//! settings say so.

use super::Arguments;
use crate::{call::Call, store::redact};

/// The `arguments` of a tool call, the whole params of any other request.
pub(super) fn kept(settings: Arguments, call: &Call) -> Option<String> {
    let reduce: fn(&[u8]) -> String = match settings {
        Arguments::None => return None,
        Arguments::Shape => redact::shape,
        Arguments::Redacted => redact::redacted,
    };
    let arguments = if call.is_tool_call() { call.params.member("arguments")? } else { call.params.clone() };
    Some(reduce(arguments.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{call::Payload, testing};

    #[test]
    fn no_value_is_kept_unless_asked_for() {
        let mut call = testing::call("files", "read");
        call.params = Payload::literal(r#"{"name":"read","arguments":{"path":"hunter2.txt","n":1e400}}"#);
        let shape = kept(Arguments::Shape, &call).expect("a shape");
        assert!(shape.contains("path") && !shape.contains("hunter2"), "{shape}");
        let redacted = kept(Arguments::Redacted, &call).expect("values");
        assert!(redacted.contains("hunter2.txt") && redacted.contains("1e400"), "{redacted}");
        assert_eq!(kept(Arguments::None, &call), None);
    }
}
