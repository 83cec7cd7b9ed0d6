//! Builds each example with the real binary, checks its manifest, and runs its tests.

use std::fs;

use anyhow::{Context, Result};

use crate::process::{self, program};
use crate::templates::tombolo;

/// The Rust workspaces in the folder of examples.
pub const WORKSPACES: [&str; 2] = ["predictive-maintenance", "smart-traffic/signal"];

pub fn run() -> Result<()> {
    let tombolo = tombolo()?;
    let examples = process::repository().join("examples");
    for entry in fs::read_dir(&examples)? {
        let folder = entry?.path();
        if !folder.join("tombolo.toml").is_file() {
            continue;
        }
        let name = folder.display().to_string();
        for verb in ["build", "check"] {
            process::run(&mut program(&tombolo, &[verb], &folder)).with_context(|| name.clone())?;
        }
    }
    for workspace in WORKSPACES {
        let mut cargo = process::cargo();
        let test = ["test", "--workspace", "--locked"];
        process::run(cargo.args(test).current_dir(examples.join(workspace)))?;
    }
    Ok(())
}
