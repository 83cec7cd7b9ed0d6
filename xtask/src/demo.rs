//! `cargo demo`: builds and runs the smart-traffic example, replays its recording, and checks the totals.

mod display;
mod metrics;
mod recording;
mod reference;
mod replay;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::process::{self, program};
use crate::serving::Server;
use crate::setup;
use crate::templates::tombolo;

use display::Display;
use recording::Recording;
use reference::{Reference, Report};

const EXAMPLE: &str = "examples/smart-traffic";
const TARGET: &str = "wasm32-wasip2";
/// How often `--keep` looks whether the node is still there; Ctrl-C ends both at once.
const KEEP_INTERVAL: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a person may ask of the demonstration.
#[derive(Args, Debug, Default)]
#[command(override_usage = "cargo demo [OPTIONS]")]
pub struct Arguments {
    /// Leave the report page up until Ctrl-C
    #[arg(long)]
    keep: bool,
}

/// Exits with success only when every total equals the reference.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let example = process::repository().join(EXAMPLE);
    // First what takes no time and may be wrong.
    let recording = Recording::read(&example.join("data"))?;
    let reference = Reference::read(&example.join("reference"))?;
    ensure!(
        *recording.last_quarter() >= *reference.last_quarter(),
        "the recording ends in the quarter hour from {}, and the reference in that from {}: {} is cut short",
        recording.last_quarter(),
        reference.last_quarter(),
        recording::EVENTS
    );
    install()?;
    eprintln!("building tombolo");
    let tombolo = tombolo()?;
    eprintln!("building the functions");
    // What it lists is not the demonstration's result.
    process::run(program(&tombolo, &["build"], &example).stdout(Stdio::null()))?;

    let folder = empty_folder()?;
    let store = folder.join("store").display().to_string();
    let listen = ["up", "--listen", "127.0.0.1:0", "--store", store.as_str()];
    let server = Server::announced(&mut program(&tombolo, &listen, &example))?;
    let site = format!("http://{}", server.address());
    let agent = agent();
    let admin = metrics::admin(Path::new(&store))?;

    let mut display = Display::new(recording.seconds().len());
    let counts = replay::run(&agent, &site, &recording, |counts| {
        display.show(counts, || metrics::read(&agent, &admin));
    })?;
    display.finish(&counts, &metrics::read(&agent, &admin)?);

    let report: Report = serde_json::from_str(&get(&agent, &format!("{site}/report.json"))?)
        .context("the report is not readable")?;
    let file = folder.join("report.html");
    fs::write(&file, get(&agent, &format!("{site}/report"))?)?;
    let differences = reference.compare(&report, recording.device());
    println!("{}", reference.table(&report, recording.device()));
    println!("page     {}", file.display());
    println!("verdict  {}", verdict(&differences, &reference));
    if arguments.keep {
        println!("         {site}/report until Ctrl-C");
        while server.ask("/report").is_ok() {
            std::thread::sleep(KEEP_INTERVAL);
        }
    } else {
        server.drain()?;
    }
    Ok(if differences.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn verdict(differences: &[String], reference: &Reference) -> String {
    if differences.is_empty() {
        return format!("all {} totals equal the reference", reference.totals());
    }
    let list = differences.join("\n         ");
    format!(
        "{} of the totals differ from the reference:\n         {list}",
        differences.len()
    )
}

/// What the two guests' toolchains need; npm's part is the manifest's own build command.
fn install() -> Result<()> {
    setup::node()?;
    let root = process::repository();
    let sysroot = process::output(&mut program("rustc", &["--print", "sysroot"], &root))?;
    if Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(TARGET)
        .is_dir()
    {
        return Ok(());
    }
    process::run(&mut program("rustup", &["target", "add", TARGET], &root)).context(format!(
        "install the target with: rustup target add {TARGET}"
    ))
}

/// `target/demo`, with nothing left of an earlier demonstration.
fn empty_folder() -> Result<PathBuf> {
    let folder = process::repository().join("target/demo");
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// One connection is kept; a refusal is an answer, not an error.
fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(ANSWER_TIMEOUT))
        .build()
        .into()
}

fn get(agent: &ureq::Agent, url: &str) -> Result<String> {
    let mut answer = agent
        .get(url)
        .call()
        .with_context(|| format!("no answer from {url}"))?;
    let text = answer.body_mut().read_to_string()?;
    ensure!(
        answer.status().is_success(),
        "{url} answered {}: {text}",
        answer.status()
    );
    Ok(text)
}
