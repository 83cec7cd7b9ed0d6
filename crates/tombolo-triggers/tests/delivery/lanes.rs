//! Order, concurrency and fairness, and how the set of consumers changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tombolo_core::event::Event;
use tombolo_store::queue::QueueSettings;
use tombolo_triggers::delivery::{ConsumeError, Consumer, DeliveryConfig};

use crate::support::{
    Functions, Site, answer, config, consumer, event, eventually, gate, pass, queue, settings,
};

fn of_key(key: u32, number: u32) -> Event {
    Event {
        subject: Some(format!("key-{key}")),
        ..event(&format!("{key}/{number}"))
    }
}

/// What functions do with keys: who is at work, and what was done.
#[derive(Default)]
struct Keys {
    busy: BTreeSet<String>,
    done: BTreeMap<String, Vec<String>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_one_key_are_never_at_once_nor_out_of_order() {
    let site = Site::new();
    let ordered = QueueSettings {
        order_by: Some("subject".into()),
        ..settings()
    };
    let opened = site.open(&[("readings", ordered)]).await;
    let keys = Arc::new(Mutex::new(Keys::default()));
    let shared = keys.clone();
    let functions = Functions::new(move |seen| {
        let keys = shared.clone();
        async move {
            let (key, id) = (seen.header("ce-subject"), seen.header("ce-id"));
            assert!(
                keys.lock().unwrap().busy.insert(key.into()),
                "{key} twice at once"
            );
            tokio::task::yield_now().await;
            let mut keys = keys.lock().unwrap();
            keys.busy.remove(key);
            // Each third event fails at first.
            let number: u32 = id.split('/').next_back().unwrap().parse().unwrap();
            if number.is_multiple_of(3) && seen.attempt() == 1 {
                return Ok(answer(500));
            }
            keys.done.entry(key.into()).or_default().push(id.into());
            Ok(answer(200))
        }
    });
    let delivering = opened.deliver(&functions, vec![consumer("readings", "queue")]);
    let (each, count) = (8, 20);
    let events = (0..count).flat_map(|number| (0..each).map(move |key| of_key(key, number)));
    opened.publish("readings", events).await;
    opened.until_empty("readings").await;
    assert!(
        opened.dead("readings").is_empty(),
        "{:?}",
        opened.dead("readings").first()
    );
    let done = std::mem::take(&mut keys.lock().unwrap().done);
    for key in 0..each {
        let expected: Vec<String> = (0..count).map(|number| format!("{key}/{number}")).collect();
        assert_eq!(done[&format!("key-{key}")], expected);
    }
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_flooded_and_hangs_starves_no_other() {
    let site = Site::new();
    let opened = site
        .open(&[
            ("flood", settings()),
            ("calm", settings()),
            ("quiet", settings()),
        ])
        .await;
    let functions = Functions::new(|seen| async move {
        match seen.function.function.as_str() {
            "flood" => std::future::pending().await,
            _ => Ok(answer(200)),
        }
    });
    let narrow = DeliveryConfig {
        concurrency: 2,
        drain_timeout: std::time::Duration::ZERO,
        ..config()
    };
    let consumers = ["flood", "calm", "quiet"].map(|name| consumer(name, "queue"));
    let delivering = opened.deliver_with(&functions, consumers.to_vec(), narrow);
    opened
        .publish("flood", (0..100).map(|id| event(&id.to_string())))
        .await;
    let flooded = || {
        functions
            .seen()
            .iter()
            .filter(|seen| seen.function.function.as_str() == "flood")
            .count()
    };
    eventually(|| flooded() == 3).await;
    for name in ["calm", "quiet"] {
        opened
            .publish(name, (0..50).map(|id| event(&id.to_string())))
            .await;
        opened.until_empty(name).await;
    }
    // Its own place, and both of the node's.
    assert_eq!(flooded(), 3);
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_run_at_once_than_the_queue_allows() {
    let site = Site::new();
    let four = QueueSettings {
        concurrency: 4,
        ..settings()
    };
    let opened = site.open(&[("readings", four)]).await;
    let door = gate();
    let waiting = door.clone();
    let functions = Functions::new(move |_| {
        let door = waiting.clone();
        async {
            pass(door).await;
            Ok(answer(200))
        }
    });
    let delivering = opened.deliver(&functions, vec![consumer("readings", "queue")]);
    opened
        .publish("readings", (0..20).map(|id| event(&id.to_string())))
        .await;
    for round in 1..=5 {
        eventually(|| functions.seen().len() == 4 * round).await;
        assert_eq!(opened.figures("readings").leased, 4);
        door.add_permits(4);
    }
    opened.until_empty("readings").await;
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_change_while_deliveries_are_under_way() {
    let site = Site::new();
    let opened = site
        .open(&[("readings", settings()), ("plans", settings())])
        .await;
    let door = gate();
    let waiting = door.clone();
    let functions = Functions::new(move |seen| {
        let door = waiting.clone();
        async move {
            if seen.header("ce-id") == "slow" {
                pass(door).await;
            }
            Ok(answer(200))
        }
    });
    let app = "plant".parse().unwrap();
    let delivering = opened.deliver(&functions, vec![consumer("readings", "queue")]);
    opened.publish("readings", [event("slow")]).await;
    eventually(|| functions.seen().len() == 1).await;

    // Another function takes over; what the old one has, it finishes.
    let successor = Consumer {
        function: consumer("successor", "queue").function,
        ..consumer("readings", "queue")
    };
    delivering
        .handle
        .consume(&app, vec![successor, consumer("plans", "queue")])
        .unwrap();
    opened.publish("readings", [event("next")]).await;
    opened.publish("plans", [event("plan")]).await;
    eventually(|| functions.seen().len() == 3).await;
    let by = |id: &str| {
        let seen = functions.seen();
        let found = seen.iter().find(|seen| seen.header("ce-id") == id).unwrap();
        found.function.function.to_string()
    };
    assert_eq!(
        (by("slow"), by("next"), by("plan")),
        ("readings".into(), "successor".into(), "plans".into())
    );
    door.add_permits(1);
    opened.until_empty("readings").await;

    delivering.handle.consume(&app, Vec::new()).unwrap();
    opened.publish("plans", [event("late")]).await;
    delivering.stop().await;
    assert!(opened.figures("readings").depth == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_that_are_not_possible_change_nothing() {
    let site = Site::new();
    let opened = site.open(&[("readings", settings())]).await;
    let functions = Functions::new(|_| async { Ok(answer(200)) });
    let delivering = opened.deliver(&functions, vec![consumer("readings", "queue")]);
    let app = "plant".parse().unwrap();
    let twice = vec![consumer("readings", "queue"), consumer("readings", "async")];
    let refused = delivering.handle.consume(&app, twice).unwrap_err();
    assert_eq!(refused, ConsumeError::Twice(queue("readings")));
    opened.publish("readings", [event("1")]).await;
    opened.until_empty("readings").await;
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_does_not_wait_for_what_is_too_old() {
    let site = Site::new();
    let opened = site.open(&[("readings", settings())]).await;
    for thousand in 0..40 {
        let ids = (0..1000).map(|number| event(&format!("{thousand}/{number}")));
        opened.publish("readings", ids).await;
    }
    let old = QueueSettings {
        age_ms: 1,
        ..settings()
    };
    opened
        .journal
        .configure(queue("readings"), old)
        .await
        .unwrap();
    let before = opened.figures("readings").depth;
    assert!(before > 10_000, "{before}");
    let functions = Functions::new(|_| async { Ok(answer(200)) });
    let delivering = opened.deliver(&functions, vec![consumer("readings", "queue")]);
    opened
        .until("readings", |figures| figures.depth < before)
        .await;
    delivering.stop().await;
    assert!(opened.figures("readings").depth > 0);
    assert_eq!(functions.seen().len(), 0);
}
