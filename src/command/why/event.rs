//! The story of an event: what its type means, and what to do about it if anything.

use std::io::{self, Write};

use serde_json::{Map, Value};

use super::{Around, Colour, Style, colour_of, paragraph, print, section};
use crate::{
    store::{EventRecord, EventType},
    text,
};

pub(super) fn tell(out: &mut impl Write, style: &Style, row: &EventRecord, around: &Around) -> io::Result<()> {
    let event_type = EventType::ALL.into_iter().find(|known| known.name() == row.event_type);
    let name = style.paint(colour_of(&row.event_type), &text::quote(&row.event_type, 40));
    writeln!(out, "{} {}: {name}", style.paint(Colour::Bold, "Event"), text::quote(&row.id, 40))?;
    writeln!(out)?;
    let opening = format!(
        "About \"{}\", on {} ({} ago).",
        text::quote(&row.service_name, 40),
        style.time_in_words(row.timestamp_ms),
        print::between(row.timestamp_ms, print::now_ms()),
    );
    paragraph(out, style, &opening)?;
    paragraph(out, style, event_type.map_or("This version of seawall does not know events of this type.", meaning))?;
    facts(out, style, &row.metadata)?;
    around.tell(out, style)?;
    if let Some(advice) = event_type.and_then(advice) {
        section(out, style, "What to do")?;
        paragraph(out, style, &advice.replace("NAME", &text::quote(&row.service_name, 40)))?;
    }
    Ok(())
}

/// Each member on a line of its own; a text of several lines below its name.
fn facts(out: &mut impl Write, style: &Style, metadata: &str) -> io::Result<()> {
    let Ok(members) = serde_json::from_str::<Map<String, Value>>(metadata) else {
        return writeln!(out, "    {}", text::quote(metadata, 2000));
    };
    for (name, value) in &members {
        let name = text::quote(name, 40);
        match value {
            Value::Null => {}
            Value::String(lines) if lines.trim_end().contains('\n') => {
                writeln!(out, "    {name}")?;
                for line in lines.trim_end().lines() {
                    writeln!(out, "      {} {}", style.paint(Colour::Dim, "|"), text::quote(line, 500))?;
                }
            }
            Value::String(line) => writeln!(out, "    {name:<16} {}", text::quote(line.trim_end(), 2000))?,
            other => writeln!(out, "    {name:<16} {}", text::quote(&other.to_string(), 2000))?,
        }
    }
    Ok(())
}

fn meaning(event_type: EventType) -> &'static str {
    match event_type {
        EventType::ServiceStart => "The service was started.",
        EventType::ServiceStop => "The service was stopped on purpose.",
        EventType::ServiceCrash => "The service ended although nobody asked it to; exit_code or signal says how.",
        EventType::ServiceRestart => "The service was started again after it had ended.",
        EventType::CrashInferred => {
            "The service, or the machine, went down without leaving a word: an earlier start of it has no end on record."
        }
        EventType::ServiceHang => "The service was alive and did not answer its health check, so it was killed.",
        EventType::Alert => "The service crashed several times within a few minutes.",
        EventType::AlertOver => "The service has been well for a while after an alert.",
        EventType::RestartStorm => "The service keeps crashing as soon as it is started.",
        EventType::PeriodicRestart => "The service crashes at regular intervals, as with a leak or a timer.",
        EventType::MemoryGrowth => "The memory of the service has been growing steadily.",
        EventType::BreakerOpened => {
            "A tool failed several times in a row; calls to it are refused until a probe succeeds."
        }
        EventType::BreakerClosed => "A probe of the tool succeeded, or someone reset it; calls pass again.",
        EventType::ServerReady => "The server was started and completed its handshake.",
        EventType::ServerDown => {
            "The server ended or could not be started; seawall tries again by itself, after retry_in_ms."
        }
        EventType::ServerParked => "The server will not be started again until something is mended.",
        EventType::ServerRecycled => {
            "The server was replaced by a fresh instance, as `recycle` asks; no call was lost."
        }
        EventType::ConfigReloaded => "servers.toml was read again and is in effect.",
        EventType::ConfigRejected => "servers.toml was changed and is wrong; the settings of before stay in effect.",
        EventType::SandboxRefused => {
            "The sandbox that was asked for cannot be had here, so the server was not started."
        }
        EventType::SandboxDenied => "The sandbox kept the server from something that it tried.",
        EventType::ToolChanged => "A tool changed its description or its arguments.",
        EventType::EventsDropped => {
            "More came than could be written, or the database could not be written for long. The numbers say what is missing."
        }
        EventType::DatabaseRecreated => {
            "The database was damaged or deleted, and a fresh one took its place. What was in it is not in this one: rows_written of it were of the process that tells this."
        }
        EventType::LeftoversEnded => {
            "The service ended and had left processes running that it had started; they were ended with it."
        }
        EventType::TaskDone => "The scheduled task ran to its end.",
        EventType::TaskFailed => "The scheduled task failed.",
        EventType::Note => "A note of somebody's own.",
        EventType::TaskMissed => "The scheduled task did not run when it was due: the machine was off or asleep.",
    }
}

