//! Requests to a queue's host name become publications, or problems that say why not.

use std::sync::Arc;

use http_body_util::{BodyExt as _, StreamBody};
use jiff::Timestamp;
use tombolo_core::{PublishError, TraceContext};
use wasmtime_wasi_http::Error;

use super::*;
use crate::publishing::Publishing;
use crate::publishing::fake::Kept;

struct Answer {
    status: u16,
    headers: HeaderMap,
    json: serde_json::Value,
}

impl Answer {
    fn counts(&self) -> (u16, u64, u64) {
        let count = |key| self.json[key].as_u64().unwrap();
        (self.status, count("accepted"), count("duplicates"))
    }

    fn problem(&self) -> (u16, &str) {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        (self.status, self.json["code"].as_str().unwrap())
    }
}

fn body(text: &str) -> WasiBody {
    Full::from(text.to_owned())
        .map_err(|never| match never {})
        .boxed_unsync()
}

async fn send_to(kept: &Arc<Kept>, queue: &str, request: Request<WasiBody>) -> Answer {
    let room = Publishing::default().room();
    let (head, body) = answer(kept.publisher(queue), room, request)
        .await
        .into_parts();
    let text = body.collect().await.unwrap().to_bytes();
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        json: serde_json::from_slice(&text).unwrap(),
    }
}

async fn send(kept: &Arc<Kept>, request: http::request::Builder, text: &str) -> Answer {
    send_to(kept, "readings", request.body(body(text)).unwrap()).await
}

fn post(query: &str) -> http::request::Builder {
    Request::post(format!("http://readings.queue.tombolo.internal/{query}"))
}

const STRUCTURED: &str =
    r#"{"specversion":"1.0","id":"1","source":"/machines/7","type":"reading","data":{"rms":0.2}}"#;

#[tokio::test]
async fn anything_becomes_an_event_of_the_function() {
    let kept = Arc::new(Kept::default());
    let text = post("").header("content-type", "text/csv");
    assert_eq!(send(&kept, text, "a,b").await.counts(), (202, 1, 0));
    let named = post("")
        .header("ce-type", "reading")
        .header("ce-subject", "hall%203");
    assert_eq!(send(&kept, named, "").await.counts(), (202, 1, 0));
    let publications = kept.publications.lock().unwrap();
    let (first, second) = (&publications[0], &publications[1]);
    assert_eq!(first.queue.to_string(), "plant/readings");
    assert_eq!(first.event.source, "/plant/sensor");
    assert_eq!(first.event.kind, "tombolo.message");
    assert_eq!(first.event.datacontenttype.as_deref(), Some("text/csv"));
    assert_eq!(first.event.data.as_deref(), Some(&b"a,b"[..]));
    assert_eq!(second.event.kind, "reading");
    assert_eq!(second.event.subject.as_deref(), Some("hall 3"));
    assert_eq!(second.event.data, None);
    assert_ne!(first.event.id, second.event.id);
    let trace = TraceContext {
        trace_id: 7,
        span_id: 9,
        sampled: true,
    };
    assert_eq!(first.trace, Some(trace));
}

