//! A schedule through downtimes, crashes and clocks that jump.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const YEAR: u64 = 365 * DAY;
/// 2026-01-01T00:00:00Z
const START: u64 = 1_767_225_600_000;

fn source(schedule: &str, missed: Missed) -> CronSource {
    let trigger = CronTrigger {
        schedule: schedule.parse().unwrap(),
        timezone: "Europe/Berlin".parse().unwrap(),
        missed,
        function: "rollup".parse().unwrap(),
    };
    CronSource::new("plant".parse().unwrap(), trigger)
}

fn times(wake: &Wake) -> Vec<u64> {
    wake.ticks.iter().map(|tick| tick.wall_ms - START).collect()
}

/// A source that has begun at the start.
fn begun(schedule: &str, missed: Missed) -> (CronSource, Settled) {
    let source = source(schedule, missed);
    let wake = source.wake(&Settled::default(), START);
    assert_eq!(wake.ticks, []);
    (source, wake.settled)
}

#[test]
fn ticks_come_when_they_are_due_and_once() {
    let (source, settled) = begun("*/5 * * * *", Missed::Once);
    let wake = source.wake(&settled, START + MINUTE);
    assert_eq!(wake.ticks, []);
    assert_eq!(wake.next_wall_ms, Some(START + 5 * MINUTE));
    let wake = source.wake(&wake.settled, START + 5 * MINUTE + 3);
    assert_eq!(times(&wake), [5 * MINUTE]);
    assert!(!wake.ticks[0].missed);
    assert_eq!(wake.next_wall_ms, Some(START + 10 * MINUTE));
    assert_eq!(source.wake(&wake.settled, START + 5 * MINUTE + 4).ticks, []);
    // What was not kept, because the node died before, is the same tick again.
    assert_eq!(
        times(&source.wake(&settled, START + 5 * MINUTE + 9)),
        [5 * MINUTE]
    );
}

#[test]
fn missed_ticks_are_treated_as_the_trigger_says() {
    let morning = START + DAY + 2 * MINUTE;
    for (missed, expected, dropped) in [
        (Missed::Skip, vec![], 24),
        (Missed::Once, vec![DAY], 23),
        (Missed::All, (1..=24).map(|hour| hour * HOUR).collect(), 0),
    ] {
        let (source, settled) = begun("0 * * * *", missed);
        let wake = source.wake(&settled, morning);
        assert_eq!(times(&wake), expected);
        assert!(wake.ticks.iter().all(|tick| tick.missed));
        assert_eq!(wake.dropped.ticks, dropped);
        assert_eq!(wake.next_wall_ms, Some(START + 25 * HOUR));
        assert_eq!(source.wake(&wake.settled, morning + 1).ticks, []);
    }
    // A tick that is due just now stands for the missed ones.
    let (source, settled) = begun("0 * * * *", Missed::Once);
    let wake = source.wake(&settled, START + DAY + 10);
    assert_eq!(times(&wake), [DAY]);
    assert!(!wake.ticks[0].missed);
}

#[test]
fn a_clock_that_is_set_for_the_first_time_has_missed_nothing() {
    for missed in [Missed::Once, Missed::All] {
        let source = source("* * * * *", missed);
        let woken = source.wake(&Settled::default(), 5_000);
        let woken = source.wake(&woken.settled, MINUTE);
        assert_eq!(woken.ticks.len(), 1);
        let set = source.wake(&woken.settled, START + 1);
        assert_eq!((set.ticks.len(), set.dropped.ticks), (0, 0));
        assert_eq!(set.next_wall_ms, Some(START + MINUTE));
        let next = source.wake(&set.settled, START + MINUTE);
        assert_eq!(times(&next), [MINUTE]);
        // From then on it is a clock like any other.
        let ahead = source.wake(&next.settled, START + 10 * MINUTE + 1);
        assert!(!ahead.ticks.is_empty());
    }
}

#[test]
fn a_clock_that_leaps_years_ahead_costs_little_and_publishes_few() {
    let (source, settled) = begun("* * * * * *", Missed::All);
    let wake = source.wake(&settled, START + 300 * YEAR);
    assert_eq!(wake.ticks.len(), MADE_UP_MAX);
    assert_eq!(
        wake.ticks.last().map(|tick| tick.wall_ms),
        Some(START + 300 * YEAR)
    );
    assert!(wake.dropped.more);
    assert_eq!(wake.next_wall_ms, Some(START + 300 * YEAR + 1000));
    let wake = source.wake(&settled, u64::MAX);
    assert_eq!(wake.next_wall_ms, None);
}

#[test]
fn a_clock_that_goes_back_repeats_nothing_and_stops_nothing() {
    let (source, settled) = begun("0 * * * *", Missed::All);
    let wake = source.wake(&settled, START + 3 * HOUR + MINUTE);
    assert_eq!(times(&wake), [HOUR, 2 * HOUR, 3 * HOUR]);
    // Two hours back: what was published is not published again, the next one is new.
    let wake = source.wake(&wake.settled, START + HOUR + MINUTE);
    assert_eq!(
        (wake.ticks.len(), wake.next_wall_ms),
        (0, Some(START + 4 * HOUR))
    );
    assert_eq!(source.wake(&wake.settled, START + 2 * HOUR).ticks, []);
    // Years back, before the source began: ticks go on in that time.
    let wake = source.wake(&wake.settled, START - 10 * YEAR + 1);
    assert_eq!(
        (wake.ticks.len(), wake.next_wall_ms),
        (0, Some(START - 10 * YEAR + HOUR))
    );
    let wake = source.wake(&wake.settled, START - 10 * YEAR + HOUR);
    assert_eq!(wake.ticks.len(), 1);
    // And the clock is set right again: it goes on behind what was published in that time.
    let wake = source.wake(&wake.settled, START + 5 * HOUR);
    assert_eq!(times(&wake), [4 * HOUR, 5 * HOUR]);
}

