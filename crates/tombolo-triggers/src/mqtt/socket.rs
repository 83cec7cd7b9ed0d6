//! The socket of a client and what is on its way through it, both ways, within bounds.

use std::io;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::io::poll_read_buf;

/// What is read at once from a client that says little, and from one that says much.
const READ_BYTES_MIN: usize = 512;
const READ_BYTES_MAX: usize = 16 << 10;
/// With more than this to write, nothing is read and nothing more is fetched.
pub const WRITE_BYTES: usize = 64 << 10;
/// How long a last word may take.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// A socket, plain or with TLS.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// The socket and what is on its way through it.
pub struct Wire<S> {
    pub stream: S,
    pub input: BytesMut,
    pub output: Vec<u8>,
    written: usize,
    unflushed: bool,
    read_bytes: usize,
}

/// What came of waiting for the socket.
pub enum Turn {
    Read,
    Wrote,
    Ended,
}

impl<S: Stream> Wire<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            output: Vec::new(),
            written: 0,
            unflushed: false,
            read_bytes: READ_BYTES_MIN,
        }
    }

    /// Gives back the memory that a quiet client does not need.
    pub fn rest(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
            self.read_bytes = READ_BYTES_MIN;
        }
        if self.output.is_empty() {
            self.output = Vec::new();
        }
    }

    pub fn has_output(&self) -> bool {
        self.unflushed || self.written < self.output.len()
    }

    pub fn is_full(&self) -> bool {
        self.output.len() - self.written >= WRITE_BYTES
    }

    /// Writes what there is to write, and reads if wanted, until something was done. Cancel safe:
    /// whatever was done is recorded when it is done.
    pub async fn turn(&mut self, reads: bool) -> io::Result<Turn> {
        std::future::poll_fn(|cx| {
            let mut wrote = false;
            while let Some(rest) = self.output.get(self.written..)
                && !rest.is_empty()
                && let Poll::Ready(count) = Pin::new(&mut self.stream).poll_write(cx, rest)?
            {
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.written += count;
                self.unflushed = true;
                wrote = true;
            }
            if self.written == self.output.len() {
                self.output.clear();
                self.output.shrink_to(READ_BYTES_MAX);
                self.written = 0;
            }
            if self.unflushed && Pin::new(&mut self.stream).poll_flush(cx)?.is_ready() {
                self.unflushed = false;
                wrote = true;
            }
            if reads {
                self.input.reserve(self.read_bytes);
                let read = poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input)?;
                if let Poll::Ready(count) = read {
                    if count >= self.read_bytes {
                        self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
                    }
                    let turn = if count == 0 { Turn::Ended } else { Turn::Read };
                    return Poll::Ready(Ok(turn));
                }
            }
            if wrote {
                Poll::Ready(Ok(Turn::Wrote))
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// Reads more. False at the end of the stream.
    pub async fn read(&mut self) -> io::Result<bool> {
        loop {
            match self.turn(true).await? {
                Turn::Read => return Ok(true),
                Turn::Ended => return Ok(false),
                Turn::Wrote => {}
            }
        }
    }

    /// Writes everything, unless the client does not take it.
    pub async fn flush(&mut self) {
        let all = async {
            while self.has_output() {
                self.turn(false).await?;
            }
            std::future::poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await
        };
        // Nobody is left who could be told that it did not work.
        let _: Result<io::Result<()>, _> = timeout(GOODBYE_MAX, all).await;
    }
}
