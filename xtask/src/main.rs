//! The project's own tasks: checks, the demonstration and benchmarks, behind `cargo verify`, `cargo demo` and `cargo xtask`.

mod bench;
mod demo;
mod examples;
mod process;
mod serving;
mod setup;
mod templates;
mod tidy;
mod verify;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Tasks of the Tombolo project", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build and run an example on its real input, and check what comes of it
    Demo(demo::Arguments),
    /// Install what is missing and run every check and test
    Verify {
        /// Run these phases only, such as `clippy` or `tests`
        phases: Vec<String>,
    },
    /// Install what the checks need and the machine lacks
    Setup,
    /// Check the rules of the house: sizes, first lines, arrows between crates, dependencies
    Tidy,
    /// Measure, beside the peers that this machine has
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Demo(arguments) => return demo::run(&arguments),
        Task::Verify { phases } => verify::run(&phases)?,
        Task::Setup => setup::run()?,
        Task::Tidy => tidy::run()?,
        Task::Bench(bench) => bench::run(bench)?,
    }
    Ok(ExitCode::SUCCESS)
}
