//! The predictive-maintenance example: starts a node with its broker, lets the machines publish, prints the shift report.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{agent, empty_folder, get, wasm_target};
use crate::process::{self, program};
use crate::serving::{self, Server};
use crate::templates::tombolo;

const EXAMPLE: &str = "examples/predictive-maintenance";

/// Whether everything that was published was processed once, and agrees with the reference.
pub fn run(keep: bool, vibration: Option<&Path>) -> Result<bool> {
    let example = process::repository().join(EXAMPLE);
    wasm_target()?;
    eprintln!("building tombolo");
    let tombolo = tombolo()?;
    eprintln!("building the functions and the replay");
    // What it lists is not the demonstration's result.
    process::run(program(&tombolo, &["build"], &example).stdout(Stdio::null()))?;
    let mut cargo = process::cargo();
    let build = ["build", "--quiet", "--locked", "--package=replay"];
    process::run(cargo.args(build).current_dir(&example))?;

    let folder = empty_folder("predictive-maintenance")?;
    let store = folder.join("store").display().to_string();
    let broker = serving::free_address()?.to_string();
    let up = [
        "up",
        "--listen=127.0.0.1:0",
        "--mqtt-listen",
        &broker,
        "--store",
        &store,
    ];
    let server = Server::announced(&mut program(&tombolo, &up, &example))?;
    let site = format!("http://{}", server.address());

    let arguments = ["--broker", broker.as_str(), "--site", site.as_str()];
    let mut replay = program(example.join("target/debug/replay"), &arguments, &example);
    if let Some(vibration) = vibration {
        // The replay runs in another folder.
        replay
            .arg("--vibration")
            .arg(std::path::absolute(vibration)?);
    }
    let status = replay
        .stdin(Stdio::null())
        .status()
        .context("cannot start the replay")?;
    let dead = dead_letters(&mut program(
        &tombolo,
        &["queue", "list", "--json", "--store", &store],
        &example,
    ))?;
    println!("dead letters {dead}\n");

    // The schedule would print it at the end of the shift; here it is asked to do so now.
    let invoke = [
        "--quiet",
        "invoke",
        "shift",
        "--trigger=cron",
        "--store",
        &store,
    ];
    print!(
        "{}",
        process::output(&mut program(&tombolo, &invoke, &example))?
    );
    let file = folder.join("report.html");
    fs::write(&file, get(&agent(), &format!("{site}/report"))?)?;
    println!("\npage     {}", file.display());
    super::end(server, keep)?;
    Ok(status.success() && dead == 0)
}

/// Events that no function would take.
fn dead_letters(list: &mut Command) -> Result<u64> {
    #[derive(Deserialize)]
    struct Queue {
        counters: Counters,
    }
    #[derive(Deserialize)]
    struct Counters {
        dead: u64,
    }
    let queues: Vec<Queue> = serde_json::from_str(&process::output(list)?)
        .context("the list of queues is not readable")?;
    ensure!(!queues.is_empty(), "the node has no queues");
    Ok(queues.iter().map(|queue| queue.counters.dead).sum())
}
