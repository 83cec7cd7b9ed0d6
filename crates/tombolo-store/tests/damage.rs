//! Damaged files: an error that says so, never a panic, and never a value that nobody wrote.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says with a panic that something is wrong"
)]

#[allow(dead_code, reason = "other tests use the rest")]
mod simulation;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use simulation::{Hands, LIMITS, Random, Step, history};
use tombolo_core::Code;
use tombolo_store::disk::simulated::SimulatedDisk;
use tombolo_store::{Damage, KeyValue, OpenError, Store, StoreError, Write};

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

/// Opens a damaged store. What it serves is true; what is missing is told.
fn is_true_or_says_so(disk: &SimulatedDisk, whole: &simulation::State, what: &str) -> bool {
    let opened = Store::open_on(
        Arc::new(disk.clone()),
        Path::new("/store"),
        Box::new(Hands::default()),
        LIMITS,
    );
    let store = match opened {
        Ok(store) => store,
        Err(error) => {
            let told = matches!(error, OpenError::Damaged { .. } | OpenError::Format { .. });
            assert!(told, "{what}: {error:?}");
            return false;
        }
    };
    let (journal, things) = (store.journal(), simulation::keys(&store));
    let lost = store
        .damages()
        .iter()
        .any(|one| matches!(one, Damage::Lost { .. }));
    let mut told = lost;
    let mut queues: BTreeMap<String, Vec<(String, u16)>> = BTreeMap::new();
    for figures in journal.queues().unwrap() {
        for listed in journal.list(&figures.queue, 0, 1000).unwrap() {
            let peeked = match journal.peek(&figures.queue, listed.sequence) {
                Ok(peeked) => peeked.unwrap(),
                Err(StoreError::Damaged(_)) => {
                    told = true;
                    continue;
                }
                Err(error) => unreachable!("{what}: {error:?}"),
            };
            let events = queues.entry(figures.queue.queue.to_string()).or_default();
            events.push((simulation::known(peeked.event, what), listed.attempts));
        }
    }
    let mut keys = BTreeMap::new();
    for key in things.keys(None, 1000).unwrap_or_default() {
        match things.get(&key) {
            Ok(value) => {
                let value = String::from_utf8_lossy(&value.unwrap()).into_owned();
                keys.insert(key, value);
            }
            Err(StoreError::Damaged(_)) => told = true,
            Err(error) => unreachable!("{what}: {error:?}"),
        }
    }
    let mut expected = whole.queues.clone();
    expected.retain(|_, events| !events.is_empty());
    if !told {
        assert_eq!(queues, expected, "{what}");
        assert_eq!(keys, whole.keys, "{what}");
    }
    !told
}

#[tokio::test]
async fn damage_in_any_file_of_a_closed_store_is_told_and_the_rest_is_served() {
    let steps = [
        (6, Step::Publish),
        (2, Step::Together),
        (2, Step::Done),
        (1, Step::Retry),
        (1, Step::Bury),
        (1, Step::Transaction),
        (1, Step::Write),
    ];
    let run = history(&mut Random(8), &steps, 150).await;
    let whole = &run.states.last().unwrap().0;
    let mut random = Random(9);
    let (mut outcomes, mut served) = (0, 0);
    let files = run.disk.files();
    for folder in ["log", "ids", "data.redb", "format"] {
        assert!(
            files
                .iter()
                .any(|file| file.starts_with(Path::new("/store").join(folder)))
        );
    }
    for file in &files {
        for _ in 0..60 {
            let disk = run.disk.damaged(file, |content| {
                let at = random.below(content.len().max(1));
                if let Some(byte) = content.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            });
            is_true_or_says_so(&disk, whole, &format!("a bit of {}", file.display()));
        }
        for _ in 0..20 {
            let disk = run.disk.damaged(file, |content| {
                content.truncate(random.below(content.len().max(1)));
            });
            let what = format!("{} cut", file.display());
            is_true_or_says_so(&disk, whole, &what);
        }
    }
    // Damage in the midst of the log does not take the rest with it.
    for file in files
        .iter()
        .filter(|file| file.extension().is_some_and(|e| e == "log"))
    {
        for _ in 0..20 {
            let disk = run.disk.damaged(file, |content| {
                let at = random.below(content.len());
                let end = (at + 700).min(content.len());
                content[at..end].fill(0xa5);
            });
            let store = simulation::open(&disk);
            outcomes += 1;
            let depth: u64 = store
                .journal()
                .queues()
                .unwrap()
                .iter()
                .map(|one| one.figures.depth)
                .sum();
            let all: usize = whole.queues.values().map(Vec::len).sum();
            served += u32::from(depth as usize * 2 > all);
        }
    }
    assert!(served * 10 > outcomes * 8, "{served} of {outcomes}");
}
