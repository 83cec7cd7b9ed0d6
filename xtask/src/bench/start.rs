//! The start benchmark: from the start of a process to a function's first whole answer, and what an idle node weighs.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::StartOptions;
use super::contender::{self, named};
use super::report;
use super::statistics::{Spread, Times, shuffled};
use crate::process::{self, program};
use crate::serving::Server;
use crate::setup;

const CACHED: &str = "tombolo up, code cached";
const WASMTIME: &str = "wasmtime serve";
const WASMTIME_CACHED: &str = "wasmtime serve, code cached";
const IDLE_EMPTY: &str = "tombolo up, no function";
const IDLE_ONE: &str = "tombolo up, one function";
/// Goal P12: a start of ours is to take at most this many times as long as one of theirs.
const RATIO_WANTED: f64 = 1.5;
const BYTES_PER_MEGABYTE: f64 = 1e6;

/// A way to start a server, in a folder of its own.
struct Starter {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
    /// Removed before each start.
    forgets: Option<PathBuf>,
    /// Whether a function is there to be asked; a node without one is only weighed.
    asks: bool,
}

/// One start: the time to the first answer, where one was asked for, and the memory after it.
struct Started {
    first_answer_ms: Option<f64>,
    pss_megabytes: f64,
}

#[derive(Serialize)]
struct Entry {
    name: &'static str,
    first_answer_ms: Option<Spread>,
    pss_megabytes: Spread,
}

/// Ours over theirs, round by round.
#[derive(Serialize)]
struct Comparison {
    ours: &'static str,
    theirs: &'static str,
    wanted: f64,
    ratio: Spread,
}

#[derive(Serialize)]
struct Report {
    runs: u32,
    seed: u64,
    entries: Vec<Entry>,
    comparisons: Vec<Comparison>,
    binary_megabytes: f64,
    stripped_megabytes: f64,
    missing: Vec<String>,
}

pub fn run(options: &StartOptions) -> Result<()> {
    setup::debian("strip", &["binutils"])?;
    let tombolo = contender::tombolo()?;
    let folder = process::repository().join("target/bench-start");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let mut missing = Vec::new();
    let starters = starters(&tombolo, &folder, &mut missing)?;
    for starter in &starters {
        // Fills the caches: of compiled code, and the kernel's of files.
        starter.start()?;
    }
    let seed = super::seed()?;
    let runs = measure(&starters, options.runs, seed)?;
    let report = Report {
        runs: options.runs,
        seed,
        entries: entries(&starters, &runs),
        comparisons: comparisons(&starters, &runs),
        binary_megabytes: megabytes(&tombolo)?,
        stripped_megabytes: stripped_megabytes(&tombolo, &folder)?,
        missing,
    };
    print!("{report}");
    let file = report::write_json(
        &process::repository().join("bench-results"),
        "start.json",
        &report,
    )?;
    println!("\nwritten to {}", file.display());
    Ok(())
}

/// One start of each in each round, in an order drawn anew for each round.
fn measure(starters: &[Starter], runs: u32, seed: u64) -> Result<Vec<Vec<Started>>> {
    let mut samples: Vec<Vec<Started>> = starters.iter().map(|_| Vec::new()).collect();
    let mut state = seed;
    for _ in 0..runs {
        for index in shuffled(starters.len(), &mut state) {
            if let (Some(starter), Some(samples)) = (starters.get(index), samples.get_mut(index)) {
                let started = starter.start();
                samples.push(started.with_context(|| format!("starting {}", starter.name))?);
            }
        }
    }
    Ok(samples)
}

