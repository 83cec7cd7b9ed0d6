//! Measures the candidates for the storage engine of `tombolo-store`: one table, and JSON.
//!
//! `cargo run --release [-- FOLDER [JSON]]`. The folder should be on the disk that counts; by
//! default it is a temporary folder under `target`, where the JSON goes too. Every measurement runs in
//! a process of its own; the whole takes about four minutes.

mod contender;
mod cut;
mod load;

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use contender::{CONTENDERS, ENGINES};
use serde_json::{Value, json};

const ROUNDS: usize = 3;
const ROUND_MILLIS: u64 = 400;
const READ_MILLIS: u64 = 1500;
const CUT_TRIALS: u32 = 200;
const WRITERS: [usize; 4] = [1, 8, 64, 256];
const VALUE_BYTES: [usize; 2] = [100, 1024];

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["child", phase, name, folder, rest @ ..] => child(phase, name, Path::new(folder), rest),
        [] => measure(
            Path::new("target/storage-bench"),
            Path::new("target/storage.json"),
        ),
        [folder] => measure(Path::new(folder), Path::new("target/storage.json")),
        [folder, json] => measure(Path::new(folder), Path::new(json)),
        _ => bail!("usage: storage-bench [FOLDER [JSON]]"),
    }
}

fn child(phase: &str, name: &str, folder: &Path, rest: &[&str]) -> Result<()> {
    let result = match (phase, rest) {
        ("commits", [writers, value_bytes]) => load::commits(
            name,
            folder,
            writers.parse()?,
            value_bytes.parse()?,
            ROUND_MILLIS,
        )?,
        ("fill", []) => load::fill(name, folder)?,
        ("reads", []) => load::reads(name, folder, READ_MILLIS)?,
        ("reopen", []) => load::reopen(name, folder)?,
        ("cut", []) => {
            std::panic::set_hook(Box::new(|_| {}));
            cut::probe(name, folder, CUT_TRIALS)?
        }
        _ => bail!("unknown phase {phase}"),
    };
    println!("{result}");
    Ok(())
}

fn command(phase: &str, name: &str, folder: &Path, rest: &[String]) -> Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["child", phase, name]).arg(folder).args(rest);
    command.stdout(Stdio::piped());
    Ok(command)
}

