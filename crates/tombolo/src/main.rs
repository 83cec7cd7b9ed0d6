//! The binary: it understands the command line, runs one command and turns its outcome into an exit code.

mod app;
mod arguments;
mod bare;
mod command;
mod error;
mod output;
mod server;
mod template;
mod toolchain;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;
use tombolo_core::code::exit;

use crate::arguments::Arguments;
use crate::error::Error;
use crate::output::Output;
use crate::server::Signals;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // clap itself exits with 2 on usage errors and with 0 after help.
    let arguments = Arguments::parse();
    let output = Output::new(&arguments.global);
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("cannot start the async runtime", &error))
        .and_then(|runtime| {
            let outcome = runtime.block_on(supervise(arguments, &output));
            // Reads of a terminal cannot be cancelled and must not hold up the exit.
            runtime.shutdown_background();
            outcome
        });
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// Runs the command until it ends, is interrupted or runs out of time. Servers end by themselves.
async fn supervise(arguments: Arguments, output: &Output) -> Result<u8, Error> {
    if arguments.command.is_server() {
        return match arguments.global.timeout {
            None => command::run(arguments, output).await,
            Some(_) => Err(Error::usage(
                "`--timeout` does not apply to a command that serves",
            )),
        };
    }
    let timeout = arguments.global.timeout;
    let command = async {
        match timeout {
            None => command::run(arguments, output).await,
            Some(limit) => tokio::time::timeout(limit, command::run(arguments, output))
                .await
                .unwrap_or_else(|_| Err(Error::timeout(limit))),
        }
    };
    let mut signals = Signals::take()?;
    // What the command has started, such as a build, ends with it.
    tokio::select! {
        outcome = command => outcome,
        () = signals.stop() => Ok(exit::INTERRUPTED),
    }
}
