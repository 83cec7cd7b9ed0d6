//! `cargo demo`: builds and runs an example on its real input, and checks what comes of it.

mod maintenance;
mod traffic;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::process::{self, program};
use crate::serving::Server;

const TARGET: &str = "wasm32-wasip2";
/// How often `--keep` looks whether the node is still there; Ctrl-C ends both at once.
const KEEP_INTERVAL: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a person may ask of the demonstration.
#[derive(Args, Debug, Default)]
#[command(override_usage = "cargo demo [EXAMPLE] [OPTIONS]")]
pub struct Arguments {
    /// The example to run
    #[arg(value_enum, default_value_t)]
    example: Example,
    /// Leave the report page up until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Folder of the vibration recordings that predictive-maintenance replays; without them that part is skipped
    #[arg(long, value_name = "FOLDER", env = "TOMBOLO_VIBRATION_DATA")]
    vibration: Option<PathBuf>,
}

impl Arguments {
    /// What `cargo verify` runs.
    pub fn of(example: Example) -> Self {
        Self {
            example,
            ..Self::default()
        }
    }
}

/// An example that can be demonstrated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Example {
    /// Two hours of one intersection
    #[default]
    SmartTraffic,
    /// Vibration of bearings and the temperature of a press, by MQTT
    PredictiveMaintenance,
}

/// Exits with success only when everything equals the example's reference.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let right = match arguments.example {
        Example::SmartTraffic => traffic::run(arguments.keep)?,
        Example::PredictiveMaintenance => {
            maintenance::run(arguments.keep, arguments.vibration.as_deref())?
        }
    };
    Ok(if right {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What components are compiled for.
fn wasm_target() -> Result<()> {
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

/// `target/demo/EXAMPLE`, with nothing left of an earlier demonstration.
fn empty_folder(example: &str) -> Result<PathBuf> {
    let folder = process::repository().join("target/demo").join(example);
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

/// Ends the node, or leaves it up until Ctrl-C.
fn end(server: Server, keep: bool) -> Result<()> {
    if !keep {
        return server.drain();
    }
    println!("         http://{}/report until Ctrl-C", server.address());
    while server.ask("/report").is_ok() {
        std::thread::sleep(KEEP_INTERVAL);
    }
    Ok(())
}
