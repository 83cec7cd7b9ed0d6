//! `tombolo run`: runs a component or a module as a command; its output and exit code are its own.

use std::path::Path;
use std::time::Duration;

use tombolo_core::Failure;
use tombolo_manifest::Limits;
use tombolo_node::{CommandError, CommandSpec, run_command};

use crate::app;
use crate::arguments::{Global, Run};
use crate::bare;
use crate::error::Error;

/// Runs the command to its end; the code is the guest's.
pub async fn run(arguments: Run, global: &Global) -> Result<u8, Error> {
    let folder = app::folder(global)?;
    let file = bare::file(&folder, &arguments.file)?;
    let program = std::fs::read(&file)
        .map_err(|error| Error::io("cannot read the program", &error).place(file.display()))?;
    let name = Path::new(&arguments.file).file_name();
    let name = name.map_or_else(
        || "program".into(),
        |name| name.to_string_lossy().into_owned(),
    );
    let bare = arguments.bare;
    let limits = bare.limits(unhurried(), YEAR)?;
    let directories = bare.directories(&folder)?;
    let spec = CommandSpec {
        program,
        arguments: std::iter::once(name).chain(arguments.arguments).collect(),
        env: bare.env,
        directories,
        sockets: bare.grant_sockets,
        http: bare.grant_http,
        budget: limits.budget,
    };
    let code = run_command(spec)
        .await
        .map_err(|error| failed(&error).place(file.display()))?;
    // As the system does: the low byte is what the caller sees.
    Ok(code.to_le_bytes().first().copied().unwrap_or(1))
}

fn failed(error: &CommandError) -> Error {
    let report = Error::new(error.code(), error.to_string());
    let report = match std::error::Error::source(error) {
        Some(cause) => report.why(cause),
        None => report,
    };
    match error {
        CommandError::Failed(Failure {
            backtrace: Some(frames),
            ..
        }) => report.frames(frames.clone()),
        CommandError::NoStart => report.help(
            "a program for `wasm32-wasip1` has a `_start`; a library, or a module for a browser, has none",
        ),
        _ => report,
    }
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Commands are not invocations: unless limited, they run as long and are as large as they need.
fn unhurried() -> Limits {
    let mut limits = Limits::default();
    limits.budget.wall = YEAR;
    limits.budget.cpu = YEAR;
    limits.budget.memory_bytes = 4 << 30;
    limits
}
