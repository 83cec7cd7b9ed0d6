//! What is kept, for how long, and what is told of what is not.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says with a panic that something is wrong"
)]

#[allow(dead_code, reason = "other tests use the rest")]
mod simulation;

use std::sync::atomic::Ordering;

use simulation::{Hands, keys, open, open_with, publication, queue};
use tombolo_core::{Publish as _, PublishError, Published};
use tombolo_store::disk::simulated::SimulatedDisk;
use tombolo_store::queue::{Durability, QueueSettings, TakeBounds, WhenFull};
use tombolo_store::{Cause, Changes, Delivery, Journal, Outcome, Taken, Write};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

async fn take(journal: &Journal, name: &str) -> Delivery {
    let bounds = TakeBounds {
        events: 1,
        bytes: 1 << 20,
    };
    let taken = journal.take(&queue(name), bounds).await.unwrap();
    let Taken::Batch(mut batch) = taken else {
        unreachable!("there is an event in {name}");
    };
    batch.deliveries.remove(0)
}

fn depth(journal: &Journal, name: &str) -> u64 {
    journal.figures(&queue(name)).unwrap().figures.depth
}

#[tokio::test]
async fn dead_letters_are_kept_as_long_as_their_queue_keeps_events() {
    let (disk, clock) = (SimulatedDisk::new(), Hands::default());
    let settings = QueueSettings {
        age_ms: 365 * DAY_MS,
        ..QueueSettings::default()
    };
    let store = open_with(&disk, clock.clone());
    let journal = store.journal();
    let configured = journal.configure(queue("readings"), settings.clone());
    configured.await.unwrap();
    let event = vec![publication("readings", 1)];
    journal.publish(event).await.unwrap();
    let lease = take(&journal, "readings").await.lease;
    let cause = Cause::new("it will never work");
    let dead = vec![(lease, Outcome::Dead { cause })];
    journal.settle(dead).await.unwrap();
    clock.0.store(364 * DAY_MS, Ordering::SeqCst);
    journal.sweep().await.unwrap();
    assert_eq!(depth(&journal, "readings.dead"), 1);
    store.close().await;

    // How long a queue of nobody's is to keep its events is not known.
    let clock = Hands::default();
    let store = open_with(&disk, clock.clone());
    let journal = store.journal();
    clock.0.store(2 * DAY_MS, Ordering::SeqCst);
    journal.sweep().await.unwrap();
    assert_eq!(depth(&journal, "readings.dead"), 1);
    let configured = journal.configure(queue("readings"), settings);
    configured.await.unwrap();
    journal.sweep().await.unwrap();
    assert_eq!(depth(&journal, "readings.dead"), 0, "now it is known");
}

#[tokio::test]
async fn nobody_publishes_into_a_queue_of_dead_letters() {
    let store = open(&SimulatedDisk::new());
    let journal = store.journal();
    let settings = QueueSettings::default();
    let configured = journal.configure(queue("readings"), settings);
    configured.await.unwrap();
    let mut event = publication("readings", 1);
    event.queue = queue("readings.dead");
    let refused = journal.publish(vec![event]).await;
    assert!(
        matches!(&refused, Err(PublishError::Unfit { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_change_of_any_key_is_an_event_that_can_be_delivered() {
    let store = open(&SimulatedDisk::new());
    let journal = store.journal();
    let settings = QueueSettings::default();
    let configured = journal.configure(queue("plans"), settings);
    configured.await.unwrap();
    let changes = Changes {
        app: "app".parse().unwrap(),
        store: "things".parse().unwrap(),
        prefix: String::new(),
        queue: queue("plans"),
    };
    journal.configure_changes(vec![changes]).await.unwrap();
    for key in ["phase/\u{ffff}", "\u{fdd0}", "a\nb", "phase/1"] {
        let write = Write::Set {
            key: key.into(),
            value: "red".into(),
        };
        keys(&store).write(vec![write]).await.unwrap();
        let delivery = take(&journal, "plans").await;
        assert_eq!(delivery.event.check(), Ok(()), "{key:?}");
        let told = delivery.event.subject.as_deref();
        assert_eq!(told, Some(key).filter(|key| *key == "phase/1"));
    }
}

#[tokio::test]
async fn what_makes_room_at_once_is_listed_by_name_too() {
    for durability in [Durability::Fsync, Durability::Memory] {
        let store = open(&SimulatedDisk::new());
        let journal = store.journal();
        let settings = QueueSettings {
            durability,
            events: 3,
            full: WhenFull::DropOldest,
            ..QueueSettings::default()
        };
        let configured = journal.configure(queue("readings"), settings);
        configured.await.unwrap();
        // Many at once share a group.
        let mut tasks = Vec::new();
        for id in 0..100 {
            let journal = journal.clone();
            let event = vec![publication("readings", id)];
            tasks.push(tokio::spawn(async move {
                journal.publish(event).await.unwrap();
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let drops = journal.drops(&queue("readings")).unwrap();
        assert_eq!(drops.len(), 97);
        assert!(drops.iter().all(|one| !one.id.is_empty()), "{drops:?}");
    }
}

#[tokio::test]
async fn a_queue_that_moves_to_memory_remembers_what_it_accepted() {
    let store = open(&SimulatedDisk::new());
    let journal = store.journal();
    for durability in [Durability::Fsync, Durability::Memory] {
        let settings = QueueSettings {
            durability,
            ..QueueSettings::default()
        };
        let configured = journal.configure(queue("readings"), settings);
        configured.await.unwrap();
        let event = vec![publication("readings", 1)];
        let published = journal.publish(event).await.unwrap();
        let expected = match durability {
            Durability::Fsync => Published::Accepted(0),
            Durability::Memory => Published::Duplicate,
        };
        assert_eq!(published, [expected]);
    }
}
