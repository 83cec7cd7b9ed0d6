//! Ticks where clocks change, against a model that looks at every second.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn schedule(text: &str) -> Schedule {
    text.parse().unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// All ticks between two instants, the first excluded, the last included.
fn ticks(text: &str, zone: &str, from: &str, to: &str) -> Vec<String> {
    let (schedule, zone) = (schedule(text), zone.parse().unwrap());
    let (mut now, to) = (at(from), at(to));
    let mut found = Vec::new();
    while let Some(tick) = next(&schedule, &zone, now).filter(|tick| *tick <= to) {
        found.push(tick.to_string());
        now = tick;
    }
    found
}

// Berlin: 2026-03-29 02:00+01:00 becomes 03:00+02:00 (01:00Z); 2026-10-25 03:00+02:00 becomes 02:00+01:00 (01:00Z).

#[test]
fn a_time_that_does_not_exist_ticks_at_the_jump() {
    let spring = |text| {
        ticks(
            text,
            "Europe/Berlin",
            "2026-03-28T22:59:59Z",
            "2026-03-29T03:00:00Z",
        )
    };
    assert_eq!(spring("30 2 * * *"), ["2026-03-29T01:00:00Z"]);
    assert_eq!(spring("15,30,45 2 * * *"), ["2026-03-29T01:00:00Z"]);
    assert_eq!(spring("0 3 * * *"), ["2026-03-29T01:00:00Z"]);
    assert_eq!(spring("0 2,3 * * *"), ["2026-03-29T01:00:00Z"]);
    assert_eq!(
        spring("30 1,3 * * *"),
        ["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"]
    );
}

#[test]
fn a_time_that_comes_twice_ticks_the_first_time() {
    let autumn = |text| {
        ticks(
            text,
            "Europe/Berlin",
            "2026-10-24T22:30:00Z",
            "2026-10-25T03:00:00Z",
        )
    };
    assert_eq!(autumn("30 2 * * *"), ["2026-10-25T00:30:00Z"]);
    assert_eq!(autumn("0 3 * * *"), ["2026-10-25T02:00:00Z"]);
    assert_eq!(autumn("0 2 * * *"), ["2026-10-25T00:00:00Z"]);
}

#[test]
fn intervals_follow_the_time_that_passes() {
    let spring = ticks(
        "*/30 * * * *",
        "Europe/Berlin",
        "2026-03-29T00:00:00Z",
        "2026-03-29T02:00:00Z",
    );
    assert_eq!(
        spring,
        [
            "2026-03-29T00:30:00Z",
            "2026-03-29T01:00:00Z",
            "2026-03-29T01:30:00Z",
            "2026-03-29T02:00:00Z",
        ]
    );
    let autumn = ticks(
        "0 * * * *",
        "Europe/Berlin",
        "2026-10-24T23:30:00Z",
        "2026-10-25T02:30:00Z",
    );
    assert_eq!(
        autumn,
        [
            "2026-10-25T00:00:00Z",
            "2026-10-25T01:00:00Z",
            "2026-10-25T02:00:00Z"
        ]
    );
    // An hour that does not exist has no ticks, one that comes twice has them twice.
    assert_eq!(
        ticks(
            "0 */2 * * *",
            "Europe/Berlin",
            "2026-03-28T23:00:00Z",
            "2026-03-29T04:00:00Z"
        ),
        ["2026-03-29T02:00:00Z", "2026-03-29T04:00:00Z"]
    );
    assert_eq!(
        ticks(
            "0 */2 * * *",
            "Europe/Berlin",
            "2026-10-24T22:00:00Z",
            "2026-10-25T03:00:00Z"
        ),
        [
            "2026-10-25T00:00:00Z",
            "2026-10-25T01:00:00Z",
            "2026-10-25T03:00:00Z"
        ]
    );
}

