//! Damaged files: an error that says so, never a panic, and never a value that nobody wrote.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says with a panic that something is wrong"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bytes::Bytes;
use tombolo_core::Code;
use tombolo_store::{KeyValue, OpenError, Store, StoreError, Write};

type Written = BTreeMap<String, Bytes>;

fn key_value(store: &Store) -> KeyValue {
    store.key_value(&"app".parse().unwrap(), &"things".parse().unwrap())
}

async fn fill(folder: &Path) -> Written {
    let store = Store::open(folder).unwrap();
    let mut written = Written::new();
    for each in 0..600_u32 {
        let value = vec![each.to_le_bytes()[0]; 50 + (each as usize % 7) * 900];
        written.insert(format!("key-{each}"), Bytes::from(value));
    }
    for chunk in written.iter().collect::<Vec<_>>().chunks(50) {
        let set = |(key, value): &(&String, &Bytes)| Write::Set {
            key: (*key).clone(),
            value: (*value).clone(),
        };
        key_value(&store)
            .write(chunk.iter().map(set).collect())
            .await
            .unwrap();
    }
    store.close().await;
    written
}

/// Whether the folder opened and everything in it is as it was written.
fn is_whole_or_says_so(folder: &Path, written: &Written) -> bool {
    let store = match Store::open(folder) {
        Ok(store) => store,
        Err(error) => {
            assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
            assert_eq!(error.code(), Code::StoreDamaged);
            return false;
        }
    };
    let things = key_value(&store);
    let mut whole = true;
    for (key, value) in written {
        match things.get(key) {
            Ok(found) => assert_eq!(found.as_ref(), Some(value), "{key}"),
            Err(StoreError::Damaged(_)) => whole = false,
            Err(error) => unreachable!("{key}: {error:?}"),
        }
    }
    whole
}

/// A reproducible sequence (Knuth's MMIX constants), so that a failure can be found again.
fn next(state: &mut u64) -> usize {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

#[tokio::test]
async fn flipped_bits_are_never_served() {
    let folder = tempfile::tempdir().unwrap();
    let written = fill(folder.path()).await;
    let file = folder.path().join("data.redb");
    let whole = fs::read(&file).unwrap();
    let (mut state, mut noticed) = (7, 0);
    for _ in 0..60 {
        let mut damaged = whole.clone();
        let at = next(&mut state) % whole.len();
        damaged[at] ^= 1 << (next(&mut state) % 8);
        fs::write(&file, &damaged).unwrap();
        noticed += u32::from(!is_whole_or_says_so(folder.path(), &written));
    }
    // Some bits are free space; most are not.
    assert!(noticed > 10, "{noticed} of 60");
    fs::write(&file, &whole).unwrap();
    assert!(is_whole_or_says_so(folder.path(), &written));
}

#[tokio::test]
async fn a_file_that_is_cut_missing_or_not_ours_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let written = fill(folder.path()).await;
    let file = folder.path().join("data.redb");
    let whole = fs::read(&file).unwrap();
    for keep in [0, 1, 100, 4096, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..keep]).unwrap();
        let intact = is_whole_or_says_so(folder.path(), &written);
        assert!(!intact || keep == whole.len() - 1, "{keep}");
    }
    fs::write(&file, vec![b'x'; whole.len()]).unwrap();
    assert!(!is_whole_or_says_so(folder.path(), &written));
    fs::remove_file(&file).unwrap();
    assert!(!is_whole_or_says_so(folder.path(), &written));
    assert!(
        !file.exists(),
        "a lost file is not replaced by an empty one"
    );
    fs::write(&file, &whole).unwrap();
    assert!(is_whole_or_says_so(folder.path(), &written));
}

#[tokio::test]
async fn a_value_that_is_damaged_while_the_store_is_open_is_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    // More than the engine caches, so that reads come from the file.
    let values: Vec<_> = (0..24_u8)
        .map(|each| Bytes::from(vec![each + 1; 4 << 20]))
        .collect();
    let things = key_value(&store);
    for (each, value) in values.iter().enumerate() {
        let set = Write::Set {
            key: each.to_string(),
            value: value.clone(),
        };
        things.write(vec![set]).await.unwrap();
    }
    let file = folder.path().join("data.redb");
    let mut content = fs::read(&file).unwrap();
    for chunk in content.chunks_mut(1 << 20) {
        if chunk.iter().all(|&byte| byte == chunk[0]) {
            chunk[500] ^= 1;
        }
    }
    {
        use std::os::unix::fs::FileExt;
        let writer = fs::File::options().write(true).open(&file).unwrap();
        writer.write_all_at(&content, 0).unwrap();
    }
    let mut noticed = 0;
    for (each, value) in values.iter().enumerate() {
        match things.get(&each.to_string()) {
            Ok(found) => assert_eq!(found.as_ref(), Some(value)),
            Err(StoreError::Damaged(_)) => noticed += 1,
            Err(error) => unreachable!("{error:?}"),
        }
    }
    assert!(noticed > 0);
}
