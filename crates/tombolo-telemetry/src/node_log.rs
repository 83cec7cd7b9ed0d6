//! The node's own log: structured lines on stderr.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;
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

/// Starts the log of this process, once.
///
/// # Errors
/// A log was started before.
pub fn start(options: NodeLogOptions) -> Result<(), NodeLogError> {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let color = options
        .color
        .unwrap_or_else(|| !no_color && stderr().is_terminal());
    let builder = tracing_subscriber::fmt()
        .with_writer(stderr)
        .with_ansi(color)
        .with_target(options.verbosity > 1)
        .with_env_filter(EnvFilter::new(directives(options.verbosity)));
    match options.format {
        LogFormat::Text => builder.finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    }
    .map_err(NodeLogError)
}

/// The level of our own lines and of our dependencies': these speak one level later.
fn directives(verbosity: i8) -> &'static str {
    match verbosity {
        ..=-2 => "off",
        -1 => "error",
        0 => "warn",
        1 => "warn,tombolo=info",
        2 => "info,tombolo=debug",
        3 => "debug,tombolo=trace",
        _ => "trace",
    }
}
