//! What a queue promises, promise by promise.

use super::super::*;
use tombolo_core::Moment;

const WIDE: TakeBounds = TakeBounds {
    events: u32::MAX,
    bytes: u32::MAX,
};

fn at(lived_ms: u64) -> Moment {
    Moment {
        lived_ms,
        wall_ms: 1_000_000 + lived_ms,
    }
}

fn entry(sequence: u64, order: Option<u64>) -> Entry<u32> {
    Entry {
        sequence,
        place: 0,
        bytes: 10,
        attempts: 0,
        due: None,
        priority: PRIORITY_DEFAULT,
        order,
        published_lived_ms: 0,
    }
}

/// A queue with one event for each key.
fn queue(settings: QueueSettings, keys: &[Option<u64>]) -> Queue<u32> {
    let mut queue = Queue::new(settings);
    for (sequence, key) in (0..).zip(keys) {
        queue.apply(Operation::Enqueued(entry(sequence, *key)));
    }
    queue
}

fn batches_of(events: u32) -> QueueSettings {
    let mut settings = QueueSettings::default();
    settings.batch.events = events;
    settings
}

fn sequences(batch: Option<Batch<u32>>) -> Vec<u64> {
    let events = batch.map(|batch| batch.events).unwrap_or_default();
    events.iter().map(|event| event.lease.sequence).collect()
}

fn settle(queue: &mut Queue<u32>, lease: Lease, outcome: Outcome, now: Moment) {
    let operation = queue.settle(&mut Plan::default(), lease, outcome, now, 0);
    queue.apply(operation.unwrap());
}

#[test]
fn a_batch_may_hold_a_key_several_times_and_keeps_it_until_all_are_settled() {
    let (a, b) = (Some(1), Some(2));
    let mut queue = queue(batches_of(3), &[a, a, b, a, b]);
    let first = queue.take(at(0), WIDE).unwrap();
    assert_eq!(sequences(Some(first.clone())), [0, 1, 2]);
    assert_eq!(queue.take(at(0), WIDE), None);
    for event in &first.events[..2] {
        settle(&mut queue, event.lease, Outcome::Done, at(1));
        assert_eq!(queue.take(at(1), WIDE), None);
    }
    settle(&mut queue, first.events[2].lease, Outcome::Done, at(1));
    assert_eq!(sequences(queue.take(at(1), WIDE)), [3, 4]);
}

#[test]
fn an_event_that_backs_off_holds_up_its_key_and_nobody_else() {
    let (a, b) = (Some(1), Some(2));
    let mut queue = queue(batches_of(1), &[a, a, b]);
    let first = queue.take(at(0), WIDE).unwrap().events[0].lease;
    let later = Outcome::Retry {
        after_ms: Some(500),
    };
    settle(&mut queue, first, later, at(0));
    assert_eq!(sequences(queue.take(at(1), WIDE)), [2]);
    assert_eq!(queue.take(at(499), WIDE), None);
    assert_eq!(queue.next_wakeup(at(499)).lived_ms, Some(500));
    let again = queue.take(at(500), WIDE).unwrap();
    assert_eq!(
        (again.events[0].lease.sequence, again.events[0].attempt),
        (0, 2)
    );
}

#[test]
fn what_a_function_asks_for_is_respected_as_long_as_the_event_lives() {
    const HOUR_MS: u64 = 3_600_000;
    let mut settings = batches_of(1);
    settings.age_ms = 10 * HOUR_MS;
    for (after_ms, due_ms) in [(HOUR_MS, HOUR_MS), (u64::MAX, 10 * HOUR_MS)] {
        let mut queue = queue(settings.clone(), &[None]);
        let lease = queue.take(at(0), WIDE).unwrap().events[0].lease;
        let after_ms = Some(after_ms);
        settle(&mut queue, lease, Outcome::Retry { after_ms }, at(0));
        assert_eq!(queue.next_wakeup(at(0)).lived_ms, Some(due_ms));
    }
}

#[test]
fn an_event_that_was_delayed_holds_nobody_up_and_comes_when_it_is_due() {
    let mut queue = Queue::new(batches_of(1));
    let due = Some(Due::Wall(at(100).wall_ms));
    queue.apply(Operation::Enqueued(Entry {
        due,
        ..entry(0, Some(1))
    }));
    queue.apply(Operation::Enqueued(entry(1, Some(1))));
    let lease = queue.take(at(0), WIDE).unwrap().events[0].lease;
    assert_eq!(lease.sequence, 1);
    assert_eq!(queue.next_wakeup(at(0)).wall_ms, Some(at(100).wall_ms));
    assert_eq!(queue.take(at(100), WIDE), None, "its key is busy");
    settle(&mut queue, lease, Outcome::Done, at(100));
    assert_eq!(sequences(queue.take(at(100), WIDE)), [0]);
}

#[test]
fn a_delay_beyond_the_retention_is_refused() {
    let queue = queue(QueueSettings::default(), &[]);
    let arrival = Arrival {
        bytes: 1,
        order: None,
        due_wall_ms: Some(at(31 * 24 * 60 * 60 * 1000).wall_ms),
    };
    let refusal = queue.admit(&mut Plan::default(), at(0), &[arrival]);
    assert!(matches!(refusal, Err(Refusal::TooLate { .. })));
}

