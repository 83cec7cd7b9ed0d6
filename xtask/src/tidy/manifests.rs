//! Rules about Cargo.toml files: a reason for each dependency, versions in one place, lints inherited.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use toml::Table;

use super::{Finding, Findings};

pub fn check(root: &Path, findings: &mut Findings) -> Result<()> {
    let text = read(&root.join("Cargo.toml"))?;
    check_reasons(&text, findings);
    let mut members = vec![root.join("tests/e2e"), root.join("xtask")];
    for entry in fs::read_dir(root.join("crates"))? {
        members.push(entry?.path());
    }
    members.sort();
    for member in members {
        let file = member.join("Cargo.toml");
        let place = file
            .strip_prefix(root)
            .unwrap_or(&file)
            .display()
            .to_string();
        let manifest = read(&file)?
            .parse()
            .with_context(|| format!("{place} is not TOML"))?;
        check_member(&place, &manifest, findings);
    }
    Ok(())
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// One line for each dependency, and its reason at the end of that line; our own crates need none.
fn check_reasons(text: &str, findings: &mut Findings) {
    let lines = text
        .lines()
        .skip_while(|line| *line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['));
    for line in lines {
        let Some((name, rest)) = line.split_once(" = ") else {
            continue;
        };
        let is_ours = rest.contains("path = ");
        let reason = rest
            .rsplit_once('#')
            .map_or("", |(_, reason)| reason.trim());
        if !is_ours && !name.starts_with('#') && reason.is_empty() {
            let message = format!("dependency `{name}` has no reason at the end of its line");
            findings.errors.push(Finding::new("Cargo.toml", message));
        }
    }
}

fn check_member(place: &str, manifest: &Table, findings: &mut Findings) {
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let Some(dependencies) = manifest.get(kind).and_then(toml::Value::as_table) else {
            continue;
        };
        for (name, value) in dependencies {
            if !inherits(Some(value)) {
                let message = format!("`{name}` does not take its version from the workspace");
                findings.errors.push(Finding::new(place, message));
            }
        }
    }
    let lints = manifest.get("lints");
    if !inherits(lints) && !forbids_unsafe(lints) {
        let message = "neither inherits the lints of the workspace nor forbids unsafe code";
        findings.errors.push(Finding::new(place, message));
    }
}

fn inherits(value: Option<&toml::Value>) -> bool {
    value
        .and_then(|value| value.get("workspace"))
        .and_then(toml::Value::as_bool)
        .unwrap_or(false)
}

/// Crates of tests may have milder lints, but nothing unsafe.
fn forbids_unsafe(lints: Option<&toml::Value>) -> bool {
    let lint = lints
        .and_then(|lints| lints.get("rust"))
        .and_then(|rust| rust.get("unsafe_code"));
    lint.and_then(toml::Value::as_str) == Some("forbid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_without_a_reason_is_an_error() {
        let text = "[workspace.dependencies]\nours = { path = \"crates/ours\" }\nhttp = \"1\" # HTTP\nbytes = \"1\"\n[profile]\nx = 1\n";
        let mut findings = Findings::default();
        check_reasons(text, &mut findings);
        assert_eq!(findings.errors.len(), 1);
        assert!(findings.errors[0].message.contains("`bytes`"));
    }

    #[test]
    fn a_member_takes_versions_and_lints_from_the_workspace() {
        let good = "[lints]\nworkspace = true\n[dependencies]\nhttp.workspace = true\n";
        let bad = "[dependencies]\nhttp = \"1\"\n[dev-dependencies]\nbytes = { version = \"1\" }\n";
        let tests = "[lints.rust]\nunsafe_code = \"forbid\"\n";
        for (text, errors) in [(good, 0), (bad, 3), (tests, 0)] {
            let mut findings = Findings::default();
            check_member("Cargo.toml", &text.parse().unwrap(), &mut findings);
            assert_eq!(findings.errors.len(), errors, "{text}");
        }
    }
}
