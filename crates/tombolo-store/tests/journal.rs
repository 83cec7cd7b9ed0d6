//! What the journal promises publishers, consumers and operators, asked as they would.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says with a panic that something is wrong"
)]

#[allow(dead_code, reason = "other tests use the rest")]
mod simulation;

use std::sync::atomic::Ordering;

use bytes::Bytes;
use simulation::{Hands, open, open_with, publication, queue};
use tombolo_core::event::Event;
use tombolo_core::{
    Code, FunctionId, Origin, Publication, Publish as _, PublishError, Published, TraceContext,
};
use tombolo_store::disk::simulated::SimulatedDisk;
use tombolo_store::queue::{
    BatchSettings, Burial, Durability, QueueSettings, Reason, RetrySettings, TakeBounds, WhenFull,
};
use tombolo_store::{
    Answer, CHANGED, Cause, Changes, Delivery, EVENT_BYTES_MAX, EventFilter, Expectation, Journal,
    Outcome, Selection, Settled, Store, StoreError, Swapped, Taken, Transaction, Write,
};

const MANY: TakeBounds = TakeBounds {
    events: 1000,
    bytes: 1 << 24,
};

async fn journal(disk: &SimulatedDisk, settings: QueueSettings) -> (Store, Journal) {
    let store = open(disk);
    let journal = store.journal();
    journal
        .configure(queue("readings"), settings)
        .await
        .unwrap();
    (store, journal)
}

fn batches(events: u32) -> QueueSettings {
    QueueSettings {
        batch: BatchSettings {
            events,
            ..QueueSettings::default().batch
        },
        ..QueueSettings::default()
    }
}

async fn publish(journal: &Journal, ids: std::ops::Range<usize>) -> Vec<Published> {
    let events = ids.map(|id| publication("readings", id)).collect();
    journal.publish(events).await.unwrap()
}

async fn take(journal: &Journal, name: &str) -> Vec<Delivery> {
    match journal.take(&queue(name), MANY).await.unwrap() {
        Taken::Batch(batch) => batch.deliveries,
        Taken::Nothing { .. } => Vec::new(),
    }
}

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|one| one.event.id.as_str()).collect()
}

