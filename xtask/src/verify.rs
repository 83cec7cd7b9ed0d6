//! `cargo verify`: every check and test, one line of time for each phase, all of them even when one fails.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{self, program};
use crate::{demo, examples, setup, templates, tidy};

type Phase = (&'static str, fn() -> Result<()>);

/// In this order: what is quick and often wrong comes first.
const PHASES: [Phase; 10] = [
    ("setup", setup::run),
    ("format", format),
    ("tidy", tidy::run),
    ("clippy", clippy),
    ("dependencies", dependencies),
    ("guests", guests),
    ("tests", tests),
    ("templates", templates::run),
    ("examples", examples::run),
    ("demo", demonstration),
];

/// Runs the phases that are named, in their order; all of them when none is.
pub fn run(names: &[String]) -> Result<()> {
    for name in names {
        let known = PHASES.iter().any(|(phase, _)| phase == name);
        ensure!(known, "there is no phase `{name}`");
    }
    let mut outcomes: Vec<(&str, Duration, Result<()>)> = Vec::new();
    for (name, phase) in PHASES {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        println!("==> {name}");
        let start = Instant::now();
        let outcome = phase();
        let time = start.elapsed();
        println!("{}", phase_line(name, time, &outcome));
        outcomes.push((name, time, outcome));
    }
    println!("\nverify:");
    for (name, time, outcome) in &outcomes {
        println!("{}", phase_line(name, *time, outcome));
    }
    let failed = outcomes
        .iter()
        .filter(|(_, _, outcome)| outcome.is_err())
        .count();
    println!("{} passed, {failed} failed", outcomes.len() - failed);
    if failed > 0 {
        bail!("{failed} of {} phases failed", outcomes.len());
    }
    Ok(())
}

fn phase_line(name: &str, time: Duration, outcome: &Result<()>) -> String {
    let seconds = time.as_secs_f64();
    match outcome {
        Ok(()) => format!("  {name:<13} ok      {seconds:>7.1} s"),
        Err(error) => format!("  {name:<13} FAILED  {seconds:>7.1} s  {error:#}"),
    }
}

/// The workspace, and the small workspaces beside it.
fn format() -> Result<()> {
    let root = process::repository();
    let beside = [".", "benches/control", "fuzz", "tests/guests"].map(|folder| root.join(folder));
    let examples = examples::WORKSPACES.map(|folder| root.join("examples").join(folder));
    for folder in beside.into_iter().chain(examples) {
        process::run(cargo_in(&folder).args(["fmt", "--all", "--check"]))?;
    }
    Ok(())
}

fn clippy() -> Result<()> {
    let arguments = ["clippy", "--workspace", "--all-targets", "--locked", "--"];
    let lints = ["--deny=warnings", "--deny=clippy::too_many_lines"];
    process::run(process::cargo().args(arguments).args(lints))
}

fn dependencies() -> Result<()> {
    let deny = process::find("cargo-deny").context("cargo-deny is not installed")?;
    let arguments = [
        "--log-level=error",
        "--locked",
        "check",
        "licenses",
        "bans",
        "sources",
    ];
    process::run(&mut program(deny, &arguments, process::repository()))?;
    // Nothing else here builds the fuzz targets: their lock file follows the crates all the same.
    let fuzz = process::repository().join("fuzz");
    let metadata = ["metadata", "--locked", "--format-version=1", "--quiet"];
    let metadata = process::output(cargo_in(&fuzz).args(metadata));
    metadata
        .map(drop)
        .context("fuzz/Cargo.lock is not up to date")
}

/// Guests are a workspace of their own: components, and one core module for the preview 1 commands.
fn guests() -> Result<()> {
    let folder = process::repository().join("tests/guests");
    let build = ["build", "--release", "--locked"];
    process::run(cargo_in(&folder).args(build).arg("--target=wasm32-wasip2"))?;
    let core_module = ["--package=cli-p1", "--target=wasm32-wasip1"];
    process::run(cargo_in(&folder).args(build).args(core_module))
}

fn cargo_in(folder: &Path) -> Command {
    let mut cargo = process::cargo();
    cargo.current_dir(folder);
    cargo
}

fn demonstration() -> Result<()> {
    for example in [
        demo::Example::SmartTraffic,
        demo::Example::PredictiveMaintenance,
    ] {
        let code = demo::run(&demo::Arguments::of(example))?;
        ensure!(
            code == ExitCode::SUCCESS,
            "{example:?} is not as its reference"
        );
    }
    Ok(())
}

fn tests() -> Result<()> {
    process::run(process::cargo().args(["test", "--workspace", "--locked"]))
}
