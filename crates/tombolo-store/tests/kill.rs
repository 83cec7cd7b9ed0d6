//! What was acknowledged before a `kill -9` is there after it, writes and events, and no transaction is there by half.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says with a panic that something is wrong"
)]

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use tombolo_core::event::Event;
use tombolo_core::{Name, Publication, QueueId};
use tombolo_store::queue::QueueSettings;
use tombolo_store::{Journal, Store, Transaction, Write};

const FOLDER: &str = "TOMBOLO_STORE_TEST_FOLDER";
const ROUND: &str = "TOMBOLO_STORE_TEST_ROUND";
const WRITERS: usize = 16;
const ROUNDS: usize = 6;

fn names() -> (Name, Name) {
    ("app".parse().unwrap(), "pairs".parse().unwrap())
}

async fn journal(store: &Store) -> (Journal, QueueId) {
    let queue = QueueId {
        app: names().0,
        queue: names().1.into(),
    };
    let journal = store.journal();
    let settings = QueueSettings::default();
    journal.configure(queue.clone(), settings).await.unwrap();
    (journal, queue)
}

/// The child: writes pairs from many tasks and prints each that was acknowledged, until it is killed.
#[tokio::test]
#[ignore = "the child process of the next test"]
async fn writes_until_killed() {
    let folder = std::env::var_os(FOLDER).unwrap();
    let round = std::env::var(ROUND).unwrap();
    let store = Store::open(Path::new(&folder)).unwrap();
    let pairs = store.key_value(&names().0, &names().1);
    let (journal, queue) = journal(&store).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (pairs, round) = (pairs.clone(), round.clone());
        let (journal, queue) = (journal.clone(), queue.clone());
        writers.spawn(async move {
            for each in 0_u64.. {
                let id = format!("{round}-{writer}-{each}");
                // Longer than a page now and then, so that a torn write would show.
                let value = Bytes::from(id.repeat(if each % 5 == 0 { 800 } else { 3 }));
                let set = |key: String| Write::Set {
                    key,
                    value: value.clone(),
                };
                let both = [set(format!("left-{id}")), set(format!("right-{id}"))];
                let event = Event::new(id.clone(), "/pairs", "pair");
                let transaction = Transaction {
                    writes: both.map(|write| (pairs.clone(), write)).to_vec(),
                    publications: vec![Publication::new(queue.clone(), event)],
                    ..Transaction::default()
                };
                journal.commit(transaction).await.unwrap();
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
    // And so is the event that was committed with it.
    let (journal, queue) = journal(&store).await;
    let (mut from, mut events) = (0, 0_usize);
    loop {
        let listed = journal.list(&queue, from, 1000).unwrap();
        let Some(last) = listed.last() else { break };
        from = last.sequence + 1;
        events += listed.len();
        for one in listed {
            let event = journal.peek(&queue, one.sequence).unwrap().unwrap().event;
            assert!(pairs.exists(&format!("left-{}", event.id)).unwrap());
        }
    }
    assert_eq!(events, lefts);
    let count = pairs.get("count").unwrap().unwrap();
    let count: usize = String::from_utf8_lossy(&count).parse().unwrap();
    assert!(
        acknowledged.len() <= count && count <= lefts,
        "{count} of {lefts}"
    );
    store.close().await;
}
