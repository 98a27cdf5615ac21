//! The story of a failed call.

use std::{
    io::{self, Write},
    time::Duration,
};

use super::{Around, Colour, Style, paragraph, print, section, words};
use crate::{command::failures::colour_of, failure::Class, store::FailureRecord, text};

pub(super) fn tell(out: &mut impl Write, style: &Style, row: &FailureRecord, around: &Around) -> io::Result<()> {
    let class = Class::ALL.into_iter().find(|class| class.name() == row.class);
    let name = style.paint(colour_of(&row.class), &text::quote(&row.class, 40));
    writeln!(out, "{} {}: {name}", style.paint(Colour::Bold, "Failure"), text::quote(&row.id, 40))?;
    writeln!(out)?;
    paragraph(out, style, &opening(style, row))?;
    paragraph(
        out,
        style,
        class.map_or("It ended in a way that this version of seawall does not know.", words::meaning),
    )?;
    fact(out, "message", Some(&row.message))?;
    fact(out, "arguments", row.arguments.as_ref())?;
    fact(out, "request id", Some(&row.request_id).filter(|id| !id.is_empty()))?;
    fact(out, "instance", row.instance.map(|number| number.to_string()).as_ref())?;
    fact(out, "exit status", row.exit_status.as_ref())?;
    last_words(out, style, row)?;

    section(out, style, "What the client was told")?;
    paragraph(out, style, class.map_or("Unknown.", words::told))?;
    section(out, style, "Whether it may have taken effect")?;
    paragraph(out, style, class.map_or("Unknown.", |class| words::effect(class, row.instance.is_some())))?;
    around.tell(out, style)?;
    section(out, style, "What to do")?;
    for advice in class.map(|class| words::advice(class, row)).unwrap_or_default() {
        paragraph(out, style, &advice)?;
    }
    Ok(())
}

fn opening(style: &Style, row: &FailureRecord) -> String {
    let client = match row.client.is_empty() {
        true => "A client".to_owned(),
        false => text::quote(&row.client, 100),
    };
    let protocol = match row.protocol.is_empty() {
        true => String::new(),
        false => format!(" (MCP {})", text::quote(&row.protocol, 40)),
    };
    let took = match row.duration_ms {
        0 => "at once".to_owned(),
        ms => format!("after {}", text::duration(Duration::from_millis(ms.unsigned_abs()))),
    };
    format!(
        "{client}{protocol} called \"{}\" of server \"{}\". It ended {took}, on {} ({} ago).",
        text::quote(&row.tool, 100),
        text::quote(&row.server, 40),
        style.time_in_words(row.timestamp_ms),
        print::between(row.timestamp_ms, print::now_ms()),
    )
}

fn fact(out: &mut impl Write, name: &str, value: Option<&String>) -> io::Result<()> {
    match value {
        Some(value) => writeln!(out, "    {name:<12} {}", text::quote(value, 2000)),
        None => Ok(()),
    }
}

fn last_words(out: &mut impl Write, style: &Style, row: &FailureRecord) -> io::Result<()> {
    const LINES_MAX: usize = 20;
    let Some(tail) = row.stderr_tail.as_deref().filter(|tail| !tail.trim().is_empty()) else { return Ok(()) };
    section(out, style, "The last that the server wrote to its stderr")?;
    let lines: Vec<&str> = tail.trim_end().lines().collect();
    for line in &lines[lines.len().saturating_sub(LINES_MAX)..] {
        writeln!(out, "  {} {}", style.paint(Colour::Dim, "|"), text::quote(line, 500))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{command::print::tests::plain, store::EventRecord};

    fn lost() -> FailureRecord {
        FailureRecord {
            id: "06fq3k2m8a1c".into(),
            timestamp_ms: 1_795_552_445_000,
            server: "files".into(),
            tool: "write_file".into(),
            class: "lost".into(),
            message: "the server was killed by signal 9 \u{1b}[2J".into(),
            duration_ms: 1500,
            client: "Claude Code 2.1".into(),
            protocol: "2025-11-25".into(),
            request_id: "7".into(),
            instance: Some(3),
            arguments: Some(r#"{"path":"string(12)"}"#.into()),
            exit_status: Some("signal 9".into()),
            stderr_tail: Some("heap at 1.9 GiB\nout of memory\u{1b}[31m\n".into()),
            seq: 1,
        }
    }

    fn story(row: &FailureRecord, around: &Around) -> String {
        let mut out = Vec::new();
        tell(&mut out, &plain(), row, around).expect("writes");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn the_story_of_a_lost_call_has_all_that_one_asks_at_night() {
        let row = lost();
        let restarted = EventRecord {
            id: "06fq3k2m8a1d".into(),
            timestamp_ms: row.timestamp_ms + 2000,
            category: "server".into(),
            event_type: "server_ready".into(),
            service_name: "files".into(),
            metadata: r#"{"instance":4,"pid":4711,"note":null}"#.into(),
            seq: 1,
        };
        let other = FailureRecord { id: "06fq3k2m8a1b".into(), timestamp_ms: row.timestamp_ms - 60_000, ..lost() };
        let around = Around { at_ms: row.timestamp_ms, events: vec![restarted], failures: vec![other] };
        let story = story(&row, &around);
        let words = story.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "Failure 06fq3k2m8a1c: lost",
            "Claude Code 2.1 (MCP 2025-11-25) called \"write_file\" of server \"files\".",
            "It ended after 1.5 s, on Tuesday 24 November 2026, 20:34:05",
            "The server died, or its connection broke, while this call was under way.",
            "message the server was killed by signal 9 \\u{1b}[2J",
            "exit status signal 9",
            "| out of memory\\u{1b}[31m",
            "with this id in its `_meta[\"seawall/failure\"]`",
            "Perhaps. The server had it",
            "20:34:07 2 s after files server_ready instance=4 pid=4711",
            "1 other lost with this server, 60 s before",
            "seawall starts it again by itself.",
        ] {
            assert!(words.contains(part), "{part:?} is missing in\n{story}");
        }
        assert!(!story.contains('\u{1b}'), "nothing of the server's reaches the terminal raw");
    }

    #[test]
    fn what_was_never_sent_took_no_effect() {
        let unsent = FailureRecord { instance: None, ..lost() };
        assert!(story(&unsent, &Around::default()).contains("No. It had not been handed to the server"));
    }

    #[test]
    fn every_class_has_a_story() {
        for class in Class::ALL {
            let row = FailureRecord { class: class.name().into(), ..lost() };
            let story = story(&row, &Around::default());
            assert!(story.contains("What to do\n  "), "{class}:\n{story}");
            assert!(story.lines().all(|line| line.chars().count() <= 110), "{class}:\n{story}");
        }
        let row = FailureRecord { class: "of the future".into(), ..lost() };
        assert!(story(&row, &Around::default()).contains("does not know"));
    }
}
