//! One trace from the publisher over every attempt to the dead letter.

use tombolo_core::{Publication, Publish as _, TraceContext};

use crate::support::{Functions, Site, answer, batched, consumer, event, queue, settings};

const PUBLISHER: TraceContext = TraceContext {
    trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
    span_id: 0xb7ad_6b71_6920_3331,
    sampled: true,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_belongs_to_the_trace_that_published() {
    let site = Site::new();
    let opened = site.open(&[("readings", settings())]).await;
    let functions = Functions::new(|_| async { Ok(answer(500)) });
    let delivering = opened.deliver(&functions, vec![consumer("readings", "queue")]);
    let publication = Publication::new(queue("readings"), event("1")).trace(Some(PUBLISHER));
    opened.journal.publish(vec![publication]).await.unwrap();
    opened.until_empty("readings").await;
    let seen = functions.seen();
    let dead = opened.dead("readings").remove(0);
    assert_eq!((seen.len(), dead.trace), (3, Some(PUBLISHER)));
    let mut spans = vec![PUBLISHER.span_id];
    for (seen, attempt) in seen.iter().zip(dead.dead.unwrap().history) {
        let trace = seen.context.trace;
        assert_eq!((trace.trace_id, trace.sampled), (PUBLISHER.trace_id, true));
        assert!(
            !spans.contains(&trace.span_id),
            "an attempt has a span of its own"
        );
        spans.push(trace.span_id);
        assert_eq!(attempt.cause.trace, Some(trace));
    }
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_a_trace_of_its_own_which_is_recorded_like_its_events() {
    let site = Site::new();
    let opened = site.open(&[("readings", batched(10))]).await;
    let publications =
        ["1", "2"].map(|id| Publication::new(queue("readings"), event(id)).trace(Some(PUBLISHER)));
    opened.journal.publish(publications.to_vec()).await.unwrap();
    let functions = Functions::new(|_| async { Ok(answer(200)) });
    let mut consumer = consumer("readings", "queue");
    consumer.batch.events = 10;
    let delivering = opened.deliver(&functions, vec![consumer]);
    opened.until_empty("readings").await;
    let trace = functions.seen()[0].context.trace;
    assert_ne!(trace.trace_id, PUBLISHER.trace_id);
    assert!(trace.sampled);
    delivering.stop().await;
}
