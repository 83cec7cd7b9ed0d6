//! Requests and responses of `wasi:http` 0.2 for guests that have better things to do.

use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::{OutputStream, StreamError};

/// The path of the request without its query.
pub fn path(request: &IncomingRequest) -> String {
    let whole = request.path_with_query().unwrap_or_default();
    whole.split('?').next().unwrap_or_default().to_owned()
}

/// A parameter of the query, as it was sent: nothing is percent-decoded.
pub fn query(request: &IncomingRequest, name: &str) -> Option<String> {
    let whole = request.path_with_query()?;
    let (_, query) = whole.split_once('?')?;
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (key == name).then(|| value.to_owned()))
}

/// A parameter of the query as a number, or `default`.
pub fn number(request: &IncomingRequest, name: &str, default: u64) -> u64 {
    query(request, name)
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// Reads the whole body of the request.
pub fn body(request: &IncomingRequest) -> Vec<u8> {
    let body = request.consume().expect("the body is taken once");
    read(&body)
}

/// Reads the whole of an incoming body.
pub fn read(body: &IncomingBody) -> Vec<u8> {
    let stream = body.stream().expect("the stream is taken once");
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(64 * 1024) {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(StreamError::Closed) => return bytes,
            Err(StreamError::LastOperationFailed(error)) => panic!("{}", error.to_debug_string()),
        }
    }
}

/// Sends the head of a response and returns its body.
pub fn start(out: ResponseOutparam, status: u16, headers: &[(&str, &str)]) -> OutgoingBody {
    let fields = Fields::new();
    for (name, value) in headers {
        fields
            .append(name, value.as_bytes())
            .expect("the header is allowed");
    }
    let response = OutgoingResponse::new(fields);
    response
        .set_status_code(status)
        .expect("the status is valid");
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));
    body
}

/// Writes all of `bytes`, waiting as often as the reader is slow; false when nobody reads any more.
pub fn write(stream: &OutputStream, bytes: &[u8]) -> bool {
    bytes
        .chunks(4096)
        .all(|chunk| stream.blocking_write_and_flush(chunk).is_ok())
}

/// Sends a whole response.
pub fn send(out: ResponseOutparam, status: u16, content_type: &str, bytes: &[u8]) {
    let body = start(out, status, &[("content-type", content_type)]);
    let stream = body.write().expect("the stream is taken once");
    write(&stream, bytes);
    drop(stream);
    OutgoingBody::finish(body, None).ok();
}

/// Sends a whole response of text.
pub fn text(out: ResponseOutparam, status: u16, text: &str) {
    send(out, status, "text/plain", text.as_bytes());
}
