//! Batches: one request for many events, and failures of some of them.

use tombolo_store::queue::{QueueSettings, TakeBounds};
use tombolo_triggers::delivery::Consumer;

use crate::support::{
    Functions, Site, answer, answer_with, batched, consumer, event, gate, pass, queue,
};

fn in_batches() -> Consumer {
    Consumer {
        batch: TakeBounds {
            events: 10,
            bytes: 1 << 20,
        },
        reply: Some(queue("replies")),
        ..consumer("readings", "queue")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_batch_lists_as_failed_is_delivered_again_and_the_rest_is_not() {
    let site = Site::new();
    let opened = site.open(&[("readings", batched(10))]).await;
    opened
        .publish("readings", ["1", "2", "3", "4", "5"].map(event))
        .await;
    let functions = Functions::new(|seen| async move {
        let failed =
            r#"{"failed":[{"source":"/machine/7","id":"2"},{"source":"/machine/7","id":"4"}]}"#;
        Ok(match seen.attempt() {
            1 => answer_with(200, &[], failed),
            // A batch has no replies: this is not looked at.
            _ => answer_with(200, &[("ce-id", "")], ""),
        })
    });
    let delivering = opened.deliver(&functions, vec![in_batches()]);
    opened.until_empty("readings").await;
    let seen = functions.seen();
    assert_eq!(
        seen[0].header("content-type"),
        "application/cloudevents-batch+json"
    );
    assert_eq!(seen[0].ids(), ["1", "2", "3", "4", "5"]);
    // They back off each by its own, so they come together or apart.
    let mut again: Vec<String> = seen[1..].iter().flat_map(|seen| seen.ids()).collect();
    again.sort();
    assert_eq!(again, ["2", "4"]);
    assert!(seen[1..].iter().all(|seen| seen.attempt() == 2));
    assert_eq!(opened.figures("readings").counters.done, 5);
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_failed_event_of_its_key_comes_again_behind_it() {
    let site = Site::new();
    let ordered = QueueSettings {
        order_by: Some("subject".into()),
        ..batched(10)
    };
    let opened = site.open(&[("readings", ordered)]).await;
    let keyed = [("1", "a"), ("2", "a"), ("3", "a"), ("4", "b")].map(|(id, key)| {
        let mut event = event(id);
        event.subject = Some(key.into());
        event
    });
    opened.publish("readings", keyed).await;
    let functions = Functions::new(|seen| async move {
        let failed = r#"{"failed":[{"source":"/machine/7","id":"2"}]}"#;
        let failed = if seen.ids().len() == 4 { failed } else { "" };
        Ok(answer_with(200, &[], failed))
    });
    let delivering = opened.deliver(&functions, vec![in_batches()]);
    opened.until_empty("readings").await;
    let seen = functions.seen();
    assert_eq!(seen[0].ids(), ["1", "2", "3", "4"]);
    let again: Vec<String> = seen[1..].iter().flat_map(|seen| seen.ids()).collect();
    assert_eq!(again, ["2", "3"]);
    assert!(opened.dead("readings").is_empty());
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_fails_fails_as_a_whole() {
    let site = Site::new();
    let opened = site.open(&[("readings", batched(10))]).await;
    opened.publish("readings", ["1", "2", "3"].map(event)).await;
    let functions = Functions::new(|_| async { Ok(answer(400)) });
    let delivering = opened.deliver(&functions, vec![in_batches()]);
    opened.until_empty("readings").await;
    assert_eq!(functions.seen().len(), 1);
    assert_eq!(opened.dead("readings").len(), 3);
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_one_is_a_batch() {
    let site = Site::new();
    let opened = site.open(&[("readings", batched(10))]).await;
    let functions = Functions::new(|_| async { Ok(answer(200)) });
    let delivering = opened.deliver(&functions, vec![in_batches()]);
    opened.publish("readings", [event("1")]).await;
    opened.until_empty("readings").await;
    assert_eq!(functions.seen()[0].ids(), ["1"]);
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_a_batch_is_out_makes_the_next() {
    let site = Site::new();
    let opened = site
        .open(&[(
            "readings",
            tombolo_store::queue::QueueSettings {
                concurrency: 1,
                ..batched(10)
            },
        )])
        .await;
    let door = gate();
    let waiting = door.clone();
    let functions = Functions::new(move |_| {
        let door = waiting.clone();
        async {
            pass(door).await;
            Ok(answer(200))
        }
    });
    let delivering = opened.deliver(&functions, vec![in_batches()]);
    opened.publish("readings", [event("0")]).await;
    opened
        .until("readings", |figures| figures.leased == 1)
        .await;
    let ids: Vec<String> = (1..=25).map(|id| id.to_string()).collect();
    opened
        .publish("readings", ids.iter().map(|id| event(id)))
        .await;
    door.add_permits(10);
    opened.until_empty("readings").await;
    let sizes: Vec<usize> = functions
        .seen()
        .iter()
        .map(|seen| seen.ids().len())
        .collect();
    assert_eq!(sizes, [1, 10, 10, 5]);
    let all: Vec<String> = functions
        .seen()
        .iter()
        .flat_map(|seen| seen.ids())
        .skip(1)
        .collect();
    assert_eq!(all, ids);
    delivering.stop().await;
}