fn set(key: &str, value: &str) -> Write {
    Write::Set {
        key: key.into(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

#[tokio::test]
async fn an_event_is_delivered_with_what_it_was_published_with() {
    let disk = SimulatedDisk::new();
    let (_store, journal) = journal(&disk, QueueSettings::default()).await;
    let trace = TraceContext {
        trace_id: 5,
        span_id: 6,
        sampled: true,
    };
    let origin = Origin {
        trace: Some(trace),
        hops: 3,
    };
    let publication = publication("readings", 4).origin(origin);
    journal.publish(vec![publication.clone()]).await.unwrap();
    let delivery = take(&journal, "readings").await.remove(0);
    assert_eq!(delivery.event, publication.event);
    assert_eq!(delivery.origin, origin);
    assert_eq!((delivery.attempt, delivery.sequence), (1, 0));
    assert_eq!(delivery.published_wall_ms, 1_700_000_000_000);
    // It is nobody else's until it is settled.
    assert!(take(&journal, "readings").await.is_empty());
}

#[tokio::test]
async fn failures_are_retried_then_buried_with_their_history_and_redriven() {
    let (disk, clock) = (SimulatedDisk::new(), Hands::default());
    let store = open_with(&disk, clock.clone());
    let journal = store.journal();
    let settings = QueueSettings {
        retry: RetrySettings {
            attempts: 3,
            ..QueueSettings::default().retry
        },
        ..QueueSettings::default()
    };
    journal
        .configure(queue("readings"), settings)
        .await
        .unwrap();
    publish(&journal, 0..2).await;
    let mut seen = Vec::new();
    for attempt in 1..=3 {
        let delivery = take(&journal, "readings").await.remove(0);
        assert_eq!(
            (delivery.event.id.as_str(), delivery.attempt),
            ("0", attempt)
        );
        let cause = Cause {
            code: Some(Code::Trap),
            detail: format!("failure {attempt}"),
            trace: None,
        };
        let outcome = Outcome::Retry {
            cause,
            after_ms: Some(60_000),
        };
        seen.extend(
            journal
                .settle(vec![(delivery.lease, outcome)])
                .await
                .unwrap(),
        );
        // The other one goes on meanwhile; it fails for good.
        if attempt == 1 {
            let delivery = take(&journal, "readings").await.remove(0);
            let outcome = Outcome::Dead {
                cause: Cause::new("refused"),
            };
            journal
                .settle(vec![(delivery.lease, outcome)])
                .await
                .unwrap();
        }
        assert!(take(&journal, "readings").await.is_empty(), "it backs off");
        clock.0.fetch_add(60_000, Ordering::SeqCst);
    }
    assert!(matches!(
        seen[..],
        [
            Settled::Retried {
                attempts: 1,
                wait_ms: 60_000..
            },
            Settled::Retried { attempts: 2, .. },
            Settled::Buried
        ]
    ));
    let dead = queue("readings.dead");
    let letter = journal.peek(&dead, 1).unwrap().unwrap();
    let told = letter.dead.unwrap();
    assert_eq!((told.burial, told.attempts), (Burial::Attempts, 3));
    assert_eq!(told.origin, queue("readings"));
    let details: Vec<_> = told
        .history
        .iter()
        .map(|one| one.cause.detail.as_str())
        .collect();
    assert_eq!(details, ["failure 1", "failure 2", "failure 3"]);
    assert_eq!(told.history[2].cause.code, Some(Code::Trap));

    let subject = EventFilter {
        source: Some("/te*".into()),
        subject: letter.event.subject,
        ..EventFilter::default()
    };
    let nobody = EventFilter {
        kind: Some("other".into()),
        ..EventFilter::default()
    };
    let redrive = |selection, dry| {
        let (journal, dead) = (journal.clone(), dead.clone());
        async move { journal.redrive(&dead, &selection, dry).await.unwrap() }
    };
    assert_eq!(redrive(Selection::Matching(nobody), false).await, 0);
    assert_eq!(redrive(Selection::All, true).await, 2);
    assert_eq!(redrive(Selection::Matching(subject), true).await, 1);
    assert_eq!(redrive(Selection::One(1), false).await, 1);
    assert_eq!(redrive(Selection::All, false).await, 1);
    assert_eq!(journal.figures(&dead).unwrap().figures.depth, 0);
    let again = take(&journal, "readings").await;
    assert_eq!((ids(&again), again[0].attempt), (vec!["0"], 1));
    assert!(again[0].dead.is_none());
}

#[tokio::test]
async fn a_lease_that_ends_counts_as_an_attempt_and_is_stale_then() {
    let (disk, clock) = (SimulatedDisk::new(), Hands::default());
    let store = open_with(&disk, clock.clone());
    let journal = store.journal();
    let settings = QueueSettings::default();
    journal
        .configure(queue("readings"), settings)
        .await
        .unwrap();
    publish(&journal, 0..1).await;
    let delivery = take(&journal, "readings").await.remove(0);
    clock.0.store(61_000, Ordering::SeqCst);
    take(&journal, "readings").await;
    let peeked = journal.peek(&queue("readings"), 0).unwrap().unwrap();
    assert!(peeked.history[0].cause.detail.contains("lease"));
    let late = journal
        .settle(vec![(delivery.lease.clone(), Outcome::Done)])
        .await;
    assert_eq!(late.unwrap(), [Settled::Stale]);
    let transaction = Transaction {
        writes: vec![(simulation::keys(&store), set("a", "1"))],
        settlements: vec![(delivery.lease, Outcome::Done)],
        ..Transaction::default()
    };
    let refused = journal.commit(transaction).await.unwrap_err();
    assert!(matches!(refused, StoreError::Stale));
    assert!(!simulation::keys(&store).exists("a").unwrap());
}

#[tokio::test]
async fn a_transaction_happens_as_a_whole_or_not_at_all() {
    let disk = SimulatedDisk::new();
    let (store, journal) = journal(&disk, QueueSettings::default()).await;
    let small = QueueSettings {
        events: 1,
        ..QueueSettings::default()
    };
    journal.configure(queue("plans"), small).await.unwrap();
    publish(&journal, 0..1).await;
    let things = simulation::keys(&store);
    things.write(vec![set("read", "1")]).await.unwrap();
    let delivery = take(&journal, "readings").await.remove(0);
    let function = FunctionId {
        app: "app".parse().unwrap(),
        function: "f".parse().unwrap(),
    };
    let transaction = |plans: usize, expected: &str| Transaction {
        expects: vec![Expectation {
            store: things.clone(),
            key: "read".into(),
            value: Some(Bytes::copy_from_slice(expected.as_bytes())),
        }],
        writes: vec![(things.clone(), set("wrote", "x"))],
        publications: (0..plans).map(|id| publication("plans", 50 + id)).collect(),
        settlements: vec![(delivery.lease.clone(), Outcome::Done)],
        answers: vec![Answer {
            function: function.clone(),
            key: "once".into(),
            answer: Bytes::from_static(b"done"),
        }],
        ..Transaction::default()
    };
    let full = journal.commit(transaction(2, "1")).await.unwrap_err();
    assert!(matches!(&full, StoreError::Unfit { .. }), "{full:?}");
    let conflict = journal.commit(transaction(1, "0")).await.unwrap_err();
    assert!(matches!(&conflict, StoreError::Conflict { key } if key == "read"));
    assert!(!things.exists("wrote").unwrap());
    assert_eq!(journal.figures(&queue("plans")).unwrap().figures.depth, 0);
    assert_eq!(journal.answer(&function, "once").unwrap(), None);

    let committed = journal.commit(transaction(1, "1")).await.unwrap();
    assert_eq!(committed.settled, [Settled::Done]);
    assert!(things.exists("wrote").unwrap());
    assert_eq!(
        journal.figures(&queue("readings")).unwrap().figures.depth,
        0
    );
    assert_eq!(journal.figures(&queue("plans")).unwrap().figures.depth, 1);
    assert_eq!(journal.answer(&function, "once").unwrap().unwrap(), "done");
    assert_eq!(journal.answer(&function, "other").unwrap(), None);
    store.close().await;
    let store = open(&disk);
    assert_eq!(
        store.journal().answer(&function, "once").unwrap().unwrap(),
        "done"
    );
}

#[tokio::test]
async fn an_event_that_nobody_had_a_place_for_waits_and_has_no_attempt_more() {
    let (disk, clock) = (SimulatedDisk::new(), Hands::default());
    let store = open_with(&disk, clock.clone());
    let journal = store.journal();
    let settings = QueueSettings::default();
    journal
        .configure(queue("readings"), settings)
        .await
        .unwrap();
    publish(&journal, 0..1).await;
    for round in 0..20 {
        let delivery = take(&journal, "readings").await.remove(0);
        assert_eq!(delivery.attempt, 1, "{round}");
        let later = Outcome::Later {
            cause: tombolo_store::Cause::new("it is busy"),
            after_ms: Some(500),
        };
        let settled = journal.settle(vec![(delivery.lease, later)]).await.unwrap();
        let Settled::Retried { attempts, wait_ms } = settled[0] else {
            panic!("{settled:?}")
        };
        assert_eq!(attempts, 0);
        assert!((500..=1000).contains(&wait_ms), "{wait_ms}");
        assert!(take(&journal, "readings").await.is_empty());
        clock.0.fetch_add(wait_ms, Ordering::SeqCst);
    }
    let peeked = journal.peek(&queue("readings"), 0).unwrap().unwrap();
    assert!(peeked.history.is_empty());
    store.close().await;
    let journal = open(&disk).journal();
    let peeked = journal.peek(&queue("readings"), 0).unwrap().unwrap();
    assert_eq!((peeked.attempts, peeked.history.len()), (0, 0));
}

#[tokio::test]
async fn answers_are_forgotten_after_a_day_of_the_stores_life() {
    let (disk, clock) = (SimulatedDisk::new(), Hands::default());
    let store = open_with(&disk, clock.clone());
    let journal = store.journal();
    let function = FunctionId {
        app: "app".parse().unwrap(),
        function: "f".parse().unwrap(),
    };
    let answer = |key: &str| Transaction {
        answers: vec![Answer {
            function: function.clone(),
            key: key.into(),
            answer: Bytes::from_static(b"yes"),
        }],
        ..Transaction::default()
    };
    journal.commit(answer("a")).await.unwrap();
    clock.0.store(24 * 60 * 60 * 1000 - 1, Ordering::SeqCst);
    assert!(journal.answer(&function, "a").unwrap().is_some());
    clock.0.fetch_add(1, Ordering::SeqCst);
    assert!(journal.answer(&function, "a").unwrap().is_none());
    journal.commit(answer("a")).await.unwrap();
    assert!(journal.answer(&function, "a").unwrap().is_some());
}

#[tokio::test]
async fn a_full_queue_refuses_or_drops_the_oldest_and_lists_it() {
    let disk = SimulatedDisk::new();
    let settings = |full| QueueSettings {
        events: 3,
        full,
        ..QueueSettings::default()
    };
    let (_store, journal) = journal(&disk, settings(WhenFull::Refuse)).await;
    publish(&journal, 0..3).await;
    let refused = journal.publish(vec![publication("readings", 3)]).await;
    assert!(
        matches!(refused, Err(PublishError::Full { .. })),
        "{refused:?}"
    );
    let drop_oldest = settings(WhenFull::DropOldest);
    journal
        .configure(queue("readings"), drop_oldest)
        .await
        .unwrap();
    // It was refused, so it is no duplicate.
    assert!(matches!(
        publish(&journal, 3..4).await[..],
        [Published::Accepted(_)]
    ));
    publish(&journal, 4..5).await;
    let drops = journal.drops(&queue("readings")).unwrap();
    let dropped: Vec<_> = drops
        .iter()
        .map(|one| (one.id.as_str(), one.reason))
        .collect();
    assert_eq!(dropped, [("0", Reason::Dropped), ("1", Reason::Dropped)]);
    let figures = journal.figures(&queue("readings")).unwrap();
    assert_eq!(figures.figures.counters.dropped, 2);
    assert_eq!(figures.figures.depth, 3);
    // Listed over a restart, too.
    drop((journal, _store));
    let drops = open(&disk).journal().drops(&queue("readings")).unwrap();
    assert_eq!(drops.len(), 2);
}

#[tokio::test]
async fn events_in_memory_count_what_is_kept_beside_them() {
    let disk = SimulatedDisk::new();
    let memory = QueueSettings {
        durability: Durability::Memory,
        bytes: 10 << 10,
        ..QueueSettings::default()
    };
    let (_store, journal) = journal(&disk, memory).await;
    let mut accepted = 0;
    loop {
        let event = Event::new(accepted.to_string(), "/m", "t");
        let event = Publication::new(queue("readings"), event);
        match journal.publish(vec![event]).await {
            Ok(_) => accepted += 1,
            Err(error) => {
                assert!(matches!(error, PublishError::Full { .. }), "{error:?}");
                break;
            }
        }
    }
    assert!((40..80).contains(&accepted), "{accepted}");
}

#[tokio::test]
async fn changes_of_keys_become_events_in_commit_order() {
    let disk = SimulatedDisk::new();
    let (store, journal) = journal(&disk, QueueSettings::default()).await;
    let name = "audit.change";
    let small = QueueSettings {
        events: 5,
        ..batches(10)
    };
    journal.configure(queue(name), small).await.unwrap();
    let changes = Changes {
        app: "app".parse().unwrap(),
        store: "things".parse().unwrap(),
        prefix: "a".into(),
        queue: queue(name),
    };
    journal.configure_changes(vec![changes]).await.unwrap();
    let things = simulation::keys(&store);
    let delete = |key: &str| Write::Delete { key: key.into() };
    things
        .write(vec![
            set("a1", "x"),
            set("b", "y"),
            set("a1", "z"),
            delete("a9"),
            delete("a1"),
        ])
        .await
        .unwrap();
    things.increment("a2", 5).await.unwrap();
    let swapped = things
        .swap("a2", Some("5".into()), "6".into())
        .await
        .unwrap();
    assert_eq!(swapped, Swapped::Done);
    // The queue is full now; what cannot be told is not done.
    let refused = things.write(vec![set("a3", "x")]).await.unwrap_err();
    assert!(
        matches!(refused, StoreError::QueueFull { .. }),
        "{refused:?}"
    );
    assert!(!things.exists("a3").unwrap());
    things.write(vec![set("b2", "x")]).await.unwrap();

    let events = take(&journal, name).await;
    let told: Vec<serde_json::Value> = events
        .iter()
        .map(|one| serde_json::from_slice(one.event.data.as_ref().unwrap()).unwrap())
        .collect();
    let expected = [
        serde_json::json!({"key": "a1", "operation": "put", "old": null, "new": "eA=="}),
        serde_json::json!({"key": "a1", "operation": "put", "old": "eA==", "new": "eg=="}),
        serde_json::json!({"key": "a1", "operation": "delete", "old": "eg==", "new": null}),
        serde_json::json!({"key": "a2", "operation": "put", "old": null, "new": "NQ=="}),
        serde_json::json!({"key": "a2", "operation": "put", "old": "NQ==", "new": "Ng=="}),
    ];
    assert_eq!(told, expected);
    let event = &events[0].event;
    event.check().unwrap();
    assert_eq!(event.kind, CHANGED);
    assert_eq!(event.source, "/app/keyvalue/things");
    assert_eq!(event.subject.as_deref(), Some("a1"));
    assert_eq!(event.time.as_deref(), Some("2023-11-14T22:13:20.000Z"));
    let unique: std::collections::BTreeSet<_> = ids(&events).into_iter().collect();
    assert_eq!(unique.len(), 5);
}

#[tokio::test]
async fn who_waits_is_woken_and_told_when_to_look_again() {
    let (disk, clock) = (SimulatedDisk::new(), Hands::default());
    let store = open_with(&disk, clock.clone());
    let journal = store.journal();
    journal
        .configure(queue("readings"), QueueSettings::default())
        .await
        .unwrap();
    let mut ready = journal.ready(&queue("readings")).unwrap();
    ready.borrow_and_update();
    let nothing = journal.take(&queue("readings"), MANY).await.unwrap();
    assert!(matches!(nothing, Taken::Nothing { after: None }));
    let waiting = tokio::spawn(async move { ready.changed().await });
    let later = Publication {
        due_wall_ms: Some(1_700_000_005_000),
        ..publication("readings", 1)
    };
    journal.publish(vec![later]).await.unwrap();
    waiting.await.unwrap().unwrap();
    match journal.take(&queue("readings"), MANY).await.unwrap() {
        Taken::Nothing { after: Some(after) } => assert_eq!(after.as_millis(), 5000),
        other => unreachable!("{other:?}"),
    }
    clock.0.store(5000, Ordering::SeqCst);
    assert_eq!(take(&journal, "readings").await.len(), 1);
}

#[tokio::test]
async fn bounds_and_unknown_queues_are_told() {
    let disk = SimulatedDisk::new();
    let (_store, journal) = journal(&disk, QueueSettings::default()).await;
    let unknown = journal.publish(vec![publication("plans", 1)]).await;
    assert_eq!(unknown, Err(PublishError::Unknown(queue("plans"))));
    assert!(matches!(
        journal.take(&queue("plans"), MANY).await,
        Err(StoreError::UnknownQueue(_))
    ));
    let mut long = publication("readings", 1);
    long.event.data = Some(Bytes::from(vec![0; EVENT_BYTES_MAX]));
    let refused = journal.publish(vec![long]).await;
    assert!(
        matches!(refused, Err(PublishError::TooLong { .. })),
        "{refused:?}"
    );
    journal.retire(&queue("readings")).await.unwrap();
    let retired = journal.publish(vec![publication("readings", 1)]).await;
    assert!(matches!(retired, Err(PublishError::Unknown(_))));
}

#[tokio::test]
async fn purging_removes_what_is_selected_and_nothing_that_is_worked_on() {
    let disk = SimulatedDisk::new();
    let (_store, journal) = journal(&disk, QueueSettings::default()).await;
    publish(&journal, 0..250).await;
    let out = take(&journal, "readings").await;
    let readings = queue("readings");
    assert_eq!(
        journal
            .purge(&readings, &Selection::All, true)
            .await
            .unwrap(),
        249
    );
    assert_eq!(
        journal
            .purge(&readings, &Selection::One(9), false)
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        journal
            .purge(&readings, &Selection::All, false)
            .await
            .unwrap(),
        248
    );
    let left = journal.list(&readings, 0, 10).unwrap();
    assert_eq!(left.len(), 1);
    let lease = out[0].lease.clone();
    let settled = journal.settle(vec![(lease, Outcome::Done)]).await.unwrap();
    assert_eq!(settled, [Settled::Done]);
}

#[tokio::test]
async fn the_log_does_not_grow_with_what_was_done() {
    let disk = SimulatedDisk::new();
    let (_store, journal) = journal(&disk, batches(100)).await;
    // One that stays lives in the oldest segment and has to be moved again and again.
    publish(&journal, 0..1).await;
    let kept = take(&journal, "readings").await.remove(0);
    for round in 0..40 {
        publish(&journal, 100 + round * 20..120 + round * 20).await;
        let leases = take(&journal, "readings").await.into_iter();
        let done = leases.map(|one| (one.lease, Outcome::Done)).collect();
        journal.settle(done).await.unwrap();
    }
    let logs = disk
        .files()
        .into_iter()
        .filter(|file| file.extension().is_some_and(|e| e == "log"));
    assert!(logs.count() <= 6);
    let settled = journal
        .settle(vec![(kept.lease, Outcome::Done)])
        .await
        .unwrap();
    assert_eq!(settled, [Settled::Done]);
}

#[tokio::test]
async fn content_that_is_damaged_while_the_store_runs_is_lost_and_told_and_goes() {
    let disk = SimulatedDisk::new();
    let (_store, journal) = journal(&disk, batches(100)).await;
    publish(&journal, 0..10).await;
    for file in disk
        .files()
        .iter()
        .filter(|file| file.extension().is_some_and(|e| e == "log"))
    {
        disk.damage(file, |content| {
            let at = content.windows(4).position(|four| four == b"5555").unwrap();
            content[at] ^= 1;
        });
    }
    let deliveries = take(&journal, "readings").await;
    assert_eq!(deliveries.len(), 9);
    let readings = queue("readings");
    let figures = journal.figures(&readings).unwrap();
    assert_eq!((figures.lost, figures.figures.depth), (1, 9));
    assert_eq!(journal.drops(&readings).unwrap()[0].sequence, 5);

    // What nobody takes is given up when it stands in the way of shortening the log.
    journal
        .configure(queue("plans"), QueueSettings::default())
        .await
        .unwrap();
    let plans: Vec<_> = (40..50).map(|id| publication("plans", id)).collect();
    journal.publish(plans).await.unwrap();
    for file in disk
        .files()
        .iter()
        .filter(|file| file.extension().is_some_and(|e| e == "log"))
    {
        disk.damage(file, |content| {
            if let Some(at) = content.windows(8).position(|eight| eight == b"45454545") {
                content[at] ^= 1;
            }
        });
    }
    let leases = deliveries.into_iter().map(|one| (one.lease, Outcome::Done));
    journal.settle(leases.collect()).await.unwrap();
    for round in 0..60 {
        publish(&journal, 100 + round * 20..120 + round * 20).await;
        let leases = take(&journal, "readings").await.into_iter();
        let done = leases.map(|one| (one.lease, Outcome::Done)).collect();
        journal.settle(done).await.unwrap();
    }
    let logs = disk
        .files()
        .into_iter()
        .filter(|file| file.extension().is_some_and(|e| e == "log"));
    assert!(logs.count() <= 6);
    let figures = journal.figures(&queue("plans")).unwrap();
    assert_eq!((figures.lost, figures.figures.depth), (1, 9));
}

#[tokio::test]
async fn a_sector_that_cannot_be_read_holds_up_nobody() {
    let (disk, clock) = (SimulatedDisk::new(), Hands::default());
    let store = open_with(&disk, clock.clone());
    let journal = store.journal();
    journal
        .configure(queue("readings"), batches(100))
        .await
        .unwrap();
    publish(&journal, 0..10).await;
    for file in disk
        .files()
        .iter()
        .filter(|file| file.extension().is_some_and(|e| e == "log"))
    {
        let mut at = 0;
        disk.damage(file, |content| {
            at = content.windows(4).position(|four| four == b"5555").unwrap();
        });
        disk.break_sector(file, at as u64);
    }
    let deliveries = take(&journal, "readings").await;
    assert_eq!(deliveries.len(), 9);
    let readings = queue("readings");
    for _ in 0..10 {
        clock.0.fetch_add(1_000_000, Ordering::SeqCst);
        take(&journal, "readings").await;
    }
    let figures = journal.figures(&readings).unwrap();
    assert_eq!(figures.lost, 1);
    assert_eq!(journal.drops(&readings).unwrap()[0].sequence, 5);
}

#[tokio::test]
async fn what_follows_an_event_that_cannot_be_read_waits_for_it() {
    let (disk, clock) = (SimulatedDisk::new(), Hands::default());
    let store = open_with(&disk, clock.clone());
    let journal = store.journal();
    let ordered = QueueSettings {
        order_by: Some("subject".into()),
        ..batches(100)
    };
    journal.configure(queue("readings"), ordered).await.unwrap();
    // "2", "5" and "8" have one key.
    publish(&journal, 0..10).await;
    for file in disk
        .files()
        .iter()
        .filter(|file| file.extension().is_some_and(|e| e == "log"))
    {
        let mut at = 0;
        disk.damage(file, |content| {
            at = content.windows(4).position(|four| four == b"5555").unwrap();
        });
        disk.break_sector(file, at as u64);
    }
    let deliveries = take(&journal, "readings").await;
    assert!(ids(&deliveries).contains(&"2"));
    assert!(!ids(&deliveries).contains(&"8"));
    let leases = deliveries.into_iter().map(|one| (one.lease, Outcome::Done));
    journal.settle(leases.collect()).await.unwrap();
    let mut later = Vec::new();
    for _ in 0..10 {
        clock.0.fetch_add(1_000_000, Ordering::SeqCst);
        for delivery in take(&journal, "readings").await {
            later.push((delivery.event.id.clone(), delivery.attempt));
            let done = vec![(delivery.lease, Outcome::Done)];
            journal.settle(done).await.unwrap();
        }
    }
    assert_eq!(later, [("8".to_owned(), 1)]);
}
