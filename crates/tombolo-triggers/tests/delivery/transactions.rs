//! Transactional consumers: what a function does is committed with the acknowledgement, or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use tombolo_core::{Code, Publication, Publish as _};
use tombolo_store::queue::{Burial, QueueSettings};
use tombolo_store::{KeyValue, Scope, Write};
use tombolo_triggers::delivery::Consumer;
use tombolo_triggers::idempotent::Idempotent;

use crate::support::{
    Called, Functions, Opened, Seen, Site, answer, answer_with, batched, consumer, event, gate,
    pass, queue, settings,
};

fn transactional() -> Consumer {
    Consumer {
        transactional: true,
        ..consumer("readings", "queue")
    }
}

fn things(opened: &Opened) -> KeyValue {
    let (app, name) = ("plant".parse().unwrap(), "things".parse().unwrap());
    opened.store.key_value(&app, &name)
}

/// The store as the function has it that was called so.
fn within(things: &KeyValue, seen: &Seen) -> KeyValue {
    assert!(seen.effects.is_some(), "the function is transactional");
    things.within(Scope {
        effects: seen.effects.clone(),
        ..Scope::default()
    })
}

fn set(key: &str, value: &str) -> Write {
    Write::Set {
        key: key.into(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

fn value(things: &KeyValue, key: &str) -> Option<String> {
    let value = things.get(key).unwrap()?;
    Some(String::from_utf8(value.into()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn effects_are_there_with_the_acknowledgement_and_not_when_it_fails() {
    let site = Site::new();
    let opened = site
        .open(&[("readings", settings()), ("plans", settings())])
        .await;
    let store = things(&opened);
    let functions = Functions::new(move |seen| {
        let store = store.clone();
        async move {
            let things = within(&store, &seen);
            things.increment("runs", 1).await.unwrap();
            let written = things.write(vec![set(seen.header("ce-id"), "done")]);
            written.await.unwrap();
            let plan = Publication::new(queue("plans"), event(seen.header("ce-id")));
            let effects = seen.effects.clone().unwrap();
            effects.publish(vec![plan]).await.unwrap();
            assert_eq!(value(&store, seen.header("ce-id")), None);
            Ok(match (seen.header("ce-id"), seen.attempt()) {
                ("refused", _) => answer(400),
                ("failing", _) | ("mended", 1) => answer(503),
                _ => answer(200),
            })
        }
    });
    let delivering = opened.deliver(&functions, vec![transactional()]);
    let ids = ["good", "refused", "failing", "mended"];
    opened.publish("readings", ids.map(event)).await;
    opened.until_empty("readings").await;
    let things = things(&opened);
    assert_eq!(things.keys(None, 10).unwrap(), ["good", "mended", "runs"]);
    assert_eq!(value(&things, "runs").as_deref(), Some("2"));
    assert_eq!(opened.figures("plans").depth, 2);
    assert_eq!(opened.dead("readings").len(), 2);
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_that_count_at_once_counts_once_and_no_attempt_is_lost() {
    let site = Site::new();
    let opened = site.open(&[("readings", settings())]).await;
    let store = things(&opened);
    let functions = Functions::new(move |seen| {
        let store = store.clone();
        async move {
            let things = within(&store, &seen);
            things.increment("count", 1).await.unwrap();
            tokio::task::yield_now().await;
            Ok(answer(200))
        }
    });
    let delivering = opened.deliver(&functions, vec![transactional()]);
    let ids: Vec<String> = (0..200).map(|id| id.to_string()).collect();
    opened
        .publish("readings", ids.iter().map(|id| event(id)))
        .await;
    opened.until_empty("readings").await;
    let count = value(&things(&opened), "count");
    assert_eq!(count.as_deref(), Some("200"));
    assert!(functions.seen().iter().all(|seen| seen.attempt() == 1));
    assert!(opened.dead("readings").is_empty());
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_always_loses_what_it_read_fails_with_the_cause() {
    let site = Site::new();
    let opened = site.open(&[("readings", settings())]).await;
    let store = things(&opened);
    let meddled = Arc::new(AtomicUsize::new(0));
    let functions = Functions::new(move |seen| {
        let (store, meddled) = (store.clone(), meddled.clone());
        async move {
            let things = within(&store, &seen);
            things.get("a").unwrap();
            things.write(vec![set("b", "1")]).await.unwrap();
            let other = meddled.fetch_add(1, SeqCst).to_string();
            store.write(vec![set("a", &other)]).await.unwrap();
            Ok(answer(200))
        }
    });
    let delivering = opened.deliver(&functions, vec![transactional()]);
    opened.publish("readings", [event("1")]).await;
    opened.until_empty("readings").await;
    let dead = opened.dead("readings").remove(0).dead.unwrap();
    assert_eq!((dead.attempts, dead.burial), (3, Burial::Attempts));
    let cause = &dead.history[0].cause;
    assert_eq!(cause.code, Some(Code::Conflict));
    assert!(cause.detail.contains("`a`"), "{}", cause.detail);
    assert_eq!(value(&things(&opened), "b"), None);
    assert!(functions.seen().len() > 3, "it had several runs");
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_commits_what_it_did_with_the_events_that_it_acknowledges() {
    let site = Site::new();
    let opened = site.open(&[("readings", batched(10))]).await;
    let store = things(&opened);
    let functions = Functions::new(move |seen| {
        let store = store.clone();
        async move {
            let things = within(&store, &seen);
            let (mut failed, first) = (Vec::new(), seen.attempt() == 1);
            for id in seen.ids() {
                match (id.as_str(), first) {
                    ("late", true) => {
                        failed.push(serde_json::json!({"source": "/machine/7", "id": id}));
                    }
                    _ => drop(things.increment(&id, 1).await.unwrap()),
                }
            }
            let body = serde_json::json!({ "failed": failed }).to_string();
            Ok(answer_with(200, &[], &body))
        }
    });
    let mut consumer = transactional();
    consumer.batch.events = 10;
    opened
        .publish("readings", ["1", "late", "2"].map(event))
        .await;
    let delivering = opened.deliver(&functions, vec![consumer]);
    opened.until_empty("readings").await;
    for id in ["1", "2", "late"] {
        assert_eq!(value(&things(&opened), id).as_deref(), Some("1"), "{id}");
    }
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_committed_fails_the_attempt_and_leaves_nothing() {
    let site = Site::new();
    let tiny = QueueSettings {
        events: 1,
        ..settings()
    };
    let opened = site
        .open(&[("readings", settings()), ("plans", tiny)])
        .await;
    opened.publish("plans", [event("fills it")]).await;
    let store = things(&opened);
    let functions = Functions::new(move |seen| {
        let store = store.clone();
        async move {
            let things = within(&store, &seen);
            things.write(vec![set("a", "1")]).await.unwrap();
            let plan = Publication::new(queue("plans"), event("2"));
            let effects = seen.effects.clone().unwrap();
            effects.publish(vec![plan]).await.unwrap();
            Ok(answer(200))
        }
    });
    let delivering = opened.deliver(&functions, vec![transactional()]);
    opened.publish("readings", [event("1")]).await;
    opened.until_empty("readings").await;
    let dead = opened.dead("readings").remove(0).dead.unwrap();
    assert_eq!(dead.history[0].cause.code, Some(Code::QueueFull));
    assert_eq!(value(&things(&opened), "a"), None);
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_answer_is_committed_with_the_rest_and_its_key_runs_once() {
    let site = Site::new();
    let opened = site.open(&[("readings", settings())]).await;
    let store = things(&opened);
    let functions = Functions::new(move |seen| {
        let store = store.clone();
        async move {
            let things = within(&store, &seen);
            things.increment("count", 1).await.unwrap();
            Ok(answer(200))
        }
    });
    let invoke = Idempotent::new(Arc::new(Called(functions.clone())), opened.journal.clone());
    let delivering = opened.deliver_by(Arc::new(invoke), vec![transactional()]);
    let keyed = |id: usize| {
        let mut event = event(&id.to_string());
        event.set("idempotencykey", "same".into()).unwrap();
        event
    };
    opened.publish("readings", (0..8).map(keyed)).await;
    opened.until_empty("readings").await;
    assert_eq!(
        value(&things(&opened), "count").as_deref(),
        Some("1"),
        "{} runs",
        functions.seen().len()
    );
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_the_acknowledgement_leaves_nothing_of_the_run() {
    let site = Site::new();
    let opened = site.open(&[("readings", settings())]).await;
    opened.publish("readings", [event("1")]).await;
    let (store, door) = (things(&opened), gate());
    let wrote = Arc::new(AtomicBool::new(false));
    let (told, held) = (wrote.clone(), door.clone());
    let functions = Functions::new(move |seen| {
        let (store, told, held) = (store.clone(), told.clone(), held.clone());
        async move {
            let things = within(&store, &seen);
            things.increment("count", 1).await.unwrap();
            told.store(true, SeqCst);
            pass(held).await;
            Ok(answer(200))
        }
    });
    let delivering = opened.deliver(&functions, vec![transactional()]);
    crate::support::eventually(|| wrote.load(SeqCst)).await;
    delivering.crash().await;
    assert_eq!(value(&things(&opened), "count"), None);
    drop(functions);
    opened.store.close().await;

    let opened = site.open(&[("readings", settings())]).await;
    let store = things(&opened);
    let functions = Functions::new(move |seen| {
        let store = store.clone();
        async move {
            let things = within(&store, &seen);
            things.increment("count", 1).await.unwrap();
            Ok(answer(200))
        }
    });
    let delivering = opened.deliver(&functions, vec![transactional()]);
    opened.until_empty("readings").await;
    assert_eq!(value(&things(&opened), "count").as_deref(), Some("1"));
    delivering.stop().await;
}
