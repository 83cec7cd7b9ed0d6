//! What the store promises its callers, asked as a caller would.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says with a panic that something is wrong"
)]

use std::path::Path;

use bytes::Bytes;
use tombolo_core::{Code, Name};
use tombolo_store::{
    KEY_BYTES_MAX, KEYS_MAX, KeyValue, OpenError, Store, StoreError, Swapped, Transaction,
    VALUE_BYTES_MAX, WRITE_BYTES_MAX, Write,
};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn open(folder: &Path) -> (Store, KeyValue) {
    let store = Store::open(folder).unwrap();
    let key_value = store.key_value(&name("app"), &name("things"));
    (store, key_value)
}

fn set(key: &str, value: &str) -> Write {
    Write::Set {
        key: key.into(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

fn delete(key: &str) -> Write {
    Write::Delete { key: key.into() }
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[tokio::test]
async fn what_was_written_is_read_here_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (store, things) = open(folder.path());
    things
        .write(vec![set("a", "1"), set("b", "2"), set("", "empty key")])
        .await
        .unwrap();
    things.write(vec![delete("b"), set("c", "")]).await.unwrap();
    store.close().await;

    let (_store, things) = open(folder.path());
    assert_eq!(things.get("a").unwrap(), Some(bytes("1")));
    assert_eq!(things.get("b").unwrap(), None);
    assert_eq!(things.get("c").unwrap(), Some(Bytes::new()));
    assert_eq!(things.get("").unwrap(), Some(bytes("empty key")));
    assert!(things.exists("a").unwrap());
    assert!(!things.exists("b").unwrap());
    let many = things
        .get_many(&["c".into(), "b".into(), "a".into()])
        .unwrap();
    assert_eq!(many, [Some(Bytes::new()), None, Some(bytes("1"))]);
}

#[tokio::test]
async fn the_last_write_of_a_key_in_one_call_wins() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, things) = open(folder.path());
    things
        .write(vec![set("a", "1"), delete("a"), set("a", "2"), delete("b")])
        .await
        .unwrap();
    assert_eq!(things.get("a").unwrap(), Some(bytes("2")));
    things.write(vec![]).await.unwrap();
}

#[tokio::test]
async fn stores_do_not_see_one_another() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let names = [("a", "bc"), ("ab", "c"), ("a", "b"), ("a-b", "c")];
    for (app, of) in names {
        let key_value = store.key_value(&name(app), &name(of));
        key_value
            .write(vec![set("key", &format!("{app}/{of}"))])
            .await
            .unwrap();
    }
    for (app, of) in names {
        let key_value = store.key_value(&name(app), &name(of));
        assert_eq!(
            key_value.get("key").unwrap().unwrap(),
            format!("{app}/{of}").as_bytes()
        );
        assert_eq!(key_value.keys(None, 10).unwrap(), ["key"]);
    }
}

#[tokio::test]
async fn keys_come_in_order_and_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, things) = open(folder.path());
    let writes = (0..KEYS_MAX + 5).map(|each| set(&format!("{each:05}"), "x"));
    things.write(writes.collect()).await.unwrap();
    things
        .write(vec![set("a\0b", "x"), set("a", "x"), set("é", "x")])
        .await
        .unwrap();
    assert_eq!(things.keys(None, 2).unwrap(), ["00000", "00001"]);
    assert_eq!(things.keys(Some("00001"), 1).unwrap(), ["00002"]);
    assert_eq!(things.keys(Some("000015"), 1).unwrap(), ["00002"]);
    assert_eq!(things.keys(Some("a"), 9).unwrap(), ["a\0b", "é"]);
    assert!(things.keys(Some("é"), 9).unwrap().is_empty());
    assert!(things.keys(None, 0).unwrap().is_empty());
    assert_eq!(things.keys(None, usize::MAX).unwrap().len(), KEYS_MAX);
}

