//! `POST http://<queue>.queue.tombolo.internal/`: events that a function publishes by HTTP, kept without leaving the process.

use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use tombolo_core::event::http::{self as binding, Mode};
use tombolo_core::event::{Bounds, EventError, SPECVERSION};
use tombolo_core::{Blame, Code, Failure, Receipt, Terms};
use wasmtime_wasi_http::WasiBody;

use super::refusal;
use crate::publishing::{Author, Held, Publisher, Room, TYPE_DEFAULT, now};

/// The domain under which queues are published to by name.
pub(super) const DOMAIN: &str = ".queue.tombolo.internal";

/// Publishes the events of a request and answers 202 with a receipt, or with a problem.
pub(super) async fn answer(
    publisher: Result<Publisher, Failure>,
    room: Room,
    request: Request<WasiBody>,
) -> Response<WasiBody> {
    respond(receive(publisher, &room, request).await)
}

/// The answer to a function that publishes.
pub(super) fn respond(received: Result<Receipt, Failure>) -> Response<WasiBody> {
    match received {
        Ok(receipt) => accepted(&receipt),
        Err(failure) => {
            let mut response = refusal(&failure);
            if failure.code == Code::MethodNotAllowed {
                let headers = response.headers_mut();
                headers.insert(ALLOW, HeaderValue::from_static("POST"));
            }
            response
        }
    }
}

fn accepted(receipt: &Receipt) -> Response<WasiBody> {
    let text = serde_json::to_vec(receipt).unwrap_or_default();
    let body = Full::from(text).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = StatusCode::ACCEPTED;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn receive(
    publisher: Result<Publisher, Failure>,
    room: &Room,
    request: Request<WasiBody>,
) -> Result<Receipt, Failure> {
    let (head, body) = request.into_parts();
    let publisher = publisher?;
    check(&head.method, &head.uri)?;
    let terms = terms(head.uri.query())?;
    let mut headers = head.headers;
    // A format that is not understood is refused before its body is read.
    complete(&mut headers, &publisher.author)?;
    let (body, held) = read(body, room).await?;
    let events = binding::parse(&headers, body, &Bounds::default())?;
    let receipt = publisher.publish(events, terms).await;
    drop(held);
    receipt
}

fn check(method: &Method, uri: &Uri) -> Result<(), Failure> {
    if uri.path() != "/" {
        let detail = format!("a queue has the path `/` only, not `{}`", uri.path());
        return Err(Failure::new(Code::NotFound, Blame::Caller, detail));
    }
    is_post(method)
}

pub(super) fn is_post(method: &Method) -> Result<(), Failure> {
    if method != Method::POST {
        let detail = "events are sent with POST";
        return Err(Failure::new(Code::MethodNotAllowed, Blame::Caller, detail));
    }
    Ok(())
}

const SPECVERSION_HEADER: HeaderName = HeaderName::from_static("ce-specversion");

/// Makes an event in binary mode of what names no version of the specification: the attributes that it has in
/// `ce-*` headers stay, the function says the rest.
pub(super) fn complete(headers: &mut HeaderMap, author: &Author) -> Result<(), EventError> {
    match binding::mode(headers) {
        Ok(Mode::Structured | Mode::Batched) => return Ok(()),
        Ok(Mode::Binary) if headers.contains_key(SPECVERSION_HEADER) => return Ok(()),
        Ok(Mode::Binary) | Err(EventError::NotAnEvent) => {}
        Err(error) => return Err(error),
    }
    headers.insert(SPECVERSION_HEADER, HeaderValue::from_static(SPECVERSION));
    for (name, value) in [
        ("ce-id", author.id()),
        ("ce-source", author.source()),
        ("ce-type", TYPE_DEFAULT.to_owned()),
        ("ce-time", now()),
    ] {
        if !headers.contains_key(name)
            && let Ok(value) = HeaderValue::from_str(&value)
        {
            headers.insert(name, value);
        }
    }
    Ok(())
}

/// The whole body, which is never held beyond the bounds of a message and of the instance.
pub(super) async fn read(mut body: WasiBody, room: &Room) -> Result<(Bytes, Held), Failure> {
    let bound = Bounds::default().message_bytes;
    let mut whole = BytesMut::new();
    let mut held = Held::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let detail = format!("the body of the events was cut: {error}");
            Failure::new(Code::BadRequest, Blame::Caller, detail)
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if whole.len().saturating_add(data.len()) > bound {
            let detail = format!("the request is longer than {bound} bytes");
            return Err(Failure::new(Code::EventTooLong, Blame::Caller, detail));
        }
        room.add(&mut held, data.len())?;
        whole.extend_from_slice(&data);
    }
    Ok((whole.freeze(), held))
}

/// What the query says; it may say nothing else.
fn terms(query: Option<&str>) -> Result<Terms, Failure> {
    match Terms::of_query(query, SystemTime::now())? {
        (terms, None) => Ok(terms),
        (_, Some(other)) => {
            let detail =
                format!("a queue has the parameters `delay`, `due` and `priority`, not `{other}`");
            Err(Failure::new(Code::BadRequest, Blame::Caller, detail))
        }
    }
}

#[cfg(test)]
mod tests;
