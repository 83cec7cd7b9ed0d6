//! Rules about source files: size, first line, the one place for `unsafe`, and a host test for each guest.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Finding, Findings};

const LINES_MAX: usize = 800;
const LINES_GOOD: usize = 400;
const MAP_LINES_MAX: usize = 300;
/// Endings of type names that say nothing about the thing.
const EMPTY_NAMES: [&str; 6] = ["Manager", "Helper", "Util", "Common", "Info", "Data"];

pub fn check(root: &Path, files: &[PathBuf], findings: &mut Findings) -> Result<()> {
    let mut unsafe_files = Vec::new();
    let mut rust = String::new();
    for file in files {
        let extension = file.extension().and_then(|extension| extension.to_str());
        let is_rust = extension == Some("rs");
        let is_map = file == Path::new("ARCHITECTURE.md");
        if !is_rust && !is_map && !matches!(extension, Some("js" | "mjs" | "ts" | "py")) {
            continue;
        }
        let text = fs::read_to_string(root.join(file))
            .with_context(|| format!("cannot read {}", file.display()))?;
        let place = file.display().to_string();
        check_size(&place, &text, is_map, findings);
        if is_rust {
            check_opening(&place, &text, findings);
            check_names(&place, &text, findings);
            if is_ours(file) && lifts_unsafe_ban(&text) {
                unsafe_files.push(file.clone());
            }
            if !file.starts_with("tests/guests") && !file.starts_with("xtask") {
                rust.push_str(&text);
            }
        }
    }
    check_unsafe(&unsafe_files, findings);
    check_guests(&guests(root, files)?, &rust, findings);
    Ok(())
}

fn check_size(place: &str, text: &str, is_map: bool, findings: &mut Findings) {
    let lines = text.lines().count();
    let lines_max = if is_map { MAP_LINES_MAX } else { LINES_MAX };
    if lines > lines_max {
        let message = format!("{lines} lines; {lines_max} is the end");
        findings.errors.push(Finding::new(place, message));
    } else if lines > LINES_GOOD {
        let message = format!("{lines} lines; {LINES_GOOD} is a good size");
        findings.warnings.push(Finding::new(place, message));
    }
}

fn check_opening(place: &str, text: &str, findings: &mut Findings) {
    let opening = text.lines().next().unwrap_or_default();
    if !opening.starts_with("//! ") {
        let message = "does not open with a `//!` sentence saying what it is responsible for";
        findings.errors.push(Finding::new(place, message));
    }
}

fn check_names(place: &str, text: &str, findings: &mut Findings) {
    for (index, line) in text.lines().enumerate() {
        let Some(name) = declared_type(line) else {
            continue;
        };
        if let Some(ending) = EMPTY_NAMES.iter().find(|ending| name.ends_with(**ending)) {
            let place = format!("{place}:{}", index + 1);
            let message = format!("`{name}`: `{ending}` says nothing; name the thing");
            findings.errors.push(Finding::new(place, message));
        }
    }
}

/// The name of the type that a line declares.
fn declared_type(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) => rest.trim_start(),
        None => line,
    };
    let (keyword, rest) = line.split_once(' ')?;
    if !matches!(keyword, "struct" | "enum" | "trait") {
        return None;
    }
    rest.split(|character: char| !character.is_alphanumeric() && character != '_')
        .next()
}

/// Guests and templates are workspaces of their own, with the lints of their language's toolkits.
fn is_ours(file: &Path) -> bool {
    ["crates", "xtask", "benches"]
        .iter()
        .any(|folder| file.starts_with(folder))
}

/// The lint `unsafe_code` is denied in the whole workspace, so unsafe code needs an attribute that lifts it.
fn lifts_unsafe_ban(text: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim_start();
        (line.starts_with("#[") || line.starts_with("#![")) && line.contains("(unsafe_code")
    })
}