impl Starter {
    /// Starts, asks once, weighs, and ends it.
    fn start(&self) -> Result<Started> {
        if let Some(folder) = self.forgets.as_ref().filter(|folder| folder.exists()) {
            fs::remove_dir_all(folder)?;
        }
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).current_dir(&self.folder);
        command.env_remove("RUST_BACKTRACE");
        let begun = Instant::now();
        let server = Server::announced(&mut command)?;
        let mut first_answer_ms = None;
        if self.asks {
            let answer = server.ask("/")?;
            first_answer_ms = Some(begun.elapsed().as_secs_f64() * 1e3);
            ensure!(answer.status == 200, "the answer is {answer:?}");
        }
        let pss_megabytes = pss_megabytes(server.process_id())?;
        // Killed, a node would have to repair its store at the next start; wasmtime knows no other end.
        if self.name.starts_with("tombolo") {
            server.drain()?;
        }
        Ok(Started {
            first_answer_ms,
            pss_megabytes,
        })
    }
}

fn starters(tombolo: &Path, folder: &Path, missing: &mut Vec<String>) -> Result<Vec<Starter>> {
    let component = contender::small_guest();
    ensure!(
        component.is_file(),
        "the guests are missing; build them with: cargo verify"
    );
    let app = folder.join("app");
    let empty = folder.join("empty");
    app_folder(&app, Some(&component))?;
    app_folder(&empty, None)?;
    let starter = |name, program: &Path, folder: &Path, arguments: &[&str]| Starter {
        name,
        program: program.into(),
        arguments: arguments.iter().map(ToString::to_string).collect(),
        folder: folder.into(),
        forgets: None,
        asks: true,
    };
    let up = |name, folder: &Path, store: &str| {
        let arguments = ["up", "--quiet", "--listen=127.0.0.1:0", "--store", store];
        starter(name, tombolo, folder, &arguments)
    };
    let file = component.display().to_string();
    let serve = ["serve", &file, "--quiet", "--listen=127.0.0.1:0"];
    let mut starters = vec![
        Starter {
            forgets: Some(app.join("new")),
            ..up("tombolo up, store empty", &app, "new")
        },
        up(CACHED, &app, "kept"),
        starter("tombolo serve FILE", tombolo, folder, &serve),
        Starter {
            asks: false,
            ..up(IDLE_ONE, &app, "idle")
        },
        Starter {
            asks: false,
            ..up(IDLE_EMPTY, &empty, "idle")
        },
    ];
    let Some(wasmtime) = named("WASMTIME", "wasmtime") else {
        missing.push(contender::WASMTIME_HELP.into());
        return Ok(starters);
    };
    let config = folder.join("cache.toml");
    let cache = folder.join("cache");
    fs::write(
        &config,
        format!("[cache]\ndirectory = {:?}\n", cache.display().to_string()),
    )?;
    let cached = format!("-Ccache-config={}", config.display());
    let serve = ["serve", "--addr=127.0.0.1:0", "-Scli", "-Ccache=n", &file];
    starters.push(starter(WASMTIME, &wasmtime, folder, &serve));
    let serve = [
        "serve",
        "--addr=127.0.0.1:0",
        "-Scli",
        "-Ccache=y",
        &cached,
        &file,
    ];
    starters.push(starter(WASMTIME_CACHED, &wasmtime, folder, &serve));
    Ok(starters)
}

/// An app whose function was built before, or one without functions.
fn app_folder(folder: &Path, component: Option<&Path>) -> Result<()> {
    fs::create_dir_all(folder)?;
    let mut manifest = String::from("[app]\nname = \"start\"\nversion = \"0.1.0\"\n");
    if let Some(component) = component {
        fs::copy(component, folder.join("hello.wasm"))?;
        manifest.push_str("\n[functions.hello]\ncomponent = \"hello.wasm\"\n");
        manifest.push_str("\n[[triggers.http]]\nroute = \"/{*rest}\"\nfunction = \"hello\"\n");
    }
    fs::write(folder.join("tombolo.toml"), manifest)?;
    Ok(())
}

/// The memory of a process, each page that it shares with others divided among them (proc(5)).
fn pss_megabytes(process_id: u32) -> Result<f64> {
    let file = format!("/proc/{process_id}/smaps_rollup");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    parse_pss(&text).with_context(|| format!("{file} has no Pss"))
}

