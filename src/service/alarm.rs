//! When crashes are worth an alert, and when it is over: pure functions of the moments
//! at which a service crashed, and of what was said before.

use std::time::Duration;

use serde_json::Value;

use super::moment::Moment;
use crate::store::EventRecord;

/// 3 crashes within this are an alert, and so long without one ends it.
pub const ALERT_WITHIN: Duration = Duration::from_secs(300);
pub const ALERT_CRASHES: usize = 3;
/// 5 within this are a storm.
pub const STORM_WITHIN: Duration = Duration::from_secs(600);
pub const STORM_CRASHES: usize = 5;
/// Crashes further apart than this may be periodic.
const PERIOD_MIN: Duration = Duration::from_secs(600);
/// So many of the last intervals are compared.
const INTERVALS_MAX: usize = 4;

/// What a row of crashes looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pattern {
    /// So many crashes within [`ALERT_WITHIN`], the last of them not longer ago.
    pub alert: Option<usize>,
    /// So many crashes within [`STORM_WITHIN`], the last of them fresh.
    pub storm: Option<usize>,
    /// They come at regular intervals of this.
    pub period: Option<Duration>,
}

/// What was said and is not over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub alert: bool,
    pub storm: bool,
    pub periodic: bool,
}

/// What is to be said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    Alert { crashes: usize },
    Storm { crashes: usize },
    Periodic { every: Duration },
    AlertOver,
    PeriodicOver,
}

/// What crashes, in the order in which they happened, look like `now`.
pub fn pattern(crashes: &[Moment], now: &Moment) -> Pattern {
    let times = timeline(crashes, now);
    let Some((now, times)) = times.split_last() else { return Pattern::default() };
    let Some(last) = times.last() else { return Pattern::default() };
    let within = |window: Duration| times.iter().filter(|time| *last - **time <= window).count();
    let is_fresh = *now - *last <= ALERT_WITHIN;
    let alert = Some(within(ALERT_WITHIN)).filter(|crashes| is_fresh && *crashes >= ALERT_CRASHES);
    let storm = Some(within(STORM_WITHIN)).filter(|crashes| is_fresh && *crashes >= STORM_CRASHES);
    let period = if alert.or(storm).is_some() { None } else { period(times, *now) };
    Pattern { alert, storm, period }
}

/// Seconds since the first crash of each, and of now: whatever was done to the clock
/// on the wall meanwhile.
fn timeline(crashes: &[Moment], now: &Moment) -> Vec<Duration> {
    let mut times = Vec::with_capacity(crashes.len() + 1);
    let mut at = Duration::ZERO;
    let mut before: Option<&Moment> = None;
    for moment in crashes.iter().chain([now]) {
        at += before.map_or(Duration::ZERO, |before| moment.since(before));
        times.push(at);
        before = Some(moment);
    }
    times
}

/// Two intervals must be nearly the same to be a period, more of them roughly.
fn period(times: &[Duration], now: Duration) -> Option<Duration> {
    let intervals: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    let intervals = &intervals[intervals.len().saturating_sub(INTERVALS_MAX)..];
    let spread_max = match intervals.len() {
        0 | 1 => return None,
        2 => 0.1,
        _ => 0.25,
    };
    #[expect(clippy::cast_precision_loss, reason = "four at most")]
    let count = intervals.len() as f64;
    let mean = intervals.iter().sum::<f64>() / count;
    let variance = intervals.iter().map(|interval| (interval - mean).powi(2)).sum::<f64>() / count;
    let is_regular = variance.sqrt() <= spread_max * mean && mean >= PERIOD_MIN.as_secs_f64();
    let is_going_on = times.last().is_some_and(|last| (now - *last).as_secs_f64() <= 2.0 * mean);
    (is_regular && is_going_on).then(|| Duration::from_secs_f64(mean.round()))
}

/// What is new in a pattern: each thing is said once, and once that it is over.
pub fn news(pattern: &Pattern, told: Told) -> Vec<News> {
    let mut news = Vec::new();
    match (pattern.storm, pattern.alert) {
        // The greater word takes the place of the lesser one, and is said once too.
        (Some(crashes), _) if !told.storm => news.push(News::Storm { crashes }),
        (None, Some(crashes)) if !told.alert && !told.storm => news.push(News::Alert { crashes }),
        (None, None) if told.alert || told.storm => news.push(News::AlertOver),
        _ => {}
    }
    match (pattern.period, told.periodic) {
        (Some(every), false) => news.push(News::Periodic { every }),
        (None, true) if pattern.alert.or(pattern.storm).is_none() => news.push(News::PeriodicOver),
        _ => {}
    }
    news
}

/// The crashes among the events of a service, and what was said about them.
pub fn history(events: &[EventRecord]) -> (Vec<Moment>, Told) {
    let (mut crashes, mut told) = (Vec::new(), Told::default());
    for event in events {
        let metadata: Value = serde_json::from_str(&event.metadata).unwrap_or_default();
        match event.event_type.as_str() {
            "service_crash" if metadata["planned"] == true => {}
            "service_crash" | "crash_inferred" => crashes.push(Moment::of_event(event.timestamp_ms, &metadata)),
            // Of another kind, which overdue.rs keeps.
            "alert" if metadata["reason"] == super::overdue::REASON => {}
            "alert_over" if metadata["of"] == super::overdue::REASON => {}
            "alert" => told.alert = true,
            "restart_storm" => told.storm = true,
            "periodic_restart" => told.periodic = true,
            "alert_over" if metadata["of"] == "periodic_restart" => told.periodic = false,
            "alert_over" => (told.alert, told.storm) = (false, false),
            _ => {}
        }
    }
    (crashes, told)
}

#[cfg(test)]
mod tests;
