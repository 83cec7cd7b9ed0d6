//! Events that come by HTTP: CloudEvents in every mode of the binding go into a queue, and are answered once they are durable.

mod answer;
mod entrance;
mod terms;
mod webhook;

use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt as _;
use tombolo_core::event::{Bounds, Event, http as binding};
use tombolo_core::{
    Blame, Body, BodyError, Code, Failure, Publication, Publish, QueueId, Receipt, TraceContext,
};

pub use entrance::{Entrance, Token};
use terms::Terms;

/// Takes events by HTTP and publishes them.
#[derive(Clone)]
pub struct Ingress {
    publish: Arc<dyn Publish>,
    bounds: Bounds,
}

impl Ingress {
    /// An ingress that publishes to the journal what is within the bounds.
    pub fn new(publish: Arc<dyn Publish>, bounds: Bounds) -> Self {
        Self { publish, bounds }
    }

    /// Answers a request for a queue that exists. `POST` of CloudEvents is answered 202 once all of them are as
    /// durable as the queue says, with the numbers of new ones and of duplicates; nothing is kept of a request
    /// that is refused. The query may say `delay=5s` or `due=2030-01-01T00:00:00Z`, and `priority=0` to `9`; other
    /// parameters are the sender's own, such as the token of a web hook. `OPTIONS` is the validation handshake of CloudEvents' web hooks.
    pub async fn handle(
        &self,
        queue: &QueueId,
        request: Request<Body>,
        trace: Option<TraceContext>,
        request_id: &str,
    ) -> Response<Body> {
        let (head, body) = request.into_parts();
        let received = match head.method {
            Method::OPTIONS => return webhook::validate(&head.headers, request_id),
            Method::POST => self.receive(queue, &head, body, trace).await,
            _ => Err(Failure::new(
                Code::MethodNotAllowed,
                Blame::Caller,
                "events are sent with POST",
            )),
        };
        match received {
            Ok(receipt) => answer::accepted(&receipt),
            Err(failure) => answer::refused(&failure, request_id),
        }
    }

    async fn receive(
        &self,
        queue: &QueueId,
        head: &Parts,
        body: Body,
        trace: Option<TraceContext>,
    ) -> Result<Receipt, Failure> {
        // What is not understood is refused before the body is read.
        binding::mode(&head.headers)?;
        let terms = Terms::of(head.uri.query(), SystemTime::now())?;
        let body = self.read(&head.headers, body).await?;
        let events = binding::parse(&head.headers, body, &self.bounds)?;
        if events.is_empty() {
            return Ok(Receipt::default());
        }
        let publication = |event: Event| {
            let own = || event.attribute("traceparent")?.parse().ok();
            let trace = trace.or_else(own);
            Publication {
                due_wall_ms: terms.due_wall_ms,
                priority: terms.priority,
                ..Publication::new(queue.clone(), event).trace(trace)
            }
        };
        let publications = events.into_iter().map(publication).collect();
        Ok(self
            .publish
            .publish(publications)
            .await?
            .into_iter()
            .collect())
    }

    /// The whole body, which is never held beyond its bound.
    async fn read(&self, headers: &HeaderMap, mut body: Body) -> Result<Bytes, Failure> {
        let bound = self.bounds.message_bytes;
        let too_long = || {
            let detail = format!("the request is longer than {bound} bytes");
            Failure::new(Code::EventTooLong, Blame::Caller, detail)
        };
        let told = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok());
        if told
            .and_then(|told| told.parse().ok())
            .is_some_and(|told: u64| told > bound as u64)
        {
            return Err(too_long());
        }
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(unread)?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if whole.len().saturating_add(data.len()) > bound {
                return Err(too_long());
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    }
}

/// A body that broke off: the listener's bound, or a client that went away.
fn unread(error: BodyError) -> Failure {
    match error {
        BodyError::Failure(failure) => failure,
        BodyError::TooLong { .. } => {
            Failure::new(Code::EventTooLong, Blame::Caller, error.to_string())
        }
        BodyError::Cut(_) => Failure::new(Code::BadRequest, Blame::Caller, error.to_string()),
    }
}

#[cfg(test)]
mod tests;
