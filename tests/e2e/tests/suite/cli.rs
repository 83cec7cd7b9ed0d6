//! The command line beside a running node and without one: data on stdout, exit codes, errors with a place.

use anyhow::Result;
use serde_json::Value;
use tombolo_e2e::{App, run};

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