fn run(phase: &str, name: &str, folder: &Path, rest: &[String]) -> Result<Value> {
    let output = command(phase, name, folder, rest)?.output()?;
    if !output.status.success() {
        bail!("{phase} of {name} failed");
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn measure(folder: &Path, json_path: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let commits = measure_commits(folder)?;
    let mut data = serde_json::Map::new();
    for name in ENGINES {
        eprintln!("data: {name}");
        data.insert(name.into(), measure_data(name, &folder.join(name))?);
    }
    let mut cuts = serde_json::Map::new();
    for name in ENGINES {
        eprintln!("power cuts: {name}");
        cuts.insert(
            name.into(),
            run("cut", name, &folder.join("cut").join(name), &[])?,
        );
    }
    fs::remove_dir_all(folder)?;
    let result = json!({ "commits": commits, "data": data, "cuts": cuts, "rounds": ROUNDS,
        "round_ms": ROUND_MILLIS, "keys": load::KEYS, "cores": thread::available_parallelism()?.get() });
    fs::write(json_path, serde_json::to_string_pretty(&result)?)?;
    print_tables(&result);
    Ok(())
}

/// Rounds interleave the contenders, in random order, so that a noisy neighbour hits all alike.
fn measure_commits(folder: &Path) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for value_bytes in VALUE_BYTES {
        for writers in WRITERS {
            let mut results = vec![Vec::new(); CONTENDERS.len()];
            for round in 0..ROUNDS {
                eprintln!(
                    "commits: {value_bytes} B, {writers} writers, round {}",
                    round + 1
                );
                let mut order: Vec<usize> = (0..CONTENDERS.len()).collect();
                fastrand::shuffle(&mut order);
                for index in order {
                    let folder = folder.join("commits");
                    let rest = [writers.to_string(), value_bytes.to_string()];
                    results[index].push(run("commits", CONTENDERS[index], &folder, &rest)?);
                    fs::remove_dir_all(folder)?;
                }
                compare_with_log(&mut results);
            }
            for (name, rounds) in CONTENDERS.iter().zip(results) {
                all.push(json!({ "engine": name, "writers": writers, "value_bytes": value_bytes, "rounds": rounds }));
            }
        }
    }
    Ok(all)
}

/// The last round of each contender as a share of the log's: it hardly depends on what else the
/// machine does during that round.
fn compare_with_log(results: &mut [Vec<Value>]) {
    let rate = |rounds: &Vec<Value>| {
        rounds
            .last()
            .and_then(|last| last["commits_per_s"].as_f64())
    };
    let Some(log) = results.first().and_then(rate) else {
        return;
    };
    for rounds in results {
        let share = rate(rounds).map(|rate| rate / log);
        if let Some(last) = rounds.last_mut() {
            last["share_of_log"] = json!(share);
        }
    }
}

fn measure_data(name: &str, folder: &Path) -> Result<Value> {
    let fill = run("fill", name, folder, &[])?;
    let disk_bytes = disk_bytes(folder)?;
    let mut reading = command("reads", name, folder, &[])?.spawn()?;
    let mut line = String::new();
    let output = reading.stdout.take().context("no output")?;
    BufReader::new(output).read_line(&mut line)?;
    // The child goes on writing; it dies in the midst of it.
    thread::sleep(Duration::from_millis(500));
    reading.kill()?;
    reading.wait()?;
    let disk_bytes_after = self::disk_bytes(folder)?;
    let reopen = run("reopen", name, folder, &[])?;
    let reads: Value = serde_json::from_str(&line).with_context(|| format!("reads of {name}"))?;
    fs::remove_dir_all(folder)?;
    let record = load::record(0, 0, load::LOADED_VALUE_BYTES).bytes() as f64;
    Ok(json!({ "fill": fill, "reads": reads, "reopen": reopen,
        "disk_bytes_per_record": disk_bytes as f64 / load::KEYS as f64,
        "payload_bytes_per_record": record, "disk_bytes_when_killed": disk_bytes_after }))
}

fn disk_bytes(folder: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    let mut folders: Vec<PathBuf> = vec![folder.into()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(bytes)
}

fn spread(rounds: &Value, field: &str) -> (f64, f64, f64) {
    let mut values: Vec<f64> = rounds
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|round| round[field].as_f64())
        .collect();
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    (
        at(values.len() / 2),
        at(0),
        at(values.len().saturating_sub(1)),
    )
}

fn print_tables(result: &Value) {
    println!(
        "| value | writers | engine | commits/s (min–max) | of the log | CPU µs/commit | p50 µs | p99 µs | written/payload |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for row in result["commits"].as_array().into_iter().flatten() {
        let (median, min, max) = spread(&row["rounds"], "commits_per_s");
        println!(
            "| {} B | {} | {} | {median:.0} ({min:.0}–{max:.0}) | {:.2} | {:.0} | {:.0} | {:.0} | {:.1} |",
            row["value_bytes"],
            row["writers"],
            row["engine"].as_str().unwrap_or_default(),
            spread(&row["rounds"], "share_of_log").0,
            spread(&row["rounds"], "cpu_us_per_commit").0,
            spread(&row["rounds"], "p50_us").0,
            spread(&row["rounds"], "p99_us").0,
            spread(&row["rounds"], "written_per_payload").0,
        );
    }
    println!(
        "\n| engine | fill s | reads/s | reads/s while writing | commits/s while reading | disk B per record | open after kill -9 ms | RSS MiB reading | RSS MiB peak |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for name in ENGINES {
        let data = &result["data"][name];
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        println!(
            "| {name} | {:.1} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
            number(&data["fill"]["seconds"]),
            number(&data["reads"]["reads_per_s"]),
            number(&data["reads"]["reads_while_writing_per_s"]),
            number(&data["reads"]["commits_while_reading_per_s"]),
            number(&data["disk_bytes_per_record"]),
            number(&data["reopen"]["open_ms"]),
            number(&data["reads"]["rss_mib"]),
            number(&data["reads"]["rss_peak_mib"]),
        );
    }
    println!(
        "\n| engine | event | whole | refused to open | error on read | lost silently | wrong silently | panicked |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for name in ENGINES {
        for event in ["power_cut", "flipped_bit"] {
            if (name, event) == ("redb-quick", "power_cut") {
                continue;
            }
            let outcome = &result["cuts"][name][event];
            println!(
                "| {name} | {event} | {} | {} | {} | {} | {} | {} |",
                outcome["whole"],
                outcome["refused_to_open"],
                outcome["error_on_read"],
                outcome["lost_silently"],
                outcome["wrong_silently"],
                outcome["panicked"],
            );
        }
    }
}
