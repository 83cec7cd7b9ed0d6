//! Rules about the workspace as cargo sees it: the direction of the arrows between crates, and few features.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{Finding, Findings};
use crate::process;

/// Crates that every other one may use; `tombolo-telemetry` itself may use `tombolo-core` only.
const OPEN: [&str; 2] = ["tombolo-core", "tombolo-telemetry"];
const FEATURES_MAX: usize = 5;

/// What each crate may use besides [`OPEN`]. A new crate is added here, and to ARCHITECTURE.md.
const ARROWS: [(&str, &[&str]); 11] = [
    ("tombolo-core", &[]),
    ("tombolo-telemetry", &[]),
    ("tombolo-manifest", &[]),
    ("tombolo-store", &[]),
    ("tombolo-runtime", &["tombolo-manifest", "tombolo-store"]),
    ("tombolo-triggers", &["tombolo-manifest", "tombolo-store"]),
    ("tombolo-api", &["tombolo-manifest"]),
    (
        "tombolo-node",
        &[
            "tombolo-manifest",
            "tombolo-store",
            "tombolo-runtime",
            "tombolo-triggers",
            "tombolo-api",
        ],
    ),
    (
        "tombolo",
        &["tombolo-api", "tombolo-manifest", "tombolo-node"],
    ),
    // They start the real binary, and see no crate of ours.
    ("tombolo-e2e", &[]),
    ("xtask", &[]),
];

/// Dependencies that only the named crates may have.
const SOLE_USERS: [(&str, &[&str]); 4] = [
    ("wasmtime", &["tombolo-runtime"]),
    ("wasmtime-wasi", &["tombolo-runtime"]),
    ("wasmtime-wasi-http", &["tombolo-runtime"]),
    ("anyhow", &["tombolo-e2e", "xtask"]),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
    features: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `None` for an ordinary one, otherwise `dev` or `build`.
    kind: Option<String>,
    /// Set for members of the workspace.
    path: Option<String>,
}

pub fn check(findings: &mut Findings) -> Result<()> {
    let mut cargo = process::cargo();
    cargo.args(["metadata", "--no-deps", "--format-version=1", "--locked"]);
    let metadata: Metadata = serde_json::from_str(&process::output(&mut cargo)?)
        .context("cannot read the answer of cargo metadata")?;
    check_packages(&metadata.packages, findings);
    Ok(())
}

fn check_packages(packages: &[Package], findings: &mut Findings) {
    for package in packages {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name) else {
            let message = "is not in the table of crates (xtask/src/tidy/arrows.rs)";
            findings.errors.push(Finding::new(&package.name, message));
            continue;
        };
        for dependency in &package.dependencies {
            check_dependency(package, dependency, allowed, findings);
        }
    }
    let features: Vec<&str> = packages
        .iter()
        .flat_map(|package| package.features.keys())
        .map(String::as_str)
        .filter(|feature| *feature != "default")
        .collect();
    if features.len() > FEATURES_MAX {
        let message = format!("has {} features; {FEATURES_MAX} is the end", features.len());
        findings.errors.push(Finding::new("workspace", message));
    }
}

fn check_dependency(
    package: &Package,
    dependency: &Dependency,
    allowed: &[&str],
    findings: &mut Findings,
) {
    let name = dependency.name.as_str();
    if dependency.path.is_some() {
        let open = OPEN.contains(&name) && !OPEN.contains(&package.name.as_str());
        let vocabulary = name == "tombolo-core" && package.name == "tombolo-telemetry";
        if !open && !vocabulary && !allowed.contains(&name) {
            let message = format!("may not use {name}: arrows never turn back");
            findings.errors.push(Finding::new(&package.name, message));
        }
        return;
    }
    let sole = SOLE_USERS
        .iter()
        .find(|(crate_name, _)| *crate_name == name);
    if let Some((_, users)) = sole
        && dependency.kind.as_deref() != Some("dev")
        && !users.contains(&package.name.as_str())
    {
        let message = format!("may not use {name}; only {} may", users.join(", "));
        findings.errors.push(Finding::new(&package.name, message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(name: &str, dependency: Dependency) -> usize {
        let package = Package {
            name: name.into(),
            dependencies: vec![dependency],
            features: BTreeMap::new(),
        };
        let mut findings = Findings::default();
        check_packages(&[package], &mut findings);
        findings.errors.len()
    }

    fn member(name: &str) -> Dependency {
        Dependency {
            name: name.into(),
            kind: None,
            path: Some(format!("crates/{name}")),
        }
    }

    fn foreign(name: &str, kind: Option<&str>) -> Dependency {
        Dependency {
            name: name.into(),
            kind: kind.map(String::from),
            path: None,
        }
    }

    #[test]
    fn arrows_go_one_way() {
        assert_eq!(errors("tombolo-node", member("tombolo-runtime")), 0);
        assert_eq!(errors("tombolo-runtime", member("tombolo-node")), 1);
        assert_eq!(errors("tombolo-triggers", member("tombolo-runtime")), 1);
        assert_eq!(errors("tombolo-core", member("tombolo-telemetry")), 1);
        assert_eq!(errors("tombolo-telemetry", member("tombolo-core")), 0);
    }

    #[test]
    fn the_engine_and_anyhow_have_one_user() {
        assert_eq!(errors("tombolo-runtime", foreign("wasmtime", None)), 0);
        assert_eq!(errors("tombolo-node", foreign("wasmtime", None)), 1);
        assert_eq!(errors("tombolo-node", foreign("anyhow", None)), 1);
        assert_eq!(errors("tombolo-node", foreign("anyhow", Some("dev"))), 0);
    }

    #[test]
    fn a_crate_outside_the_table_is_an_error() {
        assert_eq!(errors("tombolo-stuff", foreign("http", None)), 1);
    }
}
