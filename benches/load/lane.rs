//! One way to make calls, whatever is at the other end.

use std::{
    io,
    time::{Duration, Instant},
};

use crate::{pipe::PipeLane, shape::FIRST_ID, shape::Shape, web::WebLane};

pub(crate) const IN_FLIGHT: usize = 32;
/// More samples than a measurement of a minute has.
const SAMPLES_MAX: usize = 4_000_000;

pub(crate) enum Lanes {
    /// A connection and a session for each call in flight.
    Web(Vec<WebLane>),
    /// One connection for all.
    Pipe(PipeLane),
}

impl Lanes {
    /// One call after the other for `time`: how long each took, in order of length.
    pub(crate) async fn one_at_a_time(&mut self, shape: &Shape, time: Duration) -> io::Result<Vec<Duration>> {
        let mut request = match self {
            Lanes::Web(lanes) => lanes[0].request(shape),
            Lanes::Pipe(lane) => lane.request(shape),
        };
        let until = Instant::now() + time;
        let mut samples = Vec::with_capacity(1 << 16);
        loop {
            let began = Instant::now();
            match self {
                Lanes::Web(lanes) => lanes[0].call(&mut request, shape).await?,
                Lanes::Pipe(lane) => lane.call(&mut request, shape).await?,
            }
            let ended = Instant::now();
            samples.push(ended - began);
            if ended >= until || samples.len() >= SAMPLES_MAX {
                break;
            }
        }
        samples.sort_unstable();
        Ok(samples)
    }

    /// [`IN_FLIGHT`] calls at once for `time`: how many were answered.
    pub(crate) async fn many_at_once(&mut self, shape: &'static Shape, time: Duration) -> io::Result<u64> {
        let lanes = match self {
            Lanes::Pipe(lane) => return lane.many(shape, IN_FLIGHT, time).await,
            Lanes::Web(lanes) => lanes,
        };
        let until = Instant::now() + time;
        let tasks: Vec<_> = lanes.drain(..).map(|lane| tokio::spawn(keep_calling(lane, shape, until))).collect();
        let mut calls = 0;
        for task in tasks {
            let (lane, count) = task.await.expect("a lane does not panic")?;
            lanes.push(lane);
            calls += count;
        }
        Ok(calls)
    }
}

async fn keep_calling(mut lane: WebLane, shape: &Shape, until: Instant) -> io::Result<(WebLane, u64)> {
    let mut request = lane.request(shape).starting_at(FIRST_ID);
    let mut calls = 0;
    while Instant::now() < until {
        lane.call(&mut request, shape).await?;
        calls += 1;
    }
    Ok((lane, calls))
}
