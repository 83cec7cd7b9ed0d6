//! One client connection's socket: plain or TLS, and what its traffic tells the connection's timers.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderValue;
use std::cell::Cell;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use super::front::Front;
use super::unreadable::{closing_refusal, refused_by_parser};

/// What the socket, the requests and the timers of one connection tell one another.
pub struct ConnectionState {
    pub client: IpAddr,
    pub client_header: HeaderValue,
    /// Requests whose answer has not ended.
    pub in_flight: Cell<u32>,
    /// When the connection was opened or the last answer ended.
    pub idle_since: Cell<Instant>,
    /// Whether any request came.
    pub served: Cell<bool>,
    /// Bytes came in while no request was in flight: the head of the next one has begun.
    pub head_begun: Cell<bool>,
    /// The client does not take what is written.
    pub write_stalled: Cell<bool>,
    /// How often it has taken some.
    pub writes: Cell<u64>,
    /// HTTP/1.1 only: when the answer in flight must have ended.
    pub answer_deadline: Cell<Option<Instant>>,
    /// An answer broke: the connection must not end as if it were whole.
    pub broken: Cell<bool>,
    /// A request was refused before its body was read.
    pub refused_body: Cell<bool>,
    /// The connection is being closed, and reads only to let the client see the refusal.
    pub lingering: Cell<bool>,
}

impl ConnectionState {
    pub fn new(client: IpAddr) -> Self {
        // An IPv4 client of a dual-stack socket is shown as what it is.
        let client = client.to_canonical();
        // The text of an address is a valid header value, so the fallback is never seen.
        let client_header = HeaderValue::try_from(client.to_string())
            .unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self {
            client,
            client_header,
            in_flight: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            served: Cell::new(false),
            head_begun: Cell::new(false),
            write_stalled: Cell::new(false),
            writes: Cell::new(0),
            answer_deadline: Cell::new(None),
            broken: Cell::new(false),
            refused_body: Cell::new(false),
            lingering: Cell::new(false),
        }
    }
}

/// A plain or an encrypted stream.
pub enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

macro_rules! forward {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self {
            Transport::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Transport::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
        }
    };
}

impl Transport {
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        forward!(self, stream => stream.poll_read(cx, buffer))
    }
}

/// The socket as hyper uses it.
pub struct Link {
    transport: Transport,
    /// What was read to tell HTTP/1.1 from HTTP/2.
    early: Bytes,
    is_http2: bool,
    state: Rc<ConnectionState>,
    closed: bool,
    front: Rc<Front>,
    /// What is written in place of the parser's own refusal, and has not been written yet.
    refusal: Option<Bytes>,
}

impl Link {
    pub fn new(
        transport: Transport,
        early: Bytes,
        is_http2: bool,
        state: Rc<ConnectionState>,
        front: Rc<Front>,
    ) -> Self {
        Self {
            transport,
            early,
            is_http2,
            state,
            closed: false,
            front,
            refusal: None,
        }
    }

    /// Bytes came in. Over HTTP/2 they need not be the head of a request.
    fn note_read(&self) {
        if !self.is_http2 && self.state.in_flight.get() == 0 {
            self.state.head_begun.set(true);
        }
    }

    fn note_write<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.state.write_stalled.set(written.is_pending());
        if written.is_ready() {
            self.state
                .writes
                .set(self.state.writes.get().wrapping_add(1));
        }
        written
    }

    /// What to write instead of `data`, when that is the parser's refusal of what came in behind the
    /// last answer.
    fn replacement(&self, data: &[u8]) -> Option<Bytes> {
        if self.is_http2 || self.state.in_flight.get() > 0 || !self.state.head_begun.get() {
            return None;
        }
        let failure = refused_by_parser(data)?;
        let took = self.state.idle_since.get().elapsed();
        self.state.refused_body.set(true);
        Some(closing_refusal(&self.front, &failure, took).into())
    }

    /// Writes the replacement to its end, and then says that `data_bytes` were written.
    fn poll_refusal(
        &mut self,
        cx: &mut Context<'_>,
        mut refusal: Bytes,
        data_bytes: usize,
    ) -> Poll<io::Result<usize>> {
        while !refusal.is_empty() {
            let transport = &mut self.transport;
            match forward!(transport, stream => stream.poll_write(cx, &refusal)) {
                Poll::Ready(Ok(written)) => drop(refusal.split_to(written.min(refusal.len()))),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.refusal = Some(refusal);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(data_bytes))
    }

    /// Closing a socket with unread bytes resets it, and the client may never see what was written
    /// last. So what still comes in is read and dropped until the client closes; the connection's
    /// timer bounds how long (RFC 9112, 9.6).
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.lingering.set(true);
        let mut space = [0u8; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut space);
            ready!(self.transport.poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.early.is_empty() {
            let before = buffer.filled().len();
            ready!(this.transport.poll_read(cx, buffer))?;
            if buffer.filled().len() > before {
                this.note_read();
            }
        } else {
            this.note_read();
            let part = this
                .early
                .split_to(this.early.len().min(buffer.remaining()));
            buffer.put_slice(&part);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let refusal = self.refusal.take().or_else(|| self.replacement(data));
        let written = if let Some(refusal) = refusal {
            self.poll_refusal(cx, refusal, data.len())
        } else {
            let transport = &mut self.transport;
            forward!(transport, stream => stream.poll_write(cx, data))
        };
        self.note_write(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [single] = data {
            return self.poll_write(cx, single);
        }
        let transport = &mut self.transport;
        let written = forward!(transport, stream => stream.poll_write_vectored(cx, data));
        self.note_write(written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let transport = &mut self.transport;
        let flushed = forward!(transport, stream => stream.poll_flush(cx));
        self.note_write(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.closed {
            let transport = &mut this.transport;
            let closed = forward!(transport, stream => stream.poll_shutdown(cx));
            ready!(this.note_write(closed))?;
            this.closed = true;
        }
        if this.state.refused_body.get() {
            this.poll_linger(cx)
        } else {
            Poll::Ready(Ok(()))
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // An answer that did not end is cut by a reset: a plain end of the stream would look like
        // the end of a body that has no length (HTTP/1.0).
        if self.state.broken.get() || self.state.in_flight.get() > 0 {
            // A socket that is gone already needs no reset.
            let _ = self.transport.socket().set_zero_linger();
        }
    }
}
