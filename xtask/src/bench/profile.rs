//! The profile: where the CPU time of one request goes, by sampling a loaded server with perf.

mod group;
mod stack;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use self::group::Group;
use self::stack::Stack;
use super::ProfileOptions;
use super::contender::{CONTROL, Contender, Field};
use super::report;
use super::round::{self, LOAD_CORE, Sample};
use crate::process::{self, program};
use crate::setup;

/// What has a table, and what is shown beside it: plain hyper, and the peer that a goal compares it with.
const TABLES: [(&str, [&str; 2]); 3] = [
    ("tombolo fresh, p2", [CONTROL, "wasmtime tuned, p2"]),
    ("tombolo concurrent, p3", [CONTROL, "wasmtime default, p3"]),
    ("tombolo serial, p2", [CONTROL, "wasmtime reuse, p2"]),
];
const WARM_UP_SECONDS: u32 = 1;
/// No divisor of a tick's frequency, so that samples do not fall in step with timers.
const SAMPLES_PER_SECOND: &str = "-F4999";
const SYMBOLS_SHOWN: usize = 10;

/// One server's time, divided.
#[derive(Serialize)]
struct Profile {
    name: String,
    /// Without perf, whose interruptions cost the server time.
    #[serde(flatten)]
    plain: Sample,
    /// While perf took its samples.
    sampled: Sample,
    samples: usize,
    groups: Vec<Share>,
    symbols: Vec<Symbol>,
}

#[derive(Serialize)]
struct Share {
    group: Group,
    ratio: f64,
    cpu_us_per_request: f64,
}

#[derive(Serialize)]
struct Symbol {
    name: String,
    group: Group,
    ratio: f64,
    cpu_us_per_request: f64,
}

#[derive(Serialize)]
struct Report {
    seconds: u32,
    profiles: Vec<Profile>,
}

pub fn run(options: &ProfileOptions) -> Result<()> {
    setup::debian("wrk", &["wrk"])?;
    setup::debian("perf", &["linux-perf"])?;
    let mut field = Field::find(None)?;
    // What has no table is not missed.
    field
        .missing
        .retain(|missing| missing.contains("tombolo") || missing.contains("wasmtime"));
    let folder = process::repository().join("bench-results");
    fs::create_dir_all(&folder)?;
    let wanted = |name: &str| {
        TABLES
            .iter()
            .any(|(ours, beside)| *ours == name || beside.contains(&name))
    };
    let mut profiles = Vec::new();
    for contender in field
        .contenders
        .iter()
        .filter(|contender| wanted(&contender.name))
    {
        eprintln!("profiling {}", contender.name);
        let recording = folder.join("perf.data");
        let profile = profile(contender, options.seconds, &recording)
            .with_context(|| format!("profiling {}", contender.name))?;
        fs::remove_file(&recording)?;
        profiles.push(profile);
    }
    let report = Report {
        seconds: options.seconds,
        profiles,
    };
    print!("{report}");
    for missing in &field.missing {
        println!("\nnot measured: {missing}");
    }
    let file = report::write_json(&folder, "profile.json", &report)?;
    println!("\nwritten to {}", file.display());
    Ok(())
}

/// Loads a server twice: for its CPU time, and for perf's samples of where that time goes.
fn profile(contender: &Contender, seconds: u32, recording: &Path) -> Result<Profile> {
    let running = contender.start()?;
    round::load(&running, WARM_UP_SECONDS)?;
    let process_id = running.server.process_id();
    let executable = fs::read_link(format!("/proc/{process_id}/exe"))?;
    let plain = round::measure(&running, seconds)?;
    let recorder = record(process_id, seconds, recording)?;
    let sampled = round::measure(&running, seconds)?;
    finish(recorder)?;
    let text = stacks(recording)?;
    let stacks = stack::parse(&text);
    ensure!(!stacks.is_empty(), "perf recorded no samples; {HELP}");
    let (groups, symbols) = divide(&stacks, &executable.to_string_lossy(), plain);
    Ok(Profile {
        name: contender.name.clone(),
        plain,
        sampled,
        samples: stacks.len(),
        groups,
        symbols,
    })
}

