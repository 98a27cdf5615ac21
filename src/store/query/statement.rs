//! Filters as SQL, and rows as records.

use rusqlite::{Row, ToSql};

use crate::store::row::{EventRecord, FailureRecord};

/// No answer is longer, whatever was asked for.
const ROWS_MAX: u32 = 100_000;

/// A statement under construction, with the values of its places.
pub(in crate::store) struct Query<'a> {
    pub(in crate::store) sql: String,
    pub(in crate::store) values: Vec<&'a dyn ToSql>,
}

impl<'a> Query<'a> {
    pub(in crate::store) fn new(select: &str) -> Self {
        Query { sql: format!("{select} WHERE true"), values: Vec::new() }
    }

    pub(in crate::store) fn that<T: ToSql>(mut self, condition: &str, value: Option<&'a T>) -> Self {
        if let Some(value) = value {
            self.values.push(value);
            self.sql.push_str(&format!(" AND {condition} ?{}", self.values.len()));
        }
        self
    }

    pub(in crate::store) fn ending(mut self, sql: &str) -> Self {
        self.sql.push(' ');
        self.sql.push_str(sql);
        self
    }

    pub(in crate::store) fn page(self, after_seq: Option<&'a i64>, limit: Option<u32>) -> Self {
        let order = if after_seq.is_some() { "rowid" } else { "timestamp DESC, rowid DESC" };
        let mut query = self.that("rowid >", after_seq);
        query.sql.push_str(&format!(" ORDER BY {order} LIMIT {}", limit.unwrap_or(ROWS_MAX).min(ROWS_MAX)));
        query
    }
}

pub(in crate::store) fn read_failure(row: &Row<'_>) -> rusqlite::Result<FailureRecord> {
    Ok(FailureRecord {
        seq: row.get("rowid")?,
        id: row.get("id")?,
        timestamp_ms: row.get("timestamp")?,
        server: row.get("server")?,
        tool: row.get("tool")?,
        class: row.get("class")?,
        message: row.get("message")?,
        duration_ms: row.get("duration_ms")?,
        client: row.get("client")?,
        protocol: row.get("protocol")?,
        request_id: row.get("request_id")?,
        instance: row.get("instance")?,
        arguments: row.get("arguments")?,
        exit_status: row.get("exit_status")?,
        stderr_tail: row.get("stderr_tail")?,
    })
}

pub(in crate::store) fn read_event(row: &Row<'_>) -> rusqlite::Result<EventRecord> {
    Ok(EventRecord {
        seq: row.get("rowid")?,
        id: row.get("id")?,
        timestamp_ms: row.get("timestamp")?,
        category: row.get("category")?,
        event_type: row.get("event_type")?,
        service_name: row.get("service_name")?,
        metadata: row.get("metadata")?,
    })
}