#[tokio::test]
async fn increments_count_and_refuse_what_is_no_number() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, things) = open(folder.path());
    assert_eq!(things.increment("n", 5).await.unwrap(), 5);
    assert_eq!(things.increment("n", -12).await.unwrap(), -7);
    assert_eq!(things.get("n").unwrap(), Some(bytes("-7")));
    things
        .write(vec![
            set("word", "seven"),
            set("max", &i64::MAX.to_string()),
        ])
        .await
        .unwrap();
    for key in ["word", "max"] {
        let refused = things.increment(key, 1).await.unwrap_err();
        assert!(matches!(refused, StoreError::NotANumber), "{key}");
        assert_eq!(refused.code(), Code::BadRequest);
    }
    assert_eq!(things.get("word").unwrap(), Some(bytes("seven")));
}

#[tokio::test]
async fn a_swap_needs_the_expected_value() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, things) = open(folder.path());
    let swap = |expected: Option<&'static str>, value| {
        let things = things.clone();
        async move {
            things
                .swap("a", expected.map(bytes), bytes(value))
                .await
                .unwrap()
        }
    };
    assert_eq!(swap(Some("0"), "1").await, Swapped::Changed(None));
    assert_eq!(swap(None, "1").await, Swapped::Done);
    assert_eq!(swap(None, "2").await, Swapped::Changed(Some(bytes("1"))));
    assert_eq!(swap(Some("1"), "2").await, Swapped::Done);
    assert_eq!(things.get("a").unwrap(), Some(bytes("2")));
}

#[tokio::test]
async fn bounds_hold_and_a_refused_write_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, things) = open(folder.path());
    let longest = "k".repeat(KEY_BYTES_MAX);
    let too_long = "k".repeat(KEY_BYTES_MAX + 1);
    let huge = Bytes::from(vec![1; VALUE_BYTES_MAX + 1]);
    let largest = huge.slice(..VALUE_BYTES_MAX);
    let value = |key: &str, value: &Bytes| Write::Set {
        key: key.into(),
        value: value.clone(),
    };

    things.write(vec![value(&longest, &largest)]).await.unwrap();
    assert_eq!(things.get(&longest).unwrap(), Some(largest.clone()));
    assert!(matches!(
        things.get(&too_long),
        Err(StoreError::KeyTooLong { bytes }) if bytes == KEY_BYTES_MAX + 1
    ));
    for refused in [
        vec![set("a", "1"), set(&too_long, "1")],
        vec![set("a", "1"), value("b", &huge)],
        vec![value("a", &largest); WRITE_BYTES_MAX / VALUE_BYTES_MAX + 1],
    ] {
        assert!(things.write(refused).await.is_err());
    }
    assert!(matches!(
        things.swap("a", None, huge).await,
        Err(StoreError::ValueTooLong { .. })
    ));
    assert!(!things.exists("a").unwrap());
}

#[tokio::test]
async fn sixty_four_writers_lose_no_increment() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, things) = open(folder.path());
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..64 {
        let things = things.clone();
        writers.spawn(async move {
            for _ in 0..25 {
                things.increment("shared", 1).await.unwrap();
                things.increment(&format!("own-{writer}"), 2).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    assert_eq!(things.get("shared").unwrap(), Some(bytes("1600")));
    for writer in 0..64 {
        let own = things.get(&format!("own-{writer}")).unwrap();
        assert_eq!(own, Some(bytes("50")));
    }
}

#[tokio::test]
async fn a_failed_increment_in_a_shared_commit_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, things) = open(folder.path());
    things.write(vec![set("word", "x")]).await.unwrap();
    let (bad, good, write) = tokio::join!(
        things.increment("word", 1),
        things.increment("n", 1),
        things.write(vec![set("a", "1")]),
    );
    assert!(matches!(bad, Err(StoreError::NotANumber)));
    assert_eq!(good.unwrap(), 1);
    write.unwrap();
    assert_eq!(things.get("a").unwrap(), Some(bytes("1")));
}

#[tokio::test]
async fn the_second_opener_is_told_who_has_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (store, things) = open(folder.path());
    let error = Store::open(folder.path()).err().unwrap();
    assert_eq!(error.code(), Code::StoreLocked);
    let text = error.to_string();
    assert!(
        text.contains(&folder.path().display().to_string()),
        "{text}"
    );
    let process = format!("process {}", std::process::id());
    assert!(text.contains(&process), "{text}");
    assert!(matches!(error, OpenError::Locked { pid: Some(_), .. }));

    // A handle that outlives `close` is told so, and does not hold the folder.
    store.close().await;
    assert!(matches!(things.get("a"), Err(StoreError::Closed)));
    assert!(matches!(
        things.write(vec![set("a", "1")]).await,
        Err(StoreError::Closed)
    ));
    drop(Store::open(folder.path()).unwrap());
    // Dropping all handles releases it as well.
    Store::open(folder.path()).unwrap();
}

