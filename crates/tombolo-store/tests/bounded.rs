//! The log stays in proportion to what lives in it, whatever pins its segments, also on a disk that is nearly full.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says with a panic that something is wrong"
)]

#[allow(dead_code, reason = "other tests use the rest")]
mod simulation;

use simulation::{LIMITS, keys, open, queue};
use tombolo_core::event::Event;
use tombolo_core::{Publication, Publish as _};
use tombolo_store::disk::Disk as _;
use tombolo_store::disk::simulated::SimulatedDisk;
use tombolo_store::queue::{QueueSettings, TakeBounds};
use tombolo_store::{Journal, Lease, Outcome, Store, Taken};

const OLD: usize = 60;
const GROUP: usize = 12;
const EVENT_BYTES: usize = 1500;

fn events(name: &str, ids: std::ops::Range<usize>) -> Vec<Publication> {
    let event = |id: usize| {
        let data = id.to_string().repeat(EVENT_BYTES)[..EVENT_BYTES].to_owned();
        let event = Event::new(id.to_string(), "/test", "test").with_data("text/plain", data);
        Publication::new(queue(name), event)
    };
    ids.map(event).collect()
}

async fn take_all(journal: &Journal, name: &str) -> Vec<Lease> {
    let bounds = TakeBounds {
        events: 100,
        bytes: 1 << 20,
    };
    let mut leases = Vec::new();
    while let Taken::Batch(batch) = journal.take(&queue(name), bounds).await.unwrap() {
        leases.extend(batch.deliveries.into_iter().map(|one| one.lease));
    }
    leases
}

fn log_bytes(disk: &SimulatedDisk) -> u64 {
    let files = disk.files().into_iter();
    let files = files.filter(|path| path.starts_with("/store/log"));
    // The writer may have dropped a segment since it was listed.
    files
        .filter_map(|path| disk.open(&path).ok())
        .map(|file| file.len().unwrap())
        .sum()
}

async fn with_old_events(disk: &SimulatedDisk) -> Store {
    let store = open(disk);
    let journal = store.journal();
    for name in ["readings", "plans"] {
        let settings = QueueSettings {
            concurrency: 1000,
            ..QueueSettings::default()
        };
        journal.configure(queue(name), settings).await.unwrap();
    }
    for id in 0..OLD {
        let event = events("plans", id..id + 1);
        journal.publish(event).await.unwrap();
    }
    store
}

/// Publishes groups, each larger than what one step moves, and settles them.
async fn churn(store: &Store, disk: &SimulatedDisk, rounds: usize) {
    let journal = store.journal();
    for round in 1..=rounds {
        let ids = round * GROUP..(round + 1) * GROUP;
        journal.publish(events("readings", ids)).await.unwrap();
        let leases = take_all(&journal, "readings").await;
        let done = leases.into_iter().map(|lease| (lease, Outcome::Done));
        journal.settle(done.collect()).await.unwrap();
        keys(store).increment("count", 1).await.unwrap();
        let live = journal.figures(&queue("plans")).unwrap().figures.bytes;
        let bound = live * 5 / 2 + LIMITS.slack_bytes + 3 * (GROUP * EVENT_BYTES) as u64;
        let found = log_bytes(disk);
        assert!(found <= bound, "round {round}: {found}, bound {bound}");
    }
}

/// What was old is there, in order, after a restart too.
async fn check(store: Store, disk: &SimulatedDisk) {
    store.close().await;
    let store = open(disk);
    let journal = store.journal();
    let listed = journal.list(&queue("plans"), 0, 1000).unwrap();
    assert_eq!(listed.len(), OLD);
    for (id, listed) in listed.iter().enumerate() {
        let peeked = journal.peek(&queue("plans"), listed.sequence).unwrap();
        assert_eq!(peeked.unwrap().event.id, id.to_string());
    }
}

#[tokio::test]
async fn old_events_do_not_let_the_log_grow_with_what_is_published_and_settled() {
    let disk = SimulatedDisk::new();
    let store = with_old_events(&disk).await;
    churn(&store, &disk, 200).await;
    check(store, &disk).await;
}

#[tokio::test]
async fn on_a_nearly_full_disk_what_is_dead_makes_room() {
    let disk = SimulatedDisk::new();
    let store = with_old_events(&disk).await;
    // Beyond the 16 MiB that are kept, and the 8 MiB that the engine's first pages may take.
    disk.set_free_bytes((24 << 20) + (200 << 10));
    churn(&store, &disk, 200).await;
    check(store, &disk).await;
}

#[tokio::test]
async fn a_log_that_filled_the_disk_shrinks_again_once_it_may() {
    let disk = SimulatedDisk::new();
    let store = with_old_events(&disk).await;
    let journal = store.journal();
    let all = 1_000..1_300;
    journal.publish(events("readings", all)).await.unwrap();
    // Nothing may be published any more, and most of what is there is about to be dead.
    disk.set_free_bytes(12 << 20);
    let refused = journal.publish(events("readings", 5_000..5_001)).await;
    assert_eq!(refused, Err(tombolo_core::PublishError::DiskFull));
    let full = log_bytes(&disk);
    for lease in take_all(&journal, "readings").await {
        journal.settle(vec![(lease, Outcome::Done)]).await.unwrap();
    }
    let left = log_bytes(&disk);
    assert!(left < full / 2, "{left} of {full}");
    check(store, &disk).await;
}
