//! Many events and many publishers at once, on the real disk: nothing is lost, and what it takes is printed, not asserted.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says with a panic that something is wrong"
)]

use std::path::Path;
use std::time::Instant;

use tombolo_core::event::Event;
use tombolo_core::{Publication, Publish as _, QueueId};
use tombolo_store::queue::{BatchSettings, QueueSettings, TakeBounds};
use tombolo_store::{Journal, Outcome, Store, Taken};

fn queue() -> QueueId {
    QueueId {
        app: "app".parse().unwrap(),
        queue: "readings".parse().unwrap(),
    }
}

async fn open(folder: &Path) -> (Store, Journal) {
    let store = Store::open(folder).unwrap();
    let journal = store.journal();
    let settings = QueueSettings {
        batch: BatchSettings {
            events: 1000,
            ..QueueSettings::default().batch
        },
        ..QueueSettings::default()
    };
    journal.configure(queue(), settings).await.unwrap();
    (store, journal)
}

fn publication(id: u64) -> Publication {
    let event = Event::new(id.to_string(), "/machines/7", "reading");
    Publication::new(
        queue(),
        event.with_data("application/json", vec![b'7'; 100]),
    )
}

async fn fill(journal: &Journal, ids: std::ops::Range<u64>) {
    let mut tasks = tokio::task::JoinSet::new();
    let ids: Vec<u64> = ids.collect();
    for chunk in ids.chunks(500) {
        let events = chunk.iter().map(|id| publication(*id)).collect();
        let journal = journal.clone();
        tasks.spawn(async move { journal.publish(events).await.unwrap() });
        if tasks.len() == 8 {
            tasks.join_next().await.unwrap().unwrap();
        }
    }
    tasks.join_all().await;
}

async fn restarts_with(events: u64) {
    let folder = tempfile::tempdir().unwrap();
    let (store, journal) = open(folder.path()).await;
    let start = Instant::now();
    fill(&journal, 0..events).await;
    println!("{events} events published in {:.2?}", start.elapsed());
    let start = Instant::now();
    drop((store, journal));
    println!("closed in {:.2?}", start.elapsed());
    let start = Instant::now();
    let (store, journal) = open(folder.path()).await;
    println!("opened with {events} events in {:.2?}", start.elapsed());
    assert_eq!(journal.figures(&queue()).unwrap().figures.depth, events);
    let bounds = TakeBounds {
        events: 1000,
        bytes: 1 << 24,
    };
    let (start, mut taken) = (Instant::now(), 0);
    while let Taken::Batch(batch) = journal.take(&queue(), bounds).await.unwrap() {
        for delivery in &batch.deliveries {
            assert_eq!(delivery.event.id, taken.to_string());
            taken += 1;
        }
        let leases = batch.deliveries.into_iter();
        let done = leases.map(|one| (one.lease, Outcome::Done)).collect();
        journal.settle(done).await.unwrap();
    }
    println!("taken and settled in {:.2?}", start.elapsed());
    assert_eq!(taken, events);
    let again = journal
        .publish(vec![publication(events / 2)])
        .await
        .unwrap();
    assert_eq!(again, [tombolo_core::Published::Duplicate]);
    store.close().await;
}

#[tokio::test]
async fn a_hundred_thousand_events_wait_for_a_restart() {
    restarts_with(100_000).await;
}

#[tokio::test]
#[ignore = "a minute; prints how long a restart takes"]
async fn a_million_events_wait_for_a_restart() {
    restarts_with(1_000_000).await;
}

#[tokio::test]
#[ignore = "prints rates"]
async fn rates_of_publishers() {
    for publishers in [1, 8, 64, 256, 1000] {
        let folder = tempfile::tempdir().unwrap();
        let (store, journal) = open(folder.path()).await;
        let (start, mut tasks) = (Instant::now(), tokio::task::JoinSet::new());
        for publisher in 0..publishers {
            let journal = journal.clone();
            tasks.spawn(async move {
                let mut published = 0;
                while start.elapsed().as_millis() < 1500 {
                    let id = publisher * 10_000_000 + published;
                    journal.publish(vec![publication(id)]).await.unwrap();
                    published += 1;
                }
                published
            });
        }
        let published: u64 = tasks.join_all().await.into_iter().sum();
        let rate = published as f64 / start.elapsed().as_secs_f64();
        println!("{publishers} publishers: {rate:.0} events/s");
        store.close().await;
    }
}