#[test]
fn a_batch_waits_for_company_but_not_for_ever() {
    let mut settings = batches_of(3);
    settings.batch.wait_ms = 250;
    let mut queue = queue(settings, &[Some(1), Some(1)]);
    assert_eq!(queue.take(at(249), WIDE), None);
    assert_eq!(queue.next_wakeup(at(249)).lived_ms, Some(250));
    assert_eq!(sequences(queue.take(at(250), WIDE)), [0, 1]);
}

#[test]
fn a_full_batch_of_one_key_does_not_wait() {
    let mut settings = batches_of(3);
    settings.batch.wait_ms = 250;
    let mut queue = queue(settings, &[Some(1), Some(1), Some(1)]);
    assert_eq!(sequences(queue.take(at(0), WIDE)), [0, 1, 2]);
}

#[test]
fn the_rate_is_kept_over_any_time() {
    let mut settings = batches_of(1);
    settings.rate_per_s = std::num::NonZeroU32::new(20);
    settings.concurrency = u32::MAX;
    let mut queue = queue(settings, &[None; 500]);
    let mut taken = Vec::new();
    let mut now = at(0);
    while taken.len() < 100 {
        match queue.take(now, WIDE) {
            Some(_) => taken.push(now.lived_ms),
            None => {
                let wakeup = queue.next_wakeup(now).lived_ms.unwrap();
                assert!(wakeup > now.lived_ms);
                now = at(wakeup);
            }
        }
    }
    for (nth, start) in taken.iter().enumerate() {
        let within = taken[nth..]
            .iter()
            .filter(|end| **end < start + 1000)
            .count();
        assert!(within <= 22, "{within} batches in the second from {start}");
    }
    assert!(taken[99] <= 5_000, "as many as the rate allows");
}

#[test]
fn an_answer_counts_until_the_end_of_its_lease_is_recorded() {
    let mut queue = queue(batches_of(1), &[None]);
    let lease = queue.take(at(0), WIDE).unwrap().events[0].lease;
    let late = at(60_001);
    let done = queue.settle(&mut Plan::default(), lease, Outcome::Done, late, 0);
    assert!(done.is_ok());
    let mut plan = Plan::default();
    let swept = queue.sweep(&mut plan, late, 100, || 0);
    assert!(matches!(
        swept[..],
        [Operation::Retried { attempts: 1, .. }]
    ));
    let same_group = queue.settle(&mut plan, lease, Outcome::Done, late, 0);
    assert_eq!(same_group, Err(Stale));
    queue.apply(swept[0]);
    let after = queue.settle(&mut Plan::default(), lease, Outcome::Done, late, 0);
    assert_eq!(after, Err(Stale));
}

#[test]
fn a_function_that_never_answers_is_tried_so_often_and_no_more() {
    let mut queue = queue(batches_of(1), &[None]);
    let mut now = at(0);
    let mut attempts = 0;
    while queue.depth() > 0 {
        attempts += queue.take(now, WIDE).map_or(0, |batch| batch.events.len());
        now = at(queue.next_wakeup(now).lived_ms.unwrap());
        for operation in queue.sweep(&mut Plan::default(), now, 100, || u64::MAX) {
            queue.apply(operation);
        }
    }
    assert_eq!(attempts, 5);
    assert_eq!(queue.figures(now).counters.dead, 1);
}

#[test]
fn what_is_handed_out_is_not_dropped() {
    let settings = QueueSettings {
        events: 3,
        full: WhenFull::DropOldest,
        ..batches_of(2)
    };
    let mut queue = queue(settings, &[None; 3]);
    queue.take(at(0), WIDE).unwrap();
    let arrival = Arrival {
        bytes: 10,
        order: None,
        due_wall_ms: None,
    };
    let mut plan = Plan::default();
    let admission = queue.admit(&mut plan, at(0), &[arrival]).unwrap();
    let reason = Reason::Dropped;
    assert_eq!(
        admission.removals,
        [Operation::Removed {
            sequence: 2,
            reason
        }]
    );
    let second = queue.admit(&mut plan, at(0), &[arrival]).unwrap();
    assert_eq!(
        second.removals,
        [Operation::Removed {
            sequence: 3,
            reason
        }]
    );
    let both = queue.admit(&mut plan, at(0), &[arrival, arrival]);
    assert_eq!(both, Err(Refusal::Full));
}

