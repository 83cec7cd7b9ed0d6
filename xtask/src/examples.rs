//! Builds and checks the manifest of each example with the real binary.

use std::fs;

use anyhow::{Context, Result};

use crate::process::{self, program};
use crate::templates::tombolo;

pub fn run() -> Result<()> {
    let tombolo = tombolo()?;
    for entry in fs::read_dir(process::repository().join("examples"))? {
        let folder = entry?.path();
        if !folder.join("tombolo.toml").is_file() {
            continue;
        }
        let name = folder.display().to_string();
        for verb in ["build", "check"] {
            process::run(&mut program(&tombolo, &[verb], &folder)).with_context(|| name.clone())?;
        }
    }
    Ok(())
}
