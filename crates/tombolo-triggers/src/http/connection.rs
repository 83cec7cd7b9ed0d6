//! One client connection from its first byte to its end: protocol, timers and drain.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, Sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tombolo_core::{Blame, Code, Failure};

use super::answer::answer;
use super::front::{Front, Phase};
use super::limits;
use super::link::{ConnectionState, Link, Transport};
use super::streams::{RunningStreams, Streams};
use super::unreadable::closing_refusal;

/// How HTTP/2 begins when it was not agreed on before (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a refused client may take to read its refusal and close.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves one client until either side closes.
pub async fn serve(
    front: Rc<Front>,
    stream: TcpStream,
    client: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
) {
    let state = Rc::new(ConnectionState::new(client.ip()));
    let opening = open(stream, tls);
    let closing = front.drain.closing.cancelled();
    let opened = tokio::select! {
        opened = timeout(front.config.header_timeout, opening) => opened,
        // Cancel safe: a client that has not begun a request loses none.
        () = closing => return,
    };
    match opened {
        Ok(Ok(Opened {
            transport,
            early,
            is_http2,
        })) => {
            let link = Link::new(transport, early, is_http2, state.clone(), front.clone());
            if is_http2 {
                serve_http2(front, link, state).await;
            } else {
                serve_http1(front, link, state).await;
            }
        }
        Ok(Err(error)) => tracing::debug!(%client, %error, "connection not opened"),
        Err(_) => tracing::debug!(%client, "connection not opened in time"),
    }
}

struct Opened {
    transport: Transport,
    early: Bytes,
    is_http2: bool,
}

/// Shakes hands and finds out which protocol the client speaks.
async fn open(
    stream: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> std::io::Result<Opened> {
    stream.set_nodelay(true)?;
    let mut transport = match tls {
        None => Transport::Plain(stream),
        Some(config) => {
            let stream = TlsAcceptor::from(config).accept(stream).await?;
            let is_http2 = stream
                .get_ref()
                .1
                .alpn_protocol()
                .map(|protocol| protocol == b"h2");
            let transport = Transport::Tls(Box::new(stream));
            if let Some(is_http2) = is_http2 {
                return Ok(Opened {
                    transport,
                    early: Bytes::new(),
                    is_http2,
                });
            }
            transport
        }
    };
    let mut space = [0u8; PREFACE.len()];
    let mut buffer = ReadBuf::new(&mut space);
    let is_http2 = loop {
        let before = buffer.filled().len();
        poll_fn(|cx| transport.poll_read(cx, &mut buffer)).await?;
        let filled = buffer.filled();
        if filled == PREFACE {
            break true;
        }
        if filled.len() == before || !PREFACE.starts_with(filled) {
            break false;
        }
    };
    let early = Bytes::copy_from_slice(buffer.filled());
    Ok(Opened {
        transport,
        early,
        is_http2,
    })
}

async fn serve_http1(front: Rc<Front>, link: Link, state: Rc<ConnectionState>) {
    let service = service_fn({
        let (front, state) = (front.clone(), state.clone());
        move |request: hyper::Request<Incoming>| {
            let answer = answer(front.clone(), state.clone(), None, request);
            async move { Ok::<_, Infallible>(answer.await) }
        }
    });
    let mut connection = front.http1.serve_connection(TokioIo::new(link), service);
    let mut watch = Watch::new(&front, &state);
    match poll_fn(|cx| watch.poll(cx, &mut connection)).await {
        End::Closed | End::Idle => {}
        End::SlowHead => {
            let link = connection.into_parts().io.into_inner();
            // A client that does not take even this gets nothing.
            let _ = timeout(LINGER_TIMEOUT, refuse_slow_head(&front, link)).await;
        }
    }
}

/// Tells a client whose request never became whole why its connection ends.
async fn refuse_slow_head(front: &Front, mut link: Link) -> std::io::Result<()> {
    let detail = "the client did not send the head of its request in time";
    let failure = Failure::new(Code::ClientTooSlow, Blame::Caller, detail);
    let text = closing_refusal(front, &failure, front.config.header_timeout);
    link.write_all(&text).await?;
    link.shutdown().await
}

async fn serve_http2(front: Rc<Front>, link: Link, state: Rc<ConnectionState>) {
    let streams = Streams::new(front.config.body_idle_timeout);
    let service = service_fn({
        let (front, state, streams) = (front.clone(), state.clone(), streams.clone());
        move |request: hyper::Request<Incoming>| {
            let stream = Some(streams.called());
            let answer = answer(front.clone(), state.clone(), stream, request);
            async move { Ok::<_, Infallible>(answer.await) }
        }
    });
    let mut connection = Http2 {
        connection: limits::http2(&front.config, streams.clone())
            .serve_connection(TokioIo::new(link), service),
        streams: RunningStreams::new(streams),
    };
    let mut watch = Watch::new(&front, &state);
    poll_fn(|cx| watch.poll(cx, &mut connection)).await;
}

/// A connection of either protocol, as its watch sees it.
trait Serve {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>>;

    /// Tells the client to leave, without refusing what it may be sending at this moment.
    fn drain(&mut self);

    /// Takes nothing new and ends when what has begun has ended.
    fn shut(&mut self);
}

impl<S, B> Serve for hyper::server::conn::http1::Connection<TokioIo<Link>, S>
where
    Self: GracefulConnection<Error = hyper::Error> + Unpin,
    S: hyper::service::HttpService<Incoming, ResBody = B>,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        Pin::new(self).poll(cx)
    }

    /// Nothing: each answer says `Connection: close`. The client may have sent its next request
    /// already, so that an idle connection stays open a while.
    fn drain(&mut self) {}

    fn shut(&mut self) {
        GracefulConnection::graceful_shutdown(Pin::new(self));
    }
}