/// A group's or symbol's part of the samples is its part of the CPU time.
fn divide(stacks: &[Stack<'_>], executable: &str, plain: Sample) -> (Vec<Share>, Vec<Symbol>) {
    let mut groups: BTreeMap<Group, usize> = BTreeMap::new();
    let mut symbols: BTreeMap<(Group, &str), usize> = BTreeMap::new();
    for stack in stacks {
        let group = stack.group(executable);
        *groups.entry(group).or_default() += 1;
        *symbols.entry((group, stack.symbol())).or_default() += 1;
    }
    let mut symbols: Vec<_> = symbols.into_iter().collect();
    symbols.sort_by_key(|&(_, count)| Reverse(count));
    let ratio = |count: usize| count as f64 / stacks.len() as f64;
    let share = |group| {
        let ratio = ratio(groups.get(&group).copied().unwrap_or_default());
        Share {
            group,
            ratio,
            cpu_us_per_request: ratio * plain.cpu_us_per_request,
        }
    };
    let symbol = |((group, name), count): ((Group, &str), usize)| Symbol {
        name: name.into(),
        group,
        ratio: ratio(count),
        cpu_us_per_request: ratio(count) * plain.cpu_us_per_request,
    };
    let shown = symbols.into_iter().take(SYMBOLS_SHOWN);
    (
        Group::ALL.into_iter().map(share).collect(),
        shown.map(symbol).collect(),
    )
}

const HELP: &str = "perf needs root, or `sysctl kernel.perf_event_paranoid=1 kernel.kptr_restrict=0`; in a container also the capability PERFMON";

/// A perf that samples all threads of a process, from the load generator's core, until it was told to end.
fn record(process_id: u32, seconds: u32, recording: &Path) -> Result<Child> {
    let process_id = process_id.to_string();
    let recording = recording.display().to_string();
    // A second more than the load: what the server does not run in is not sampled.
    let duration = seconds.saturating_add(1).to_string();
    let mut command = program("taskset", &["--cpu-list", LOAD_CORE], process::repository());
    command.args(["perf", "record", "--quiet", "-e", "cpu-clock"]);
    command.args([SAMPLES_PER_SECOND, "--call-graph=fp", "-p", &process_id]);
    command.args(["-o", &recording, "--", "sleep", &duration]);
    command
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start perf")
}

fn finish(mut recorder: Child) -> Result<()> {
    let status = recorder.wait()?;
    ensure!(status.success(), "perf cannot record here; {HELP}");
    Ok(())
}

/// Symbols and objects only; what is inlined stays with the function that it is inlined into.
fn stacks(recording: &Path) -> Result<String> {
    let mut command = Command::new("perf");
    command.args(["script", "--no-inline", "-F", "ip,sym,dso", "-i"]);
    command.arg(recording).stdin(Stdio::null());
    let output = command.output().context("cannot start perf")?;
    ensure!(
        output.status.success(),
        "perf script failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "CPU µs per request by group; {} s each; server on core 0, `wrk -t1 -c32` on core 1, once without perf for the sum and once with it for the parts",
            self.seconds
        )?;
        let named = |name: &str| self.profiles.iter().find(|entry| entry.name == name);
        for (ours, beside) in TABLES {
            if let Some(profile) = named(ours) {
                let beside: Vec<&Profile> = beside.into_iter().filter_map(named).collect();
                profile.groups_beside(f, &beside)?;
                profile.symbols(f)?;
            }
        }
        writeln!(f, "\n{FOOTNOTE}\n")?;
        for group in Group::ALL {
            writeln!(f, "* {}: {}", group.name(), group.content())?;
        }
        Ok(())
    }
}

const FOOTNOTE: &str = "A sample is charged to the function that ran (self time), in the kernel to the call or fault that entered it. \
    Samples come by a timer's interrupt, so what runs with interrupts off is charged to the place that allows them again, such as `_raw_spin_unlock_irqrestore`. \
    What is inlined counts for the function that it is inlined into; a generic function counts for the crate that wrote it. Where a server other than the control had much less than its whole core, something else ran meanwhile: measure again. The groups:";

impl Profile {
    fn groups_beside(&self, f: &mut fmt::Formatter<'_>, beside: &[&Self]) -> fmt::Result {
        writeln!(
            f,
            "\n### {}\n\n{:.0} requests/s on {:.0} % of the core; {} samples, while which a request took {:.1} µs\n",
            self.name,
            self.plain.requests_per_second,
            self.plain.requests_per_second * self.plain.cpu_us_per_request / 1e4,
            self.samples,
            self.sampled.cpu_us_per_request
        )?;
        let row = |f: &mut fmt::Formatter<'_>, head: &str, cell: &dyn Fn(&Self) -> String| {
            write!(f, "| {head} | {} |", cell(self))?;
            for profile in beside {
                write!(f, " {} |", cell(profile))?;
            }
            writeln!(f)
        };
        row(f, "where", &|profile| profile.name.clone())?;
        row(f, "---", &|_| "---:".into())?;
        for group in Group::ALL {
            let is_empty =
                |profile: &Self| profile.share(group).is_none_or(|share| share.ratio == 0.0);
            if !is_empty(self) || !beside.iter().all(|profile| is_empty(profile)) {
                row(f, group.name(), &|profile| {
                    profile
                        .share(group)
                        .map_or_else(String::new, Share::to_string)
                })?;
            }
        }
        row(f, "all", &|profile| {
            format!("{:.1}", profile.plain.cpu_us_per_request)
        })
    }

    fn symbols(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n| symbol | in | µs |\n| --- | --- | ---: |")?;
        for symbol in &self.symbols {
            writeln!(
                f,
                "| `{}` | {} | {:.2} |",
                symbol.name,
                symbol.group.name(),
                symbol.cpu_us_per_request
            )?;
        }
        Ok(())
    }

    fn share(&self, group: Group) -> Option<&Share> {
        self.groups.iter().find(|share| share.group == group)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.ratio * 100.0;
        write!(f, "{:.2} ({percent:.0} %)", self.cpu_us_per_request)
    }
}
