//! The log by itself: what is cut, what is left out, and what is never taken for a record.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::disk::simulated::SimulatedDisk;

const FOLDER: &str = "/log";

struct Opened {
    log: Log,
    bodies: Vec<Vec<u8>>,
    damages: Vec<Damage>,
}

fn open_seen(disk: &SimulatedDisk, seen: u64) -> Opened {
    let mut bodies = Vec::new();
    let (log, damages) = Log::open(
        Arc::new(disk.clone()),
        Path::new(FOLDER),
        seen,
        1 << 20,
        |record| {
            bodies.push(record.body.to_vec());
            Ok::<_, io::Error>(())
        },
    )
    .unwrap();
    Opened {
        log,
        bodies,
        damages,
    }
}

fn open(disk: &SimulatedDisk) -> Opened {
    open_seen(disk, 0)
}

/// Writes one group.
fn append(log: &mut Log, bodies: &[&[u8]]) {
    let mut group = log.begin(100, 0).unwrap();
    for body in bodies {
        group.push(Moment::default(), body).unwrap();
    }
    log.commit(group).unwrap();
}

fn only_segment(disk: &SimulatedDisk) -> PathBuf {
    let [path] = disk.files().try_into().unwrap();
    path
}

/// Three groups of two records, and where each record begins in the file.
fn six_records() -> (SimulatedDisk, Vec<usize>) {
    let disk = SimulatedDisk::new();
    let mut log = open(&disk).log;
    let mut starts = Vec::new();
    for group in 0..3_u8 {
        for record in 0..2 {
            starts.push(log.end() as usize + record * (HEAD_BYTES + 10));
        }
        append(&mut log, &[&[2 * group; 10], &[2 * group + 1; 10]]);
    }
    (disk, starts)
}

#[test]
fn records_come_back_in_order_over_several_segments() {
    let disk = SimulatedDisk::new();
    let mut log = open(&disk).log;
    for each in 0..200_u8 {
        append(&mut log, &[&[each], &[each; 3]]);
        if each % 50 == 0 {
            log.roll().unwrap();
        }
    }
    let end = log.end();
    let opened = open_seen(&disk, end);
    assert_eq!(opened.damages, []);
    assert_eq!(opened.log.end(), end);
    let expected = (0..200_u8).flat_map(|each| [vec![each], vec![each; 3]]);
    assert!(opened.bodies.into_iter().eq(expected));
}

#[test]
fn damage_before_a_later_group_is_left_out_and_the_rest_is_read() {
    let (disk, starts) = six_records();
    for damaged in 0..4 {
        let copy = disk.damaged(&only_segment(&disk), |content| {
            content[starts[damaged] + HEAD_BYTES] ^= 1;
        });
        let opened = open(&copy);
        let start = starts[damaged] as u64;
        let end = start + HEAD_BYTES as u64 + 10;
        assert_eq!(opened.damages, [Damage::Lost { range: start..end }]);
        let expected = (0..6).filter(|each| *each != damaged);
        let expected = expected.map(|each| vec![each as u8; 10]);
        assert!(opened.bodies.into_iter().eq(expected), "{damaged}");
    }
}

#[test]
fn a_last_group_that_is_not_whole_is_cut_where_it_breaks() {
    let (disk, starts) = six_records();
    for damaged in 4..6 {
        let copy = disk.damaged(&only_segment(&disk), |content| {
            content[starts[damaged] + HEAD_BYTES] ^= 1;
        });
        let mut opened = open(&copy);
        let start = starts[damaged] as u64;
        assert!(matches!(&opened.damages[..], [Damage::Torn { range }] if range.start == start));
        // The record behind the break is whole, and was not acknowledged either.
        assert_eq!(opened.bodies.len(), damaged);
        assert_eq!(opened.log.end(), start);
        append(&mut opened.log, &[b"new"]);
        let again = open(&copy);
        assert_eq!(again.damages, []);
        assert_eq!(again.bodies.last().unwrap(), b"new");
    }
}

