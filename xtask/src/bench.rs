//! `cargo xtask bench NAME`: measurements that start their peers themselves, print a table and write JSON.

mod contender;
mod http;
mod journal;
mod latency;
mod mqtt;
mod profile;
mod report;
mod round;
mod start;
mod statistics;

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub enum Bench {
    /// Requests per second and CPU time per request, beside the peers that this machine has
    Http(HttpOptions),
    /// Durable events: published, consumed and there again after a restart, beside NATS JetStream
    Journal(JournalOptions),
    /// QoS 1 messages through a function and its durable acknowledgement, beside Mosquitto alone
    Mqtt(MqttOptions),
    /// Where the CPU time of a request goes, by sampling our servers under load with perf
    Profile(ProfileOptions),
    /// From the start of a process to a function's first answer, the memory of an idle node, the binary's size
    Start(StartOptions),
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

#[derive(Args)]
pub struct JournalOptions {
    /// How many interleaved rounds to measure
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long each contender publishes in each round
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// How many times each is started with a full queue
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1000))]
    restarts: u32,
}

#[derive(Args)]
pub struct MqttOptions {
    /// How many interleaved rounds to measure
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How many messages each contender carries in each round
    #[arg(long, default_value_t = 40_000, value_parser = clap::value_parser!(u32).range(1000..=10_000_000))]
    messages: u32,
}

#[derive(Args)]
pub struct ProfileOptions {
    /// How long each server is loaded and sampled
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
}

#[derive(Args)]
pub struct StartOptions {
    /// How many times each is started
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
}

pub fn run(bench: Bench) -> Result<()> {
    match bench {
        Bench::Http(options) => http::run(&options),
        Bench::Journal(options) => journal::run(&options),
        Bench::Mqtt(options) => mqtt::run(&options),
        Bench::Profile(options) => profile::run(&options),
        Bench::Start(options) => start::run(&options),
    }
}

/// Where an order is drawn from; never zero, so that the generator moves.
fn seed() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(u64::from(now.subsec_nanos()) | 1)
}
