//! What the gateway holds while it works, and whether that is flat.

use std::{
    fmt, fs,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{task::JoinHandle, time::sleep};

use crate::{machine, tree};

/// By so much the median of the last third may be above that of the middle third: the
/// first third is the warm-up. A leak of one in a minute shows in half an hour, one of
/// a byte a call in a million calls.
const MORE_DESCRIPTORS_MAX: u64 = 3;
const MORE_THREADS_MAX: u64 = 2;
const MORE_CHILDREN_MAX: u64 = 2;
const MORE_RESIDENT_MAX_KIB: u64 = 1024;
const MORE_RESIDENT_MAX_PERCENT: u64 = 4;
/// Fewer than that have no thirds.
const SAMPLES_MIN: usize = 9;

pub(crate) const RULE: &str = "the median of the last third may be above that of the middle third by 3 descriptors, \
     2 threads, 2 children, and 4 % plus 1 MiB of resident memory; the first third is the warm-up";

/// One look.
#[derive(Clone, Copy, Debug)]
struct Sample {
    descriptors: u64,
    threads: u64,
    children: u64,
    resident_kib: u64,
}

/// All looks of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series(Vec<Sample>);

/// Something to be compared between thirds.
struct Line {
    name: &'static str,
    of: fn(&Sample) -> u64,
    more_max: fn(u64) -> u64,
}

const LINES: [Line; 4] = [
    Line { name: "descriptors", of: |sample| sample.descriptors, more_max: |_| MORE_DESCRIPTORS_MAX },
    Line { name: "threads", of: |sample| sample.threads, more_max: |_| MORE_THREADS_MAX },
    Line { name: "children", of: |sample| sample.children, more_max: |_| MORE_CHILDREN_MAX },
    Line {
        name: "resident memory, KiB",
        of: |sample| sample.resident_kib,
        more_max: |before| MORE_RESIDENT_MAX_KIB + before * MORE_RESIDENT_MAX_PERCENT / 100,
    },
];

impl Series {
    pub(crate) fn look(&mut self, pid: u32) {
        let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count) as u64;
        let Some((resident_kib, _)) = machine::memory(pid) else { return };
        let children = tree::descendants(pid).len() as u64;
        self.0.push(Sample { descriptors: count("fd"), threads: count("task"), children, resident_kib });
    }

    /// What has grown beyond the rule.
    pub(crate) fn complaints(&self, whose: &str) -> Vec<String> {
        if self.0.len() < SAMPLES_MIN {
            return vec![format!("{whose}: {} samples are too few to say anything", self.0.len())];
        }
        let grown = LINES.iter().filter_map(|line| {
            let [_, middle, last] = self.thirds(line);
            let most = middle + (line.more_max)(middle);
            (last > most)
                .then(|| format!("{whose}: {} grew from {middle} to {last}, at most {most} is flat", line.name))
        });
        grown.collect()
    }

    fn thirds(&self, line: &Line) -> [u64; 3] {
        let third = self.0.len() / 3;
        [&self.0[..third], &self.0[third..2 * third], &self.0[2 * third..]].map(|samples| median(samples, line.of))
    }
}

fn median(samples: &[Sample], of: fn(&Sample) -> u64) -> u64 {
    let mut numbers: Vec<u64> = samples.iter().map(of).collect();
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| median of {} samples | first third | middle third | last third | most |", self.0.len())?;
        writeln!(f, "|---|---:|---:|---:|---:|")?;
        for line in &LINES {
            let [first, middle, last] = self.thirds(line);
            let most = self.0.iter().map(line.of).max().unwrap_or_default();
            writeln!(f, "| {} | {first} | {middle} | {last} | {most} |", line.name)?;
        }
        Ok(())
    }
}

/// Looks at a process until it is told to stop.
pub(crate) struct Watch {
    series: Arc<Mutex<Series>>,
    task: JoinHandle<()>,
    began: Instant,
}

impl Watch {
    pub(crate) fn of(pid: u32, every: Duration) -> Watch {
        let series = Arc::new(Mutex::new(Series::default()));
        let shared = series.clone();
        let task = tokio::spawn(async move {
            loop {
                shared.lock().unwrap_or_else(PoisonError::into_inner).look(pid);
                sleep(every).await;
            }
        });
        Watch { series, task, began: Instant::now() }
    }

    pub(crate) fn end(self) -> (Series, Duration) {
        self.task.abort();
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (series, self.began.elapsed())
    }
}
