//! Callbacks of asynchronous invocations: told once it is certain, retried by the same contract.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use serde_json::Value;
use tombolo_core::event::Event;
use tombolo_store::queue::{Callback, QueueSettings};
use tombolo_triggers::delivery::{Consumer, Target};

use crate::support::{
    Functions, Seen, Site, answer, answer_with, consumer, event, queue, settings,
};

const URL: &str = "https://done.example/here?token=7";

fn consumers() -> Vec<Consumer> {
    let asynchronous = Consumer {
        callback: Some(queue("report.callback")),
        ..consumer("report.async", "async")
    };
    let callback = Consumer {
        target: Target::Callback,
        ..consumer("report.callback", "callback")
    };
    vec![asynchronous, callback]
}

/// The queue of the invocations and that of what is told of them.
fn queues() -> [(&'static str, QueueSettings); 2] {
    let function = consumers().remove(0).function;
    let callback = Callback {
        queue: queue("report.callback"),
        function,
    };
    let asynchronous = QueueSettings {
        callback: Some(callback),
        ..settings()
    };
    [
        ("report.async", asynchronous),
        ("report.callback", settings()),
    ]
}

fn asking(id: &str) -> Event {
    let mut event = event(id);
    event.set("callback", URL.into()).unwrap();
    event
}

fn is_callback(seen: &Seen) -> bool {
    seen.header("x-tombolo-trigger") == "callback"
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_or_the_end_of_hope_is_told_and_nothing_else() {
    let site = Site::new();
    let opened = site.open(&queues()).await;
    let refusals = Arc::new(AtomicUsize::new(0));
    let functions = Functions::new(move |seen| {
        let refusals = refusals.clone();
        async move {
            if is_callback(&seen) {
                // The other side is away at first.
                let away = refusals.fetch_add(1, SeqCst) < 2;
                return Ok(answer(if away { 503 } else { 200 }));
            }
            Ok(match (seen.header("ce-id"), seen.attempt()) {
                ("refused", _) => answer_with(422, &[], "no such machine"),
                ("failing", _) | ("late", 1) => answer(500),
                _ => answer_with(201, &[("x-made", "a"), ("x-made", "b")], "made"),
            })
        }
    });
    let delivering = opened.deliver(&functions, consumers());
    let events = ["good", "refused", "failing", "late"].map(asking);
    opened.publish("report.async", events).await;
    opened.publish("report.async", [event("silent")]).await;
    opened.until_empty("report.async").await;
    opened
        .until("report.callback", |figures| figures.counters.done == 4)
        .await;
    let seen = functions.seen();
    let told = |id: &str| -> Value {
        let mut told = seen.iter().filter(|seen| is_callback(seen));
        let told = told.rfind(|seen| seen.header("ce-subject") == id).unwrap();
        assert_eq!(told.path, URL);
        assert_eq!(told.header("ce-source"), "/plant/report");
        let mut data: Value = serde_json::from_slice(&told.body).unwrap();
        data["type"] = told.header("ce-type").into();
        data
    };
    for (id, attempts) in [("good", 1), ("late", 2)] {
        let data = told(id);
        assert_eq!(data["type"], "tombolo.invocation.answered");
        assert_eq!(data["status"], 201);
        assert_eq!(data["headers"]["x-made"], serde_json::json!(["a", "b"]));
        assert_eq!(
            (&data["body"], &data["cut"]),
            (&"made".into(), &false.into())
        );
        assert_eq!(
            (&data["id"], &data["attempts"]),
            (&id.into(), &attempts.into())
        );
    }
    for (id, attempts) in [("refused", 1), ("failing", 3)] {
        let data = told(id);
        assert_eq!(data["type"], "tombolo.invocation.failed");
        assert_eq!(data["attempts"], attempts);
        assert_eq!(data["error"]["code"], Value::Null);
    }
    let detail = told("refused")["error"]["detail"].to_string();
    assert!(
        detail.contains("422") && detail.contains("no such machine"),
        "{detail}"
    );
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_never_arrives_is_a_dead_letter() {
    let site = Site::new();
    let opened = site.open(&queues()).await;
    let functions = Functions::new(|seen| async move {
        let status = match is_callback(&seen) {
            true => 503,
            false => 200,
        };
        Ok(answer(status))
    });
    let delivering = opened.deliver(&functions, consumers());
    opened.publish("report.async", [asking("1")]).await;
    opened
        .until("report.callback.dead", |figures| figures.depth == 1)
        .await;
    assert_eq!(
        opened.dead("report.callback")[0]
            .dead
            .as_ref()
            .unwrap()
            .attempts,
        3
    );
    assert!(opened.dead("report.async").is_empty());
    delivering.stop().await;
}