fn parse_pss(text: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kibibytes: f64 = rest.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024.0 / BYTES_PER_MEGABYTE)
}

fn megabytes(file: &Path) -> Result<f64> {
    let metadata = fs::metadata(file).with_context(|| format!("no {}", file.display()))?;
    Ok(metadata.len() as f64 / BYTES_PER_MEGABYTE)
}

fn stripped_megabytes(binary: &Path, folder: &Path) -> Result<f64> {
    let stripped = folder.join("stripped");
    let mut strip = program("strip", &["-o"], folder);
    process::run(strip.arg(&stripped).arg(binary))?;
    megabytes(&stripped)
}

fn entries(starters: &[Starter], runs: &[Vec<Started>]) -> Vec<Entry> {
    let entry = |(starter, runs): (&Starter, &Vec<Started>)| {
        Some(Entry {
            name: starter.name,
            first_answer_ms: Spread::of(runs.iter().filter_map(|run| run.first_answer_ms)),
            pss_megabytes: Spread::of(runs.iter().map(|run| run.pss_megabytes))?,
        })
    };
    starters.iter().zip(runs).filter_map(entry).collect()
}

fn comparisons(starters: &[Starter], runs: &[Vec<Started>]) -> Vec<Comparison> {
    let of = |name: &str| {
        let index = starters.iter().position(|starter| starter.name == name)?;
        runs.get(index)
    };
    let comparison = |theirs: &'static str| {
        let pairs = of(CACHED)?.iter().zip(of(theirs)?);
        let ratios = pairs
            .filter_map(|(ours, theirs)| Some(ours.first_answer_ms? / theirs.first_answer_ms?));
        Some(Comparison {
            ours: CACHED,
            theirs,
            wanted: RATIO_WANTED,
            ratio: Spread::of(ratios)?,
        })
    };
    [WASMTIME, WASMTIME_CACHED]
        .into_iter()
        .filter_map(comparison)
        .collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "medians of {} starts each, interleaved; all cores; files in the kernel's cache\n",
            self.runs
        )?;
        writeln!(
            f,
            "| start | first answer ms (min–max) | PSS MB (min–max) |"
        )?;
        writeln!(f, "| --- | ---: | ---: |")?;
        for entry in &self.entries {
            let answer = entry.first_answer_ms;
            let answer = answer.map_or("not asked".into(), |answer| format!("{answer:.1}"));
            let (name, pss) = (&entry.name, entry.pss_megabytes);
            writeln!(f, "| {name} | {answer} | {pss:.1} |")?;
        }
        writeln!(f, "\n| goal | ours | peer | wanted | measured (min–max) |")?;
        writeln!(f, "| --- | --- | --- | ---: | ---: |")?;
        for row in &self.comparisons {
            writeln!(
                f,
                "| P12 | {} | {} | ≤ {:.1} × | {} |",
                row.ours,
                row.theirs,
                row.wanted,
                Times(row.ratio)
            )?;
        }
        if let Some(entry) = self.entries.iter().find(|entry| entry.name == IDLE_EMPTY) {
            let (name, pss) = (&entry.name, entry.pss_megabytes);
            writeln!(f, "| P12 | {name} | – | ≤ 25 MB PSS | {pss:.1} MB |")?;
        }
        writeln!(
            f,
            "| P12 | the binary, stripped | – | ≤ 40 MB | {:.1} MB ({:.1} with symbols) |",
            self.stripped_megabytes, self.binary_megabytes
        )?;
        for missing in &self.missing {
            writeln!(f, "\nnot measured: {missing}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_process_is_read() {
        let text = "560e-7ffd ---p 00000000 00:00 0 [rollup]\nRss: 40 kB\nPss:  2000 kB\nPss_Dirty: 9 kB\n";
        assert_eq!(parse_pss(text), Some(2.048));
    }
}
