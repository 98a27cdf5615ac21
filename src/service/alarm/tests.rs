//! Tables of crash times, in seconds.

use proptest::prelude::*;

use super::*;

const NO_STEP: i64 = 0;

/// A crash so many seconds after boot, with the clock on the wall set by `step`.
fn moment(second: u64, step_s: i64) -> Moment {
    let ms = second * 1000;
    let wall_ms = 1_795_552_445_000 + i64::try_from(ms).expect("small") + step_s * 1000;
    Moment { wall_ms, uptime_ms: ms, boot: Some("one".to_owned()) }
}

fn pattern_of(crashes: &[u64], now: u64) -> Pattern {
    let crashes: Vec<Moment> = crashes.iter().map(|second| moment(*second, NO_STEP)).collect();
    pattern(&crashes, &moment(now, NO_STEP))
}

#[test]
fn three_in_five_minutes_are_an_alert_and_five_in_ten_a_storm() {
    const DAY: u64 = 86_400;
    let every_day = Some(Duration::from_secs(DAY));
    for (crashes, now, alert, storm, period) in [
        (&[][..], 0, None, None, None),
        (&[0, 10], 10, None, None, None),
        (&[0, 100, 299], 299, Some(3), None, None),
        (&[0, 100, 300], 300, Some(3), None, None),
        (&[0, 100, 301], 301, None, None, None),
        // Over once it was quiet for five minutes.
        (&[0, 10, 20], 320, Some(3), None, None),
        (&[0, 10, 20], 321, None, None, None),
        (&[0, 150, 300, 450, 600], 600, Some(3), Some(5), None),
        (&[0, 150, 300, 451, 601], 601, None, None, None),
        (&[0, 10, 20, 30, 40, 50], 50, Some(6), Some(6), None),
        // One a day: told apart from a handful of bad luck.
        (&[0, DAY], DAY, None, None, None),
        (&[0, DAY, 2 * DAY], 2 * DAY, None, None, every_day),
        (&[0, DAY + 3000, 2 * DAY - 2000, 3 * DAY], 3 * DAY, None, None, every_day),
        (&[0, DAY / 4, 2 * DAY], 2 * DAY, None, None, None),
        (&[0, DAY, 2 * DAY], 4 * DAY + 1, None, None, None),
        // A minute apart is no period but an alert.
        (&[0, 60, 120, 180], 180, Some(4), None, None),
    ] {
        let expected = Pattern { alert, storm, period };
        assert_eq!(pattern_of(crashes, now), expected, "{crashes:?} at {now}");
    }
}

#[test]
fn a_step_of_the_clock_neither_makes_an_alert_nor_hides_one() {
    for step in [-3600, 3600] {
        let close = [moment(0, NO_STEP), moment(60, step), moment(120, step)];
        assert_eq!(pattern(&close, &moment(121, step)).alert, Some(3), "hidden by {step}");
        let far = [moment(0, NO_STEP), moment(3600, -step.abs()), moment(7200, -2 * step.abs())];
        assert_eq!(pattern(&far, &moment(7201, NO_STEP)).alert, None, "made by {step}");
    }
}

#[test]
fn a_boot_in_between_leaves_the_clock_on_the_wall() {
    let mut crashes = vec![moment(0, NO_STEP), moment(60, NO_STEP), moment(120, NO_STEP)];
    crashes[2].boot = Some("two".to_owned());
    crashes[2].uptime_ms = 5;
    let now = Moment { wall_ms: crashes[2].wall_ms + 1000, uptime_ms: 1005, boot: Some("two".to_owned()) };
    assert_eq!(pattern(&crashes, &now).alert, Some(3));
}

/// What is said over a life, when each crash and each minute is looked at.
fn said(crashes: &[u64], until: u64) -> Vec<(u64, News)> {
    let mut told = Told::default();
    let mut all = Vec::new();
    let looks = (0..=until).filter(|second| second % 30 == 0 || crashes.contains(second));
    for now in looks {
        let so_far: Vec<u64> = crashes.iter().copied().filter(|crash| *crash <= now).collect();
        for one in news(&pattern_of(&so_far, now), told) {
            match one {
                News::Alert { .. } => told.alert = true,
                News::Storm { .. } => told.storm = true,
                News::Periodic { .. } => told.periodic = true,
                News::AlertOver => (told.alert, told.storm) = (false, false),
                News::PeriodicOver => told.periodic = false,
            }
            all.push((now, one));
        }
    }
    all
}

#[test]
fn an_episode_is_said_once_and_its_end_once() {
    let crashes: Vec<u64> = (1..=40).map(|n| n * 10).collect();
    assert_eq!(
        said(&crashes, 2000),
        [(30, News::Alert { crashes: 3 }), (50, News::Storm { crashes: 5 }), (720, News::AlertOver),]
    );
    let two_episodes = [0, 10, 20, 1000, 1010, 1020];
    let alerts = said(&two_episodes, 3000).into_iter().filter(|(_, news)| matches!(news, News::Alert { .. })).count();
    assert_eq!(alerts, 2);
}

proptest! {
    #[test]
    fn there_is_an_alert_exactly_where_three_are_within_five_minutes(mut crashes in prop::collection::vec(0_u64..4000, 0..12)) {
        crashes.sort_unstable();
        let now = crashes.last().copied().unwrap_or(0);
        let three = crashes.len() >= 3 && now - crashes[crashes.len() - 3] <= 300;
        let five = crashes.len() >= 5 && now - crashes[crashes.len() - 5] <= 600;
        let found = pattern_of(&crashes, now);
        prop_assert_eq!(found.alert.is_some(), three);
        prop_assert_eq!(found.storm.is_some(), five);
    }

    #[test]
    fn whatever_happens_nothing_is_said_twice_in_a_row(mut crashes in prop::collection::vec(0_u64..8000, 0..30)) {
        crashes.sort_unstable();
        let said = said(&crashes, 10_000);
        // Between two ends there is at most one alert, and at most one storm after it.
        let words: String = said.iter().filter_map(|(_, news)| match news {
            News::Alert { .. } => Some('a'),
            News::Storm { .. } => Some('s'),
            News::AlertOver => Some('.'),
            _ => None,
        }).collect();
        for episode in words.split('.') {
            prop_assert!(["", "a", "s", "as"].contains(&episode), "{words}");
        }
    }
}
