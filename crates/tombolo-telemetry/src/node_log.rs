//! The node's own log: structured lines on stderr.

use std::io::{self, IsTerminal as _, Write, stderr};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What the node writes of its own, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeLogOptions {
    pub format: LogFormat,
    /// 0 shows warnings and errors; each `-v` one level more (info, debug, trace), each `-q` one less.
    pub verbosity: i8,
    /// `Some` for `--color always|never`; else colour is for terminals, and `NO_COLOR` is respected.
    pub color: Option<bool>,
}

/// There is a log already.
#[derive(Debug, thiserror::Error)]
#[error("the node's log cannot be started a second time")]
pub struct NodeLogError(#[source] tracing_subscriber::util::TryInitError);

/// More than this is not kept back.
const HELD_BYTES_MAX: usize = 64 << 10;

/// Keeps the lines back until it is dropped: the first line of a server tells its address.
#[derive(Debug)]
#[must_use]
pub struct HeldLog {
    lines: Lines,
}

impl Drop for HeldLog {
    fn drop(&mut self) {
        self.lines.release();
    }
}

/// The way to stderr. `None`: lines are not kept back any more.
#[derive(Clone, Debug)]
struct Lines(Arc<Mutex<Option<Vec<u8>>>>);

impl Lines {
    fn release(&self) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lines) = held.take() {
            // Nobody is left to tell that stderr is closed.
            let _ = stderr().write_all(&lines);
        }
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match held.as_mut() {
            Some(lines) if lines.len() + bytes.len() <= HELD_BYTES_MAX => {
                lines.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            Some(_) => {
                drop(held);
                self.release();
                stderr().write(bytes)
            }
            None => stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        stderr().flush()
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Starts the log of this process, once. Its lines come out when the answer is dropped.
///
/// # Errors
/// A log was started before.
pub fn start(options: NodeLogOptions) -> Result<HeldLog, NodeLogError> {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let color = options
        .color
        .unwrap_or_else(|| !no_color && stderr().is_terminal());
    let lines = Lines(Arc::new(Mutex::new(Some(Vec::new()))));
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(lines.clone())
        .with_ansi(color)
        .with_target(options.verbosity > 1);
    let layer = match options.format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(levels(options.verbosity)))
        .try_init()
        .map_err(NodeLogError)?;
    Ok(HeldLog { lines })
}

/// The level of our own lines and of our dependencies': these speak one level later.
fn levels(verbosity: i8) -> Targets {
    let (ours, theirs) = match verbosity {
        ..=-2 => (LevelFilter::OFF, LevelFilter::OFF),
        -1 => (LevelFilter::ERROR, LevelFilter::ERROR),
        0 => (LevelFilter::WARN, LevelFilter::WARN),
        1 => (LevelFilter::INFO, LevelFilter::WARN),
        2 => (LevelFilter::DEBUG, LevelFilter::INFO),
        3 => (LevelFilter::TRACE, LevelFilter::DEBUG),
        _ => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    // What the config or the command asked for is shown.
    let asked = match verbosity {
        ..0 => LevelFilter::OFF,
        _ => LevelFilter::INFO,
    };
    Targets::new()
        .with_default(theirs)
        .with_target("tombolo", ours)
        .with_target("access", asked)
        .with_target("delivery", asked)
}
