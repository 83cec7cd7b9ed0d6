//! The MQTT benchmark: QoS 1 messages through the journal, a function and its durable acknowledgement, beside Mosquitto carrying the same to one subscriber.

mod client;

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use self::client::{Load, Subscriber};
use super::MqttOptions;
use super::contender::{SERVER_CORE, named, small_guest, tombolo};
use super::report::write_json;
use super::round::cpu_seconds;
use super::statistics::{Spread, shuffled};
use crate::process::{self, program};
use crate::serving::{Server, free_address};

/// Goal P9: messages per second, ours over theirs.
const WANTED: f64 = 0.4;
/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(300);
const OURS: &str = "tombolo: journal, function, acknowledgement";
const THEIRS: &str = "mosquitto: to one subscriber";
const QUEUE: &str = "queue=\"hello.mqtt\"";

const LOAD: Load = Load {
    messages: 0,
    bytes: 100,
    topics: 1000,
    publishers: 4,
    window: 64,
};

/// What one round measured.
#[derive(Clone, Copy, Serialize)]
struct Sample {
    messages_per_s: f64,
    /// Of the server alone.
    cpu_us_per_message: f64,
}

#[derive(Serialize)]
struct Report {
    peer: String,
    rounds: u32,
    messages: u32,
    bytes: u32,
    topics: u32,
    publishers: u32,
    window: u32,
    ours: Vec<Sample>,
    theirs: Vec<Sample>,
}

/// Where the contenders work, and what they are.
struct Bench {
    folder: PathBuf,
    tombolo: PathBuf,
    mosquitto: PathBuf,
    load: Load,
}

pub fn run(options: &MqttOptions) -> Result<()> {
    let mosquitto = named("MOSQUITTO", "mosquitto").context(
        "mosquitto is not installed: apt-get install mosquitto (or $MOSQUITTO names it)",
    )?;
    let bench = Bench {
        folder: process::repository().join("target/bench-mqtt"),
        tombolo: tombolo()?,
        mosquitto,
        load: Load {
            messages: options.messages / LOAD.publishers * LOAD.publishers,
            ..LOAD
        },
    };
    let mut report = Report {
        peer: bench.peer()?,
        rounds: 0,
        messages: bench.load.messages,
        bytes: LOAD.bytes,
        topics: LOAD.topics,
        publishers: LOAD.publishers,
        window: LOAD.window,
        ours: Vec::new(),
        theirs: Vec::new(),
    };
    let results = process::repository().join("bench-results");
    let mut state = super::seed()?;
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        for index in shuffled(2, &mut state) {
            match index {
                0 => report.ours.push(bench.ours().context(OURS)?),
                _ => report.theirs.push(bench.theirs().context(THEIRS)?),
            }
        }
        report.rounds = round;
        write_json(&results, "mqtt.json", &report)?;
    }
    print!("{report}");
    println!("\nwritten to {}", results.display());
    Ok(())
}

impl Bench {
    fn peer(&self) -> Result<String> {
        // It has no option for its version alone, and ends with 3 after its help.
        let help = program(&self.mosquitto, &["-h"], ".").output()?;
        let text = String::from_utf8_lossy(&help.stdout).into_owned();
        let first = text.lines().next().context("mosquitto says nothing")?;
        Ok(first.to_owned())
    }

