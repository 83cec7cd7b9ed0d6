//! What a guest writes to stdout, stderr and `wasi:logging`, as structured lines in the node's log book.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tombolo_core::{FunctionId, LogLevel};
use tombolo_telemetry::{LogBook, LogEntry, LogStream};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError};

/// The log of one invocation, or of a reused instance that is told which invocation it serves.
#[derive(Debug)]
pub(crate) struct InvocationLog {
    book: LogBook,
    function: FunctionId,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    request_id: String,
    trace_id: u128,
    left_bytes: u64,
    cut: bool,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// A line longer than this is cut into several.
const LINE_BYTES_MAX: usize = 8 << 10;

impl InvocationLog {
    pub(crate) fn new(book: LogBook, function: FunctionId) -> Self {
        let inner = Inner {
            request_id: String::new(),
            trace_id: 0,
            left_bytes: 0,
            cut: false,
            stdout: Vec::new(),
            stderr: Vec::new(),
        };
        Self {
            book,
            function,
            inner: Mutex::new(inner),
        }
    }

    /// Begins an invocation with a fresh budget of bytes.
    pub(crate) fn begin(&self, request_id: &str, trace_id: u128, log_bytes: u64) {
        let mut inner = self.lock();
        inner.request_id.clear();
        inner.request_id.push_str(request_id);
        inner.trace_id = trace_id;
        inner.left_bytes = log_bytes;
        inner.cut = false;
    }

    /// Writes out lines that the guest did not end.
    pub(crate) fn end(&self) {
        let mut inner = self.lock();
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let rest = std::mem::take(inner.buffer(stream));
            if !rest.is_empty() {
                self.line(&mut inner, stream, level_of(stream), &rest);
            }
        }
    }

    /// One message of `wasi:logging`.
    pub(crate) fn message(&self, level: LogLevel, context: &str, text: &str) {
        let mut inner = self.lock();
        if self.charge(&mut inner, context.len() + text.len()) {
            let mut entry = self.entry(&inner, LogStream::Log, level, text.into());
            if !context.is_empty() {
                entry.fields.insert("context".into(), context.into());
            }
            self.book.push(entry);
        }
    }

    /// The node refused something that the guest tried, which the guest can do as often as it likes.
    pub(crate) fn refused(&self, text: &str) {
        let mut inner = self.lock();
        if self.charge(&mut inner, text.len()) {
            let entry = self.entry(&inner, LogStream::Node, LogLevel::Warn, text.into());
            self.book.push(entry);
        }
    }

    /// One message of the node about the invocation; not charged to the guest.
    pub(crate) fn node(&self, level: LogLevel, text: String) {
        let inner = self.lock();
        self.book
            .push(self.entry(&inner, LogStream::Node, level, text));
    }

    fn write(&self, stream: LogStream, bytes: &[u8]) {
        let mut inner = self.lock();
        let mut buffer = std::mem::take(inner.buffer(stream));
        buffer.extend_from_slice(bytes);
        let mut rest = buffer.as_slice();
        loop {
            let newline = rest
                .iter()
                .take(LINE_BYTES_MAX)
                .position(|byte| *byte == b'\n');
            let (end, next) = match newline {
                Some(at) => (at, at + 1),
                None if rest.len() >= LINE_BYTES_MAX => (LINE_BYTES_MAX, LINE_BYTES_MAX),
                None => break,
            };
            let (line, tail) = rest.split_at(next);
            self.line(
                &mut inner,
                stream,
                level_of(stream),
                line.get(..end).unwrap_or(line),
            );
            rest = tail;
        }
        *inner.buffer(stream) = rest.to_vec();
    }

    fn line(&self, inner: &mut Inner, stream: LogStream, level: LogLevel, text: &[u8]) {
        if self.charge(inner, text.len() + 1) {
            let text = String::from_utf8_lossy(text).into_owned();
            self.book.push(self.entry(inner, stream, level, text));
        }
    }

    /// Takes bytes off the budget; says so once when there are not enough left.
    fn charge(&self, inner: &mut Inner, bytes: usize) -> bool {
        match inner.left_bytes.checked_sub(bytes as u64) {
            Some(left) => inner.left_bytes = left,
            None if inner.cut => return false,
            None => {
                inner.cut = true;
                let text = "some of the log is dropped: `limits.logs` is reached".to_string();
                self.book
                    .push(self.entry(inner, LogStream::Node, LogLevel::Warn, text));
                return false;
            }
        }
        true
    }

    fn entry(
        &self,
        inner: &Inner,
        stream: LogStream,
        level: LogLevel,
        message: String,
    ) -> LogEntry {
        LogEntry {
            time: SystemTime::now(),
            app: self.function.app.clone(),
            function: self.function.function.clone(),
            request_id: inner.request_id.clone(),
            trace_id: format!("{:032x}", inner.trace_id),
            stream,
            level,
            message,
            fields: serde_json::Map::new(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn buffer(&mut self, stream: LogStream) -> &mut Vec<u8> {
        match stream {
            LogStream::Stderr => &mut self.stderr,
            LogStream::Stdout | LogStream::Log | LogStream::Node => &mut self.stdout,
        }
    }
}

fn level_of(stream: LogStream) -> LogLevel {
    if stream == LogStream::Stderr {
        LogLevel::Warn
    } else {
        LogLevel::Info
    }
}

/// One of a guest's two output streams.
#[derive(Clone, Debug)]
pub(crate) struct GuestOutput {
    pub(crate) log: Arc<InvocationLog>,
    pub(crate) stream: LogStream,
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for GuestOutput {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.log.write(self.stream, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl OutputStream for GuestOutput {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        self.log.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(64 << 10)
    }
}

#[async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {}
}
