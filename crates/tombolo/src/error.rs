//! What a command reports when it fails: `error[TB0123]: what`, where, why, and the next command.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use tombolo_api::ClientError;
use tombolo_core::Code;
use tombolo_manifest::Diagnostics;

/// A command that failed.
#[derive(Debug)]
pub enum Error {
    /// One thing went wrong.
    Report(Box<Report>),
    /// Places in a manifest or a config are wrong.
    Places(Diagnostics),
    /// The command has said already what is wrong.
    Told(u8),
}

/// What went wrong, where, why, and what to do.
#[derive(Debug)]
pub struct Report {
    code: Code,
    what: String,
    place: Option<String>,
    why: Vec<String>,
    /// The guest's frames, innermost first, one a line.
    frames: Option<String>,
    help: Option<String>,
}

/// Escape sequences around the parts of an error.
const RED: &str = "\x1b[1;31m";
const BLUE: &str = "\x1b[1;34m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

impl Error {
    /// A failure of this kind.
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self::Report(Box::new(Report {
            code,
            what: what.into(),
            place: None,
            why: Vec::new(),
            frames: None,
            help: None,
        }))
    }

    /// Arguments that do not fit together.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Code::Usage, what)
    }

    /// An operation on a file that the system refused.
    pub fn io(what: impl Into<String>, cause: &io::Error) -> Self {
        Self::new(Code::Io, what).why(cause)
    }

    /// `--timeout` has passed.
    pub fn timeout(limit: Duration) -> Self {
        let limit = humantime::format_duration(limit);
        Self::new(
            Code::Timeout,
            format!("the command did not finish within {limit}"),
        )
    }

    /// There is no manifest in the folder.
    pub fn manifest_missing(folder: &Path) -> Self {
        Self::new(
            Code::ManifestMissing,
            "there is no `tombolo.toml` in this folder",
        )
        .place(folder.display())
        .help("`tombolo new NAME` makes an app, `-C DIR` names its folder")
    }

    /// The place that the failure is about.
    #[must_use]
    pub fn place(self, place: impl ToString) -> Self {
        self.with(|report| report.place = Some(place.to_string()))
    }

    /// Another place for a failure that has one.
    #[must_use]
    pub fn place_instead(self, place: impl ToString) -> Self {
        self.with(|report| report.place = report.place.take().map(|_| place.to_string()))
    }

    /// Adds an error and everything that caused it.
    #[must_use]
    pub fn why(self, cause: &(dyn std::error::Error + 'static)) -> Self {
        self.with(|report| {
            let mut cause = Some(cause);
            while let Some(error) = cause {
                report.why.push(error.to_string());
                cause = error.source();
            }
        })
    }

    /// Where the guest was.
    #[must_use]
    pub fn frames(self, frames: String) -> Self {
        self.with(|report| report.frames = Some(frames))
    }

    /// What to do next.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        self.with(|report| report.help = Some(help.into()))
    }

    fn with(mut self, change: impl FnOnce(&mut Report)) -> Self {
        if let Self::Report(report) = &mut self {
            change(report);
        }
        self
    }

    /// The kind of failure, where there is one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Report(report) => Some(report.code),
            Self::Places(_) | Self::Told(_) => None,
        }
    }

    /// What the process exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Report(report) => report.code.exit_code(),
            Self::Places(diagnostics) => diagnostics.code().exit_code(),
            Self::Told(code) => *code,
        }
    }

    /// The error as a person reads it, without the last line's end.
    pub fn render(&self, color: bool) -> String {
        match self {
            Self::Report(report) => report.render(color),
            Self::Places(diagnostics) if color => paint(&diagnostics.to_string()),
            Self::Places(diagnostics) => diagnostics.to_string(),
            Self::Told(_) => String::new(),
        }
    }
}

impl Report {
    fn render(&self, color: bool) -> String {
        let mut text = format!("error[{}]: {}", self.code, self.what);
        if let Some(place) = &self.place {
            let _ = write!(text, "\n --> {place}");
        }
        for why in &self.why {
            let _ = write!(text, "\n  because {}", why.replace('\n', "\n    "));
        }
        for frame in self.frames.iter().flat_map(|frames| frames.lines()) {
            let _ = write!(text, "\n  {frame}");
        }
        if let Some(help) = &self.help {
            let _ = write!(text, "\nhelp: {help}");
        }
        if color { paint(&text) } else { text }
    }
}

/// Colours what every error has: its head, its arrows and its help.
fn paint(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(paint_line).collect();
    lines.join("\n")
}

fn paint_line(line: &str) -> String {
    if let Some((head, what)) = line
        .strip_prefix("error[")
        .and_then(|rest| rest.split_once("]: "))
    {
        format!("{RED}error[{head}]{PLAIN}{BOLD}: {what}{PLAIN}")
    } else if let Some(rest) = line.trim_start().strip_prefix("--> ") {
        format!(" {BLUE}-->{PLAIN} {rest}")
    } else if let Some(rest) = line.strip_prefix("help: ") {
        format!("{BOLD}help{PLAIN}: {rest}")
    } else {
        line.to_owned()
    }
}

impl From<Diagnostics> for Error {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Places(diagnostics)
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        let report = Self::new(error.code(), error.to_string());
        let report = match std::error::Error::source(&error) {
            Some(cause) => report.why(cause),
            None => report,
        };
        match error.code() {
            Code::Unreachable => report.help("`tombolo up` starts a node in the app's folder"),
            Code::NotFound => {
                report.help("`tombolo get apps` and `tombolo get functions` list what there is")
            }
            _ => report,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_where_why_and_what_next() {
        let cause = io::Error::new(io::ErrorKind::PermissionDenied, "permission denied");
        let error = Error::io("cannot write `a.wasm`", &cause)
            .place("/app/a.wasm")
            .help("`chmod u+w a.wasm`");
        assert_eq!(
            error.render(false),
            "error[TB0005]: cannot write `a.wasm`\n --> /app/a.wasm\n  because permission denied\nhelp: `chmod u+w a.wasm`"
        );
        assert_eq!(error.exit_code(), 1);
        assert!(
            error
                .render(true)
                .starts_with("\x1b[1;31merror[TB0005]\x1b[0m")
        );
    }
}
