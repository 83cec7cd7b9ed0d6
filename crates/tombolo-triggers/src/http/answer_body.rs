//! The body of an answer on its way to the client: counted, checked against its declared length, and cut when it breaks.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;
use tombolo_core::{AnswerDeadline, Blame, Body, BodyError, Code, Failure};

use super::exchange::Exchange;
use super::streams::StreamState;

/// What hyper sends after the head of an answer.
pub struct AnswerBody {
    content: Content,
    exchange: Option<Exchange>,
    /// What the answer's `Content-Length` still promises.
    promised_bytes: Option<u64>,
    /// HTTP/2 only: tells the stream's guard whether the client takes what it is given.
    stream: Option<Rc<StreamState>>,
    deadline: Option<Instant>,
    /// HTTP/2 only: what is left of a part that was too long to be given at once.
    held: Bytes,
}

/// The guard of an HTTP/2 stream knows that its client takes something when the next part is asked
/// for, so that parts must be such that even a slow client takes one in time.
const PART_BYTES_MAX: usize = 64 << 10;

enum Content {
    /// No body, whatever the head says: an answer to HEAD.
    None,
    Whole(Option<Bytes>),
    Streamed(Body),
}

impl AnswerBody {
    /// The answer to a HEAD request: its head may declare a length, and nothing follows.
    pub fn none(exchange: Exchange) -> Self {
        Self::new(Content::None, exchange)
    }

    /// A body that is there.
    pub fn whole(bytes: Bytes, exchange: Exchange) -> Self {
        Self::new(Content::Whole(Some(bytes)), exchange)
    }

    /// A body that a function, or a file, gives part by part.
    pub fn streamed(body: Body, promised_bytes: Option<u64>, exchange: Exchange) -> Self {
        Self {
            promised_bytes,
            ..Self::new(Content::Streamed(body), exchange)
        }
    }

    /// How long the request has taken so far.
    pub fn elapsed(&self) -> Option<Duration> {
        self.exchange.as_ref().map(Exchange::elapsed)
    }

    /// The answer is to have ended by then, whether its client reads it or not.
    pub fn until(mut self, deadline: Option<AnswerDeadline>) -> Self {
        self.deadline = deadline.map(|AnswerDeadline(deadline)| deadline.into());
        self
    }

    /// Shows the deadline to whoever watches the client: the guard of a stream, or of the connection.
    pub fn watched_by(mut self, stream: Option<Rc<StreamState>>) -> Self {
        if let (None, Some(exchange)) = (&stream, &self.exchange) {
            exchange.connection().answer_deadline.set(self.deadline);
        } else if let Some(stream) = &stream {
            stream.end_by(self.deadline);
        }
        self.stream = stream;
        self
    }

    fn new(content: Content, exchange: Exchange) -> Self {
        Self {
            content,
            exchange: Some(exchange),
            promised_bytes: None,
            stream: None,
            deadline: None,
            held: Bytes::new(),
        }
    }

    fn poll_content(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.held.is_empty() {
            return Poll::Ready(Some(Ok(self.part_of_held())));
        }
        let polled = match &mut self.content {
            Content::None => Poll::Ready(None),
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Streamed(body) => Pin::new(body).poll_frame(cx),
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) if self.stream.is_some() => match frame.into_data() {
                Ok(data) => {
                    self.held = data;
                    Poll::Ready(Some(Ok(self.part_of_held())))
                }
                Err(trailers) => Poll::Ready(Some(Ok(trailers))),
            },
            polled => polled,
        }
    }

    fn part_of_held(&mut self) -> Frame<Bytes> {
        Frame::data(self.held.split_to(self.held.len().min(PART_BYTES_MAX)))
    }

    fn sent(&mut self, bytes: usize) -> Result<(), BodyError> {
        if let Some(exchange) = &mut self.exchange {
            exchange.sent(bytes);
        }
        if let Some(promised) = &mut self.promised_bytes {
            *promised = promised
                .checked_sub(bytes as u64)
                .ok_or_else(wrong_length)?;
        }
        Ok(())
    }

    fn break_off(&mut self, error: BodyError) -> BodyError {
        if let Some(mut exchange) = self.exchange.take() {
            let failure = match &error {
                BodyError::Failure(failure) => Some(failure),
                BodyError::TooLong { .. } | BodyError::Cut(_) => None,
            };
            tracing::debug!(error = &error as &dyn std::error::Error, "answer cut");
            exchange.broke(failure);
            // Streams of HTTP/2 are reset one by one; the connection lives on.
            if self.stream.is_none() {
                exchange.connection().broken.set(true);
            }
        }
        error
    }
}

fn wrong_length() -> BodyError {
    let detail = "the answer's body has not the length that its Content-Length says";
    Failure::new(Code::AnswerInvalid, Blame::Guest, detail).into()
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = this.poll_content(cx);
        if let Some(stream) = &this.stream {
            stream.given(matches!(polled, Poll::Ready(Some(Ok(_)))));
        }
        let Poll::Ready(item) = polled else {
            return Poll::Pending;
        };
        let checked = match item {
            Some(Ok(frame)) => match this.sent(frame.data_ref().map_or(0, Bytes::len)) {
                Ok(()) => Some(Ok(frame)),
                Err(error) => Some(Err(error)),
            },
            None if this.promised_bytes.is_some_and(|left| left > 0) => Some(Err(wrong_length())),
            other => other,
        };
        Poll::Ready(match checked {
            Some(Err(error)) => Some(Err(this.break_off(error))),
            None => {
                this.exchange = None;
                None
            }
            frame => frame,
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::None => true,
            _ if !self.held.is_empty() => false,
            Content::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Content::Streamed(body) => {
                body.is_end_stream() && self.promised_bytes.is_none_or(|left| left == 0)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            // Unknown, so that hyper adds no Content-Length of its own to an answer to HEAD.
            Content::None => SizeHint::default(),
            Content::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            // What the head promises is what hyper shall hold the body to.
            Content::Streamed(_) if self.promised_bytes.is_some() => SizeHint::default(),
            Content::Streamed(body) => body.size_hint(),
        }
    }
}
