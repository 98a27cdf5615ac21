//! The measurements: every target in every round, so that what disturbs the machine
//! disturbs them all, and of each number the best round.

use std::time::Duration;

use crate::{
    machine,
    options::Options,
    report::Report,
    shape::{SHAPES, Shape},
    target::{self, Plan, Target},
};

/// Starting a process is the noisiest of all.
const STARTS_MAX: u32 = 5;
const WARM_UP: Duration = Duration::from_millis(100);
/// No measurement may take longer than this beyond its own time.
const OVERTIME: Duration = Duration::from_secs(30);

/// The best of all rounds for one target and one shape.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) median: Option<Duration>,
    /// Of the round that has the best median.
    pub(crate) p99: Option<Duration>,
    pub(crate) per_second: Option<f64>,
    /// CPU time of the target's process a call, with many in flight.
    pub(crate) cpu: Option<Duration>,
}

pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) startup: Duration,
    pub(crate) idle_kib: Option<u64>,
    pub(crate) peak_kib: Option<u64>,
    /// One for each of [`SHAPES`].
    pub(crate) numbers: [Numbers; SHAPES.len()],
}

pub(crate) async fn all(options: &Options) -> Report {
    let folder = tempfile::Builder::new().prefix("seawall-load-").tempdir().expect("a temporary folder can be made");
    let mut running = Vec::new();
    for plan in target::plans(options, folder.path()) {
        running.push(start(plan, options.rounds().min(STARTS_MAX)).await);
    }
    for round in 1..=options.rounds() {
        for (row, target) in &mut running {
            for (shape, numbers) in SHAPES.iter().zip(&mut row.numbers) {
                eprintln!("round {round} of {}: {}, {}", options.rounds(), row.name, shape.name);
                measure(target, shape, options.time(), numbers).await;
            }
        }
    }
    let mut rows = Vec::new();
    for (mut row, target) in running {
        row.peak_kib = machine::memory(target.pid).map(|(_, peak)| peak);
        target.stop().await;
        rows.push(row);
    }
    Report { rows, rounds: options.rounds(), time: options.time() }
}

/// Starts it several times for the start-up time, and keeps the last one.
async fn start(plan: Plan, starts: u32) -> (Row, Target) {
    let mut best = Duration::MAX;
    for _ in 1..starts {
        let target = plan.run().await;
        best = best.min(target.startup);
        target.stop().await;
    }
    let mut target = plan.run().await;
    let idle_kib = machine::memory(target.pid).map(|(now, _)| now);
    target.widen().await.unwrap_or_else(|error| panic!("{}: {error}", plan.name));
    let row = Row {
        name: plan.name,
        startup: best.min(target.startup),
        idle_kib,
        peak_kib: None,
        numbers: [Numbers::default(); SHAPES.len()],
    };
    (row, target)
}

async fn measure(target: &mut Target, shape: &'static Shape, time: Duration, best: &mut Numbers) {
    let measured = async {
        target.lanes.many_at_once(shape, WARM_UP.min(time)).await?;
        let samples = target.lanes.one_at_a_time(shape, time).await?;
        let cpu_before = machine::cpu(target.pid);
        let began = std::time::Instant::now();
        let calls = target.lanes.many_at_once(shape, time).await?;
        let took = began.elapsed();
        let cpu = machine::cpu(target.pid).zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
        std::io::Result::Ok((samples, calls, took, cpu))
    };
    let measured = tokio::time::timeout(time * 3 + OVERTIME, measured).await.expect("a measurement ends in time");
    let (samples, calls, took, cpu) = measured.unwrap_or_else(|error| panic!("{}: {error}", shape.name));
    best.add(&samples, calls, took, cpu);
}

impl Numbers {
    fn add(&mut self, samples: &[Duration], calls: u64, took: Duration, cpu: Option<Duration>) {
        let median = samples[samples.len() / 2];
        if self.median.is_none_or(|best| median < best) {
            self.median = Some(median);
            self.p99 = Some(samples[samples.len() * 99 / 100]);
        }
        #[allow(clippy::cast_precision_loss, reason = "a count of calls is far from 2^52")]
        let per_second = calls as f64 / took.as_secs_f64();
        self.per_second = Some(self.per_second.unwrap_or(0.0).max(per_second));
        let cpu = cpu.map(|cpu| cpu.div_f64(calls.max(1) as f64));
        self.cpu = [self.cpu, cpu].into_iter().flatten().min();
    }
}
