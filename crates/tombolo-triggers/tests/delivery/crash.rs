//! What a crash, a drain and a restart do to events that were handed out.

use std::time::Duration;

use tombolo_store::Taken;
use tombolo_store::queue::TakeBounds;
use tombolo_triggers::delivery::DeliveryConfig;

use crate::support::{
    Functions, Site, answer, config, consumer, endless, event, eventually, gate, pass, queue,
    settings,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_answer_and_its_acknowledgement_delivers_again() {
    let site = Site::new();
    let opened = site.open(&[("readings", settings())]).await;
    opened.publish("readings", [event("1")]).await;
    // The head of the answer is there, and the function has done its work.
    let functions = Functions::new(|_| async { Ok(endless()) });
    let delivering = opened.deliver(&functions, vec![consumer("readings", "queue")]);
    eventually(|| functions.seen().len() == 1).await;
    delivering.crash().await;
    opened.store.close().await;

    let opened = site.open(&[("readings", settings())]).await;
    let functions = Functions::new(|_| async { Ok(answer(200)) });
    let delivering = opened.deliver(&functions, vec![consumer("readings", "queue")]);
    opened.until_empty("readings").await;
    let seen = functions.seen();
    assert_eq!((seen.len(), seen[0].header("ce-id")), (1, "1"));
    delivering.stop().await;
    opened.store.close().await;

    let opened = site.open(&[("readings", settings())]).await;
    assert_eq!(opened.figures("readings").depth, 0, "it was acknowledged");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_and_never_settled_is_there_after_a_restart() {
    let site = Site::new();
    let opened = site.open(&[("readings", settings())]).await;
    opened.publish("readings", ["1", "2"].map(event)).await;
    let bounds = TakeBounds {
        events: 1,
        bytes: 1 << 20,
    };
    let taken = opened
        .journal
        .take(&queue("readings"), bounds)
        .await
        .unwrap();
    assert!(matches!(taken, Taken::Batch(_)));
    opened.store.close().await;

    let opened = site.open(&[("readings", settings())]).await;
    let functions = Functions::new(|_| async { Ok(answer(200)) });
    let delivering = opened.deliver(&functions, vec![consumer("readings", "queue")]);
    opened.until_empty("readings").await;
    assert_eq!(functions.seen().len(), 2);
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_takes_nothing_more_and_waits_for_what_is_under_way() {
    let site = Site::new();
    let opened = site.open(&[("readings", settings())]).await;
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
    opened.publish("readings", [event("1")]).await;
    eventually(|| functions.seen().len() == 1).await;
    delivering.shutdown.cancel();
    // What is published during the drain waits for the next start.
    opened.publish("readings", [event("2")]).await;
    door.add_permits(2);
    delivering.stop().await;
    let figures = opened.figures("readings");
    assert!(figures.counters.done >= 1, "{figures:?}");
    assert_eq!(figures.leased, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_takes_too_long_is_cut_and_its_events_stay() {
    let site = Site::new();
    let opened = site.open(&[("readings", settings())]).await;
    opened.publish("readings", [event("1")]).await;
    let functions = Functions::new(|_| std::future::pending());
    let hasty = DeliveryConfig {
        drain_timeout: Duration::from_millis(20),
        log: false,
        ..config()
    };
    let delivering = opened.deliver_with(&functions, vec![consumer("readings", "queue")], hasty);
    eventually(|| functions.seen().len() == 1).await;
    delivering.stop().await;
    opened.store.close().await;

    let opened = site.open(&[("readings", settings())]).await;
    let functions = Functions::new(|_| async { Ok(answer(200)) });
    let delivering = opened.deliver(&functions, vec![consumer("readings", "queue")]);
    opened.until_empty("readings").await;
    assert_eq!(
        functions.seen()[0].attempt(),
        1,
        "a cut is no failure of the function"
    );
    delivering.stop().await;
}
