//! The breaker against a model of it, under random histories.

use proptest::{collection::vec, prelude::*};

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Begin,
    /// One of the calls under way ends; a client that leaves is `Neutral`.
    End(prop::sample::Index, Verdict),
    Wait(Duration),
    Reset,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let verdict = prop_oneof![
        4 => Just(Verdict::Failure),
        1 => Just(Verdict::Success),
        2 => Just(Verdict::Neutral),
    ];
    let step = prop_oneof![
        8 => Just(Step::Begin),
        8 => (any::<prop::sample::Index>(), verdict).prop_map(|(call, verdict)| Step::End(call, verdict)),
        // Around the time that it is open for, so that the last millisecond matters.
        2 => (0_u64..130).prop_map(|ms| Step::Wait(Duration::from_millis(ms))),
        1 => Just(Step::Reset),
    ];
    vec(step, 1..200)
}

const LIMIT: u32 = 3;
const OPEN_FOR: Duration = Duration::from_millis(100);
const JITTERED: Duration = Duration::from_millis(105);

/// What a breaker is, told without its transitions: the calls that count are those
/// of the present era, and an era ends when the breaker changes its mind.
struct Model {
    era: u32,
    failures: u32,
    /// Since its last trip; `None` while closed.
    open_until: Option<Instant>,
    /// The eras of the calls under way.
    under_way: Vec<u32>,
}

impl Model {
    fn of_this_era(&self) -> usize {
        self.under_way.iter().filter(|era| **era == self.era).count()
    }

    fn admits(&self, now: Instant) -> bool {
        self.open_until.is_none_or(|until| now >= until && self.of_this_era() == 0)
    }

    fn end(&mut self, call: usize, verdict: Verdict, now: Instant) {
        if self.under_way.swap_remove(call) != self.era {
            return;
        }
        let is_probe = self.open_until.is_some();
        match verdict {
            Verdict::Neutral => {}
            Verdict::Success if is_probe => self.close(),
            Verdict::Success => self.failures = 0,
            Verdict::Failure => {
                self.failures += 1;
                if is_probe || self.failures == LIMIT {
                    self.era += 1;
                    self.open_until = Some(now + JITTERED);
                }
            }
        }
    }

    fn close(&mut self) {
        self.era += 1;
        self.failures = 0;
        self.open_until = None;
    }
}

/// All that a call's end may change.
fn visible(machine: &Machine) -> (State, u32, u64, Option<String>) {
    (machine.state, machine.failures, machine.generation, machine.last_cause.clone())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn it_does_what_its_model_does(steps in steps()) {
        let mut now = Instant::now();
        let settings = Settings { failures: LIMIT, open_for: OPEN_FOR, ..Settings::default() };
        let mut machine = Machine::new(settings, now, || 0.5);
        let mut model = Model { era: 0, failures: 0, open_until: None, under_way: Vec::new() };
        let mut tickets: Vec<Ticket> = Vec::new();

        for step in steps {
            match step {
                Step::Begin => {
                    let admitted = machine.admit(now);
                    prop_assert_eq!(admitted.is_ok(), model.admits(now));
                    match admitted {
                        Ok(ticket) => {
                            tickets.push(ticket);
                            model.under_way.push(model.era);
                        }
                        Err(refusal) => prop_assert!(refusal.retry_after > Duration::ZERO),
                    }
                }
                Step::End(_, _) if tickets.is_empty() => {}
                Step::End(call, verdict) => {
                    let call = call.index(tickets.len());
                    let ticket = tickets.swap_remove(call);
                    let stale = ticket.generation != machine.generation;
                    let before = visible(&machine);
                    let transition = machine.settle(ticket, now, verdict, || "timeout".to_owned());
                    model.end(call, verdict, now);
                    if stale {
                        prop_assert_eq!(visible(&machine), before);
                        prop_assert_eq!(transition, None);
                    } else if verdict == Verdict::Neutral {
                        prop_assert_eq!(machine.failures, before.1);
                    }
                }
                Step::Wait(time) => now += time,
                Step::Reset => {
                    machine.reset(now);
                    model.close();
                }
            }
            let probes = tickets.iter().filter(|ticket| ticket.generation == machine.generation).count();
            match machine.state(now) {
                State::Closed { .. } => prop_assert_eq!(model.open_until, None),
                State::Open { until } => {
                    prop_assert_eq!((Some(until), probes), (model.open_until, 0));
                }
                State::HalfOpen { probing } => {
                    prop_assert!(model.open_until.is_some_and(|until| now >= until));
                    prop_assert_eq!(probes, usize::from(probing));
                }
            }
            prop_assert_eq!(machine.failures, model.failures);
        }
    }
}
