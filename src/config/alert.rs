//! `[[alerts]]`: whom to tell when a service keeps crashing.

use super::{
    reader::{Entry, Problems},
    secret::Secret,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    pub notify: Notify,
    /// Why nobody can be told: a variable that cannot be had.
    pub problem: Option<String>,
    /// What is understood and not wise.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notify {
    /// Program and arguments, at least the program.
    Command(Vec<String>),
    /// Secret, since whoever knows the URL of a webhook may post to it.
    Webhook(Secret),
    Desktop,
}

pub(super) fn read(entry: &Entry<'_>) -> Option<Alert> {
    let problems = Problems::default();
    let notify = entry.parking(&problems).table("not a table; write [[alerts]] above its keys", |table| {
        let command = table.take("command", Entry::command);
        let webhook = table.take("webhook", |entry| entry.secret().url());
        let desktop = table.take("desktop", |entry| match entry.boolean()? {
            true => Some(()),
            false => entry.refuse("write true, or take the alert out"),
        });
        Some(match table.exactly_one(&["command", "webhook", "desktop"])? {
            "command" => Notify::Command(command?),
            "webhook" => Notify::Webhook(webhook?.into()),
            _ => desktop.map(|()| Notify::Desktop)?,
        })
    })??;
    let (problem, warnings) = problems.into_words();
    Some(Alert { notify, problem, warnings })
}
