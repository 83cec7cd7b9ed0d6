//! The streams of one HTTP/2 connection: polled on the connection's own task, and reset when their client takes nothing.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper::rt::Executor;
use tokio::time::{Instant, Sleep};

/// What the body of an answer tells the guard of its stream.
#[derive(Default)]
pub struct StreamState {
    parts: Cell<u64>,
    /// A part was given and the next one has not been asked for.
    waits_for_client: Cell<bool>,
    deadline: Cell<Option<Instant>>,
}

impl StreamState {
    /// The answer is to have ended by then.
    pub fn end_by(&self, deadline: Option<Instant>) {
        self.deadline.set(deadline);
    }

    /// The body was asked for a part, and gave one or not.
    pub fn given(&self, part: bool) {
        self.waits_for_client.set(part);
        self.parts.set(self.parts.get() + u64::from(part));
    }
}

/// Takes the streams that hyper opens; a clone means the same connection.
#[derive(Clone, Default)]
pub struct Streams(Rc<Inner>);

#[derive(Default)]
struct Inner {
    opened: RefCell<Vec<Stream>>,
    /// The state of the stream that the service was called for last: hyper hands the stream's
    /// future over right after the call.
    called: RefCell<Option<Rc<StreamState>>>,
    idle_timeout: Duration,
}

impl Streams {
    pub fn new(idle_timeout: Duration) -> Self {
        Self(Rc::new(Inner {
            idle_timeout,
            ..Inner::default()
        }))
    }

    /// The service is called: the next stream that hyper opens is this one's.
    pub fn called(&self) -> Rc<StreamState> {
        let state = Rc::<StreamState>::default();
        *self.0.called.borrow_mut() = Some(state.clone());
        state
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Streams {
    fn execute(&self, future: F) {
        self.0.opened.borrow_mut().push(Stream {
            future: Box::pin(future),
            state: self.0.called.borrow_mut().take().unwrap_or_default(),
            idle_timeout: self.0.idle_timeout,
            timer: None,
            parts_seen: 0,
        });
    }
}

/// Owns the streams of one connection; they end with it.
pub struct RunningStreams {
    streams: Streams,
    running: FuturesUnordered<Stream>,
}

impl RunningStreams {
    pub fn new(streams: Streams) -> Self {
        Self {
            streams,
            running: FuturesUnordered::new(),
        }
    }

    /// Goes on with every stream that can. What they write wakes the connection.
    pub fn poll(&mut self, cx: &mut Context<'_>) {
        self.running
            .extend(self.streams.0.opened.borrow_mut().drain(..));
        while let Poll::Ready(Some(())) = self.running.poll_next_unpin(cx) {}
    }
}

impl Drop for RunningStreams {
    fn drop(&mut self) {
        // A stream's future holds a clone of its executor: left in the queue, the two would keep each other alive.
        let opened = self.streams.0.opened.take();
        drop(opened);
    }
}

/// One stream with its guard: a client that keeps its flow-control window shut must not hold an invocation for ever.
struct Stream {
    future: Pin<Box<dyn Future<Output = ()>>>,
    state: Rc<StreamState>,
    idle_timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    parts_seen: u64,
}

impl Future for Stream {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.future.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !this.state.waits_for_client.get() {
            this.timer = None;
            return Poll::Pending;
        }
        let patience = Instant::now() + this.idle_timeout;
        let answer = this.state.deadline.get();
        let deadline = answer.map_or(patience, |answer| answer.min(patience));
        let parts = this.state.parts.get();
        let timer = this
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if parts != this.parts_seen {
            this.parts_seen = parts;
            timer.as_mut().reset(deadline);
        }
        // Dropping the stream's future resets the stream.
        timer.as_mut().poll(cx)
    }
}
