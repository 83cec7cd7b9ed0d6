//! The answer of a guest: its head, and a body that lets the guest go on while it is read.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{Response, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tombolo_core::{AnswerDeadline, Blame, Body, BodyError, Code, Failure, Limit};
use wasmtime_wasi_http::WasiBody;

use crate::egress::into_body_error;
use crate::instance::Head;
use crate::invocation::Guest;

/// The body of an answer whose guest may not be done.
///
/// Reading it polls the guest on the reader's own task, so a guest runs where its connection is served
/// and only as fast as its answer is read. Dropping it before its end cancels the guest.
pub(crate) struct Answer {
    guest: Option<Guest>,
    body: WasiBody,
    ahead: VecDeque<Frame<Bytes>>,
    left_bytes: u64,
    body_read: Option<oneshot::Sender<()>>,
    afterwards: Afterwards,
}

/// What becomes of a guest that is not done when its answer is whole.
pub(crate) enum Afterwards {
    /// It finishes on a task of its own.
    Task(TaskTracker),
    /// The answer does not end before it is done, and breaks when it fails.
    Answer,
}

impl Answer {
    /// Lets the guest run until it has set the head of its answer.
    pub(crate) async fn wait(
        mut guest: Guest,
        mut head: oneshot::Receiver<Head>,
        body_read: oneshot::Sender<()>,
        afterwards: Afterwards,
    ) -> Result<Response<Body>, Failure> {
        let head = poll_fn(|context| {
            let progress = guest.poll(context);
            match (progress, Pin::new(&mut head).poll(context)) {
                // Nothing was sent to the client yet: a failure can still be told as one.
                (Poll::Ready(Err(failure)), _) => Poll::Ready(Err(failure)),
                (_, Poll::Ready(Ok(head))) => Poll::Ready(Ok(Some(head))),
                (Poll::Ready(Ok(())), _) | (_, Poll::Ready(Err(_))) if guest.is_done() => {
                    Poll::Ready(Ok(None))
                }
                _ => Poll::Pending,
            }
        })
        .await?;
        let failure = match head {
            Some(Ok(response)) => {
                return Self::start(guest, response, body_read, afterwards).await;
            }
            Some(Err(code)) => Failure::new(
                Code::AnswerInvalid,
                Blame::Guest,
                format!("the function set the error {code}"),
            ),
            None => Failure::new(
                Code::NoAnswer,
                Blame::Guest,
                "the function returned without setting a response",
            ),
        };
        guest.account.fail(&failure);
        Err(failure)
    }

    async fn start(
        mut guest: Guest,
        response: Response<WasiBody>,
        body_read: oneshot::Sender<()>,
        afterwards: Afterwards,
    ) -> Result<Response<Body>, Failure> {
        let left_bytes = guest.account.meter.budget().response_bytes;
        let deadline = guest.account.meter.deadline();
        guest.account.answered(response.status());
        let (mut parts, body) = response.into_parts();
        let declared = parts
            .headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        if declared.is_some_and(|length: u64| length > left_bytes) {
            return Err(guest.stop(Limit::ResponseBytes));
        }
        let mut answer = Self {
            guest: Some(guest),
            body,
            ahead: VecDeque::new(),
            left_bytes,
            body_read: Some(body_read),
            afterwards,
        };
        if let Some(whole) = poll_fn(|context| Poll::Ready(answer.whole(context))).await? {
            return Ok(Response::from_parts(parts, whole));
        }
        parts.extensions.insert(AnswerDeadline(deadline));
        Ok(Response::from_parts(parts, answer.boxed_unsync()))
    }

    /// The body as one piece, when it is whole already and has at most one frame: then the answer has a
    /// known length and nothing more to poll. What was read to find out is kept for later otherwise.
    fn whole(&mut self, context: &mut Context<'_>) -> Result<Option<Body>, Failure> {
        for _ in 0..2 {
            match self.poll_next(context) {
                Poll::Ready(None) => {
                    let data = self
                        .ahead
                        .pop_front()
                        .and_then(|frame| frame.into_data().ok());
                    let whole =
                        Full::from(data.unwrap_or_default()).map_err(|never| match never {});
                    return Ok(Some(whole.boxed_unsync()));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    let is_data = frame.is_data();
                    self.ahead.push_back(frame);
                    if !is_data {
                        return Ok(None);
                    }
                }
                Poll::Ready(Some(Err(BodyError::Failure(failure)))) => return Err(failure),
                Poll::Ready(Some(Err(error))) => {
                    return Err(Failure::new(
                        Code::AnswerInvalid,
                        Blame::Guest,
                        error.to_string(),
                    ));
                }
                Poll::Pending => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Lets the guest go on, then takes what it has written.
    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.body_read.is_none() {
            return self.poll_rest(context);
        }
        if let Some(guest) = &mut self.guest
            && let Poll::Ready(Err(failure)) = guest.poll(context)
        {
            self.cut();
            return Poll::Ready(Some(Err(failure.into())));
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let last = frame.is_trailers();
                let frame = self.count(frame);
                if frame.is_err() {
                    self.cut();
                } else if last {
                    self.end(context);
                }
                Poll::Ready(Some(frame))
            }
            Poll::Ready(Some(Err(error))) => {
                self.cut();
                Poll::Ready(Some(Err(into_body_error(error))))
            }
            Poll::Ready(None) => {
                self.end(context);
                self.poll_rest(context)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// The body is whole; lets a guest that is waited for go on until it is done.
    fn poll_rest(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(guest) = &mut self.guest else {
            return Poll::Ready(None);
        };
        let done = std::task::ready!(guest.poll(context));
        self.guest = None;
        Poll::Ready(done.err().map(|failure| Err(failure.into())))
    }

    /// The body is not whole and never will be.
    fn cut(&mut self) {
        self.guest = None;
        self.body_read = None;
    }

    fn count(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        let length = frame.data_ref().map_or(0, Bytes::len) as u64;
        let Some(guest) = &mut self.guest else {
            return Ok(frame);
        };
        if length > self.left_bytes {
            return Err(guest.stop(Limit::ResponseBytes).into());
        }
        self.left_bytes -= length;
        guest.account.bytes_out += length;
        Ok(frame)
    }

    /// The body is whole. A guest that is still busy finishes, within its budget.
    fn end(&mut self, context: &mut Context<'_>) {
        drop(self.body_read.take());
        let Afterwards::Task(tasks) = &self.afterwards else {
            return;
        };
        let Some(mut guest) = self.guest.take() else {
            return;
        };
        if guest.is_done() || guest.poll(context).is_ready() {
            return;
        }
        tasks.spawn(async move {
            // Its failure is in its account and its log.
            let _ = poll_fn(|context| guest.poll(context)).await;
        });
    }
}

impl Drop for Answer {
    /// A client that read nothing until the deadline has not left: the invocation took too long.
    fn drop(&mut self) {
        if let Some(mut guest) = self.guest.take()
            && !guest.is_done()
            && guest.account.meter.deadline() <= Instant::now()
        {
            guest.stop(Limit::Wall);
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match this.ahead.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => this.poll_next(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.body_read.is_none() && self.guest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
