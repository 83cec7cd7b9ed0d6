//! A power cut in the midst of a commit: of the pages it changed any set may be on disk, and the store still opens with all that was acknowledged.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says with a panic that something is wrong"
)]

use std::fs;
use std::path::Path;

use bytes::Bytes;
use tombolo_store::{KeyValue, Store, Write};

const PAGE_BYTES: usize = 4096;
const CUTS: usize = 120;
/// Keys of the commit that is cut.
const LAST: std::ops::Range<usize> = 160..168;

fn key_value(store: &Store) -> KeyValue {
    store.key_value(&"app".parse().unwrap(), &"things".parse().unwrap())
}

/// Some values are longer than a page, so that one can be torn inside.
fn value(each: usize) -> Bytes {
    Bytes::from(vec![each as u8; 40 + each * 7919 % 9000])
}

async fn write(things: &KeyValue, keys: std::ops::Range<usize>) {
    let set = |each: usize| Write::Set {
        key: each.to_string(),
        value: value(each),
    };
    things.write(keys.map(set).collect()).await.unwrap();
}

/// The file after the commit, with each changed page as it was before by a chance of its own.
fn cut(before: &[u8], after: &[u8], state: &mut u64) -> Vec<u8> {
    let mut file = after.to_vec();
    let chance = next(state) % 100;
    for (index, page) in file.chunks_mut(PAGE_BYTES).enumerate() {
        let start = index * PAGE_BYTES;
        if next(state) % 100 < chance {
            let old = before.get(start..start + page.len());
            page.copy_from_slice(old.unwrap_or(&vec![0; page.len()]));
        }
    }
    file
}

/// A reproducible sequence (Knuth's MMIX constants), so that a failure can be found again.
fn next(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

async fn check(folder: &Path) {
    let store = Store::open(folder).unwrap();
    let things = key_value(&store);
    for each in 0..LAST.start {
        assert_eq!(things.get(&each.to_string()).unwrap(), Some(value(each)));
    }
    let last: Vec<_> = LAST
        .map(|each| things.get(&each.to_string()).unwrap())
        .collect();
    let all: Vec<_> = LAST.map(|each| Some(value(each))).collect();
    assert!(last == all || last.iter().all(Option::is_none));
    store.close().await;
}

#[tokio::test]
async fn a_torn_commit_is_rolled_back_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (base, scratch) = (folder.path().join("base"), folder.path().join("scratch"));
    let store = Store::open(&base).unwrap();
    let things = key_value(&store);
    for batch in 0..LAST.start / 8 {
        write(&things, batch * 8..batch * 8 + 8).await;
    }
    // The engine has written everything that it acknowledged; what it holds is a cache.
    let before = fs::read(base.join("data.redb")).unwrap();
    write(&things, LAST).await;
    let after = fs::read(base.join("data.redb")).unwrap();
    fs::create_dir(&scratch).unwrap();
    fs::copy(base.join("format"), scratch.join("format")).unwrap();
    let mut state = 11;
    for _ in 0..CUTS {
        fs::write(scratch.join("data.redb"), cut(&before, &after, &mut state)).unwrap();
        check(&scratch).await;
    }
}
