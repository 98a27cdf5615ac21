//! What the store's own tests need.

use super::row::FailureRow;
use crate::{failure::Class, id::Id};

/// A failure of nobody in particular.
pub(crate) fn failure(class: Class, tool: &str) -> FailureRow {
    FailureRow {
        id: Id::now(),
        timestamp_ms: crate::id::unix_ms(),
        server: "files".into(),
        tool: tool.to_owned(),
        class,
        message: "it broke".to_owned(),
        duration_ms: 12,
        client: "test 1.0".to_owned(),
        protocol: "2025-11-25".to_owned(),
        request_id: "7".to_owned(),
        instance: Some(3),
        arguments: None,
        exit_status: None,
        stderr_tail: None,
    }
}
