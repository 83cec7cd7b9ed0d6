//! The ingress as its senders see it.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use http_body::Frame;
use http_body_util::StreamBody;
use tombolo_core::{PublishError, PublishFuture, Published};

use super::*;

/// A journal in memory, which can be told to refuse.
#[derive(Default)]
struct Kept {
    events: Mutex<Vec<Publication>>,
    seen: Mutex<HashSet<(String, String)>>,
    refusal: Mutex<Option<PublishError>>,
}

impl Publish for Kept {
    fn publish(&self, publications: Vec<Publication>) -> PublishFuture {
        let outcome = match self.refusal.lock().unwrap().clone() {
            Some(error) => Err(error),
            None => Ok(publications
                .into_iter()
                .map(|publication| {
                    let event = &publication.event;
                    let name = (event.source.clone(), event.id.clone());
                    if !self.seen.lock().unwrap().insert(name) {
                        return Published::Duplicate;
                    }
                    let mut events = self.events.lock().unwrap();
                    events.push(publication);
                    Published::Accepted(events.len() as u64)
                })
                .collect()),
        };
        Box::pin(std::future::ready(outcome))
    }
}

fn queue() -> QueueId {
    QueueId {
        app: "plant".parse().unwrap(),
        queue: "readings".parse().unwrap(),
    }
}

async fn send(kept: &Arc<Kept>, request: http::request::Builder, text: &str) -> Answer {
    send_body(
        kept,
        request
            .body(answer::body(Bytes::copy_from_slice(text.as_bytes())))
            .unwrap(),
    )
    .await
}

async fn send_body(kept: &Arc<Kept>, request: Request<Body>) -> Answer {
    let bounds = Bounds {
        message_bytes: 2000,
        event_bytes: 1000,
        ..Bounds::default()
    };
    let callbacks = |function: &FunctionId, url: &str| match url {
        "https://done.example/" => Ok(()),
        _ => {
            let detail = format!("{function} may not");
            Err(Failure::new(Code::NotAllowed, Blame::Caller, detail))
        }
    };
    let publish = Arc::clone(kept) as Arc<dyn Publish>;
    let ingress = Ingress::new(publish, Arc::new(callbacks), bounds);
    let trace = None;
    let response = ingress.handle(&queue(), request, trace, "request-7").await;
    let (head, body) = response.into_parts();
    let text = body.collect().await.unwrap().to_bytes();
    Answer {
        status: head.status,
        headers: head.headers,
        json: serde_json::from_slice(&text).unwrap_or_default(),
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    json: serde_json::Value,
}

impl Answer {
    /// The status, and the code of the problem.
    fn problem(&self) -> (u16, &str) {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.json["request_id"], "request-7");
        (self.status.as_u16(), self.json["code"].as_str().unwrap())
    }

    fn counts(&self) -> (u16, u64, u64) {
        let count = |key| self.json[key].as_u64().unwrap();
        (self.status.as_u16(), count("accepted"), count("duplicates"))
    }
}

fn binary(id: &str) -> http::request::Builder {
    Request::post("/")
        .header("ce-specversion", "1.0")
        .header("ce-id", id)
        .header("ce-source", "/machines/7")
        .header("ce-type", "reading")
        .header("content-type", "application/json")
}

fn typed(content_type: &str) -> http::request::Builder {
    Request::post("/").header("content-type", content_type)
}

fn json(id: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/machines/7","type":"reading","data":{{"rms":0.2}}}}"#
    )
}

const STRUCTURED: &str = "application/cloudevents+json; charset=utf-8";
const BATCHED: &str = "application/cloudevents-batch+json";

