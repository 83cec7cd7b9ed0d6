//! One request: checked, routed, handed to a function or a folder, and its answer dressed with the contract's headers.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use tombolo_core::header::{CLIENT_IP, NODE, REQUEST_ID, TIER, TRACEPARENT, strip_reserved};
use tombolo_core::{
    AnswerDeadline, Blame, Body, Call, CallContext, Code, Failure, FunctionId, TraceContext,
};
use tombolo_telemetry::name;

use super::answer_body::AnswerBody;
use super::exchange::Exchange;
use super::files::{self, FileRequest};
use super::front::{Front, Phase};
use super::limits;
use super::link::ConnectionState;
use super::refusal::refuse;
use super::request_body::{self, RequestBody, Verdict};
use super::routes::RouteTarget;
use super::streams::StreamState;

/// Paths at and below this are the node's own and live on another listener.
const RESERVED: &str = "/_tombolo";
/// A client's request id is kept when it is not longer.
const REQUEST_ID_BYTES_MAX: usize = 128;
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// What belongs to one connection and not to the answer (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Answers one request. Never fails: what goes wrong is an answer too.
pub async fn answer(
    front: Rc<Front>,
    connection: Rc<ConnectionState>,
    stream: Option<Rc<StreamState>>,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let (mut head, incoming) = request.into_parts();
    let caller = head.headers.get(TRACEPARENT).and_then(trace_context);
    let parent = caller.unwrap_or_else(|| front.telemetry.root());
    let mut exchange = Exchange::start(&front, &connection, &parent, caller.is_some());
    let trace = exchange.span.context();
    let traceparent = traceparent(&trace);
    let request_id = request_id(&head.headers, &trace);
    exchange.describe(&head, &request_id);

    strip_reserved(&mut head.headers);
    head.headers.insert(TRACEPARENT, traceparent.clone());
    let id_header = header_value(request_id.clone().into_bytes());
    let marks = Marks {
        traceparent,
        request_id: id_header,
        version: head.version,
    };
    let is_head = head.method == Method::HEAD;
    let has_body = !incoming.is_end_stream();

    let work = Work {
        front: &front,
        connection: &connection,
        trace,
        request_id: &request_id,
    };
    let mut response = match work.respond(head, incoming, &mut exchange).await {
        Ok(response) => dress_answer(response, is_head, exchange),
        Err(failure) => {
            exchange.span.fail(&failure);
            connection.refused_body.set(has_body && stream.is_none());
            let refusal = refuse(&failure, &request_id, front.verbose);
            dress_refusal(refusal, is_head, exchange)
        }
    };
    marks.set(&front, &connection, &mut response);
    response.map(|body| body.watched_by(stream))
}

/// What is known about a request besides itself.
struct Work<'a> {
    front: &'a Front,
    connection: &'a ConnectionState,
    trace: TraceContext,
    request_id: &'a str,
}

impl Work<'_> {
    async fn respond(
        &self,
        head: http::request::Parts,
        incoming: Incoming,
        exchange: &mut Exchange,
    ) -> Result<Response<Body>, Failure> {
        let config = &self.front.config;
        limits::check_head(config, &head.method, &head.uri, head.version, &head.headers)?;
        let path = head.uri.path();
        let reserved = path
            .strip_prefix(RESERVED)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let routes = self.front.routes();
        let found = if reserved { None } else { routes.0.find(path) };
        let Some(entry) = found else {
            return Err(no_route());
        };
        if exchange.span.is_recording() {
            exchange.span.set(name::HTTP_ROUTE, entry.route.to_string());
        }
        match &entry.target {
            RouteTarget::Static(folder) => {
                let request = FileRequest {
                    method: &head.method,
                    uri: &head.uri,
                    headers: &head.headers,
                    fixed_segments: entry.fixed_segments(),
                };
                files::serve(folder, request).await
            }
            RouteTarget::Queue(entrance) => {
                let (body, _) = self.body(incoming);
                let request = Request::from_parts(head, body);
                entrance.answer(request, self.trace, self.request_id).await
            }
            RouteTarget::Function(function) => {
                let response = self.call(function.clone(), head, incoming).await?;
                if response.status().is_informational() {
                    let detail = "the function answered with an informational status";
                    return Err(Failure::new(Code::AnswerInvalid, Blame::Guest, detail));
                }
                Ok(response)
            }
        }
    }

    async fn call(
        &self,
        function: FunctionId,
        mut head: http::request::Parts,
        incoming: Incoming,
    ) -> Result<Response<Body>, Failure> {
        let bound = self.front.config.body_bytes_max;
        if incoming.size_hint().lower() > bound {
            return Err(request_body::too_long(bound));
        }
        let headers = &mut head.headers;
        headers.insert(CLIENT_IP, self.connection.client_header.clone());
        headers.insert(TIER, self.front.tier.clone());
        headers.insert(NODE, self.front.node.clone());
        let (body, verdict) = self.body(incoming);
        let mut invocation = self.front.invoke.invoke(Call {
            function,
            request: Request::from_parts(head, body),
            context: CallContext {
                trace: self.trace,
                request_id: self.request_id.to_owned(),
                deadline: None,
                hops: 0,
                nested: false,
                event: false,
                client: Some(self.connection.client),
            },
        });
        poll_fn(|cx| {
            let polled = invocation.as_mut().poll(cx);
            // A body that broke a rule of the listener is the answer, whatever the function makes of it.
            match verdict.as_ref().and_then(|verdict| verdict.failure(bound)) {
                Some(failure) => Poll::Ready(Err(failure)),
                None => polled,
            }
        })
        .await
    }

    fn body(&self, incoming: Incoming) -> (Body, Option<Verdict>) {
        if incoming.is_end_stream() {
            // Nothing here has a size, so that the box allocates nothing.
            return (
                Empty::new().map_err(|never| match never {}).boxed_unsync(),
                None,
            );
        }
        let config = &self.front.config;
        let (body, verdict) =
            RequestBody::new(incoming, config.body_bytes_max, config.body_idle_timeout);
        (body.boxed_unsync(), Some(verdict))
    }
}

