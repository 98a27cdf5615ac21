//! Simulated lives: none that does not leak may raise an alarm.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;

const MB: f64 = 1e6;

/// A life of `minutes`: the minute of the first alarm.
fn alarm(minutes: u64, allowed: u64, mut bytes_at: impl FnMut(f64) -> f64) -> Option<u64> {
    let mut growth = Growth::new(allowed, SAMPLE_EVERY);
    (0..minutes).find(|minute| {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "small"
        )]
        let bytes = bytes_at(*minute as f64).max(0.0) as u64;
        growth.sample(SAMPLE_EVERY * u32::try_from(*minute).expect("few"), bytes)
    })
}

/// 200 MB, a warm-up of 40 MB, noise of 2 MB either way, and this growth.
fn life(per_hour_mb: f64, rng: &mut StdRng) -> impl FnMut(f64) -> f64 {
    move |minute| {
        let warm_up = 40.0 * (1.0 - (-minute / 4.0).exp());
        let noise = rng.random_range(-2.0..=2.0);
        (200.0 + warm_up + noise + per_hour_mb * minute / 60.0) * MB
    }
}

#[test]
fn ten_thousand_lives_without_a_leak_raise_no_alarm() {
    let mut rng = StdRng::seed_from_u64(7);
    // They take a minute in a debug build, which is for CI to spend.
    let is_quick = cfg!(debug_assertions) && std::env::var_os("CI").is_none();
    let lives = if is_quick { 500 } else { 10_000 };
    for per_hour in [0.0, 9.0] {
        for _ in 0..lives {
            assert_eq!(alarm(130, GROWTH_PER_HOUR_BYTES, life(per_hour, &mut rng)), None, "{per_hour} MB an hour");
        }
    }
}

#[test]
fn eleven_megabytes_an_hour_are_found_within_two_hours() {
    let mut rng = StdRng::seed_from_u64(11);
    for _ in 0..100 {
        let found = alarm(120, GROWTH_PER_HOUR_BYTES, life(11.0, &mut rng));
        assert!(found.is_some_and(|minute| minute > 40), "{found:?}");
        assert!(alarm(120, GROWTH_PER_HOUR_EMBEDDING_BYTES, life(21.5, &mut rng)).is_some());
        assert_eq!(alarm(120, GROWTH_PER_HOUR_EMBEDDING_BYTES, life(11.0, &mut rng)), None);
    }
}

#[test]
fn a_step_a_saw_tooth_and_a_slow_warm_up_are_no_leak() {
    let mut rng = StdRng::seed_from_u64(3);
    let mut noise = move || rng.random_range(-0.5..=0.5);
    let step = |minute: f64| (200.0 + if minute > 60.0 { 50.0 } else { 0.0 }) * MB;
    assert_eq!(alarm(240, GROWTH_PER_HOUR_BYTES, step), None);
    assert_eq!(
        alarm(240, GROWTH_PER_HOUR_BYTES, |minute| (200.0 + 30.0 * (minute / 17.0).fract() + noise()) * MB),
        None
    );
    assert_eq!(alarm(240, GROWTH_PER_HOUR_BYTES, |minute| (200.0 + 60.0 * (1.0 - (-minute / 8.0).exp())) * MB), None);
}

#[test]
fn a_night_of_sleep_begins_the_series_anew() {
    let mut growth = Growth::new(GROWTH_PER_HOUR_BYTES, SAMPLE_EVERY);
    let minute = |n: u32| SAMPLE_EVERY * n;
    for n in 20..60 {
        growth.sample(minute(n), 200_000_000 + u64::from(n) * 1_000_000);
    }
    assert_eq!(growth.bytes_per_hour().map(f64::round), Some(60_000_000.0));
    assert!(!growth.sample(minute(500), 900_000_000));
    assert_eq!(growth.bytes_per_hour(), None, "one sample says nothing");
}