fn check_unsafe(files: &[PathBuf], findings: &mut Findings) {
    let home = Path::new("crates/tombolo-runtime/src");
    let mut at_home = 0;
    for file in files {
        at_home += usize::from(file.starts_with(home));
        if !file.starts_with(home) || at_home > 1 {
            let message = "unsafe code is allowed in one module of tombolo-runtime only";
            findings
                .errors
                .push(Finding::new(file.display().to_string(), message));
        }
    }
}

/// A guest is a folder `tests/guests/NAME` that becomes a program; a library that guests share is none.
fn guests(root: &Path, files: &[PathBuf]) -> Result<BTreeSet<String>> {
    let mut guests = BTreeSet::new();
    for file in files {
        let Ok(inside) = file.strip_prefix("tests/guests") else {
            continue;
        };
        let mut parts = inside.components();
        let folder = parts.next().and_then(|name| name.as_os_str().to_str());
        let Some(folder) = folder else { continue };
        let is_program = match parts.as_path().to_str() {
            Some("src/main.rs" | "package.json" | "app.py") => true,
            Some("Cargo.toml") => fs::read_to_string(root.join(file))
                .with_context(|| format!("cannot read {}", file.display()))?
                .contains("cdylib"),
            _ => false,
        };
        if is_program {
            guests.insert(folder.to_owned());
        }
    }
    Ok(guests)
}

/// The name of a guest, or of its file, in the source of a host is its test.
fn check_guests(guests: &BTreeSet<String>, rust: &str, findings: &mut Findings) {
    for guest in guests {
        if !rust.contains(guest) && !rust.contains(&guest.replace('-', "_")) {
            let message = "no host test names this guest";
            findings
                .errors
                .push(Finding::new(format!("tests/guests/{guest}"), message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(check: impl FnOnce(&mut Findings)) -> Vec<String> {
        let mut findings = Findings::default();
        check(&mut findings);
        findings.errors.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_file_past_the_end_is_an_error_and_a_long_one_a_warning() {
        let mut findings = Findings::default();
        check_size("a.rs", &"x\n".repeat(801), false, &mut findings);
        check_size("b.rs", &"x\n".repeat(401), false, &mut findings);
        check_size("c.rs", &"x\n".repeat(400), false, &mut findings);
        assert_eq!(findings.errors.len(), 1);
        assert_eq!(findings.warnings.len(), 1);
    }

    #[test]
    fn a_file_without_its_sentence_is_an_error() {
        assert_eq!(
            errors(|f| check_opening("a.rs", "//! Parses.\n", f)),
            [""; 0]
        );
        assert_eq!(errors(|f| check_opening("a.rs", "use std;\n", f)).len(), 1);
    }

    #[test]
    fn empty_names_are_found_in_declarations_only() {
        let text = "pub(crate) struct NodeManager;\nlet manager = NodeManager;\nenum Kind {}\n";
        let found = errors(|f| check_names("a.rs", text, f));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("a.rs:1: `NodeManager`"));
    }

    #[test]
    fn unsafe_has_one_home() {
        let home = PathBuf::from("crates/tombolo-runtime/src/code.rs");
        let other = PathBuf::from("crates/tombolo-store/src/lib.rs");
        let second = PathBuf::from("crates/tombolo-runtime/src/pool.rs");
        assert!(lifts_unsafe_ban("#![allow(unsafe_code)]\n"));
        assert!(!lifts_unsafe_ban(
            "// #[allow(unsafe_code)] would be needed\n"
        ));
        assert_eq!(
            errors(|f| check_unsafe(std::slice::from_ref(&home), f)).len(),
            0
        );
        assert_eq!(errors(|f| check_unsafe(&[other], f)).len(), 1);
        assert_eq!(errors(|f| check_unsafe(&[home, second], f)).len(), 1);
    }

    #[test]
    fn a_guest_needs_a_host_test() {
        let guests = BTreeSet::from(["http-hello".to_owned()]);
        let tested = |rust: &str| errors(|f| check_guests(&guests, rust, f)).is_empty();
        assert!(tested("guest(\"http_hello\")"));
        assert!(tested("guest(\"http-hello\")"));
        assert!(!tested("guest(\"other\")"));
    }
}
