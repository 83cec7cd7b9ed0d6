//! A disk that fails: what was answered `Ok` is there, a failure is told, and a disk that was only full goes on.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says with a panic that something is wrong"
)]

#[allow(dead_code, reason = "other tests use the rest")]
mod simulation;

use std::io::ErrorKind;

use simulation::{
    LIMITS, Random, configure, keys, observe, open, open_with_limits, publication, queue,
};
use tombolo_core::Publish as _;
use tombolo_store::disk::simulated::SimulatedDisk;
use tombolo_store::queue::TakeBounds;
use tombolo_store::{Limits, Outcome, Store, StoreError, Taken, Write};

const OPERATIONS: usize = 40;
const ONE: TakeBounds = TakeBounds {
    events: 1,
    bytes: 1 << 20,
};

/// Which of the operations were answered `Ok`.
#[derive(Default)]
struct Told {
    published: Vec<(usize, bool)>,
    done: Vec<(String, bool)>,
    written: Vec<(usize, bool)>,
}

/// Works on a store, whatever fails.
async fn work(store: &Store, seed: u64) -> Told {
    let (journal, things) = (store.journal(), keys(store));
    let (mut random, mut told) = (Random(seed), Told::default());
    for id in 0..OPERATIONS {
        match random.below(4) {
            0 => {
                let write = Write::Set {
                    key: id.to_string(),
                    value: id.to_string().repeat(200).into(),
                };
                let written = things.write(vec![write]).await.is_ok();
                told.written.push((id, written));
            }
            1 => {
                let taken = journal.take(&queue("readings"), ONE).await;
                if let Ok(Taken::Batch(batch)) = taken {
                    for delivery in batch.deliveries {
                        let settled = journal.settle(vec![(delivery.lease, Outcome::Done)]).await;
                        told.done.push((delivery.event.id, settled.is_ok()));
                    }
                }
            }
            _ => {
                let event = publication("readings", id);
                let published = journal.publish(vec![event]).await.is_ok();
                told.published.push((id, published));
            }
        }
    }
    told
}

fn check(disk: &SimulatedDisk, told: &Told, at: &str) {
    let store = open(disk);
    let state = observe(&store);
    let events = state.queues.get("readings").cloned().unwrap_or_default();
    let is_there = |id: &str| events.iter().any(|(other, _)| other == id);
    for (id, accepted) in &told.published {
        let settled = told.done.iter().find(|(done, _)| *done == id.to_string());
        match settled {
            Some((_, true)) => assert!(!is_there(&id.to_string()), "{at}: {id} is back"),
            Some((_, false)) => {}
            None => assert!(!accepted || is_there(&id.to_string()), "{at}: {id} is lost"),
        }
    }
    for (id, written) in &told.written {
        let found = state.keys.get(&id.to_string());
        assert!(!written || found.is_some(), "{at}: key {id} is lost");
        assert!(found.is_none_or(|found| *found == id.to_string().repeat(200)));
    }
}

