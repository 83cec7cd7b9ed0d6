//! The seam between sources of events and the places that run functions: the trait `Invoke`.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;

use crate::{Failure, FunctionId, TraceContext};

/// What may go wrong while a body is streamed. An answer whose body fails is cut, never ended as if it were whole.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The function or its budget ended the body early.
    #[error(transparent)]
    Failure(#[from] Failure),
    /// The body was longer than its bound.
    #[error("the body is longer than {bound_bytes} bytes")]
    TooLong { bound_bytes: u64 },
    /// The other side of a connection ended the body early.
    #[error("the body was cut")]
    Cut(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A streamed body of a request or a response, with trailers.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// One call of a function: a request and what the host knows about it.
#[derive(Debug)]
pub struct Call {
    /// The function to run.
    pub function: FunctionId,
    /// The request as the function shall see it.
    pub request: http::Request<Body>,
    /// What the host knows about the call.
    pub context: CallContext,
}

/// What the host knows about a call, and passes on from call to call.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// The trace and the span that caused the call.
    pub trace: TraceContext,
    /// The request id that logs carry.
    pub request_id: String,
    /// When the caller stops waiting; the function's own budget can only be shorter.
    pub deadline: Option<Instant>,
    /// How many functions called one another or published for one another so far; the answer is 508 beyond 16.
    pub hops: u8,
    /// Whether another function waits for the answer. Such a call never waits for a place of the node: functions
    /// that wait for each other's places would wait for ever.
    pub nested: bool,
    /// Whether the request is the delivery of events. Its answer then ends only when the function is done, and breaks
    /// when the function fails behind it: the end of the answer settles the events.
    pub event: bool,
    /// The client's address, when it is known.
    pub client: Option<IpAddr>,
}

/// An extension of a response that is still being made: when it must have ended. Whoever sends its body cuts it then,
/// even when a client that reads nothing keeps the body from being polled.
#[derive(Clone, Copy, Debug)]
pub struct AnswerDeadline(pub Instant);

/// More calls in a chain than this are taken for a loop.
pub const HOPS_MAX: u8 = 16;

/// The future of an answer. It is `Send`, so that links and pools can hold it.
pub type InvokeFuture = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Failure>> + Send>>;

/// Something that runs functions: the runtime, the dispatcher, a link to another node, a fake in tests.
///
/// The future makes progress only while it is polled, and the body of the response only while *it* is:
/// dropping either cancels the invocation.
pub trait Invoke: Send + Sync + 'static {
    /// Runs a function for one request.
    fn invoke(&self, call: Call) -> InvokeFuture;
}
