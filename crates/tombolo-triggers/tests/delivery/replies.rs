//! Reply events: published with the acknowledgement, or neither.

use tombolo_core::Code;
use tombolo_store::queue::QueueSettings;
use tombolo_triggers::delivery::Consumer;

use crate::support::{Functions, Site, answer, answer_with, consumer, event, queue, settings};

fn replying() -> Consumer {
    Consumer {
        reply: Some(queue("plans")),
        ..consumer("readings", "queue")
    }
}

const REPLY: [(&str, &str); 4] = [
    ("ce-specversion", "1.0"),
    ("ce-id", "p-1"),
    ("ce-source", "/planner"),
    ("ce-type", "plan.made"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_goes_on_to_the_next_function() {
    let site = Site::new();
    let opened = site
        .open(&[("readings", settings()), ("plans", settings())])
        .await;
    let functions = Functions::new(|seen| async move {
        Ok(match seen.function.function.as_str() {
            "readings" => answer_with(200, &REPLY, "stop at noon"),
            _ => answer(200),
        })
    });
    let consumers = vec![replying(), consumer("plans", "queue")];
    let delivering = opened.deliver(&functions, consumers);
    opened.publish("readings", [event("1")]).await;
    opened.until_empty("readings").await;
    opened
        .until("plans", |figures| figures.counters.done == 1)
        .await;
    let seen = functions.seen();
    assert_eq!(seen[1].function.function.as_str(), "plans");
    assert_eq!(
        (seen[1].header("ce-id"), seen[1].body.as_ref()),
        ("p-1", b"stop at noon".as_ref())
    );
    assert_eq!((seen[0].context.hops, seen[1].context.hops), (0, 1));
    assert_eq!(
        seen[1].context.trace.trace_id,
        seen[0].context.trace.trace_id
    );
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_goes_nowhere_is_not_looked_at() {
    let site = Site::new();
    let opened = site.open(&[("readings", settings())]).await;
    let functions = Functions::new(|_| async { Ok(answer_with(200, &REPLY[..2], "")) });
    let delivering = opened.deliver(&functions, vec![consumer("readings", "queue")]);
    opened.publish("readings", [event("1")]).await;
    opened.until_empty("readings").await;
    assert_eq!(opened.figures("readings").counters.done, 1);
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_cannot_be_kept_fails_the_attempt() {
    let site = Site::new();
    let tiny = QueueSettings {
        events: 1,
        ..settings()
    };
    let opened = site
        .open(&[("readings", settings()), ("plans", tiny)])
        .await;
    opened.publish("plans", [event("fills it")]).await;
    let functions = Functions::new(|seen| async move {
        Ok(match seen.header("ce-id") {
            "malformed" => answer_with(200, &REPLY[..3], ""),
            _ => answer_with(200, &REPLY, ""),
        })
    });
    let delivering = opened.deliver(&functions, vec![replying()]);
    opened
        .publish("readings", ["malformed", "full"].map(event))
        .await;
    opened.until_empty("readings").await;
    for dead in opened.dead("readings") {
        let letter = dead.dead.unwrap();
        assert_eq!(letter.attempts, 3);
        let code = match dead.event.id.as_str() {
            "full" => Code::QueueFull,
            _ => Code::EventInvalid,
        };
        assert_eq!(letter.history[0].cause.code, Some(code));
    }
    assert_eq!(opened.dead("readings").len(), 2);
    assert_eq!(opened.figures("plans").depth, 1);
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_reply_to_one_another_for_ever_are_stopped() {
    let site = Site::new();
    let opened = site.open(&[("readings", settings())]).await;
    let functions = Functions::new(|seen| async move {
        let id = format!("{}+", seen.header("ce-id"));
        let mut reply = REPLY;
        reply[1].1 = &id;
        Ok(answer_with(200, &reply, "again"))
    });
    let itself = Consumer {
        reply: Some(queue("readings")),
        ..consumer("readings", "queue")
    };
    let delivering = opened.deliver(&functions, vec![itself]);
    opened.publish("readings", [event("1")]).await;
    opened
        .until("readings.dead", |figures| figures.depth == 1)
        .await;
    let hops: Vec<u8> = functions
        .seen()
        .iter()
        .map(|seen| seen.context.hops)
        .collect();
    assert_eq!(hops, (0..=16).collect::<Vec<_>>());
    let letter = opened.dead("readings").remove(0).dead.unwrap();
    assert_eq!(letter.history[0].cause.code, Some(Code::Loop));
    assert_eq!(opened.figures("readings").depth, 0);
    delivering.stop().await;
}