#[test]
fn a_day_that_a_country_skipped_ticks_once_at_its_jump() {
    // Samoa went from 2011-12-29 to 2011-12-31.
    assert_eq!(
        ticks(
            "0 8,20 * * *",
            "Pacific/Apia",
            "2011-12-29T19:00:00Z",
            "2011-12-31T07:00:00Z"
        ),
        [
            "2011-12-30T06:00:00Z",
            "2011-12-30T10:00:00Z",
            "2011-12-30T18:00:00Z",
            "2011-12-31T06:00:00Z"
        ]
    );
    let (schedule, zone) = (schedule("0 8,20 * * *"), "Pacific/Apia".parse().unwrap());
    let before = previous(&schedule, &zone, at("2011-12-30T18:00:00Z"));
    assert_eq!(before, Some(at("2011-12-30T10:00:00Z")));
}

#[test]
fn rare_ticks_are_found_and_the_end_is_an_end() {
    let (leap, zone) = (schedule("0 0 29 2 *"), "America/New_York".parse().unwrap());
    assert_eq!(
        next(&leap, &zone, at("2096-03-01T00:00:00Z")),
        Some(at("2104-02-29T05:00:00Z"))
    );
    assert_eq!(
        previous(&leap, &zone, at("2104-01-01T00:00:00Z")),
        Some(at("2096-02-29T05:00:00Z"))
    );
    for text in ["0 0 29 2 *", "*/5 * * * *", "* * * * * *"] {
        assert_eq!(
            next(&schedule(text), &zone, at("9990-01-01T00:00:00Z")),
            None,
            "{text}"
        );
    }
}

const ZONES: [(&str, &str); 7] = [
    ("Europe/Berlin", "2026-03-29T01:00:00Z"),
    ("Europe/Berlin", "2026-10-25T01:00:00Z"),
    ("America/St_Johns", "2026-11-01T04:30:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00:00Z"),
    ("UTC", "2026-01-01T00:00:00Z"),
];

const SCHEDULES: [&str; 12] = [
    "*/7 * * * *",
    "30 * * * *",
    "13 */2 * * *",
    "*/11 * 2 * * *",
    "0 * 1-3 * * *",
    "30 2 * * *",
    "0 0 * * *",
    "15,45 0-3,22,23 * * *",
    "7,37 13 1,2,3 * * *",
    "0 12 * * *",
    "30 0 1 * *",
    "0-59 0-59 2 * * *",
];

/// What the rule says, by looking at every second on its own.
fn by_second(
    schedule: &Schedule,
    zone: &Zone,
    from: Timestamp,
    to: Timestamp,
) -> BTreeSet<Timestamp> {
    let second = SignedDuration::from_secs(1);
    let matches = |local: DateTime| schedule.next_local(local - second) == Some(local);
    let mut found = BTreeSet::new();
    let mut shown = zone.rules().to_datetime(from);
    let mut now = from;
    while now < to {
        now += second;
        let local = zone.rules().to_datetime(now);
        if !schedule.is_fixed() {
            if matches(local) {
                found.insert(now);
            }
            continue;
        }
        // Each local time that has come for the first time, those that were jumped over included.
        while shown < local {
            shown += second;
            if matches(shown) {
                found.insert(now);
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn ticks_are_those_that_the_rule_says_both_ways(
        zone in 0..ZONES.len(),
        text in 0..SCHEDULES.len(),
        before_s in 0_i64..14_400,
        length_s in 1_i64..14_400,
    ) {
        let (name, change) = ZONES[zone];
        let (schedule, zone) = (schedule(SCHEDULES[text]), name.parse::<Zone>().unwrap());
        let from = at(change) - SignedDuration::from_secs(before_s);
        // From the middle of a repeated hour, the model does not know what was shown in the first.
        prop_assume!(from <= at(change));
        let to = from + SignedDuration::from_secs(length_s);
        let expected = by_second(&schedule, &zone, from, to);
        let mut forward = BTreeSet::new();
        let mut now = from;
        while let Some(tick) = next(&schedule, &zone, now).filter(|tick| *tick <= to) {
            prop_assert!(tick > now);
            forward.insert(tick);
            now = tick;
        }
        prop_assert_eq!(&forward, &expected);
        let mut backward = BTreeSet::new();
        let mut now = to + SignedDuration::from_millis(1);
        while let Some(tick) = previous(&schedule, &zone, now).filter(|tick| *tick > from) {
            prop_assert!(tick < now);
            backward.insert(tick);
            now = tick;
        }
        prop_assert_eq!(&backward, &expected);
    }
}
