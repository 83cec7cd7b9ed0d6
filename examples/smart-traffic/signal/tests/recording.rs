//! The two hours of the recording through the pure logic, against the tables of atspm in `../reference`.

#![expect(
    clippy::indexing_slicing,
    reason = "a row of the wrong shape fails the test"
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use signal::aggregate::{Aggregate, PhaseCounts};
use signal::batch::Batch;
use signal::decision::Decision;
use signal::detectors::Detectors;
use signal::intersection::Intersection;

/// Reads one number of a phase's counts.
type Number = fn(&PhaseCounts) -> u64;
type Decisions = BTreeMap<u8, Decision>;
type Outcome<T> = Result<T, Box<dyn Error>>;

/// 2024-04-15 12:00:00 and 14:00:00 on the controller's clock.
const BEGIN: i64 = 1_713_182_400;
const END: i64 = BEGIN + 7_200;

fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn unpacked(path: &str) -> Outcome<String> {
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(example(path))?).read_to_string(&mut text)?;
    Ok(text)
}

/// Milliseconds after `BEGIN` of `2024-04-15 HH:MM:SS[.ffffff]`.
fn offset_ms(stamp: &str) -> Outcome<i64> {
    let time = stamp
        .trim_matches('"')
        .strip_prefix("2024-04-15 ")
        .ok_or("another day")?;
    let mut parts = time.split(':');
    let mut next = || parts.next().ok_or("a part is missing");
    let (hours, minutes, seconds): (i64, i64, f64) =
        (next()?.parse()?, next()?.parse()?, next()?.parse()?);
    Ok(((hours - 12) * 60 + minutes) * 60_000 + (seconds * 1_000.0).round() as i64)
}

/// Replays every second, each from the stored form of the one before, as the function does.
fn replay() -> Outcome<(Vec<Aggregate>, Vec<Decisions>)> {
    let mut seconds: Vec<Vec<(u16, u16, u16)>> = vec![Vec::new(); 7_201];
    for line in unpacked("data/controller_events.csv.gz")?.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let at = offset_ms(fields[0])?;
        let row = (
            u16::try_from(at % 1_000)?,
            fields[2].parse()?,
            fields[3].parse()?,
        );
        seconds[usize::try_from(at / 1_000)?].push(row);
    }
    let mut intersection = Intersection::default();
    intersection.configure(Detectors::parse(
        &unpacked("data/controller_config.csv.gz")?,
        "1136",
    )?);
    let (mut aggregates, mut decisions) = (Vec::new(), Vec::new());
    for (time, events) in (BEGIN..=END).zip(seconds) {
        let sequence = u64::try_from(time - BEGIN)?;
        let answer = intersection
            .take(&Batch {
                sequence,
                time,
                events,
            })
            .map_err(|refused| refused.to_string())?;
        decisions.push(answer.decisions);
        aggregates.extend(intersection.outbox().iter().cloned());
        intersection.acknowledge(u64::MAX);
        intersection = serde_json::from_slice(&serde_json::to_vec(&intersection)?)?;
    }
    Ok((aggregates, decisions))
}

/// The rows of a reference table, each as its quarter (0 to 7) and its fields after the device.
fn reference(table: &str) -> Outcome<Vec<(i64, Vec<String>)>> {
    let text = std::fs::read_to_string(example(&format!("reference/{table}.csv")))?;
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        Ok((
            offset_ms(fields[0])? / 900_000,
            fields[2..].iter().map(|field| field.to_string()).collect(),
        ))
    };
    text.lines().skip(1).map(row).collect()
}

fn quarter(aggregate: &Aggregate) -> i64 {
    (aggregate.from / 1_000 - BEGIN) / 900
}

/// One number of each phase and quarter, those that are not zero.
fn by_phase(
    aggregates: &[Aggregate],
    number: impl Fn(&PhaseCounts) -> u64,
) -> BTreeMap<(i64, u8), u64> {
    let mut totals = BTreeMap::new();
    for aggregate in aggregates {
        for (phase, counts) in &aggregate.phases {
            *totals.entry((quarter(aggregate), *phase)).or_default() += number(counts);
        }
    }
    totals.retain(|_, total| *total > 0);
    totals
}

#[test]
fn actuations_equal_the_reference() -> Outcome<()> {
    let (aggregates, _) = replay()?;
    let mut ours: BTreeMap<(i64, u8), u64> = BTreeMap::new();
    for aggregate in &aggregates {
        for (channel, actuations) in &aggregate.detectors {
            *ours.entry((quarter(aggregate), *channel)).or_default() += actuations;
        }
    }
    let mut theirs = BTreeMap::new();
    for (quarter, fields) in reference("actuations")? {
        theirs.insert((quarter, fields[0].parse()?), fields[1].parse()?);
    }
    assert_eq!(ours, theirs);
    assert_eq!(ours.len(), 184);
    Ok(())
}

#[test]
fn arrivals_on_green_equal_the_reference() -> Outcome<()> {
    let (aggregates, _) = replay()?;
    let (mut arrivals, mut on_green) = (BTreeMap::new(), BTreeMap::new());
    for (quarter, fields) in reference("arrival_on_green")? {
        let key = (quarter, fields[0].parse()?);
        let (total, share): (u64, f64) = (fields[1].parse()?, fields[2].parse()?);
        arrivals.insert(key, total);
        on_green.insert(key, (total as f64 * share).round() as u64);
    }
    assert_eq!(by_phase(&aggregates, |counts| counts.arrivals), arrivals);
    assert_eq!(
        by_phase(&aggregates, |counts| counts.arrivals_on_green),
        on_green
    );
    Ok(())
}

#[test]
fn endings_equal_the_reference() -> Outcome<()> {
    let (aggregates, _) = replay()?;
    let numbers: [(&str, Number); 3] = [
        ("GapOut", |counts| counts.gap_outs),
        ("MaxOut", |counts| counts.max_outs),
        ("ForceOff", |counts| counts.force_offs),
    ];
    for (name, number) in numbers {
        let mut theirs = BTreeMap::new();
        for (quarter, fields) in reference("terminations")?
            .into_iter()
            .filter(|(_, fields)| fields[1] == name)
        {
            theirs.insert((quarter, fields[0].parse()?), fields[2].parse()?);
        }
        assert_eq!(by_phase(&aggregates, number), theirs, "{name}");
    }
    Ok(())
}

#[test]
fn what_is_sent_on_is_small_and_whole() -> Outcome<()> {
    let (aggregates, decisions) = replay()?;
    let numbers: Vec<u64> = aggregates
        .iter()
        .map(|aggregate| aggregate.number)
        .collect();
    assert_eq!(
        numbers,
        (1..=u64::try_from(aggregates.len())?).collect::<Vec<_>>()
    );
    assert!(
        aggregates.windows(2).all(|pair| pair[0].to == pair[1].from),
        "no hole between periods"
    );
    let largest = aggregates
        .iter()
        .map(|aggregate| serde_json::to_vec(aggregate).map(|json| json.len()));
    assert!(
        largest
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .all(|bytes| bytes < 1_024)
    );
    for wanted in [Decision::Keep, Decision::Extend, Decision::End] {
        assert!(
            decisions
                .iter()
                .any(|second| second.values().any(|decision| *decision == wanted))
        );
    }
    Ok(())
}
