//! The predictive-maintenance example: starts a node with its broker, lets the machines publish, prints the shift report.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{agent, empty_folder, get, wasm_target};
use crate::process::{self, program};
use crate::serving::{self, Server};
use crate::templates::tombolo;

const EXAMPLE: &str = "examples/predictive-maintenance";

/// Whether everything that was published was processed once, and agrees with the reference.
pub fn run(keep: bool, vibration: Option<&Path>) -> Result<bool> {
    let example = process::repository().join(EXAMPLE);
    let tombolo = build(&example)?;
    let tombolo = |arguments: &[&str]| program(&tombolo, arguments, &example);

    let folder = empty_folder("predictive-maintenance")?;
    let store = format!("--store={}", folder.join("store").display());
    let broker = serving::free_address()?.to_string();
    let mqtt = format!("--mqtt-listen={broker}");
    let up = ["up", "--listen=127.0.0.1:0", &mqtt, &store];
    let server = Server::announced(&mut tombolo(&up))?;
    let site = format!("http://{}", server.address());

    let mut replay = program(example.join("target/debug/replay"), &[], &example);
    replay.args(["--broker", &broker, "--site", &site]);
    if let Some(vibration) = vibration {
        // The replay runs in another folder.
        let vibration = std::path::absolute(vibration)?;
        replay.arg("--vibration").arg(vibration);
    }
    let status = replay.stdin(Stdio::null()).status();
    let agrees = status.context("cannot start the replay")?.success();
    let queues = counters(&mut tombolo(&["queue", "list", "--json", &store]))?;
    println!(
        "queues       {} events published, {} delivered, {} tried again, {} dead letters\n",
        queues.published, queues.delivered, queues.retried, queues.dead
    );

    // The schedule would print it at the end of the shift; here it is asked to do so now.
    let invoke = ["--quiet", "invoke", "shift", "--trigger=cron", &store];
    print!("{}", process::output(&mut tombolo(&invoke))?);
    let file = folder.join("report.html");
    fs::write(&file, get(&agent(), &format!("{site}/report"))?)?;
    println!("\npage     {}", file.display());
    super::end(server, keep)?;
    Ok(agrees && queues.dead == 0)
}

/// Builds the node, the functions and the machines; returns where the binary is.
fn build(example: &Path) -> Result<PathBuf> {
    wasm_target()?;
    eprintln!("building tombolo");
    let tombolo = tombolo()?;
    eprintln!("building the functions and the replay");
    // What it lists is not the demonstration's result.
    process::run(program(&tombolo, &["build"], example).stdout(Stdio::null()))?;
    let mut cargo = process::cargo();
    let build = ["build", "--quiet", "--locked", "--package=replay"];
    process::run(cargo.args(build).current_dir(example))?;
    Ok(tombolo)
}

/// What happened to the events of all queues.
#[derive(Debug, Default, Deserialize)]
struct Counters {
    published: u64,
    delivered: u64,
    retried: u64,
    dead: u64,
}

fn counters(list: &mut Command) -> Result<Counters> {
    #[derive(Deserialize)]
    struct Queues {
        items: Vec<Queue>,
    }
    #[derive(Deserialize)]
    struct Queue {
        counters: Counters,
    }
    let queues: Queues = serde_json::from_str(&process::output(list)?)
        .context("the list of queues is not readable")?;
    let add = |sum: Counters, Queue { counters }| Counters {
        published: sum.published + counters.published,
        delivered: sum.delivered + counters.delivered,
        retried: sum.retried + counters.retried,
        dead: sum.dead + counters.dead,
    };
    Ok(queues.items.into_iter().fold(Counters::default(), add))
}
