//! One module for each command, and the choice between them.

mod build;
mod check;
mod completions;
mod describe;
mod dev;
mod doctor;
mod explain;
mod get;
mod invoke;
pub mod logs;
mod new;
mod queue;
mod run;
mod serve;
mod top;
mod up;

use tombolo_core::code::exit;

use crate::arguments::{Arguments, Command};
use crate::error::Error;
use crate::output::Output;

/// Runs the command; the code is what the process exits with.
pub async fn run(arguments: Arguments, output: &Output) -> Result<u8, Error> {
    let global = &arguments.global;
    match arguments.command {
        Command::New(new) => new::run(&new, global, output)?,
        Command::Build(build) => build::run(&build, global, output).await?,
        Command::Dev(dev) => dev::run(&dev, global, output).await?,
        Command::Up(up) => up::run(&up, global, output).await?,
        Command::Serve(serve) => serve::run(&serve, global, output).await?,
        Command::Run(run) => return run::run(run, global).await,
        Command::Invoke(invoke) => return invoke::run(invoke, global, output).await,
        Command::Check(check) => return check::run(check, global, output).await,
        Command::Logs(logs) => logs::run(logs, global, output).await?,
        Command::Top(top) => top::run(&top, global, output).await?,
        Command::Get(get) => get::run(&get, global, output).await?,
        Command::Describe(describe) => describe::run(&describe, global, output).await?,
        Command::Queue(queue) => queue::run(&queue.command, global, output).await?,
        Command::Doctor(doctor) => return doctor::run(&doctor, global, output).await,
        Command::Explain(explain) => explain::run(explain.code, output)?,
        Command::Completions(completions) => completions::run(&completions)?,
    }
    Ok(exit::DONE)
}
