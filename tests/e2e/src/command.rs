//! One run of the command line from start to end.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::tombolo;

/// What a command that has ended left behind.
#[derive(Debug)]
pub struct Output {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The binary with an environment that no setting of the developer's leaks into.
pub fn command() -> Command {
    let mut command = Command::new(tombolo());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TOMBOLO") {
            command.env_remove(name);
        }
    }
    command
        .env("NO_COLOR", "1")
        .env_remove("RUST_BACKTRACE")
        .env_remove("RUST_LOG");
    command
}

/// Runs `tombolo ARGUMENTS` to its end.
pub fn run(arguments: &[&str]) -> Result<Output> {
    run_with(arguments, Path::new("."), "")
}

/// The same in a folder, with a text on standard input.
pub fn run_with(arguments: &[&str], folder: &Path, stdin: &str) -> Result<Output> {
    let mut child = command()
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("the binary cannot be started")?;
    if let Some(mut input) = child.stdin.take() {
        // Whoever does not read its input may be gone already.
        input.write_all(stdin.as_bytes()).ok();
    }
    let output = child.wait_with_output()?;
    Ok(Output {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}