#[tokio::test]
async fn events_in_every_mode_stay_as_they_are_and_duplicates_are_told() {
    let kept = Arc::new(Kept::default());
    let structured = || post("").header("content-type", "application/cloudevents+json");
    let batched = || post("").header("content-type", "application/cloudevents-batch+json");
    assert_eq!(
        send(&kept, structured(), STRUCTURED).await.counts(),
        (202, 1, 0)
    );
    let batch = format!(
        "[{STRUCTURED},{}]",
        STRUCTURED.replace(r#""id":"1""#, r#""id":"2""#)
    );
    assert_eq!(send(&kept, batched(), &batch).await.counts(), (202, 1, 1));
    assert_eq!(send(&kept, batched(), "[]").await.counts(), (202, 0, 0));
    let binary = post("")
        .header("ce-specversion", "1.0")
        .header("ce-id", "1")
        .header("ce-source", "/machines/7")
        .header("ce-type", "reading");
    assert_eq!(send(&kept, binary, "{}").await.counts(), (202, 0, 1));
    let publications = kept.publications.lock().unwrap();
    assert!(
        publications
            .iter()
            .all(|one| one.event.source == "/machines/7")
    );
}

#[tokio::test]
async fn delay_due_and_priority_are_the_querys() {
    let kept = Arc::new(Kept::default());
    for query in [
        "",
        "?due=2030-01-01T01:00:00%2B01:00&priority=0",
        "?due=2030-01-01T01:00:00+01:00&priority=9",
        "?delay=1h",
        "?due=1960-01-01T00:00:00Z",
    ] {
        assert_eq!(send(&kept, post(query), "").await.status, 202, "{query}");
    }
    let publications = kept.publications.lock().unwrap();
    let terms: Vec<_> = publications
        .iter()
        .map(|one| (one.due_wall_ms, one.priority))
        .collect();
    let new_year = Some(1_893_456_000_000);
    assert_eq!(terms[..3], [(None, 4), (new_year, 0), (new_year, 9)]);
    let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap();
    assert!(terms[3].0.unwrap() > now + 3_000_000);
    assert_eq!(terms[4].0, Some(0));
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_whole() {
    let kept = Arc::new(Kept::default());
    let typed = |content_type| post("").header("content-type", content_type);
    let long = "x".repeat((1 << 20) + 1);
    for (request, text, status, code) in [
        (typed("application/cloudevents+json"), "{", 400, "TB0701"),
        (typed("application/cloudevents+xml"), "", 415, "TB0702"),
        (typed("no media type"), "", 400, "TB0701"),
        (post("").header("ce-specversion", "1.0"), "", 400, "TB0701"),
        (post("").header("ce-time", "now"), "", 400, "TB0701"),
        (post(""), long.as_str(), 413, "TB0703"),
        (post("?delay=soon"), "", 400, "TB0407"),
        (post("?due=tomorrow"), "", 400, "TB0407"),
        (
            post("?delay=1s&due=2030-01-01T00:00:00Z"),
            "",
            400,
            "TB0407",
        ),
        (post("?priority=10"), "", 400, "TB0407"),
        (post("?priority=high"), "", 400, "TB0407"),
        (post("?dealy=5s"), "", 400, "TB0407"),
        (post("path"), "", 404, "TB0002"),
    ] {
        let answer = send(&kept, request, text).await;
        assert_eq!(answer.problem(), (status, code), "{}", answer.json);
    }
    let get = Request::get("http://readings.queue.tombolo.internal/");
    let answer = send(&kept, get, "").await;
    assert_eq!(answer.problem(), (405, "TB0406"));
    assert_eq!(answer.headers["allow"], "POST");
    let other = post("").body(body("")).unwrap();
    let answer = send_to(&kept, "plans", other).await;
    assert_eq!(answer.problem(), (403, "TB0004"));
    assert!(kept.publications.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_body_is_bounded_and_has_to_be_whole() {
    let kept = Arc::new(Kept::default());
    let chunk = || Ok(http_body::Frame::data(Bytes::from(vec![b' '; 1 << 16])));
    let endless = futures_util::stream::repeat_with(chunk);
    let request = post("").body(StreamBody::new(endless).boxed_unsync());
    let answer = send_to(&kept, "readings", request.unwrap()).await;
    assert_eq!(answer.problem(), (413, "TB0703"));
    let broken = futures_util::stream::iter([chunk(), Err(Error::ConnectionTerminated)]);
    let request = post("").body(StreamBody::new(broken).boxed_unsync());
    let answer = send_to(&kept, "readings", request.unwrap()).await;
    assert_eq!(answer.problem(), (400, "TB0407"));
    assert!(kept.publications.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_the_journal_refuses_is_told_to_the_function() {
    let kept = Arc::new(Kept::default());
    let queue = || tombolo_core::QueueId {
        app: "plant".parse().unwrap(),
        queue: "readings".parse().unwrap(),
    };
    let full = PublishError::Full {
        queue: queue(),
        retry_after: std::time::Duration::from_secs(3),
    };
    for (error, status, code) in [
        (full, 429, "TB0704"),
        (PublishError::Unknown(queue()), 404, "TB0705"),
        (PublishError::TooLong { bound_bytes: 10 }, 413, "TB0703"),
        (
            PublishError::Unfit {
                queue: queue(),
                detail: "due too late".into(),
            },
            400,
            "TB0701",
        ),
        (PublishError::DiskFull, 507, "TB0506"),
        (PublishError::Unavailable("closed".into()), 503, "TB0706"),
    ] {
        *kept.refusal.lock().unwrap() = Some(error);
        let answer = send(&kept, post(""), "").await;
        assert_eq!(answer.problem(), (status, code));
        let after = answer.headers.get("retry-after");
        assert_eq!(after.is_some_and(|after| after == "3"), status == 429);
    }
}