fn advice(event_type: EventType) -> Option<&'static str> {
    Some(match event_type {
        EventType::ServiceCrash | EventType::CrashInferred | EventType::ServiceHang | EventType::TaskFailed => {
            "Read its last words above. `seawall events --server NAME` shows whether it is a habit."
        }
        EventType::Alert | EventType::RestartStorm | EventType::PeriodicRestart => {
            "`seawall events --server NAME --type service_crash` lists the crashes; `seawall why` of one has its last words."
        }
        EventType::MemoryGrowth => "Watch it in `seawall status`, and restart it before the machine has to.",
        EventType::BreakerOpened => "`seawall failures --server NAME --since 1h` shows what broke it.",
        EventType::ServerDown => "`seawall failures --server NAME --since 1h` shows the calls that it cost.",
        EventType::ServerParked => {
            "Mend what the reason above says, then `seawall restart NAME`, or save servers.toml."
        }
        EventType::ConfigRejected => "`seawall check` names file, line and key of every complaint.",
        EventType::SandboxRefused => {
            "The reason above says which part is missing; `seawall doctor` says how to get it."
        }
        EventType::SandboxDenied => {
            "If the server is right to want it, allow it in servers.toml under [servers.NAME.sandbox]."
        }
        EventType::ToolChanged => "See that the new description says nothing that it should not: `seawall tools NAME`.",
        EventType::DatabaseRecreated => {
            "If it was set aside, `sqlite3 FILE .recover` may still read it; delete it when you need it no more."
        }
        EventType::TaskMissed => "Nothing: it runs at the next opportunity.",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::print::tests::plain;

    fn story(event_type: &str, metadata: &str) -> String {
        let row = EventRecord {
            id: "06fq3k2m8a1c".into(),
            timestamp_ms: 1_795_552_445_000,
            category: "service".into(),
            event_type: event_type.into(),
            service_name: "embedding-server".into(),
            metadata: metadata.into(),
            seq: 1,
        };
        let mut out = Vec::new();
        tell(&mut out, &plain(), &row, &Around::default()).expect("writes");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn a_crash_shows_its_last_words_harmlessly() {
        let story = story("service_crash", r#"{"exit_code":null,"signal":9,"stderr_tail":"one\ntwo\u001b[2J\n"}"#);
        for part in ["Event 06fq3k2m8a1c: service_crash", "signal           9", "| one", "| two\\u{1b}[2J"] {
            assert!(story.contains(part), "{part:?} is missing in\n{story}");
        }
        assert!(story.contains("`seawall events --server embedding-server` shows"));
    }

    #[test]
    fn every_type_has_a_story_and_unknown_ones_too() {
        for event_type in EventType::ALL {
            assert!(!story(event_type.name(), "{}").contains("does not know"), "{event_type}");
        }
        assert!(story("of_the_future", "{}").contains("does not know"));
    }
}
