//! `POST http://mqtt.tombolo.internal/TOPIC`: a message to a topic that a function publishes by HTTP, without leaving the process.

use http::Request;
use percent_encoding::percent_decode_str;
use tombolo_core::event::Bounds;
use tombolo_core::event::http as binding;
use tombolo_core::{Blame, Code, Failure, Receipt, TopicQos};
use wasmtime_wasi_http::WasiBody;

use super::queue::{self, complete, read};
use crate::publishing::{Room, TopicPublisher, TopicTerms};

/// The host that stands for the node's broker.
pub(super) const HOST: &str = "mqtt.tombolo.internal";

/// The topic that a path names, percent-decoded, without the slash that every path begins with.
pub(super) fn topic(path: &str) -> Result<String, Failure> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let topic = percent_decode_str(path).decode_utf8();
    topic.map(Into::into).map_err(|_| {
        let detail = "the topic in the path is no UTF-8";
        Failure::new(Code::BadRequest, Blame::Caller, detail)
    })
}

/// Publishes the event of a request and answers 202 with a receipt, or with a problem.
pub(super) async fn answer(
    publisher: Result<TopicPublisher, Failure>,
    room: Room,
    request: Request<WasiBody>,
) -> http::Response<WasiBody> {
    queue::respond(receive(publisher, &room, request).await)
}

async fn receive(
    publisher: Result<TopicPublisher, Failure>,
    room: &Room,
    request: Request<WasiBody>,
) -> Result<Receipt, Failure> {
    let (head, body) = request.into_parts();
    let publisher = publisher?;
    queue::is_post(&head.method)?;
    let terms = terms(head.uri.query())?;
    let mut headers = head.headers;
    complete(&mut headers, &publisher.author)?;
    let (body, held) = read(body, room).await?;
    let mut events = binding::parse(&headers, body, &Bounds::default())?;
    let event = events.pop().filter(|_| events.is_empty()).ok_or_else(|| {
        let detail = "a topic takes one event at a time, not a batch";
        Failure::new(Code::EventInvalid, Blame::Caller, detail)
    })?;
    publisher.publish(event, terms).await?;
    drop(held);
    Ok(Receipt {
        accepted: 1,
        duplicates: 0,
    })
}

/// Reads `qos=0` to `2`, and `retain=true` or `false`.
fn terms(query: Option<&str>) -> Result<TopicTerms, Failure> {
    let bad = |detail: String| Failure::new(Code::BadRequest, Blame::Caller, detail);
    let mut terms = TopicTerms::default();
    let pairs = query.unwrap_or_default().split('&');
    for pair in pairs.filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "qos" => {
                let qos = TopicQos::of_number(value);
                terms.qos = qos.ok_or_else(|| bad(format!("`qos` is 0 to 2, not `{value}`")))?;
            }
            "retain" => {
                let retain = value.parse();
                terms.retain =
                    retain.map_err(|_| bad(format!("`retain` is true or false, not `{value}`")))?;
            }
            other => {
                return Err(bad(format!(
                    "a topic has the parameters `qos` and `retain`, not `{other}`"
                )));
            }
        }
    }
    Ok(terms)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::{BodyExt as _, Full};

    use super::*;
    use crate::publishing::Publishing;
    use crate::publishing::topic::fake::Carried;

    async fn send(carried: &Arc<Carried>, target: &str, headers: &[(&str, &str)]) -> u16 {
        let uri: http::Uri = format!("http://{HOST}{target}").parse().unwrap();
        let topic = topic(uri.path()).unwrap();
        let mut request = Request::post(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::from("{}").map_err(|never| match never {});
        let request = request.body(body.boxed_unsync()).unwrap();
        let room = Publishing::default().room();
        let answer = answer(carried.publisher(&topic, 0), room, request).await;
        answer.status().as_u16()
    }

    #[tokio::test]
    async fn a_post_is_a_message_to_the_topic_of_its_path() {
        let carried = Arc::new(Carried::default());
        let json = ("content-type", "application/json");
        assert_eq!(send(&carried, "/plans/m%207/", &[json]).await, 202);
        let target = "/plans/7?qos=2&retain=true";
        assert_eq!(send(&carried, target, &[("ce-type", "plan")]).await, 202);
        let sent = std::mem::take(&mut *carried.0.lock().unwrap());
        assert_eq!(sent[0].topic, "plans/m 7/");
        assert_eq!(sent[0].event.datacontenttype.as_deref(), Some(json.1));
        assert_eq!(sent[0].event.source, "/plant/sensor");
        assert_eq!(
            (sent[0].qos, sent[0].retain),
            (TopicQos::AtLeastOnce, false)
        );
        assert_eq!(sent[1].event.kind, "plan");
        assert_eq!((sent[1].qos, sent[1].retain), (TopicQos::ExactlyOnce, true));
    }

    #[tokio::test]
    async fn what_is_not_allowed_or_not_understood_is_refused() {
        let carried = Arc::new(Carried::default());
        let batch = ("content-type", "application/cloudevents-batch+json");
        for (target, headers, status) in [
            ("/other", &[][..], 403),
            ("/", &[], 403),
            ("/plans/%23", &[], 403),
            ("/plans/7?qos=3", &[], 400),
            ("/plans/7?retain", &[], 400),
            ("/plans/7?delay=5s", &[], 400),
            ("/plans/7", &[batch], 400),
        ] {
            assert_eq!(send(&carried, target, headers).await, status, "{target}");
        }
        assert!(topic("/%ff").is_err());
        assert_eq!(topic("//a").unwrap(), "/a");
        assert!(carried.0.lock().unwrap().is_empty());
    }
}