#[tokio::test]
async fn writes_that_were_queued_before_closing_are_done() {
    let folder = tempfile::tempdir().unwrap();
    let (store, things) = open(folder.path());
    let mut writers = tokio::task::JoinSet::new();
    for each in 0..100 {
        let things = things.clone();
        writers.spawn(async move { (each, things.write(vec![set(&each.to_string(), "x")]).await) });
    }
    tokio::task::yield_now().await;
    store.close().await;
    let results = writers.join_all().await;
    let (_store, things) = open(folder.path());
    for (each, result) in results {
        let there = things.exists(&each.to_string()).unwrap();
        assert_eq!(result.is_ok(), there, "{each}: {result:?}");
    }
}

#[tokio::test]
async fn a_format_of_the_future_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (store, things) = open(folder.path());
    things.write(vec![set("a", "1")]).await.unwrap();
    store.close().await;
    let format = folder.path().join("format");
    let written = std::fs::read_to_string(&format).unwrap();
    assert_eq!(written, "tombolo-store 2\n");

    std::fs::write(&format, "tombolo-store 3\n").unwrap();
    let error = Store::open(folder.path()).err().unwrap();
    assert_eq!(error.code(), Code::StoreFormat);
    assert!(error.to_string().contains("tombolo-store 3"), "{error}");

    std::fs::write(&format, written).unwrap();
    let (_store, things) = open(folder.path());
    assert_eq!(things.get("a").unwrap(), Some(bytes("1")));
}

#[test]
fn a_new_folder_is_its_users_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("store");
    let _store = Store::open(&folder).unwrap();
    let mode = folder.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn an_app_has_no_more_bytes_than_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let (store, things) = open(folder.path());
    store.bound_keys(200);
    let other = store.key_value(&name("other"), &name("things"));
    let value = "v".repeat(100);
    let full = |result: Result<(), StoreError>| {
        let error = result.unwrap_err();
        assert!(matches!(&error, StoreError::KeysFull { app, .. } if app == "app"));
        assert_eq!(error.code(), Code::KeysFull);
    };
    things.write(vec![set("a", &value)]).await.unwrap();
    full(things.write(vec![set("b", &value)]).await);
    // Several writes of one key count as the last of them.
    things
        .write(vec![
            set("a", "1"),
            set("b", &value),
            delete("a"),
            set("a", "1"),
        ])
        .await
        .unwrap();
    full(
        things
            .write(vec![set("b", ""), set("c", &value), set("b", &value)])
            .await,
    );
    let swapped = things.swap("c", None, Bytes::from(value.clone())).await;
    full(swapped.map(drop));
    other.write(vec![set("a", &value)]).await.unwrap();
    assert!(!things.exists("c").unwrap());
    // But for the host's own.
    let host = store.key_value(&name("host"), &name("things")).unbounded();
    let long = "v".repeat(500);
    host.write(vec![set("a", &long)]).await.unwrap();
    let writes = vec![(host.clone(), set("b", &long))];
    let transaction = Transaction {
        writes,
        ..Transaction::default()
    };
    store.journal().commit(transaction).await.unwrap();
    store.close().await;

    let (store, things) = open(folder.path());
    store.bound_keys(50);
    // Too much already: only what makes it smaller.
    full(things.write(vec![set("d", "1")]).await);
    things.write(vec![set("b", "short")]).await.unwrap();
    things.write(vec![set("d", "1")]).await.unwrap();
    assert!(things.increment("n", 1).await.is_err());
    things.write(vec![delete("b"), delete("d")]).await.unwrap();
    assert_eq!(things.increment("n", 1).await.unwrap(), 1);
}
