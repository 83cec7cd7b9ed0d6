//! The smart-traffic example: replays its recording second by second and compares the totals.

mod display;
mod metrics;
mod recording;
mod reference;
mod replay;

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::{agent, empty_folder, get, wasm_target};
use crate::process::{self, program};
use crate::serving::Server;
use crate::setup;
use crate::templates::tombolo;

use display::Display;
use recording::Recording;
use reference::{Reference, Report};

const EXAMPLE: &str = "examples/smart-traffic";

/// Whether every total equals the reference.
pub fn run(keep: bool) -> Result<bool> {
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
    setup::node()?;
    wasm_target()?;
    eprintln!("building tombolo");
    let tombolo = tombolo()?;
    eprintln!("building the functions");
    // What it lists is not the demonstration's result.
    process::run(program(&tombolo, &["build"], &example).stdout(Stdio::null()))?;

    let folder = empty_folder("smart-traffic")?;
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
    super::end(server, keep)?;
    Ok(differences.is_empty())
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