#[test]
fn compaction_keeps_the_newest_of_each_key() {
    let settings = QueueSettings {
        events: 4,
        full: WhenFull::Compact,
        order_by: Some("subject".into()),
        ..batches_of(1)
    };
    let (a, b) = (Some(1), Some(2));
    let mut queue = queue(settings, &[a, a, b, a]);
    let mut publish = |order| {
        let arrival = Arrival {
            bytes: 10,
            order,
            due_wall_ms: None,
        };
        let admission = queue.admit(&mut Plan::default(), at(0), &[arrival])?;
        for operation in admission.removals {
            queue.apply(operation);
        }
        queue.apply(Operation::Enqueued(entry(admission.first_sequence, order)));
        let listed = queue.list(0, 10);
        Ok::<_, Refusal>(
            listed
                .iter()
                .map(|one| one.entry.sequence)
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(publish(b), Ok(vec![1, 2, 3, 4]));
    assert_eq!(publish(Some(3)), Ok(vec![2, 3, 4, 5]));
    assert_eq!(publish(Some(4)), Ok(vec![3, 4, 5, 6]));
    assert_eq!(publish(Some(5)), Err(Refusal::Full));
    assert_eq!(publish(None), Err(Refusal::Full));
    assert_eq!(publish(a), Ok(vec![4, 5, 6, 7]));
}

#[test]
fn smaller_bounds_are_reached_by_sweeps() {
    let settings = QueueSettings {
        full: WhenFull::DropOldest,
        concurrency: 0,
        ..QueueSettings::default()
    };
    let mut queue = queue(settings.clone(), &[None; 100]);
    queue.configure(QueueSettings {
        events: 10,
        ..settings
    });
    assert_eq!(queue.next_wakeup(at(7)).lived_ms, Some(7));
    let mut sweeps = 0;
    while queue.depth() > 10 {
        sweeps += 1;
        for operation in queue.sweep(&mut Plan::default(), at(7), 50, || 0) {
            queue.apply(operation);
        }
    }
    assert_eq!((queue.depth(), sweeps), (10, 2));
    assert_ne!(queue.next_wakeup(at(7)).lived_ms, Some(7));
}

#[test]
fn compaction_that_is_turned_on_knows_what_came_before() {
    let (a, b) = (Some(1), Some(2));
    let mut queue = queue(QueueSettings::default(), &[a, b, a, b, None]);
    queue.configure(QueueSettings {
        events: 1,
        full: WhenFull::Compact,
        ..QueueSettings::default()
    });
    let swept = queue.sweep(&mut Plan::default(), at(0), 100, || 0);
    let reason = Reason::Compacted;
    let expected = [0, 1].map(|sequence| Operation::Removed { sequence, reason });
    assert_eq!(swept, expected);
}

#[test]
fn events_expire_by_the_life_of_the_store() {
    let mut queue = queue(QueueSettings::default(), &[None; 2]);
    let age_ms = queue.settings().age_ms;
    let mut years_ahead = at(age_ms - 1);
    years_ahead.wall_ms = u64::MAX;
    assert_eq!(
        queue.sweep(&mut Plan::default(), years_ahead, 100, || 0),
        []
    );
    assert_eq!(
        queue.next_wakeup(at(0)).lived_ms,
        Some(0),
        "it may be handed out"
    );
    let swept = queue.sweep(&mut Plan::default(), at(age_ms), 100, || 0);
    assert_eq!(swept.len(), 2);
    for operation in swept {
        queue.apply(operation);
    }
    assert_eq!(queue.figures(at(age_ms)).counters.expired, 2);
}

#[test]
fn a_log_that_lost_its_oldest_part_and_wrote_some_events_again_is_replayed() {
    let mut queue = Queue::new(batches_of(10));
    let removed = |sequence| Operation::Removed {
        sequence,
        reason: Reason::Done,
    };
    queue.apply(removed(40));
    queue.apply(Operation::Retried {
        sequence: 41,
        attempts: 3,
        due_lived_ms: 9,
    });
    queue.apply(Operation::Enqueued(entry(43, None)));
    // Written again, with what had become of it.
    let again = Entry {
        attempts: 3,
        place: 7,
        ..entry(41, None)
    };
    assert_eq!(queue.apply(Operation::Enqueued(again)), None);
    let moved = Entry {
        place: 8,
        attempts: 0,
        ..again
    };
    assert_eq!(queue.apply(Operation::Enqueued(moved)), Some(again));
    assert_eq!(queue.next_sequence(), 44);
    assert_eq!(queue.bytes(), 20);
    let batch = queue.take(at(0), WIDE).unwrap();
    let events: Vec<_> = batch.events.iter().collect();
    assert_eq!((events[0].place, events[0].attempt), (8, 4));
    assert_eq!(sequences(Some(batch)), [41, 43]);
    queue.recovered(100);
    assert_eq!(queue.next_sequence(), 100);
}

#[test]
fn what_leaves_while_it_is_out_makes_its_answer_stale() {
    let mut queue = queue(batches_of(2), &[Some(1), Some(1), Some(1)]);
    let batch = queue.take(at(0), WIDE).unwrap();
    let reason = Reason::Purged;
    for event in &batch.events {
        let sequence = event.lease.sequence;
        assert_eq!(queue.remove(&mut Plan::default(), sequence, reason), None);
        queue.apply(Operation::Removed { sequence, reason });
        let answer = queue.settle(&mut Plan::default(), event.lease, Outcome::Done, at(0), 0);
        assert_eq!(answer, Err(Stale));
    }
    assert_eq!(sequences(queue.take(at(0), WIDE)), [2]);
}
