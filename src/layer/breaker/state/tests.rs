//! The rules of the breaker, one by one. Its model is in `model.rs`.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A machine and the clock it is told.
struct Rig {
    machine: Machine,
    now: Instant,
}

impl Rig {
    fn new(settings: Settings) -> Self {
        Self::with_jitter(settings, || 0.0)
    }

    fn with_jitter(settings: Settings, jitter: fn() -> f64) -> Self {
        let now = Instant::now();
        Rig { machine: Machine::new(settings, now, jitter), now }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    fn admit(&mut self) -> Result<Ticket, Refusal> {
        self.machine.admit(self.now)
    }

    fn begin(&mut self) -> Ticket {
        self.admit().expect("this call may pass")
    }

    fn end(&mut self, ticket: Ticket, verdict: Verdict) -> Option<Transition> {
        self.machine.settle(ticket, self.now, verdict, || "timeout: it was silent".to_owned())
    }

    /// A whole call.
    fn call(&mut self, verdict: Verdict) -> Option<Transition> {
        let ticket = self.begin();
        self.end(ticket, verdict)
    }

    /// Fails until it opens; for how long it does.
    fn trip(&mut self) -> Duration {
        loop {
            if let Some(Transition::Opened { open_for, .. }) = self.call(Verdict::Failure) {
                return open_for;
            }
        }
    }

    fn state(&self) -> State {
        self.machine.state(self.now)
    }
}

fn settings() -> Settings {
    Settings { failures: 3, ..Settings::default() }
}

fn backing_off() -> Settings {
    Settings { backoff_factor: 2.0, open_max: Duration::from_secs(200), ..settings() }
}

#[test]
fn transitions() {
    let mut rig = Rig::new(settings());
    assert_eq!(rig.call(Verdict::Failure), None);
    assert_eq!(rig.call(Verdict::Failure), None);
    assert_eq!(
        rig.call(Verdict::Failure),
        Some(Transition::Opened {
            cause: "timeout: it was silent".to_owned(),
            failures: 3,
            open_for: MINUTE,
            generation: 1
        })
    );
    assert_eq!(rig.state(), State::Open { until: rig.now + MINUTE });
    rig.wait(MINUTE);
    assert_eq!(rig.state(), State::HalfOpen { probing: false });
    assert_eq!(rig.call(Verdict::Success), Some(Transition::Closed { cause: "the probe succeeded", generation: 2 }));
    assert_eq!(rig.state(), State::Closed { since: rig.now });
    assert_eq!((rig.machine.failures(), rig.machine.last_cause()), (0, None));
}

#[test]
fn success_resets_consecutive_count() {
    let mut rig = Rig::new(settings());
    for _ in 0..10 {
        rig.call(Verdict::Failure);
        rig.call(Verdict::Failure);
        rig.call(Verdict::Success);
    }
    assert_eq!(rig.state(), State::Closed { since: rig.now });
}

#[test]
fn neutral_ends_neither_count_nor_reset() {
    let mut rig = Rig::new(settings());
    rig.call(Verdict::Failure);
    rig.call(Verdict::Failure);
    for _ in 0..100 {
        rig.call(Verdict::Neutral);
    }
    assert_eq!(rig.machine.failures(), 2);
    assert!(rig.call(Verdict::Failure).is_some(), "the third failure opens it");
}

#[test]
fn it_refuses_until_the_very_moment_and_refusals_do_not_move_it() {
    let mut rig = Rig::new(settings());
    rig.trip();
    for waited_s in 0..60 {
        let refusal = rig.admit().expect_err("it is open");
        assert_eq!(refusal.retry_after, Duration::from_secs(60 - waited_s));
        rig.wait(Duration::from_secs(1));
    }
    assert!(rig.admit().is_ok());
}

#[test]
fn probation_admits_single_probe() {
    let mut rig = Rig::new(settings());
    rig.trip();
    rig.wait(MINUTE);
    let probe = rig.begin();
    let refusal = rig.admit().expect_err("one probe is out");
    assert!(refusal.to_string().starts_with("one call is trying it after 3 failures in a row"), "{refusal}");
    rig.wait(100 * MINUTE);
    assert!(rig.admit().is_err(), "however long it takes");
    assert!(rig.end(probe, Verdict::Failure).is_some());
    assert_eq!(rig.state(), State::Open { until: rig.now + MINUTE });
}

#[test]
fn a_probe_that_ends_without_a_verdict_makes_room_for_the_next() {
    let mut rig = Rig::new(settings());
    rig.trip();
    rig.wait(MINUTE);
    for _ in 0..10 {
        assert_eq!(rig.call(Verdict::Neutral), None);
        assert_eq!(rig.state(), State::HalfOpen { probing: false });
    }
    assert!(rig.call(Verdict::Success).is_some());
}

#[test]
fn ends_of_calls_from_before_the_trip_are_ignored() {
    for verdict in [Verdict::Success, Verdict::Failure, Verdict::Neutral] {
        let mut rig = Rig::new(settings());
        let [while_open, while_probing, while_closed] = [rig.begin(), rig.begin(), rig.begin()];
        rig.trip();
        let open = rig.state();
        assert_eq!(rig.end(while_open, verdict), None);
        assert_eq!(rig.state(), open);
        rig.wait(MINUTE);
        let probe = rig.begin();
        assert_eq!(rig.end(while_probing, verdict), None);
        assert_eq!(rig.state(), State::HalfOpen { probing: true });
        rig.end(probe, Verdict::Success);
        assert_eq!(rig.end(while_closed, verdict), None);
        assert_eq!(rig.machine.failures(), 0);
    }
}

#[test]
fn calls_that_fail_at_once_trip_it_once() {
    let mut rig = Rig::new(settings());
    let calls: Vec<Ticket> = (0..50).map(|_| rig.begin()).collect();
    let transitions = calls.into_iter().filter_map(|call| rig.end(call, Verdict::Failure)).count();
    assert_eq!((transitions, rig.machine.generation()), (1, 1));
}

#[test]
fn each_further_trip_stays_open_longer_up_to_the_maximum() {
    let mut rig = Rig::new(backing_off());
    let mut times = vec![rig.trip()];
    for _ in 0..3 {
        rig.wait(times[times.len() - 1]);
        times.push(rig.trip());
    }
    assert_eq!(times, [60, 120, 200, 200].map(Duration::from_secs));
}

#[test]
fn backoff_resets_to_base_on_retrip_after_a_lasting_recovery_only() {
    let mut rig = Rig::new(backing_off());
    let first = rig.trip();
    rig.wait(first);
    rig.call(Verdict::Success);
    rig.call(Verdict::Success);
    let second = rig.trip();
    assert_eq!(second, 2 * MINUTE, "closed for no time: it goes on where it was");
    rig.wait(second);
    rig.call(Verdict::Success);
    rig.wait(MINUTE);
    rig.call(Verdict::Success);
    assert_eq!(rig.trip(), MINUTE);
}

#[test]
fn jitter_only_lengthens_and_by_a_tenth_at_most() {
    let open_for = |jitter| Rig::with_jitter(settings(), jitter).trip();
    assert_eq!(open_for(|| 0.0), MINUTE);
    assert_eq!(open_for(|| 1.0), Duration::from_secs(66));
    assert_eq!(open_for(|| -1.0), MINUTE);
    let capped = Settings { open_max: Duration::from_secs(63), ..settings() };
    assert_eq!(Rig::with_jitter(capped, || 1.0).trip(), Duration::from_secs(63));
}

#[test]
fn absurd_settings_do_not_overflow() {
    let absurd = Settings {
        failures: 0,
        backoff_factor: f64::MAX,
        open_for: Duration::MAX,
        open_max: Duration::MAX,
        ..settings()
    };
    let mut rig = Rig::new(absurd);
    for _ in 0..3 {
        let open_for = rig.trip();
        rig.wait(open_for);
    }
    assert_eq!(Rig::new(Settings { backoff_factor: f64::NAN, ..settings() }).trip(), MINUTE);
    assert_eq!(Rig::new(Settings { open_max: Duration::ZERO, ..settings() }).trip(), MINUTE);
}

#[test]
fn a_reset_closes_it_and_forgets_calls_under_way() {
    let mut rig = Rig::new(settings());
    rig.trip();
    rig.wait(MINUTE);
    let probe = rig.begin();
    assert!(matches!(rig.machine.reset(rig.now), Some(Transition::Closed { .. })));
    assert_eq!(rig.end(probe, Verdict::Failure), None);
    assert_eq!((rig.state(), rig.machine.failures()), (State::Closed { since: rig.now }, 0));
    rig.call(Verdict::Failure);
    assert_eq!(rig.machine.reset(rig.now), None, "nothing to tell: it was closed");
    assert_eq!(rig.machine.failures(), 0);
}