#[test]
fn what_a_checkpoint_has_seen_is_damaged_and_not_torn() {
    let (disk, starts) = six_records();
    let end = open(&disk).log.end();
    let copy = disk.damaged(&only_segment(&disk), |content| {
        content[starts[5]] ^= 1;
    });
    let mut opened = open_seen(&copy, end);
    let range = starts[5] as u64..end;
    assert_eq!(opened.damages, [Damage::Lost { range }]);
    // What is new stands behind it, in a segment of its own.
    append(&mut opened.log, &[b"new"]);
    let again = open_seen(&copy, end);
    assert_eq!(again.bodies.len(), 6);
    assert_eq!(again.bodies.last().unwrap(), b"new");
}

#[test]
fn a_segment_that_is_short_or_missing_is_told() {
    let disk = SimulatedDisk::new();
    let mut log = open(&disk).log;
    let mut ends = Vec::new();
    for each in 0..3_u8 {
        append(&mut log, &[&[each]]);
        ends.push(log.end());
        log.roll().unwrap();
    }
    let files = disk.files();
    let short = disk.damaged(&files[1], |content| content.truncate(1024));
    let opened = open(&short);
    assert!(matches!(&opened.damages[..], [Damage::Lost { range }] if range.end == ends[1]));
    assert_eq!(opened.bodies, [[0], [2]]);

    disk.remove(&files[1]).unwrap();
    let opened = open(&disk);
    let range = ends[0]..ends[1];
    assert_eq!(opened.damages, [Damage::Lost { range }]);
    assert_eq!(opened.bodies, [[0], [2]]);

    // The end of what a checkpoint has seen, too.
    let last = ends[2] + HEADER_BYTES + 500;
    let opened = open_seen(&disk, last);
    assert_eq!(opened.damages.len(), 2);
    assert_eq!(opened.log.end(), last + HEADER_BYTES);
}

#[test]
fn a_record_inside_a_body_is_never_taken_for_one() {
    let disk = SimulatedDisk::new();
    let mut log = open(&disk).log;
    append(&mut log, &[b"a record"]);
    let path = only_segment(&disk);
    let inner = crate::disk::read(&disk, &path).unwrap().split_off(1024);
    append(&mut log, &[&inner.repeat(5)]);
    append(&mut log, &[b"behind"]);
    let start = 1024 + inner.len();
    let copy = disk.damaged(&path, |content| content[start] ^= 1);
    let opened = open(&copy);
    assert_eq!(opened.bodies, [b"a record".to_vec(), b"behind".to_vec()]);
    assert_eq!(opened.damages.len(), 1);
}

#[test]
fn a_record_that_was_exchanged_for_another_breaks_the_chain() {
    let (disk, starts) = six_records();
    // Another log's record at the same place, with the same salt: only the chain differs.
    let copy = disk.damaged(&only_segment(&disk), |content| {
        let salt: [u8; 16] = *content[24..].first_chunk().unwrap();
        let (start, body) = (starts[2], [77; 10]);
        let head = Head::new(0, Moment::default(), &[0; 16], &body);
        let head = head.encode(&salt, start as u64);
        content[start..start + HEAD_BYTES].copy_from_slice(&head);
        content[start + HEAD_BYTES..][..10].copy_from_slice(&body);
    });
    let opened = open(&copy);
    assert!(!opened.bodies.contains(&vec![77; 10]));
    assert!(!opened.damages.is_empty());
}

#[test]
fn a_sector_that_cannot_be_read_does_not_take_the_rest_with_it() {
    let disk = SimulatedDisk::new();
    let mut log = open(&disk).log;
    for each in 0..20_u8 {
        append(&mut log, &[&[each; 2000]]);
    }
    disk.break_sector(&only_segment(&disk), 20_000);
    let opened = open(&disk);
    assert!(matches!(&opened.damages[..], [Damage::Lost { .. }]));
    assert!(opened.bodies.len() >= 15);
    assert_eq!(opened.bodies.last().unwrap(), &[19; 2000]);
}