#[tokio::test]
async fn nothing_answered_is_lost_when_any_call_fails() {
    for kind in [
        ErrorKind::Other,
        ErrorKind::StorageFull,
        ErrorKind::ReadOnlyFilesystem,
    ] {
        for failing in 0..130 {
            let disk = SimulatedDisk::new();
            let store = open(&disk);
            configure(&store.journal()).await;
            let at = disk.calls() + failing;
            disk.fail(at..=at, kind);
            let told = work(&store, failing as u64).await;
            drop(store);
            disk.repair();
            for seed in 0..3 {
                let left = disk.cut(disk.calls(), seed);
                check(&left, &told, &format!("{kind:?} at call {failing}"));
            }
        }
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_more_is_accepted_until_the_store_is_opened_again() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let journal = store.journal();
    configure(&journal).await;
    journal
        .publish(vec![publication("readings", 1)])
        .await
        .unwrap();
    // The write, then its sync.
    let sync = disk.calls() + 1;
    disk.fail(sync..=sync, ErrorKind::Other);
    for id in 2..5 {
        assert!(
            journal
                .publish(vec![publication("readings", id)])
                .await
                .is_err()
        );
    }
    let peeked = journal.peek(&queue("readings"), 0).unwrap();
    assert_eq!(peeked.unwrap().event.id, "1", "reading goes on");
    store.close().await;
    disk.repair();
    let store = open(&disk);
    configure(&store.journal()).await;
    store
        .journal()
        .publish(vec![publication("readings", 9)])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_what_needs_room_and_lets_events_be_settled() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let journal = store.journal();
    configure(&journal).await;
    for id in 0..3 {
        journal
            .publish(vec![publication("readings", id)])
            .await
            .unwrap();
    }
    disk.set_free_bytes(1 << 20);
    let full = keys(&store).increment("count", 1).await.unwrap_err();
    assert!(matches!(full, StoreError::Full), "{full:?}");
    let refused = journal.publish(vec![publication("readings", 9)]).await;
    assert_eq!(refused, Err(tombolo_core::PublishError::DiskFull));
    let Taken::Batch(batch) = journal.take(&queue("readings"), ONE).await.unwrap() else {
        unreachable!("there is an event");
    };
    let lease = batch.deliveries[0].lease.clone();
    journal.settle(vec![(lease, Outcome::Done)]).await.unwrap();
    assert_eq!(
        journal.figures(&queue("readings")).unwrap().figures.depth,
        2
    );
    disk.set_free_bytes(1 << 40);
    journal
        .publish(vec![publication("readings", 9)])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_write_without_room_is_taken_back_and_the_store_goes_on() {
    let disk = SimulatedDisk::new();
    let store = open(&disk);
    let journal = store.journal();
    configure(&journal).await;
    let at = disk.calls();
    disk.fail(at..=at, ErrorKind::StorageFull);
    let refused = journal.publish(vec![publication("readings", 1)]).await;
    assert_eq!(refused, Err(tombolo_core::PublishError::DiskFull));
    journal
        .publish(vec![publication("readings", 1)])
        .await
        .unwrap();
    drop(store);
    let events = observe(&open(&disk.cut(disk.calls(), 1))).queues;
    assert_eq!(events["readings"], [("1".to_owned(), 0)]);
}

#[tokio::test]
async fn a_disk_that_somebody_else_fills_and_empties_stops_nothing_for_good() {
    let disk = SimulatedDisk::new();
    // Much that the next checkpoint would have to write.
    let limits = Limits {
        checkpoint_bytes: 1 << 20,
        ..LIMITS
    };
    let store = open_with_limits(&disk, limits);
    let (journal, things) = (store.journal(), keys(&store));
    configure(&journal).await;
    let written = |key: usize| Write::Set {
        key: key.to_string(),
        value: key.to_string().repeat(200).into(),
    };
    for id in 0..20 {
        let event = publication("readings", id);
        journal.publish(vec![event]).await.unwrap();
    }
    for key in 0..200 {
        things.write(vec![written(key)]).await.unwrap();
    }
    let mut done = 0;
    for left in [16 << 10, 0, 8 << 10, 1 << 20, 0] {
        disk.set_free_bytes(left);
        for id in 20..30 {
            let refused = journal.publish(vec![publication("readings", id)]).await;
            assert_eq!(refused, Err(tombolo_core::PublishError::DiskFull));
            let refused = things.write(vec![written(id)]).await.unwrap_err();
            assert!(matches!(refused, StoreError::Full), "{refused:?}");
            assert!(things.get("3").unwrap().is_some(), "reading goes on");
        }
        let Taken::Batch(batch) = journal.take(&queue("readings"), ONE).await.unwrap() else {
            unreachable!("there are events");
        };
        let lease = batch.deliveries[0].lease.clone();
        let settled = journal.settle(vec![(lease, Outcome::Done)]).await;
        assert!(settled.is_ok() || left == 0, "{left}: {settled:?}");
        done += usize::from(settled.is_ok());
    }
    disk.set_free_bytes(1 << 40);
    let event = publication("readings", 40);
    journal.publish(vec![event]).await.unwrap();
    things.write(vec![written(400)]).await.unwrap();
    store.close().await;
    let state = observe(&open(&disk));
    assert_eq!(state.keys.len(), 201);
    assert_eq!(state.queues["readings"].len(), 20 - done + 1);
}
