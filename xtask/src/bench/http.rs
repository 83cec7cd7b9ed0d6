//! The HTTP benchmark: all contenders up and warm, rounds interleaved in random order, CPU time for each request.

use std::collections::BTreeMap;
use std::thread;

use anyhow::{Context, Result, ensure};

use super::HttpOptions;
use super::contender::{Field, Running};
use super::report::{Entry, Report};
use super::round::{self, Sample};
use super::{latency, statistics};
use crate::process;
use crate::setup;

const WARM_UP_SECONDS: u32 = 1;

pub fn run(options: &HttpOptions) -> Result<()> {
    setup::debian("wrk", &["wrk"])?;
    let cores = thread::available_parallelism()?.get();
    ensure!(cores >= 2, "server and load generator need a core each");
    let field = Field::find(options.only.as_deref())?;
    let mut servers = Vec::new();
    for contender in &field.contenders {
        let server = contender.start()?;
        round::load(&server, WARM_UP_SECONDS)
            .with_context(|| format!("warming {}", contender.name))?;
        eprintln!("warm: {}", contender.name);
        servers.push(server);
    }
    let seed = super::seed()?;
    let samples = measure(options, &servers, seed)?;
    let entries: Vec<Entry> = field
        .contenders
        .iter()
        .zip(samples)
        .map(|(contender, samples)| Entry::new(&contender.name, &contender.remark, samples))
        .collect();
    let by_name: BTreeMap<&str, &Running> = field
        .contenders
        .iter()
        .map(|contender| contender.name.as_str())
        .zip(&servers)
        .collect();
    let report = Report {
        rounds: options.rounds,
        seconds: options.seconds,
        seed,
        latencies: latency::measure(&by_name, &entries)?,
        entries,
        missing: field.missing,
    };
    print!("{report}");
    let file = report.write(&process::repository().join("bench-results"))?;
    println!("\nwritten to {}", file.display());
    Ok(())
}

/// One sample of each server in each round, in an order drawn anew for each round.
fn measure(options: &HttpOptions, servers: &[Running], seed: u64) -> Result<Vec<Vec<Sample>>> {
    let mut samples = vec![Vec::new(); servers.len()];
    let mut state = seed;
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        for index in statistics::shuffled(servers.len(), &mut state) {
            if let (Some(server), Some(samples)) = (servers.get(index), samples.get_mut(index)) {
                samples.push(round::measure(server, options.seconds)?);
            }
        }
    }
    Ok(samples)
}
