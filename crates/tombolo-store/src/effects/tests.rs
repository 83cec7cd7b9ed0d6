//! What an invocation sees of its own effects, what keeps them from being committed, and their bounds.

use tombolo_core::event::Event;
use tombolo_core::{Name, QueueId};

use super::*;
use crate::Store;

struct Site {
    _folder: tempfile::TempDir,
    store: Store,
    effects: Effects,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            store: Store::open(folder.path()).unwrap(),
            _folder: folder,
            effects: Effects::default(),
        }
    }

    /// The store as others have it.
    fn things(&self) -> KeyValue {
        let (app, store): (Name, Name) = ("app".parse().unwrap(), "things".parse().unwrap());
        self.store.key_value(&app, &store)
    }

    /// The store as the invocation has it.
    fn within(&self) -> KeyValue {
        self.things().within(Scope {
            effects: Some(self.effects.clone()),
            ..Scope::default()
        })
    }

    async fn commit(&self) -> Result<(), StoreError> {
        let transaction = self.effects.seal();
        self.store.journal().commit(transaction).await.map(drop)
    }
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

fn publication(id: &str) -> Publication {
    let queue = QueueId {
        app: "app".parse().unwrap(),
        queue: "readings".parse().unwrap(),
    };
    Publication::new(queue, Event::new(id, "/test", "test"))
}

#[tokio::test]
async fn an_invocation_sees_its_own_changes_and_nobody_else_does_before_the_commit() {
    let site = Site::new();
    let (things, within) = (site.things(), site.within());
    let before = ["a", "b", "c"].map(|key| set(key, "old"));
    things.write(before.to_vec()).await.unwrap();
    let changes = vec![set("a", "new"), delete("b"), set("bb", "1"), set("z", "2")];
    within.write(changes).await.unwrap();
    assert_eq!(within.increment("bb", 41).await.unwrap(), 42);
    let swapped = within.swap("z", Some("2".into()), "3".into()).await;
    assert_eq!(swapped.unwrap(), Swapped::Done);
    let swapped = within.swap("z", None, "4".into()).await.unwrap();
    assert_eq!(swapped, Swapped::Changed(Some("3".into())));
    assert_eq!(within.get("a").unwrap().unwrap(), "new");
    assert!(!within.exists("b").unwrap());
    for limit in 1..6 {
        let (mut keys, mut page) = (Vec::new(), within.keys(None, limit).unwrap());
        while let Some(last) = page.last().cloned() {
            keys.extend(page);
            page = within.keys(Some(&last), limit).unwrap();
        }
        assert_eq!(keys, ["a", "bb", "c", "z"], "{limit}");
    }
    assert_eq!(things.keys(None, 10).unwrap(), ["a", "b", "c"]);
    assert_eq!(things.get("a").unwrap().unwrap(), "old");

    site.commit().await.unwrap();
    assert_eq!(things.keys(None, 10).unwrap(), ["a", "bb", "c", "z"]);
    let keys = ["a", "b", "bb", "z"].map(str::to_owned);
    let values = things.get_many(&keys).unwrap();
    let values: Vec<_> = values.into_iter().map(Option::unwrap_or_default).collect();
    assert_eq!(values, ["new", "", "42", "3"]);
}

#[tokio::test]
async fn what_was_read_must_be_unchanged_and_what_was_only_written_need_not() {
    let site = Site::new();
    let things = site.things();
    site.within()
        .write(vec![set("blind", "mine")])
        .await
        .unwrap();
    things.write(vec![set("blind", "theirs")]).await.unwrap();
    site.commit().await.unwrap();
    assert_eq!(things.get("blind").unwrap().unwrap(), "mine");

    for read in ["get", "exists", "increment", "swap"] {
        let site = Site {
            effects: Effects::default(),
            store: site.store.clone(),
            _folder: tempfile::tempdir().unwrap(),
        };
        let within = site.within();
        things.write(vec![delete("n")]).await.unwrap();
        match read {
            "get" => assert_eq!(within.get("n").unwrap(), None),
            "exists" => assert!(!within.exists("n").unwrap()),
            "increment" => assert_eq!(within.increment("n", 1).await.unwrap(), 1),
            _ => drop(within.swap("n", None, "1".into()).await.unwrap()),
        }
        within.write(vec![set("other", read)]).await.unwrap();
        things.write(vec![set("n", "7")]).await.unwrap();
        if read == "get" {
            assert_eq!(within.get("n").unwrap(), None, "it is read once");
        }
        let refused = site.commit().await.unwrap_err();
        assert!(
            matches!(&refused, StoreError::Conflict { key } if key == "n"),
            "{refused}"
        );
        assert_eq!(things.get("n").unwrap().unwrap(), "7");
        assert_eq!(things.get("other").unwrap(), None, "{read}");
    }
}

#[tokio::test]
async fn keys_and_bytes_are_bounded_and_what_found_no_room_leaves_the_rest_as_it_was() {
    let site = Site::new();
    let within = site.within();
    let value = "x".repeat(EFFECTS_BYTES_MAX / 4);
    for key in ["a", "b", "c"] {
        within.write(vec![set(key, &value)]).await.unwrap();
    }
    let refused = within.write(vec![set("d", "1"), set("e", &value)]).await;
    assert!(matches!(refused, Err(StoreError::TransactionTooLong)));
    assert_eq!(within.get("d").unwrap(), None);
    within
        .write(vec![set("a", ""), set("b", "")])
        .await
        .unwrap();
    within.write(vec![set("e", &value)]).await.unwrap();

    let refused = site
        .effects
        .publish(vec![publication("1"); EFFECTS_MAX])
        .await;
    assert!(matches!(refused, Err(PublishError::TransactionTooLong(_))));
    let published = site
        .effects
        .publish(vec![publication("1"), publication("1")]);
    let published = published.await.unwrap();
    assert_eq!(published, [Published::Accepted(1), Published::Duplicate]);
}

#[tokio::test]
async fn an_invocation_that_is_over_changes_nothing_more() {
    let site = Site::new();
    let within = site.within();
    within.write(vec![set("a", "1")]).await.unwrap();
    site.commit().await.unwrap();
    let late = within.write(vec![set("a", "2")]).await;
    assert!(matches!(late, Err(StoreError::Ended)), "{late:?}");
    assert!(within.get("a").is_err());
    assert!(site.effects.publish(vec![publication("1")]).await.is_err());
    assert!(site.effects.seal().publications.is_empty());
    assert_eq!(site.things().get("a").unwrap().unwrap(), "1");
}
