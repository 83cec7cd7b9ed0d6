//! What queues remember of the events that they accepted: duplicates are known, for as long and for as many as is said.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says with a panic that something is wrong"
)]

#[allow(dead_code, reason = "other tests use the rest")]
mod simulation;

use std::sync::atomic::Ordering;

use simulation::{Hands, open, open_with, publication, queue};
use tombolo_core::event::Event;
use tombolo_core::{Publication, Publish as _, Published};
use tombolo_store::disk::simulated::SimulatedDisk;
use tombolo_store::queue::{
    BatchSettings, Durability, QueueSettings, Reason, TakeBounds, WhenFull,
};
use tombolo_store::{Cause, Delivery, Journal, Outcome, Store, Taken};

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

#[tokio::test]
async fn a_duplicate_is_accepted_once_even_after_it_was_done_and_over_a_restart() {
    let disk = SimulatedDisk::new();
    let (store, journal_) = journal(&disk, batches(10)).await;
    let first = publish(&journal_, 0..3).await;
    assert_eq!(first, [0, 1, 2].map(Published::Accepted));
    let events = [1, 7, 7].map(|id| publication("readings", id)).to_vec();
    let mixed = journal_.publish(events).await.unwrap();
    assert_eq!(
        mixed,
        [
            Published::Duplicate,
            Published::Accepted(3),
            Published::Duplicate
        ]
    );
    for delivery in take(&journal_, "readings").await {
        journal_
            .settle(vec![(delivery.lease, Outcome::Done)])
            .await
            .unwrap();
    }
    store.close().await;
    let (_store, journal) = journal(&disk, batches(10)).await;
    assert_eq!(publish(&journal, 0..3).await, [Published::Duplicate; 3]);
    assert!(take(&journal, "readings").await.is_empty());
}

#[tokio::test]
async fn ids_are_forgotten_when_the_retention_is_over() {
    let (disk, clock) = (SimulatedDisk::new(), Hands::default());
    let store = open_with(&disk, clock.clone());
    let journal = store.journal();
    let settings = QueueSettings {
        age_ms: 1000,
        ..QueueSettings::default()
    };
    journal
        .configure(queue("readings"), settings)
        .await
        .unwrap();
    publish(&journal, 0..1).await;
    clock.0.store(999, Ordering::SeqCst);
    assert_eq!(publish(&journal, 0..1).await, [Published::Duplicate]);
    clock.0.store(1000, Ordering::SeqCst);
    assert!(matches!(
        publish(&journal, 0..1).await[..],
        [Published::Accepted(_)]
    ));
    journal.sweep().await.unwrap();
    let drops = journal.drops(&queue("readings")).unwrap();
    assert_eq!(
        (drops[0].reason, drops[0].id.as_str()),
        (Reason::Expired, "0")
    );
}

#[tokio::test]
async fn a_queue_in_memory_forgets_events_and_ids_together() {
    let disk = SimulatedDisk::new();
    let memory = QueueSettings {
        durability: Durability::Memory,
        ..batches(10)
    };
    let (store, journal_) = journal(&disk, memory.clone()).await;
    let calls = disk.calls();
    publish(&journal_, 0..2).await;
    assert_eq!(publish(&journal_, 1..3).await[0], Published::Duplicate);
    let deliveries = take(&journal_, "readings").await;
    assert_eq!(ids(&deliveries), ["0", "1", "2"]);
    let retry = Outcome::Retry {
        cause: Cause::new("no"),
        after_ms: None,
    };
    let outcomes = [Outcome::Done, Outcome::Done, retry];
    let leases = deliveries.into_iter().map(|one| one.lease);
    journal_
        .settle(leases.zip(outcomes).collect())
        .await
        .unwrap();
    assert_eq!(disk.calls(), calls, "nothing reaches the disk");
    let peeked = journal_.peek(&queue("readings"), 2).unwrap().unwrap();
    assert_eq!(peeked.history.len(), 1);
    store.close().await;
    let (_store, journal) = journal(&disk, memory).await;
    assert!(take(&journal, "readings").await.is_empty());
    assert!(matches!(
        publish(&journal, 0..1).await[..],
        [Published::Accepted(_)]
    ));
}

#[tokio::test]
async fn ids_that_are_too_many_are_forgotten_early_and_counted() {
    let disk = SimulatedDisk::new();
    let memory = QueueSettings {
        durability: Durability::Memory,
        events: 500,
        full: WhenFull::DropOldest,
        ..QueueSettings::default()
    };
    let (_store, journal) = journal(&disk, memory).await;
    let event = |id: usize| {
        let event = Event::new(id.to_string(), "/many", "test");
        Publication::new(queue("readings"), event)
    };
    let all: Vec<usize> = (0..65_540).collect();
    for ids in all.chunks(500) {
        let events = ids.iter().map(|id| event(*id)).collect();
        journal.publish(events).await.unwrap();
    }
    let remembered = journal.figures(&queue("readings")).unwrap().remembered;
    assert_eq!((remembered.ids, remembered.forgotten_early), (65_536, 4));
    let again = journal.publish(vec![event(3), event(4)]).await.unwrap();
    assert!(matches!(
        again[..],
        [Published::Accepted(_), Published::Duplicate]
    ));
}
