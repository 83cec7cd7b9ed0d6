//! `tombolo run`: the guest's own arguments, streams and exit code, and nothing of ours beside them.

use std::path::Path;

use anyhow::Result;
use tombolo_e2e::{Output, guest, run_with};

const EVERY_WORLD: [&str; 3] = ["cli-p1", "cli-p2", "cli-p3"];

fn command(name: &str, options: &[&str], arguments: &[&str], stdin: &str) -> Result<Output> {
    let component = guest(name);
    let component = component.to_string_lossy();
    let whole = [&["run"], options, &[&component], arguments].concat();
    run_with(&whole, Path::new("."), stdin)
}

fn assert_output(output: &Output, stdout: &str, code: i32, name: &str) {
    assert_eq!(output.stdout, stdout, "{name}: {}", output.stderr);
    assert_eq!(output.code, Some(code), "{name}: {}", output.stderr);
    assert_eq!(output.stderr, "", "{name}");
}

#[test]
fn arguments_and_standard_input_reach_the_guest() -> Result<()> {
    for name in EVERY_WORLD {
        let output = command(name, &[], &["args", "a b", "--flag", "ü"], "")?;
        assert_output(&output, "a b|--flag|ü\n", 0, name);
        let output = command(name, &[], &["stdin"], "some text")?;
        assert_output(&output, "SOME TEXT", 0, name);
    }
    Ok(())
}

#[test]
fn the_exit_code_is_the_guests() -> Result<()> {
    for name in EVERY_WORLD {
        for code in [0, 1, 3, 42] {
            let output = command(name, &[], &["exit", &code.to_string()], "")?;
            // What Rust makes of WASI 0.2 says success or failure, and no number.
            let told = if name == "cli-p2" { code.min(1) } else { code };
            assert_output(&output, "", told, name);
        }
    }
    let output = command("cli-p3", &[], &["fail"], "")?;
    assert_output(&output, "", 1, "cli-p3");
    Ok(())
}

#[test]
fn the_environment_is_what_was_given() -> Result<()> {
    for name in EVERY_WORLD {
        assert_output(&command(name, &[], &["env"], "")?, "", 0, name);
        let output = command(name, &["--env", "CITY=Portland"], &["env"], "")?;
        assert_output(&output, "CITY=Portland\n", 0, name);
    }
    Ok(())
}

#[test]
fn the_two_outputs_are_kept_apart() -> Result<()> {
    for name in ["cli-p1", "cli-p2"] {
        let output = command(name, &[], &["both"], "")?;
        assert_eq!(output.stdout, "to stdout\n", "{name}");
        assert_eq!(output.stderr, "to stderr\n", "{name}");
    }
    Ok(())
}

#[test]
fn folders_are_seen_when_given() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("here"), "text")?;
    let host = folder.path().display();
    for name in ["cli-p1", "cli-p2"] {
        let output = command(name, &[], &["list", "/data"], "")?;
        assert_eq!(
            (output.stdout.as_str(), output.code),
            ("", Some(1)),
            "{name}"
        );
        let writable = format!("{host}::/data");
        let output = command(name, &["--dir", &writable], &["list", "/data"], "")?;
        assert_output(&output, "here\n", 0, name);
        let read_only = format!("{host}::/data:ro");
        let write = ["write", "/data/there", "text"];
        let output = command(name, &["--dir", &read_only], &write, "")?;
        assert_eq!(output.code, Some(1), "{name}: {}", output.stderr);
        assert!(!folder.path().join("there").exists(), "{name}");
        let output = command(name, &["--dir", &writable], &write, "")?;
        assert_output(&output, "", 0, name);
        std::fs::remove_file(folder.path().join("there"))?;
    }
    Ok(())
}

#[test]
fn a_trap_says_so_on_stderr_alone() -> Result<()> {
    for name in EVERY_WORLD {
        let output = command(name, &[], &["trap"], "")?;
        assert_eq!(output.stdout, "", "{name}");
        assert!(output.code.is_some_and(|code| code != 0), "{name}");
        assert!(
            output.stderr.contains("TB0301"),
            "{name}: {}",
            output.stderr
        );
    }
    Ok(())
}

#[test]
fn an_endless_command_ends_with_its_budget() -> Result<()> {
    for name in ["cli-p1", "cli-p2"] {
        let output = command(name, &["--limits", "cpu=200ms"], &["spin"], "")?;
        assert_eq!(output.code, Some(124), "{name}: {}", output.stderr);
        assert!(
            output.stderr.contains("error[TB0303]"),
            "{name}: {}",
            output.stderr
        );
    }
    Ok(())
}

#[test]
fn a_trap_tells_the_names_of_functions() -> Result<()> {
    let output = command("cli-p2", &[], &["trap"], "")?;
    assert!(
        output.stderr.contains("deliberately_broken"),
        "{}",
        output.stderr
    );
    Ok(())
}
