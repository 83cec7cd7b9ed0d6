//! `tombolo run`: runs a component or a module as a command; its output and exit code are its own.

use std::path::Path;

use tombolo_core::{Code, Failure};
use tombolo_manifest::Limits;
use tombolo_node::{CommandError, CommandSpec, run_command};

use crate::app;
use crate::arguments::{Global, Run};
use crate::error::Error;

/// Runs the command to its end; the code is the guest's.
pub async fn run(arguments: Run, global: &Global) -> Result<u8, Error> {
    let file = app::folder(global)?.join(&arguments.file);
    let program = std::fs::read(&file).map_err(|error| {
        Error::new(Code::ComponentMissing, "cannot read the program")
            .place(file.display())
            .why(&error)
    })?;
    let limits = arguments.bare.limits(unhurried())?;
    let name = Path::new(&arguments.file).file_name();
    let name = name.map_or_else(
        || "program".into(),
        |name| name.to_string_lossy().into_owned(),
    );
    let bare = arguments.bare;
    let spec = CommandSpec {
        program,
        arguments: std::iter::once(name).chain(arguments.arguments).collect(),
        env: bare.env,
        directories: bare.dir,
        sockets: bare.grant_sockets,
        http: bare.grant_http,
        budget: limits.budget,
    };
    let code = run_command(spec).await.map_err(|error| {
        let report = Error::new(error.code(), error.to_string()).place(file.display());
        let report = match std::error::Error::source(&error) {
            Some(cause) => report.why(cause),
            None => report,
        };
        match error {
            CommandError::Failed(Failure {
                backtrace: Some(frames),
                ..
            }) => report.frames(frames),
            _ => report,
        }
    })?;
    // As the system does: the low byte is what the caller sees.
    Ok(code.to_le_bytes().first().copied().unwrap_or(1))
}

/// Commands are not invocations: unless limited, they run as long and are as large as they need.
fn unhurried() -> Limits {
    let mut limits = Limits::default();
    let year = std::time::Duration::from_secs(365 * 24 * 3600);
    limits.budget.wall = year;
    limits.budget.cpu = year;
    limits.budget.memory_bytes = 4 << 30;
    limits
}