#[tokio::test]
async fn events_in_every_mode_are_accepted_and_duplicates_told() {
    let kept = Arc::new(Kept::default());
    let answer = send(&kept, binary("1"), r#"{"rms":0.2}"#).await;
    assert_eq!(answer.counts(), (202, 1, 0));
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(
        send(&kept, typed(STRUCTURED), &json("2")).await.counts(),
        (202, 1, 0)
    );
    assert_eq!(
        send(&kept, typed(STRUCTURED), &json("1")).await.counts(),
        (202, 0, 1)
    );
    let batch = format!("[{},{},{}]", json("2"), json("3"), json("4"));
    assert_eq!(
        send(&kept, typed(BATCHED), &batch).await.counts(),
        (202, 2, 1)
    );
    assert_eq!(
        send(&kept, typed(BATCHED), "[]").await.counts(),
        (202, 0, 0)
    );
    let events = kept.events.lock().unwrap();
    let ids: Vec<&str> = events.iter().map(|kept| kept.event.id.as_str()).collect();
    assert_eq!(ids, ["1", "2", "3", "4"]);
    assert!(events.iter().all(|kept| kept.queue == queue()));
    assert!(
        events
            .iter()
            .all(|kept| kept.event.data.as_deref() == Some(br#"{"rms":0.2}"#))
    );
}

#[tokio::test]
async fn the_trace_of_an_event_and_what_its_sender_asks_are_kept() {
    let kept = Arc::new(Kept::default());
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = binary("1").uri("/?due=2030-01-01T00:00:00Z&priority=1");
    send(&kept, request.header("ce-traceparent", trace), "{}").await;
    let events = kept.events.lock().unwrap();
    assert_eq!(events[0].trace, Some(trace.parse().unwrap()));
    assert_eq!(events[0].due_wall_ms, Some(1_893_456_000_000));
    assert_eq!(events[0].priority, 1);
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_whole() {
    let kept = Arc::new(Kept::default());
    let plain = || Request::post("/");
    let long = json(&"x".repeat(1000));
    let padded = format!("{}{}", json("1"), " ".repeat(2000));
    let second_is_bad = format!("[{},{{}}]", json("1"));
    let cases = [
        (
            plain().header("content-type", "application/json"),
            "{}",
            415,
            "TB0702",
        ),
        (plain(), "", 415, "TB0702"),
        (
            typed("application/cloudevents+xml"),
            "<event/>",
            415,
            "TB0702",
        ),
        (
            typed("application/cloudevents-batch+avro"),
            "",
            415,
            "TB0702",
        ),
        (typed(STRUCTURED), "{", 400, "TB0701"),
        (typed(STRUCTURED), "[]", 400, "TB0701"),
        (typed(BATCHED), &second_is_bad, 400, "TB0701"),
        (binary("%C0%A0"), "", 400, "TB0701"),
        (plain().header("ce-id", "1"), "", 400, "TB0701"),
        (binary("1").uri("/?priority=10"), "", 400, "TB0407"),
        (typed(STRUCTURED), &long, 413, "TB0703"),
        (typed(STRUCTURED), &padded, 413, "TB0703"),
        (
            binary("1").header("content-length", "2001"),
            "",
            413,
            "TB0703",
        ),
    ];
    for (request, text, status, code) in cases {
        let answer = send(&kept, request, text).await;
        assert_eq!(answer.problem(), (status, code), "{text}");
    }
    assert_eq!(kept.events.lock().unwrap().len(), 0);
    let detail = send(&kept, typed(BATCHED), &second_is_bad).await.json["detail"].clone();
    assert_eq!(
        detail,
        "event 1 of the batch: the attribute `specversion` is missing"
    );
}

#[tokio::test]
async fn an_endless_body_is_cut_at_the_bound() {
    let kept = Arc::new(Kept::default());
    let frames = stream::repeat(Bytes::from_static(&[b' '; 100]))
        .map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
    let body = StreamBody::new(frames)
        .map_err(|never| match never {})
        .boxed_unsync();
    let answer = send_body(&kept, typed(STRUCTURED).body(body).unwrap()).await;
    assert_eq!(answer.problem(), (413, "TB0703"));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_event() {
    let kept = Arc::new(Kept::default());
    let whole = Ok(Frame::data(Bytes::from(json("1"))));
    let cut = Err(BodyError::Cut("connection reset".into()));
    let body = StreamBody::new(stream::iter([whole, cut])).boxed_unsync();
    let answer = send_body(&kept, typed(STRUCTURED).body(body).unwrap()).await;
    assert_eq!(answer.problem(), (400, "TB0407"));
    assert_eq!(kept.events.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn what_the_journal_refuses_is_told_to_the_sender() {
    let kept = Arc::new(Kept::default());
    let full = PublishError::Full {
        queue: queue(),
        retry_after: Duration::from_millis(2500),
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
        (
            PublishError::Unavailable("the log is closed".into()),
            503,
            "TB0706",
        ),
    ] {
        *kept.refusal.lock().unwrap() = Some(error);
        let answer = send(&kept, binary("1"), "{}").await;
        assert_eq!(answer.problem(), (status, code));
        let retry_after = answer.headers.get("retry-after");
        assert_eq!(retry_after.is_some_and(|value| value == "3"), status == 429);
    }
}

#[tokio::test]
async fn other_methods_are_refused() {
    let kept = Arc::new(Kept::default());
    for method in ["GET", "PUT", "DELETE"] {
        let answer = send(&kept, Request::builder().method(method), "").await;
        assert_eq!(answer.problem(), (405, "TB0406"));
        assert_eq!(answer.headers["allow"], "POST, OPTIONS");
    }
}

#[tokio::test]
async fn a_web_hook_is_validated() {
    let kept = Arc::new(Kept::default());
    let ask = || Request::options("/");
    let named = || ask().header("WebHook-Request-Origin", "eventemitter.example.com");
    for request in [named(), named().header("WebHook-Request-Rate", "120")] {
        let answer = send(&kept, request, "").await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        assert_eq!(answer.headers["allow"], "POST, OPTIONS");
        assert_eq!(
            answer.headers["webhook-allowed-origin"],
            "eventemitter.example.com"
        );
        assert_eq!(answer.headers["webhook-allowed-rate"], "*");
    }
    // Who does not ask gets no consent.
    let answer = send(&kept, ask(), "").await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(answer.headers.get("webhook-allowed-origin").is_none());
    for bad in [
        named().header("WebHook-Request-Rate", "0"),
        named().header("WebHook-Request-Rate", "fast"),
        named().header("WebHook-Request-Origin", "another.example.com"),
        ask().header("WebHook-Request-Origin", "a b"),
        ask().header("WebHook-Request-Origin", ""),
    ] {
        let answer = send(&kept, bad, "").await;
        assert_eq!(answer.problem(), (400, "TB0407"));
        assert!(answer.headers.get("webhook-allowed-origin").is_none());
    }
}
