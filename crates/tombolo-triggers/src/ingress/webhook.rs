//! The validation handshake of web hooks: a sender asks whether its events are welcome (CloudEvents HTTP 1.1 Web Hooks 1.0.2, section 4).

use bytes::Bytes;
use http::header::ALLOW;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tombolo_core::{Blame, Body, Code, Failure};

use super::answer;

const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
const REQUEST_RATE: HeaderName = HeaderName::from_static("webhook-request-rate");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// Answers `OPTIONS`. Whoever names itself may send: the handshake is no authentication, it keeps senders from
/// being turned against those who expect nothing. A sender is slowed down by 429 when the queue is full, not
/// by a rate.
pub(super) fn validate(headers: &HeaderMap, request_id: &str) -> Response<Body> {
    let mut response = Response::new(answer::body(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let granted = response.headers_mut();
    granted.insert(ALLOW, answer::METHODS);
    match (one(headers, &REQUEST_ORIGIN), one(headers, &REQUEST_RATE)) {
        (Ok(None), _) => {}
        (Ok(Some(origin)), Ok(rate)) if is_origin(origin) && rate.is_none_or(is_rate) => {
            granted.insert(ALLOWED_ORIGIN, origin.clone());
            granted.insert(ALLOWED_RATE, HeaderValue::from_static("*"));
        }
        _ => {
            let failure = Failure::new(
                Code::BadRequest,
                Blame::Caller,
                "WebHook-Request-Origin is one DNS name, WebHook-Request-Rate one number of requests per minute",
            );
            return answer::refused(&failure, request_id);
        }
    }
    response
}

/// The only value of a header.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h HeaderValue>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(()),
        (value, None) => Ok(value),
    }
}

/// A DNS name.
fn is_origin(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
    (1..=253).contains(&bytes.len()) && bytes.iter().all(plain)
}

/// A positive whole number.
fn is_rate(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    let digits = (1..=9).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_digit);
    digits && bytes.iter().any(|b| *b != b'0')
}
