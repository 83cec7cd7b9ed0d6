//! The bounds of a request's head, and what hyper is told so that it stops what is far beyond them.

use http::{HeaderMap, Method, Uri, Version, header};
use tombolo_core::{Blame, Code, Failure};
use tombolo_manifest::HttpConfig;

/// hyper answers what breaks its own bounds with a bare status, so its bounds are this many
/// times ours: what lies between is answered with a problem+json, and memory stays bounded.
const PARSER_FACTOR: usize = 2;
/// hyper's least buffer.
const BUFFER_BYTES_MIN: usize = 8192;
/// Requests that one HTTP/2 connection may have open at once.
const STREAMS_MAX: u32 = 250;
/// How much of a body one HTTP/2 stream may send ahead of the function that reads it.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// The same for all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// How much of an answer one HTTP/2 stream holds for a client that reads slowly.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// The settings of HTTP/1.1 connections.
pub fn http1(config: &HttpConfig) -> hyper::server::conn::http1::Builder {
    let mut builder = hyper::server::conn::http1::Builder::new();
    let header_bytes = config.header_bytes_max as usize * PARSER_FACTOR;
    builder
        .max_headers(config.headers_max as usize * PARSER_FACTOR)
        .max_header_size(header_bytes)
        .max_buf_size(header_bytes.max(BUFFER_BYTES_MIN))
        // The connection's own timers tell an idle client from a slow one; hyper's does not.
        .header_read_timeout(None);
    builder
}

/// The settings of HTTP/2 connections.
pub fn http2<E: Clone>(config: &HttpConfig, executor: E) -> hyper::server::conn::http2::Builder<E> {
    let mut builder = hyper::server::conn::http2::Builder::new(executor);
    builder
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(config.header_bytes_max.saturating_mul(PARSER_FACTOR as u32))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES);
    builder
}

/// Checks the head of a request against the bounds and the rules that hyper leaves to its user.
pub fn check_head(
    config: &HttpConfig,
    method: &Method,
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
) -> Result<(), Failure> {
    if headers.len() > config.headers_max as usize {
        let detail = format!("the request has more than {} headers", config.headers_max);
        return Err(Failure::new(Code::HeadersTooLong, Blame::Caller, detail));
    }
    // As RFC 9113 (6.5.2) counts, without its overhead of 32 bytes for each field.
    let fields = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    let target = uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if fields.sum::<usize>() + target > config.header_bytes_max as usize {
        let bound = config.header_bytes_max;
        let detail = format!("the request's headers are longer than {bound} bytes");
        return Err(Failure::new(Code::HeadersTooLong, Blame::Caller, detail));
    }
    if method == Method::CONNECT {
        return Err(bad_request("this server is no proxy and takes no CONNECT"));
    }
    // RFC 9112, 3.2.
    if version == Version::HTTP_11 && headers.get_all(header::HOST).iter().count() != 1 {
        return Err(bad_request(
            "a request of HTTP/1.1 has exactly one Host header",
        ));
    }
    Ok(())
}

fn bad_request(detail: &str) -> Failure {
    Failure::new(Code::BadRequest, Blame::Caller, detail)
}