/// An HTTP/2 connection with its streams, on one task.
struct Http2<C> {
    connection: C,
    streams: RunningStreams,
}

impl<C: GracefulConnection<Error = hyper::Error> + Unpin> Serve for Http2<C> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        let polled = Pin::new(&mut self.connection).poll(cx);
        if polled.is_pending() {
            self.streams.poll(cx);
        }
        polled
    }

    /// A GOAWAY that still takes what was sent before the client read it (RFC 9113, 6.8).
    fn drain(&mut self) {
        self.shut();
    }

    fn shut(&mut self) {
        Pin::new(&mut self.connection).graceful_shutdown();
    }
}

/// How a connection ended.
enum End {
    /// By itself: the client left, or the last answer was the last.
    Closed,
    /// It had no request for too long, or a drain wants it gone.
    Idle,
    /// The head of a request did not come in time.
    SlowHead,
}

/// What a client is waited for. Another value means that the client has done something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// That it closes, after its refusal.
    Close,
    /// That it takes more, after so many writes.
    Take(u64),
    /// The rest of a request's head.
    Head,
}

/// Polls one connection together with its timers and with the steps of a drain.
struct Watch {
    front: Rc<Front>,
    state: Rc<ConnectionState>,
    began: Pin<Box<WaitForCancellationFutureOwned>>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    registered: bool,
    phase: Phase,
    timer: Pin<Box<Sleep>>,
    armed: bool,
    /// What the connection waits for, and since when.
    waiting: Option<(Wait, Instant)>,
}

impl Watch {
    fn new(front: &Rc<Front>, state: &Rc<ConnectionState>) -> Self {
        Self {
            front: front.clone(),
            state: state.clone(),
            began: Box::pin(front.drain.began.clone().cancelled_owned()),
            closing: Box::pin(front.drain.closing.clone().cancelled_owned()),
            registered: false,
            phase: Phase::Open,
            timer: Box::pin(tokio::time::sleep(front.config.header_timeout)),
            armed: false,
            waiting: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, connection: &mut impl Serve) -> Poll<End> {
        if !self.registered {
            // The task's waker never changes, so that registering it once is enough: from then on
            // the phase, which costs one load, tells what these two would.
            self.registered = true;
            let _ = self.began.as_mut().poll(cx);
            let _ = self.closing.as_mut().poll(cx);
        }
        let polled = connection.poll(cx);
        if let Poll::Ready(end) = polled {
            if let Err(error) = end {
                tracing::debug!(error = &error as &dyn std::error::Error, "connection broke");
            }
            return Poll::Ready(End::Closed);
        }
        let phase = self.front.drain.phase();
        if phase != self.phase {
            self.phase = phase;
            if self.leave(connection) {
                return Poll::Ready(End::Idle);
            }
            // What was shut may have ended at once, or have a GOAWAY to send.
            cx.waker().wake_by_ref();
        }
        self.poll_timer(cx)
    }

    /// Takes the next step of a drain. `true`: the connection can be dropped as it is.
    fn leave(&mut self, connection: &mut impl Serve) -> bool {
        let idle = self.state.in_flight.get() == 0 && !self.state.head_begun.get();
        match self.phase {
            Phase::Open => false,
            Phase::Draining => {
                connection.drain();
                false
            }
            Phase::Closing => {
                connection.shut();
                idle
            }
        }
    }

    /// What the connection waits for, and until when.
    fn deadline(&mut self) -> Option<(Instant, End)> {
        let config = &self.front.config;
        let state = &self.state;
        let waiting = &mut self.waiting;
        if state.lingering.get() {
            return Some((since(waiting, Wait::Close) + LINGER_TIMEOUT, End::Idle));
        }
        if state.write_stalled.get() {
            let since = since(waiting, Wait::Take(state.writes.get()));
            let patience = since + config.body_idle_timeout;
            let answer = state.answer_deadline.get();
            let deadline = answer.map_or(patience, |answer| answer.min(patience));
            return Some((deadline, End::Idle));
        }
        if state.in_flight.get() == 0 && state.head_begun.get() {
            let since = since(waiting, Wait::Head);
            return Some((since + config.header_timeout, End::SlowHead));
        }
        *waiting = None;
        if state.in_flight.get() > 0 {
            return None;
        }
        let patience = if state.served.get() {
            config.idle_timeout
        } else {
            config.header_timeout
        };
        Some((state.idle_since.get() + patience, End::Idle))
    }

    /// The timer is moved only when it would be late, or went off: a busy connection does not touch it.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let Some((deadline, end)) = self.deadline() else {
            return Poll::Pending;
        };
        let in_time = self.timer.deadline() <= deadline && !self.timer.is_elapsed();
        if self.armed && in_time {
            return Poll::Pending;
        }
        self.armed = true;
        self.timer.as_mut().reset(deadline);
        self.timer.as_mut().poll(cx).map(|()| end)
    }
}

/// When the client was first waited for so.
fn since(waiting: &mut Option<(Wait, Instant)>, wait: Wait) -> Instant {
    match *waiting {
        Some((same, since)) if same == wait => since,
        _ => {
            let now = Instant::now();
            *waiting = Some((wait, now));
            now
        }
    }
}
