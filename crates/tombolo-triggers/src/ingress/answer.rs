//! The answers of the ingress: a receipt, or a refusal as problem+json.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tombolo_core::{Body, Code, Failure, Receipt};

use crate::http::refuse;

/// The methods that a queue answers.
pub(super) const METHODS: HeaderValue = HeaderValue::from_static("POST, OPTIONS");

/// 202: the events are kept, their function has not seen them yet.
pub(super) fn accepted(receipt: &Receipt) -> Response<Body> {
    let text = serde_json::to_vec(receipt).unwrap_or_default();
    let mut response = Response::new(body(text.into()));
    *response.status_mut() = StatusCode::ACCEPTED;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) fn refused(failure: &Failure, request_id: &str) -> Response<Body> {
    let mut response = refuse(failure, request_id, false).map(body);
    if failure.code == Code::MethodNotAllowed {
        response.headers_mut().insert(ALLOW, METHODS);
    }
    response
}

pub(super) fn body(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}
