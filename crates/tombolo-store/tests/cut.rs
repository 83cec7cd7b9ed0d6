//! Power cuts at every call that reaches the disk: what was accepted is there, what was acknowledged does not come back, transactions are whole, order and memory of ids are kept.
//!
//! A history runs once on a simulated disk, which records its calls. Beside it runs a model that
//! knows the state after each of its steps. Then the power is cut before each call, several times
//! with other outcomes for what was not synced, and the store that is opened on what is left has to
//! be in the state of one of the steps between the last that was answered and the last that was
//! asked for. One step is one transaction, so this is all or nothing for each of them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says with a panic that something is wrong"
)]

mod simulation;

use std::ops::Range;
use std::sync::Arc;

use simulation::{Random, Run, Step, check, history, history_on, open};
use tombolo_store::disk::simulated::{Lie, SimulatedDisk};

/// Cuts the power of a run before each call, with so many outcomes each; how many cuts that was.
async fn cut_everywhere(run: &Run, seeds: Range<u64>) -> usize {
    let mut cuts = 0;
    for call in run.first_call..=run.disk.calls() {
        for seed in seeds.clone() {
            let disk = run
                .disk
                .cut(call, seed.wrapping_mul(1_000_003).wrapping_add(call as u64));
            check(run, call, seed, disk).await;
            cuts += 1;
        }
    }
    cuts
}

async fn cut_history(seed: u64, weights: &[(u32, Step)], steps: usize, seeds: Range<u64>) -> usize {
    let run = history(&mut Random(seed), weights, steps).await;
    let cuts = cut_everywhere(&run, seeds).await;
    eprintln!("{steps} steps, {} calls, {cuts} cuts", run.disk.calls());
    cuts
}

const PUBLISH: &[(u32, Step)] = &[
    (6, Step::Publish),
    (2, Step::PublishMany),
    (4, Step::Together),
    (1, Step::Write),
];
const DELIVER: &[(u32, Step)] = &[
    (6, Step::Publish),
    (3, Step::Done),
    (3, Step::Retry),
    (2, Step::Bury),
    (1, Step::Redrive),
    (1, Step::Wait),
];
const TRANSACT: &[(u32, Step)] = &[
    (4, Step::Publish),
    (4, Step::Transaction),
    (2, Step::Write),
    (2, Step::Increment),
    (1, Step::Retry),
];
const INVOKE: &[(u32, Step)] = &[
    (5, Step::Publish),
    (5, Step::Invocation),
    (2, Step::Bury),
    (1, Step::Increment),
    (1, Step::Reopen),
];
const ALL: &[(u32, Step)] = &[
    (6, Step::Publish),
    (2, Step::PublishMany),
    (2, Step::Together),
    (4, Step::Done),
    (2, Step::Retry),
    (1, Step::Bury),
    (1, Step::Redrive),
    (1, Step::Purge),
    (3, Step::Transaction),
    (2, Step::Invocation),
    (2, Step::Write),
    (1, Step::Increment),
    (1, Step::Wait),
    (1, Step::Reopen),
];

#[tokio::test]
async fn a_new_store_is_cut_at_every_call() {
    let run = history(&mut Random(0), PUBLISH, 3).await;
    let run = Run {
        first_call: 0,
        ..run
    };
    eprintln!("{} cuts", cut_everywhere(&run, 0..12).await);
}

#[tokio::test]
async fn publishing_is_cut_at_every_call() {
    cut_history(1, PUBLISH, 60, 0..8).await;
}

#[tokio::test]
async fn delivering_is_cut_at_every_call() {
    cut_history(2, DELIVER, 80, 0..8).await;
}

#[tokio::test]
async fn transactions_are_cut_at_every_call() {
    cut_history(3, TRANSACT, 60, 0..8).await;
}

#[tokio::test]
async fn transactional_invocations_are_cut_at_every_call() {
    for seed in 20..23 {
        cut_history(seed, INVOKE, 60, 0..8).await;
    }
}

#[tokio::test]
async fn random_histories_are_cut_at_every_call() {
    for seed in 10..14 {
        cut_history(seed, ALL, 120, 0..3).await;
    }
}

#[tokio::test]
async fn recovery_itself_is_cut_at_every_call() {
    let run = history(&mut Random(5), ALL, 60).await;
    let (calls, mut cuts) = (run.disk.calls(), 0);
    for call in (run.first_call..calls).step_by(7) {
        let first = run.disk.cut(call, call as u64);
        drop(open(&first));
        for again in 0..=first.calls() {
            check(&run, call, again as u64, first.cut(again, again as u64)).await;
            cuts += 1;
        }
    }
    eprintln!("{cuts} cuts of recovery");
}

/// The check of the checks: a disk that says it has synced, and has not, is found out.
#[tokio::test]
async fn a_disk_that_lies_is_found_out() {
    for lie in [Lie::Files, Lie::Folders] {
        let disk = SimulatedDisk::new();
        drop(open(&disk));
        disk.lie(lie);
        let run = Arc::new(history_on(disk, &mut Random(6), PUBLISH, 40).await);
        let mut found_out = false;
        for seed in 0..8 {
            let (run, call) = (Arc::clone(&run), run.disk.calls());
            let disk = run.disk.cut(call, seed);
            let checked = tokio::spawn(async move { check(&run, call, seed, disk).await });
            found_out |= checked.await.is_err();
        }
        assert!(found_out, "{lie:?}");
    }
}
