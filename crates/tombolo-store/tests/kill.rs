//! What was acknowledged before a `kill -9` is there after it, and no write is there by half.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says with a panic that something is wrong"
)]

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use tombolo_core::Name;
use tombolo_store::{Store, Write};

const FOLDER: &str = "TOMBOLO_STORE_TEST_FOLDER";
const ROUND: &str = "TOMBOLO_STORE_TEST_ROUND";
const WRITERS: usize = 16;
const ROUNDS: usize = 6;

fn names() -> (Name, Name) {
    ("app".parse().unwrap(), "pairs".parse().unwrap())
}

/// The child: writes pairs from many tasks and prints each that was acknowledged, until it is killed.
#[tokio::test]
#[ignore = "the child process of the next test"]
async fn writes_until_killed() {
    let folder = std::env::var_os(FOLDER).unwrap();
    let round = std::env::var(ROUND).unwrap();
    let store = Store::open(Path::new(&folder)).unwrap();
    let pairs = store.key_value(&names().0, &names().1);
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (pairs, round) = (pairs.clone(), round.clone());
        writers.spawn(async move {
            for each in 0_u64.. {
                let id = format!("{round}-{writer}-{each}");
                // Longer than a page now and then, so that a torn write would show.
                let value = Bytes::from(id.repeat(if each % 5 == 0 { 800 } else { 3 }));
                let set = |key: String| Write::Set {
                    key,
                    value: value.clone(),
                };
                let both = vec![set(format!("left-{id}")), set(format!("right-{id}"))];
                pairs.write(both).await.unwrap();
                pairs.increment("count", 1).await.unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "acknowledged {id}").unwrap();
                out.flush().unwrap();
            }
        });
    }
    writers.join_all().await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writes_until_killed", "--ignored", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let target = acknowledged.len() + 150 + 37 * round;
        let ids = |line: String| Some(line.strip_prefix("acknowledged ")?.to_owned());
        while acknowledged.len() < target {
            let line = lines.next().expect("the child ended by itself").unwrap();
            acknowledged.extend(ids(line));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(lines.map_while(Result::ok).filter_map(ids));
        check(folder.path(), &acknowledged).await;
    }
}

async fn check(folder: &Path, acknowledged: &[String]) {
    let store = Store::open(folder).unwrap();
    let pairs = store.key_value(&names().0, &names().1);
    for id in acknowledged {
        let left = pairs.get(&format!("left-{id}")).unwrap();
        assert!(left.is_some(), "{id} was acknowledged and is lost");
        assert!(left.unwrap().starts_with(id.as_bytes()));
    }
    // Of what was not acknowledged, a pair is there as a whole or not at all.
    let (mut after, mut lefts) = (None, 0_usize);
    loop {
        let keys = pairs.keys(after.as_deref(), 1000).unwrap();
        let Some(last) = keys.last() else { break };
        for key in &keys {
            if let Some(id) = key.strip_prefix("left-") {
                lefts += 1;
                assert_eq!(
                    pairs.get(key).unwrap(),
                    pairs.get(&format!("right-{id}")).unwrap()
                );
            } else if let Some(id) = key.strip_prefix("right-") {
                assert!(pairs.exists(&format!("left-{id}")).unwrap());
            }
        }
        after = Some(last.clone());
    }
    let count = pairs.get("count").unwrap().unwrap();
    let count: usize = String::from_utf8_lossy(&count).parse().unwrap();
    assert!(
        acknowledged.len() <= count && count <= lefts,
        "{count} of {lefts}"
    );
    store.close().await;
}
