//! `cargo xtask tidy`: the rules of the house that no compiler checks (docs/decisions/0001).

mod arrows;
mod manifests;
mod sources;

use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::process;

/// One broken rule, with the place to look at.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    pub place: String,
    pub message: String,
}

impl Finding {
    fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// What a rule found: errors fail the check, warnings are only shown.
#[derive(Debug, Default)]
pub struct Findings {
    pub errors: Vec<Finding>,
    pub warnings: Vec<Finding>,
}

pub fn run() -> Result<()> {
    let root = process::repository();
    let files = tracked_files()?;
    let mut findings = Findings::default();
    sources::check(&root, &files, &mut findings)?;
    arrows::check(&mut findings)?;
    manifests::check(&root, &mut findings)?;
    for warning in &findings.warnings {
        eprintln!("warning: {warning}");
    }
    for error in &findings.errors {
        eprintln!("error: {error}");
    }
    if !findings.errors.is_empty() {
        bail!("{} rules of the house are broken", findings.errors.len());
    }
    println!(
        "tidy: {} files, {} warnings",
        files.len(),
        findings.warnings.len()
    );
    Ok(())
}

/// Files that git has or would take, relative to the repository: build output is never looked at.
fn tracked_files() -> Result<Vec<PathBuf>> {
    let arguments = [
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "-z",
    ];
    let listing = process::output(&mut process::program(
        "git",
        &arguments,
        process::repository(),
    ))?;
    let mut files: Vec<PathBuf> = listing
        .split('\0')
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .filter(|path| process::repository().join(path).is_file())
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}