fn no_route() -> Failure {
    Failure::new(Code::NoRoute, Blame::Caller, "no route matches the path")
}

fn dress_answer(
    response: Response<Body>,
    is_head: bool,
    mut exchange: Exchange,
) -> Response<AnswerBody> {
    let (mut head, body) = response.into_parts();
    exchange.answer(head.status);
    for name in &HOP_BY_HOP {
        head.headers.remove(name);
    }
    let deadline = head.extensions.remove::<AnswerDeadline>();
    let promised = head
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(content_length);
    let body = if is_head {
        AnswerBody::none(exchange)
    } else {
        AnswerBody::streamed(body, promised, exchange).until(deadline)
    };
    Response::from_parts(head, body)
}

fn dress_refusal(
    response: Response<Bytes>,
    is_head: bool,
    mut exchange: Exchange,
) -> Response<AnswerBody> {
    exchange.answer(response.status());
    response.map(|bytes| {
        if is_head {
            AnswerBody::none(exchange)
        } else {
            AnswerBody::whole(bytes, exchange)
        }
    })
}

/// The headers that every answer carries.
struct Marks {
    traceparent: HeaderValue,
    request_id: HeaderValue,
    version: Version,
}

impl Marks {
    fn set(self, front: &Front, connection: &ConnectionState, response: &mut Response<AnswerBody>) {
        let elapsed = front.verbose.then(|| response.body().elapsed()).flatten();
        let headers = response.headers_mut();
        headers.insert(TRACEPARENT, self.traceparent);
        headers.insert(REQUEST_ID, self.request_id);
        if let Some(elapsed) = elapsed {
            let millis = elapsed.as_secs_f64() * 1e3;
            let timing = format!("tombolo;dur={millis:.3}");
            headers.insert(SERVER_TIMING, header_value(timing.into_bytes()));
        }
        let leaves = front.drain.phase() > Phase::Open || connection.refused_body.get();
        if leaves && self.version < Version::HTTP_2 {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

fn trace_context(value: &HeaderValue) -> Option<TraceContext> {
    value.to_str().ok()?.parse().ok()
}

/// The client's request id when it is short and printable, else the id of the server's span.
fn request_id(headers: &HeaderMap, trace: &TraceContext) -> String {
    let given = headers
        .get(REQUEST_ID)
        .map(HeaderValue::as_bytes)
        .filter(|id| {
            (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
                && id.iter().all(|byte| (b' '..=b'~').contains(byte))
        });
    match given.and_then(|id| str::from_utf8(id).ok()) {
        Some(id) => id.to_owned(),
        None => {
            let mut id = String::with_capacity(16);
            push_hex(&mut id, u128::from(trace.span_id), 16);
            id
        }
    }
}

/// As `TraceContext`'s `Display`, without the machinery of formatting.
fn traceparent(trace: &TraceContext) -> HeaderValue {
    let mut text = String::with_capacity(55);
    text.push_str("00-");
    push_hex(&mut text, trace.trace_id, 32);
    text.push('-');
    push_hex(&mut text, u128::from(trace.span_id), 16);
    text.push_str(if trace.sampled { "-01" } else { "-00" });
    header_value(text.into_bytes())
}

fn push_hex(text: &mut String, number: u128, digits: u32) {
    for digit in (0..digits).rev() {
        let nibble = (number >> (digit * 4)) as u32 & 15;
        text.push(char::from_digit(nibble, 16).unwrap_or('0'));
    }
}

/// A header of text that was checked or made here, so that the fallback is never seen.
fn header_value(text: Vec<u8>) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn content_length(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_traceparent_is_the_same_as_the_vocabulary_writes_it() {
        for (trace_id, span_id, sampled) in [(1, 2, true), (u128::MAX, u64::MAX, false)] {
            let trace = TraceContext {
                trace_id,
                span_id,
                sampled,
            };
            assert_eq!(traceparent(&trace), trace.to_string());
        }
    }

    #[test]
    fn a_request_id_is_kept_only_when_it_is_short_and_printable() {
        let trace = TraceContext {
            trace_id: 1,
            span_id: 0xabc,
            sampled: false,
        };
        let id = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
            request_id(&headers, &trace)
        };
        assert_eq!(id(b"order 66"), "order 66");
        assert_eq!(id(&[b'a'; 128]), "a".repeat(128));
        for bad in [&[b'a'; 129][..], b"", b"a\tb", "é".as_bytes()] {
            assert_eq!(id(bad), "0000000000000abc");
        }
    }
}
