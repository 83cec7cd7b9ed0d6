//! The command line beside a running node and without one: data on stdout, exit codes, errors with a place.

use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use tombolo_e2e::{App, command, guest, run};

#[tokio::test]
async fn invoke_reaches_the_running_node_or_starts_the_app_for_one_call() -> Result<()> {
    let app = App::new("http-kitchen", "")?;
    let alone = app.run(&["invoke", "main", "--http", "POST /echo", "--data", "text"])?;
    assert_eq!(
        (alone.stdout.as_str(), alone.code),
        ("text", Some(0)),
        "{}",
        alone.stderr
    );
    let _server = app.up()?;
    let beside = app.run(&["invoke", "main", "--http", "POST /echo", "--data", "text"])?;
    assert_eq!(
        (beside.stdout.as_str(), beside.code),
        ("text", Some(0)),
        "{}",
        beside.stderr
    );
    let failed = app.run(&["invoke", "main", "--http", "GET /trap"])?;
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    assert!(failed.stdout.contains("TB0301"), "{}", failed.stdout);
    let nobody = app.run(&["invoke", "nobody"])?;
    assert_eq!(nobody.code, Some(4), "{}", nobody.stderr);
    Ok(())
}

#[tokio::test]
async fn get_and_describe_tell_what_runs() -> Result<()> {
    let app = App::new("http-p3", "isolation = \"serial\"")?;
    let server = app.up()?;
    assert_eq!(server.client().get("/").await?.status, 200);
    let functions = app.run(&["get", "functions", "--json"])?;
    assert_eq!(functions.code, Some(0), "{}", functions.stderr);
    let functions: Value = serde_json::from_str(&functions.stdout)?;
    assert!(functions.to_string().contains("\"main\""), "{functions}");
    for kind in ["apps", "triggers"] {
        let listed = app.run(&["get", kind])?;
        assert_eq!(listed.code, Some(0), "{}", listed.stderr);
        assert!(listed.stdout.contains("proof"), "{}", listed.stdout);
    }
    let described = app.run(&["describe", "function", "main"])?;
    assert_eq!(described.code, Some(0), "{}", described.stderr);
    assert!(described.stdout.contains("serial"), "{}", described.stdout);
    Ok(())
}

#[test]
fn without_a_node_the_exit_code_says_so() -> Result<()> {
    let app = App::new("http-hello", "")?;
    let output = app.run(&["get", "functions"])?;
    assert_eq!(
        (output.stdout.as_str(), output.code),
        ("", Some(6)),
        "{}",
        output.stderr
    );
    assert!(output.stderr.contains("error[TB0003]"), "{}", output.stderr);
    Ok(())
}

#[test]
fn a_mistake_in_the_manifest_is_shown_with_its_place() -> Result<()> {
    let app = App::new("http-hello", "limit = { memory = \"1MiB\" }")?;
    for command in [&["check"][..], &["up", "--listen", "127.0.0.1:0"]] {
        let output = app.run(command)?;
        assert_eq!(output.code, Some(3), "{}", output.stderr);
        for part in ["error[TB0102]", "tombolo.toml:7:1", "^^^^^", "limits"] {
            assert!(output.stderr.contains(part), "no {part}: {}", output.stderr);
        }
        assert_eq!(output.stdout, "");
    }
    Ok(())
}

#[test]
fn explain_works_offline_and_wrong_usage_is_2() -> Result<()> {
    let output = run(&["explain", "TB0308"])?;
    assert_eq!(output.code, Some(0));
    assert!(
        output.stdout.contains("limits.concurrency"),
        "{}",
        output.stdout
    );
    assert_eq!(run(&["explain", "TB9999"])?.code, Some(2));
    assert_eq!(run(&["frobnicate"])?.code, Some(2));
    Ok(())
}

#[tokio::test]
async fn logs_refuse_what_would_never_match() -> Result<()> {
    let app = App::new("http-hello", "")?;
    let _server = app.up()?;
    let pattern = app.run(&["logs", "--grep", "("])?;
    assert_eq!(pattern.code, Some(2), "{}", pattern.stderr);
    assert!(
        pattern.stderr.contains("error[TB0001]: `--grep (`"),
        "{}",
        pattern.stderr
    );
    for nobody in ["nobody", "proof/nobody", "nobody/main"] {
        let output = app.run(&["logs", "--function", nobody])?;
        assert_eq!(output.code, Some(4), "{nobody}: {}", output.stderr);
    }
    for known in ["main", "proof/main"] {
        let output = app.run(&["logs", "--function", known])?;
        assert_eq!(output.code, Some(0), "{known}: {}", output.stderr);
    }
    Ok(())
}

#[test]
fn a_function_that_nothing_leads_to_is_told() -> Result<()> {
    let app = App::new("http-hello", "")?;
    let manifest = app.folder().join("tombolo.toml");
    let text = std::fs::read_to_string(&manifest)?;
    let (functions, _) = text.split_once("[[triggers").unwrap_or_default();
    std::fs::write(&manifest, functions)?;
    let checked = app.run(&["check"])?;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert!(
        checked.stderr.contains("nothing starts a function"),
        "{}",
        checked.stderr
    );
    app.up()?.wait_for_log("nothing starts a function")
}

#[test]
fn what_only_a_manifest_can_grant_is_said_where_there_is_none() -> Result<()> {
    let component = guest("kv-draft2");
    let arguments = [
        "serve",
        &component.to_string_lossy(),
        "--listen=127.0.0.1:0",
    ];
    let output = run(&arguments)?;
    assert_eq!(output.code, Some(5), "{}", output.stderr);
    assert!(
        output.stderr.contains("`tombolo new NAME`"),
        "{}",
        output.stderr
    );
    assert!(!output.stderr.contains("[functions."), "{}", output.stderr);
    Ok(())
}

/// Whether a process of this number runs; one that waits to be buried does not.
fn runs(process_id: &str) -> bool {
    let status = std::fs::read_to_string(Path::new("/proc").join(process_id).join("stat"));
    status.is_ok_and(|status| !status.contains(") Z "))
}

#[test]
fn a_build_ends_with_the_command_that_started_it() -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(60);
    for arguments in [&["build"][..], &["dev", "--listen", "127.0.0.1:0"]] {
        let folder = tempfile::tempdir()?;
        let manifest = "[app]\nname = \"slow\"\nversion = \"1.0.0\"\n[functions.slow]\ncomponent = \"slow.wasm\"\n\
                        build = { command = \"sleep 600 & echo $! > written && mv written sleeper; wait\" }\n";
        std::fs::write(folder.path().join("tombolo.toml"), manifest)?;
        let mut tombolo = command()
            .args(arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let deadline = Instant::now() + PATIENCE;
        let sleeper = loop {
            if let Ok(text) = std::fs::read_to_string(folder.path().join("sleeper")) {
                break text.trim().to_owned();
            }
            ensure!(Instant::now() < deadline, "the build does not start");
            sleep(Duration::from_millis(5));
        };
        assert!(runs(&sleeper));
        let process_id = tombolo.id().to_string();
        std::process::Command::new("kill")
            .args(["-TERM", &process_id])
            .status()?;
        tombolo.wait()?;
        while runs(&sleeper) {
            ensure!(
                Instant::now() < deadline,
                "{arguments:?} leaves its build behind"
            );
            sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}