    /// A folder that is there, and empty.
    fn fresh(&self) -> Result<&Path> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)?;
        }
        fs::create_dir_all(&self.folder)?;
        Ok(&self.folder)
    }

    /// From the first message until the journal has the acknowledgement of the last.
    fn ours(&self) -> Result<Sample> {
        let folder = self.fresh()?;
        let component = small_guest();
        let manifest = format!(
            "[app]\nname = \"bench\"\nversion = \"1.0.0\"\n\n[functions.hello]\ncomponent = {:?}\n\n\
             [[triggers.mqtt]]\ntopic = \"bench/#\"\nfunction = \"hello\"\n",
            component.display().to_string()
        );
        fs::write(folder.join("tombolo.toml"), manifest)?;
        let (mqtt, admin) = (free_address()?, free_address()?);
        let config = format!("[admin]\nlisten = \"{admin}\"\n");
        fs::write(folder.join("node.toml"), config)?;
        let mut command = self.pinned(&self.tombolo);
        command
            .current_dir(folder)
            .args(["up", "--listen", "127.0.0.1:0", "--mqtt-listen"])
            .arg(mqtt.to_string());
        let server = Server::announced(&mut command)?;
        wait_until(|| Ok(std::net::TcpStream::connect(mqtt).is_ok()))?;
        self.sample(server.process_id(), || {
            self.load.publish(mqtt)?;
            wait_until(|| Ok(delivered(admin)? >= u64::from(self.load.messages)))
        })
    }

    /// From the first message until the subscriber has the last.
    fn theirs(&self) -> Result<Sample> {
        let folder = self.fresh()?;
        let address = free_address()?;
        // Nothing is dropped, and nothing waits for more acknowledgements than ours.
        let config = format!(
            "listener {} {}\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 1000\n",
            address.port(),
            address.ip()
        );
        let file = folder.join("mosquitto.conf");
        fs::write(&file, config)?;
        let mut command = self.pinned(&self.mosquitto);
        command.arg("-c").arg(&file);
        let server = Peer(command.stderr(Stdio::null()).spawn()?);
        wait_until(|| Ok(std::net::TcpStream::connect(address).is_ok()))?;
        let subscriber = Subscriber::open(address)?;
        let messages = self.load.messages;
        self.sample(server.0.id(), || {
            let receiving = thread::spawn(move || subscriber.receive(messages));
            self.load.publish(address)?;
            match receiving.join() {
                Ok(received) => received,
                Err(_) => bail!("the subscriber panicked"),
            }
        })
    }

    fn sample(&self, process_id: u32, work: impl FnOnce() -> Result<()>) -> Result<Sample> {
        let messages = f64::from(self.load.messages);
        let (cpu, begun) = (cpu_seconds(process_id)?, Instant::now());
        work()?;
        let (cpu, wall) = (cpu_seconds(process_id)? - cpu, begun.elapsed());
        Ok(Sample {
            messages_per_s: messages / wall.as_secs_f64(),
            cpu_us_per_message: cpu * 1e6 / messages,
        })
    }

    fn pinned(&self, binary: &Path) -> Command {
        let mut command = program("taskset", &["--cpu-list", SERVER_CORE], &self.folder);
        command.arg(binary).env_remove("RUST_BACKTRACE");
        command
    }
}

/// Mosquitto; killed when dropped.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn wait_until(mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done()? {
        if Instant::now() > deadline {
            bail!("it takes longer than {} s", PATIENCE.as_secs());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The events that the function has acknowledged, durably.
fn delivered(admin: SocketAddr) -> Result<u64> {
    let url = format!("http://{admin}/_tombolo/metrics");
    let text = ureq::get(&url).call()?.body_mut().read_to_string()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("tombolo_queue_delivered_total{") && line.contains(QUEUE));
    let value = line.and_then(|line| line.rsplit_once(' '));
    let (_, value) = value.context("the node does not know the queue")?;
    Ok(value.parse()?)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}; medians of {} rounds of {} messages of {} B, QoS 1, {} topics, {} publishers with {} outstanding each; servers on one core\n",
            self.peer,
            self.rounds,
            self.messages,
            self.bytes,
            self.topics,
            self.publishers,
            self.window
        )?;
        writeln!(f, "| contender | messages/s (min–max) | CPU µs/message |")?;
        writeln!(f, "| --- | ---: | ---: |")?;
        for (name, samples) in [(OURS, &self.ours), (THEIRS, &self.theirs)] {
            let rate = Spread::of(samples.iter().map(|sample| sample.messages_per_s));
            let cpu = Spread::of(samples.iter().map(|sample| sample.cpu_us_per_message));
            let (Some(rate), Some(cpu)) = (rate, cpu) else {
                continue;
            };
            writeln!(
                f,
                "| {name} | {:.0} ({:.0}–{:.0}) | {:.1} |",
                rate.median, rate.min, rate.max, cpu.median
            )?;
        }
        let pairs = self.ours.iter().zip(&self.theirs);
        let ratio =
            Spread::of(pairs.map(|(ours, theirs)| ours.messages_per_s / theirs.messages_per_s));
        let Some(ratio) = ratio else {
            return Ok(());
        };
        writeln!(
            f,
            "\n| goal | wanted | messages/s, ours over theirs (min–max) |\n| --- | ---: | ---: |"
        )?;
        writeln!(
            f,
            "| P9 | ≥ {WANTED} × | {:.2} × ({:.2}–{:.2}) |",
            ratio.median, ratio.min, ratio.max
        )
    }
}
