//! The body of a request as the function reads it: bounded in length and in patience.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};
use tombolo_core::{Blame, BodyError, Code, Failure, header};

/// What broke a request's body, told to whoever answers the request.
#[derive(Clone, Debug, Default)]
pub struct Verdict(Arc<AtomicU8>);

const TOO_LONG: u8 = 1;
const TOO_SLOW: u8 = 2;

impl Verdict {
    /// The failure that the client is answered with, whatever the function makes of its broken body.
    pub fn failure(&self, bound_bytes: u64) -> Option<Failure> {
        match self.0.load(Ordering::Relaxed) {
            TOO_LONG => Some(too_long(bound_bytes)),
            TOO_SLOW => Some(too_slow()),
            _ => None,
        }
    }
}

/// The refusal of a body that is longer than the listener accepts.
pub fn too_long(bound_bytes: u64) -> Failure {
    let detail = format!("the body is longer than {bound_bytes} bytes");
    Failure::new(Code::BodyTooLong, Blame::Caller, detail)
}

fn too_slow() -> Failure {
    Failure::new(
        Code::ClientTooSlow,
        Blame::Caller,
        "the client stopped sending the body",
    )
}

/// The body of a request, read from the connection. It fails when it gets too long, or when the function waits too long for its next part.
pub struct RequestBody {
    incoming: Incoming,
    bound_bytes: u64,
    left_bytes: u64,
    idle_timeout: Duration,
    /// Made when the client is first waited for: most bodies are there with their head.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    verdict: Verdict,
}

impl RequestBody {
    pub fn new(incoming: Incoming, bound_bytes: u64, idle_timeout: Duration) -> (Self, Verdict) {
        let verdict = Verdict::default();
        let body = Self {
            incoming,
            bound_bytes,
            left_bytes: bound_bytes,
            idle_timeout,
            timer: None,
            waiting: false,
            verdict: verdict.clone(),
        };
        (body, verdict)
    }

    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = || Instant::now() + self.idle_timeout;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline())));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(deadline());
        }
        timer.as_mut().poll(cx)
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) else {
            ready!(this.poll_timeout(cx));
            this.verdict.0.store(TOO_SLOW, Ordering::Relaxed);
            return Poll::Ready(Some(Err(too_slow().into())));
        };
        this.waiting = false;
        Poll::Ready(match frame {
            None => None,
            Some(Err(error)) => Some(Err(BodyError::Cut(error.into()))),
            Some(Ok(frame)) => Some(this.check(frame)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl RequestBody {
    fn check(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        if let Some(data) = frame.data_ref() {
            match self.left_bytes.checked_sub(data.len() as u64) {
                Some(left) => self.left_bytes = left,
                None => {
                    self.verdict.0.store(TOO_LONG, Ordering::Relaxed);
                    return Err(BodyError::TooLong {
                        bound_bytes: self.bound_bytes,
                    });
                }
            }
            return Ok(frame);
        }
        match frame.into_trailers() {
            Ok(mut trailers) => {
                header::strip_reserved(&mut trailers);
                Ok(Frame::trailers(trailers))
            }
            Err(frame) => Ok(frame),
        }
    }
}