#[test]
fn a_clock_that_was_wrong_for_a_moment_does_no_harm() {
    let (source, settled) = begun("0 * * * *", Missed::Once);
    let leap = source.wake(&settled, START + 50 * YEAR + 2 * MINUTE);
    assert_eq!(times(&leap), [50 * YEAR]);
    let wake = source.wake(&leap.settled, START + 30 * MINUTE);
    assert_eq!(
        (wake.ticks.len(), wake.next_wall_ms),
        (0, Some(START + HOUR))
    );
    let wake = source.wake(&wake.settled, START + HOUR);
    assert_eq!(times(&wake), [HOUR]);
    // Fifty years later that tick has been.
    let wake = source.wake(&wake.settled, START + 50 * YEAR - MINUTE);
    assert_eq!(wake.next_wall_ms, Some(START + 50 * YEAR + HOUR));
}

#[test]
fn an_event_names_its_tick() {
    let source = source("30 2 * * *", Missed::Once);
    let tick = Tick {
        wall_ms: START + 90 * MINUTE,
        missed: true,
    };
    let publication = source.publication(tick);
    assert_eq!(publication.queue.to_string(), "plant/rollup.cron");
    let event = publication.event;
    event.check().unwrap();
    assert_eq!(event.id, "30 2 * * * Europe/Berlin 2026-01-01T01:30:00Z");
    assert_eq!(event.source, "/tombolo/cron/plant/rollup");
    assert_eq!(event.kind, "tombolo.cron.tick");
    assert_eq!(event.time.as_deref(), Some("2026-01-01T01:30:00Z"));
    let data: serde_json::Value = serde_json::from_slice(&event.data.unwrap()).unwrap();
    assert_eq!(data["scheduled"], "2026-01-01T02:30:00+01:00");
    assert_eq!(data["missed"], true);
}

/// What happens to a node and its clock between two looks.
#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Jump(i64),
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let year = i64::try_from(YEAR).unwrap();
    let step = prop_oneof![
        6 => (0..20 * MINUTE).prop_map(Step::Pass),
        1 => (0..3 * DAY).prop_map(Step::Pass),
        1 => (-3 * year..3 * year).prop_map(Step::Jump),
        1 => (-7_200_000_i64..7_200_000).prop_map(Step::Jump),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #[test]
    fn whatever_clocks_do_a_tick_is_published_once_and_is_a_tick(
        steps in steps(),
        missed in prop_oneof![Just(Missed::Skip), Just(Missed::Once), Just(Missed::All)],
        schedule in prop_oneof![Just("*/5 * * * *"), Just("30 2 * * *"), Just("*/10 * * * * *"), Just("0 0 1 * *")],
    ) {
        let source = source(schedule, missed);
        let (mut settled, mut now_ms) = (Settled::default(), START + 5 * YEAR);
        let mut published = HashSet::new();
        for step in steps {
            let mut crash = false;
            match step {
                Step::Pass(ms) => now_ms += ms,
                Step::Jump(ms) => now_ms = now_ms.saturating_add_signed(ms),
                Step::Crash => crash = true,
            }
            let wake = source.wake(&settled, now_ms);
            prop_assert!(wake.ticks.len() <= MADE_UP_MAX);
            prop_assert!(wake.ticks.windows(2).all(|pair| pair[0].wall_ms < pair[1].wall_ms));
            prop_assert!(wake.next_wall_ms.is_some_and(|next_ms| next_ms > now_ms));
            for tick in &wake.ticks {
                prop_assert!(tick.wall_ms <= now_ms);
                prop_assert_eq!(source.before(tick.wall_ms + 1).next(), Some(tick.wall_ms));
            }
            if crash {
                // Nothing was kept: the same ticks come again, with the same ids, which the journal knows.
                prop_assert_eq!(source.wake(&settled, now_ms), wake);
                continue;
            }
            for tick in &wake.ticks {
                prop_assert!(published.insert(tick.wall_ms), "{} again", tick.wall_ms);
            }
            settled = wake.settled;
        }
    }

    #[test]
    fn with_a_steady_clock_every_tick_is_published(
        waits_ms in proptest::collection::vec(0..3 * HOUR, 1..40),
        missed in prop_oneof![Just(Missed::Once), Just(Missed::All)],
    ) {
        let (source, mut settled) = begun("*/5 * * * *", missed);
        let (mut now_ms, mut published) = (START, Vec::new());
        for wait_ms in waits_ms {
            // A live node wakes when it was told to.
            let end_ms = now_ms + wait_ms;
            while let Some(next_ms) = source.wake(&settled, now_ms).next_wall_ms.filter(|next_ms| *next_ms <= end_ms) {
                now_ms = next_ms;
                let wake = source.wake(&settled, now_ms);
                published.extend(times(&wake));
                settled = wake.settled;
            }
            now_ms = end_ms;
        }
        let expected: Vec<u64> = (1..=(now_ms - START) / (5 * MINUTE)).map(|n| n * 5 * MINUTE).collect();
        prop_assert_eq!(published, expected);
    }
}
