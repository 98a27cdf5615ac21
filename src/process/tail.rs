//! The last words of a process: its stderr is always read, so that it never blocks
//! on it, and only the end is kept.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::sync::CancellationToken;

use super::veil::Veil;

const KEPT_BYTES: usize = 4096;

#[derive(Clone, Debug, Default)]
pub struct Tail {
    kept: Arc<Mutex<VecDeque<u8>>>,
    ended: CancellationToken,
    veil: Veil,
}

impl Tail {
    /// In whose text the values of these variables do not show: a process may well say
    /// what it was told in confidence.
    pub fn hiding(variables: impl Iterator<Item = (String, String)>) -> Self {
        Tail::under(Veil::over(variables))
    }

    /// The same by a veil that is there already.
    pub fn under(veil: Veil) -> Self {
        Tail { veil, ..Tail::default() }
    }

    /// `text` without the values that are to be hidden.
    pub fn hide(&self, text: &str) -> String {
        self.veil.hide(text)
    }

    /// Reads to the end of `stream`.
    pub async fn follow(self, stream: impl AsyncRead + Unpin) {
        self.follow_lines(stream, |_| {}).await;
    }

    /// The same, and each whole line is heard, in order, those that are too long cut.
    pub async fn follow_lines(self, mut stream: impl AsyncRead + Unpin, mut on_line: impl FnMut(&str)) {
        let _ended = self.ended.clone().drop_guard();
        let mut chunk = vec![0; 8192];
        let mut line = Vec::new();
        while let Ok(n @ 1..) = stream.read(&mut chunk).await {
            let mut parts = chunk[..n].split(|byte| *byte == b'\n').peekable();
            while let Some(part) = parts.next() {
                let room = KEPT_BYTES.saturating_sub(line.len());
                line.extend_from_slice(&part[..part.len().min(room)]);
                if parts.peek().is_some() {
                    on_line(&String::from_utf8_lossy(&line));
                    line.clear();
                }
            }
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend(&chunk[..n]);
            let surplus = kept.len().saturating_sub(KEPT_BYTES);
            kept.drain(..surplus);
        }
        if !line.is_empty() {
            on_line(&String::from_utf8_lossy(&line));
        }
    }

    /// Resolves when all has been read: a process may be gone before its last words
    /// are. They may be waited for in vain, where what it started holds its stderr.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// The last whole lines; `None` if there was nothing.
    pub fn text(&self) -> Option<String> {
        let kept: Vec<u8> = self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let text = String::from_utf8_lossy(&kept);
        let whole = match text.split_once('\n') {
            Some((_, rest)) if kept.len() == KEPT_BYTES => rest,
            _ => &text,
        };
        let trimmed = whole.trim_end();
        (!trimmed.is_empty()).then(|| self.hide(trimmed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_heard_whole_and_cut_where_they_are_too_long() {
        let text = format!("one\n\n{}\nlast", "x".repeat(20_000));
        let mut heard = Vec::new();
        Tail::default().follow_lines(text.as_bytes(), |line| heard.push(line.to_owned())).await;
        assert_eq!(heard, ["one", "", &"x".repeat(KEPT_BYTES), "last"]);
    }

    #[tokio::test]
    async fn what_was_told_in_confidence_does_not_show() {
        let variables = [("TOKEN", "s3cr3t-value"), ("LONGER", "s3cr3t-value-and-more"), ("MODE", "fast")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let tail = Tail::hiding(variables.into_iter());
        tail.clone().follow(&b"fast: s3cr3t-value, s3cr3t-value-and-more"[..]).await;
        assert_eq!(tail.text().as_deref(), Some("fast: <TOKEN>, <LONGER>"));
    }

    #[tokio::test]
    async fn only_the_last_lines_are_kept() {
        let tail = Tail::default();
        let flood: String = (0..10_000).map(|i| format!("line {i}\n")).collect();
        tail.clone().follow(flood.as_bytes()).await;
        tail.ended().await;
        let text = tail.text().expect("text");
        assert!(text.len() <= KEPT_BYTES);
        assert!(text.starts_with("line ") && text.ends_with("line 9999"), "{text}");
        assert_eq!(Tail::default().text(), None);
    }
}
