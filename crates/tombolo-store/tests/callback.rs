//! Whoever asked to be called back is told of a dead letter, however it became one.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says with a panic that something is wrong"
)]

#[allow(dead_code, reason = "other tests use the rest")]
mod simulation;

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use simulation::{Hands, open_with, queue};
use tombolo_core::event::Event;
use tombolo_core::{Publication, Publish as _};
use tombolo_store::disk::simulated::SimulatedDisk;
use tombolo_store::queue::{Callback, QueueSettings, RetrySettings, TakeBounds};
use tombolo_store::{Cause, Delivery, INVOCATION_FAILED, Journal, Outcome, Settled, Store, Taken};

const URL: &str = "https://done.example/7";

/// A queue whose events are tried once, and one for what is told of them.
async fn journal(disk: &SimulatedDisk, clock: &Hands, told: QueueSettings) -> (Store, Journal) {
    let store = open_with(disk, clock.clone());
    let journal = store.journal();
    let settings = QueueSettings {
        retry: RetrySettings {
            attempts: 1,
            ..RetrySettings::default()
        },
        callback: Some(Callback {
            queue: queue("f.callback"),
            function: tombolo_core::FunctionId {
                app: "app".parse().unwrap(),
                function: "f".parse().unwrap(),
            },
        }),
        ..QueueSettings::default()
    };
    for (name, settings) in [("f.async", settings), ("f.callback", told)] {
        journal.configure(queue(name), settings).await.unwrap();
    }
    (store, journal)
}

async fn publish(journal: &Journal, id: &str, asks: bool) {
    let mut event = Event::new(id, "/till", "order");
    if asks {
        event.set("callback", URL.into()).unwrap();
    }
    let publication = Publication::new(queue("f.async"), event);
    journal.publish(vec![publication]).await.unwrap();
}

async fn take(journal: &Journal, name: &str) -> Vec<Delivery> {
    let bounds = TakeBounds {
        events: 10,
        bytes: 1 << 20,
    };
    match journal.take(&queue(name), bounds).await.unwrap() {
        Taken::Batch(batch) => batch.deliveries,
        Taken::Nothing { .. } => Vec::new(),
    }
}

fn depth(journal: &Journal, name: &str) -> u64 {
    journal.figures(&queue(name)).unwrap().figures.depth
}

#[tokio::test]
async fn a_last_attempt_that_never_answers_is_told_of_after_a_restart_too() {
    let (disk, clock) = (SimulatedDisk::new(), Hands::default());
    let (store, journal_) = journal(&disk, &clock, QueueSettings::default()).await;
    publish(&journal_, "mute", true).await;
    publish(&journal_, "silent", false).await;
    assert_eq!(take(&journal_, "f.async").await.len(), 1);
    assert_eq!(take(&journal_, "f.async").await.len(), 1);
    clock.0.store(61_000, Ordering::SeqCst);
    journal_.sweep().await.unwrap();
    assert_eq!(depth(&journal_, "f.async.dead"), 2);
    store.close().await;

    let (_store, journal) = journal(&disk, &clock, QueueSettings::default()).await;
    let told = take(&journal, "f.callback").await;
    assert_eq!(told.len(), 1);
    let event = &told[0].event;
    assert_eq!(event.kind, INVOCATION_FAILED);
    assert_eq!(event.source, "/app/f");
    assert_eq!(event.subject.as_deref(), Some("mute"));
    assert_eq!(event.attribute("callback").unwrap(), URL);
    event.check().unwrap();
    let data: Value = serde_json::from_slice(event.data.as_ref().unwrap()).unwrap();
    let expected = json!({
        "source": "/till", "id": "mute", "attempts": 1,
        "error": {"code": null, "detail": "the lease ended before an answer came"},
    });
    assert_eq!(data, expected);
}

#[tokio::test]
async fn a_refusal_is_told_of_once_and_a_full_queue_of_callbacks_is_in_nobodys_way() {
    let (disk, clock) = (SimulatedDisk::new(), Hands::default());
    let small = QueueSettings {
        events: 1,
        ..QueueSettings::default()
    };
    let (_store, journal) = journal(&disk, &clock, small).await;
    for (id, told) in [("first", 1), ("second", 1)] {
        publish(&journal, id, true).await;
        let delivery = take(&journal, "f.async").await.remove(0);
        let cause = Cause::new("the function answered 422");
        let settled = journal
            .settle(vec![(delivery.lease, Outcome::Dead { cause })])
            .await;
        assert_eq!(settled.unwrap(), [Settled::Buried]);
        assert_eq!(depth(&journal, "f.callback"), told);
    }
    assert_eq!(depth(&journal, "f.async.dead"), 2);
}
