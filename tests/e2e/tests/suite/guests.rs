//! A guest without a test fails here.

use std::path::Path;

use anyhow::{Context, Result};
use tombolo_e2e::guests_folder;

/// A library of the guests, which is no guest.
const LIBRARY: &str = "reply";

#[test]
fn every_guest_is_named_by_a_test() -> Result<()> {
    let workspace = std::fs::read_to_string(guests_folder().join("Cargo.toml"))?;
    let workspace: toml::Table = workspace.parse()?;
    let members = workspace["workspace"]["members"]
        .as_array()
        .context("members is no list")?;
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite");
    let mut sources = String::new();
    for entry in std::fs::read_dir(tests)? {
        sources += &std::fs::read_to_string(entry?.path())?;
    }
    let readme = std::fs::read_to_string(guests_folder().join("README.md"))?;
    for member in members.iter().filter_map(toml::Value::as_str) {
        assert!(
            member == LIBRARY || sources.contains(&format!("\"{member}\"")),
            "no test runs the guest `{member}`"
        );
        assert!(
            readme.contains(&format!("\n| `{member}` |")),
            "the guests' README has no line for `{member}`"
        );
    }
    Ok(())
}
