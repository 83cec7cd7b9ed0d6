//! `cargo xtask bench NAME`: measurements that start their peers themselves, print a table and write JSON.

mod contender;
mod http;
mod latency;
mod report;
mod round;
mod statistics;

use anyhow::Result;
use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub enum Bench {
    /// Requests per second and CPU time per request, beside the peers that this machine has
    Http(HttpOptions),
}

#[derive(Args)]
pub struct HttpOptions {
    /// How many interleaved rounds to measure
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long each contender is loaded in each round
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Measure only contenders whose name contains this text (the control is always there)
    #[arg(long)]
    only: Option<String>,
}

pub fn run(bench: Bench) -> Result<()> {
    match bench {
        Bench::Http(options) => http::run(&options),
    }
}
