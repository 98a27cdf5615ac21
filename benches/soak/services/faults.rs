//! What is done to a service, and what must then be on record of it.

use std::{collections::BTreeMap, time::Duration};

use rand::{rngs::StdRng, seq::IndexedRandom as _};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::mac::{Life, Mac};
use crate::{gateway::signal, wait::wait_until};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    Killed,
    Aborted,
    WrapperKilled,
    BothKilled,
    Hang,
}

impl Fault {
    pub(crate) const ALL: [Fault; 5] =
        [Fault::Killed, Fault::Aborted, Fault::WrapperKilled, Fault::BothKilled, Fault::Hang];

    fn what(self) -> &'static str {
        match self {
            Fault::Killed => "the service is killed -9",
            Fault::Aborted => "the service aborts (SIGABRT)",
            Fault::WrapperKilled => "`seawall run` is killed -9",
            Fault::BothKilled => "both are killed -9",
            Fault::Hang => "the service is stopped (SIGSTOP)",
        }
    }

    fn record(self) -> &'static str {
        match self {
            Fault::Killed => "`service_crash`, signal 9",
            Fault::Aborted => "`service_crash`, signal 6",
            Fault::WrapperKilled | Fault::BothKilled => "`crash_inferred`, `killed`",
            Fault::Hang => "`service_hang`; `service_crash`, `hang`",
        }
    }

    fn strike(self, life: &Life) {
        match self {
            Fault::Killed => signal(life.service, Signal::KILL),
            Fault::Aborted => signal(life.service, Signal::ABORT),
            Fault::WrapperKilled => signal(life.wrapper, Signal::KILL),
            Fault::BothKilled => {
                signal(life.wrapper, Signal::KILL);
                signal(life.service, Signal::KILL);
            }
            Fault::Hang => signal(life.service, Signal::STOP),
        }
    }

    /// Whether an event is the record of an end of this kind.
    fn is(self, event_type: &str, metadata: &Value) -> bool {
        let is_hang = metadata["reason"] == "hang";
        match self {
            Fault::Killed => event_type == "service_crash" && metadata["signal"] == json!(9) && !is_hang,
            Fault::Aborted => event_type == "service_crash" && metadata["signal"] == json!(6) && !is_hang,
            Fault::WrapperKilled | Fault::BothKilled => {
                event_type == "crash_inferred" && metadata["reason"] == "killed"
            }
            Fault::Hang => event_type == "service_crash" && is_hang,
        }
    }
}

/// What was done so far, and how long it took until all were well again.
#[derive(Default)]
pub(crate) struct Toll {
    struck: BTreeMap<(&'static str, Fault), usize>,
    full_disks: usize,
    no_disk: bool,
}

impl Toll {
    pub(crate) async fn strike(&mut self, mac: &Mac, name: &'static str, fault: Fault) {
        let life = wait_until(super::WITHIN, "a service to be there", async || mac.life(name)).await;
        fault.strike(&life);
        *self.struck.entry((name, fault)).or_default() += 1;
    }

    /// As many ends of each kind as were made, and not one more.
    fn missing(&self, mac: &Mac) -> Vec<String> {
        let mut missing = Vec::new();
        for name in super::mac::DAEMONS {
            let events = mac.events(name);
            let found = |faults: &[Fault]| {
                events.iter().filter(|(kind, metadata)| faults.iter().any(|fault| fault.is(kind, metadata))).count()
            };
            let made = |faults: &[Fault]| {
                faults.iter().map(|fault| self.struck.get(&(*name, *fault)).copied().unwrap_or_default()).sum::<usize>()
            };
            for kinds in
                [&[Fault::Killed][..], &[Fault::Aborted], &[Fault::WrapperKilled, Fault::BothKilled], &[Fault::Hang]]
            {
                if found(kinds) != made(kinds) {
                    missing.push(format!("{name}: {kinds:?} {} times, on record {}", made(kinds), found(kinds)));
                }
            }
        }
        missing
    }

    pub(crate) async fn is_on_record(&self, mac: &Mac, within: Duration) {
        let recorded = tokio::time::timeout(within, async {
            while !self.missing(mac).is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        assert!(
            recorded.is_ok(),
            "{}\n{:#?}\n{:#?}",
            mac.state_of_the_database(),
            self.missing(mac),
            super::mac::DAEMONS.iter().map(|name| (name, mac.events(name))).collect::<Vec<_>>()
        );
    }

    /// One of them is struck meanwhile: its end has its record all the same.
    pub(crate) async fn full_disk(&mut self, mac: &Mac, random: &mut StdRng, lasting: Duration) {
        let Some(ballast) = mac.fill() else {
            self.no_disk = true;
            return;
        };
        let name = super::mac::DAEMONS.choose(random).expect("there are some");
        self.strike(mac, name, *Fault::ALL.choose(random).expect("there are some")).await;
        tokio::time::sleep(lasting).await;
        std::fs::remove_file(ballast).expect("what fills it can be removed");
        self.full_disks += 1;
    }

    pub(crate) fn table(&self, mac: &Mac) -> String {
        let mut table = format!("| fault | {} | on record as |\n|---|", super::mac::DAEMONS.join(" | "));
        table += &"---:|".repeat(super::mac::DAEMONS.len());
        table += "---|\n";
        for fault in Fault::ALL {
            let counts = super::mac::DAEMONS
                .iter()
                .map(|name| self.struck.get(&(*name, fault)).copied().unwrap_or_default().to_string());
            table +=
                &format!("| {} | {} | {} |\n", fault.what(), counts.collect::<Vec<_>>().join(" | "), fault.record());
        }
        table += &match self.no_disk {
            true => "\nNo full disk: a disk of its own takes root on Linux.".to_owned(),
            false => format!("\nThe disk was full {} times.", self.full_disks),
        };
        let tasks = super::mac::TASKS.iter().map(|name| {
            let count = |kind: &str| mac.count(name, kind);
            format!("{name}: {} done, {} failed", count("task_done"), count("task_failed"))
        });
        table += &format!(" {}.", tasks.collect::<Vec<_>>().join("; "));
        let leaks = mac.count("leaky", "memory_growth");
        table + &format!(" A seventh service, which leaks, was told of {leaks} times.")
    }
}
