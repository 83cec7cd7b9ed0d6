//! `cargo xtask fuzz`: runs the fuzz targets with the stable compiler, whose code is instrumented by LLVM's own pass.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::process::{self, output, program};

/// What `cargo fuzz` asks of the compiler, but for the sanitizers, which only a nightly one has.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";

#[derive(clap::Args)]
pub struct Arguments {
    /// The target, such as `event_json`; all of them when none is named
    target: Option<String>,
    /// How long each of them runs
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seconds: u32,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let folder = process::repository().join("fuzz");
    let targets = match &arguments.target {
        Some(target) => vec![target.clone()],
        None => targets(&folder)?,
    };
    let compiler = output(&mut program("rustc", &["-vV"], &folder))?;
    let host = compiler
        .lines()
        .find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not tell its host")?;
    let mut build = process::cargo();
    // With a target named, build scripts and macros are not instrumented.
    build
        .current_dir(&folder)
        .args(["build", "--locked", "--bins", "--target", host])
        .env("RUSTFLAGS", FLAGS);
    process::run(&mut build)?;
    for target in targets {
        let binary = folder.join(format!("target/{host}/debug/{target}"));
        ensure!(binary.is_file(), "there is no target `{target}`");
        let corpus = folder.join("corpus").join(&target);
        let artifacts = folder.join("artifacts").join(&target);
        for folder in [&corpus, &artifacts] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        println!("==> {target}");
        let mut fuzzer = program(binary, &[], &folder);
        fuzzer
            .arg(format!("-max_total_time={}", arguments.seconds))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"])
            .args(["-verbosity=0", "-max_len=4096"])
            .arg(&corpus);
        let seeds = folder.join("seeds").join(&target);
        if seeds.is_dir() {
            fuzzer.arg(seeds);
        }
        if process::run(&mut fuzzer).is_err() {
            bail!(
                "{target} has found something; its input is in {}",
                artifacts.display()
            );
        }
    }
    Ok(())
}

/// The targets of the folder, by name.
fn targets(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder.join("fuzz_targets"))? {
        let path = entry?.path();
        let stem = path.file_stem().context("a target has a name")?;
        names.push(stem.to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
