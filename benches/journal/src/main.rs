//! One measurement of durable events, ours or NATS JetStream's, as JSON on standard output.
//!
//! `journal-bench CONTENDER VERB FOLDER [NAME=VALUE…]`; `cargo xtask bench journal` runs it, with
//! contenders in turn, and compares. Each measurement has a process and a folder of its own.
//!
//! | contender | verbs |
//! | --- | --- |
//! | `disk` (one file, each event appended and synced) | `publish` |
//! | `ours` | `publish`, `consume`, `restart` |
//! | `loopback` (ours behind a socket) | `publish` |
//! | `jetstream` (needs `server=PATH`; `sync=always`) | `publish`, `consume`, `restart` |

mod jetstream;
mod load;
mod loopback;
mod meter;
mod ours;

use std::collections::HashMap;
use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jetstream::{Acknowledgement, Folder, Server};
use load::Load;
use meter::Process;
use serde_json::Value;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // One thread for the callers, as a core of a node has; the store has its own beside it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match arguments.as_slice() {
        ["serve", folder] => runtime.block_on(loopback::serve(Path::new(folder))),
        ["prepare", folder, options @ ..] => {
            let options = Options::parse(options)?;
            let close = options.number("close", 0_u8)? == 1;
            let events = options.number("events", 0)?;
            runtime.block_on(ours::prepare(
                Path::new(folder),
                events,
                options.load()?,
                close,
            ))
        }
        [contender, verb, folder, options @ ..] => {
            let options = Options::parse(options)?;
            let path = Path::new(folder);
            let _folder = Folder::make(path)?;
            println!(
                "{}",
                runtime.block_on(measure(contender, verb, path, &options))?
            );
            Ok(())
        }
        _ => bail!("usage: journal-bench CONTENDER VERB FOLDER [NAME=VALUE…]"),
    }
}

async fn measure(contender: &str, verb: &str, folder: &Path, options: &Options) -> Result<Value> {
    let load = options.load()?;
    let events = options.number("events", 100_000)?;
    let in_order = options.number("close", 0_u8)? == 1;
    match (contender, verb) {
        ("disk", "publish") => disk(folder, load).await,
        ("ours", "publish") => ours::publish(folder, load).await,
        ("loopback", "publish") => loopback::publish(folder, load).await,
        ("ours", "consume") => ours::consume(folder, events, load).await,
        ("ours", "restart") => {
            prepare(folder, options)?;
            ours::restart(folder, events).await
        }
        ("jetstream", verb) => {
            let server = Server {
                program: options.get("server").context("no server=PATH")?.into(),
                sync: options.get("sync").map(String::from),
                folder: folder.into(),
            };
            match verb {
                "publish" => jetstream::publish(&server, load).await,
                "consume" => {
                    let acknowledgement = match options.number("confirmed", 0_u8)? {
                        0 => Acknowledgement::Plain,
                        _ => Acknowledgement::Confirmed,
                    };
                    jetstream::consume(&server, events, load, acknowledgement).await
                }
                "restart" => jetstream::restart(&server, events, load, in_order).await,
                _ => bail!("jetstream has no {verb}"),
            }
        }
        _ => bail!("{contender} has no {verb}"),
    }
}

/// What the disk gives a writer that shares nothing: the control beside every other figure.
async fn disk(folder: &Path, load: Load) -> Result<Value> {
    let file = fs::File::create(folder.join("log"))?;
    let payload = load.payload();
    load.run(Process::this(), |_| {
        let (mut file, payload) = (&file, payload.clone());
        async move {
            file.write_all(&payload)?;
            Ok(file.sync_data()?)
        }
    })
    .await
}

/// Fills a store in a process that is killed then.
fn prepare(folder: &Path, options: &Options) -> Result<()> {
    let mut child = Command::new(env::current_exe()?)
        .arg("prepare")
        .arg(folder)
        .args(
            options
                .0
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        )
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().context("no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    child.kill()?;
    child.wait()?;
    anyhow::ensure!(line.trim() == "filled", "the queue could not be filled");
    Ok(())
}

/// `NAME=VALUE` from the command line.
struct Options(HashMap<String, String>);

impl Options {
    fn parse(arguments: &[&str]) -> Result<Self> {
        let pair = |argument: &&str| {
            let (name, value) = argument.split_once('=')?;
            Some((name.into(), value.into()))
        };
        // The first of two options with one name counts.
        let pairs = arguments.iter().rev().map(pair).collect::<Option<_>>();
        Ok(Self(pairs.context("options are NAME=VALUE")?))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number<T: FromStr>(&self, name: &str, default: T) -> Result<T> {
        let Some(value) = self.get(name) else {
            return Ok(default);
        };
        value
            .parse()
            .ok()
            .with_context(|| format!("{name} is no number"))
    }

    fn load(&self) -> Result<Load> {
        Ok(Load {
            outstanding: self.number("outstanding", 64)?,
            batch: self.number("batch", 1)?,
            event_bytes: self.number("bytes", 100)?,
            duration: Duration::from_secs(self.number("seconds", 2)?),
        })
    }
}
