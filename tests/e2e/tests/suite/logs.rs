//! What functions write comes back as structured lines.

use anyhow::{Context, Result};
use serde_json::Value;
use tombolo_e2e::{App, Server};

fn entries(app: &App, arguments: &[&str]) -> Result<Vec<Value>> {
    let output = app.run(&[&["logs", "--json"], arguments].concat())?;
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let lines = output.stdout.lines().filter(|line| !line.is_empty());
    lines.map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn find<'a>(entries: &'a [Value], message: &str) -> Result<&'a Value> {
    let mut found = entries.iter().filter(|entry| entry["message"] == message);
    let entry = found
        .next()
        .with_context(|| format!("no `{message}` in {entries:?}"))?;
    assert!(found.next().is_none(), "`{message}` comes twice");
    Ok(entry)
}

#[tokio::test]
async fn output_and_wasi_logging_become_lines_with_level_and_origin() -> Result<()> {
    let app = App::new("http-kitchen", "")?;
    let server = app.up()?;
    let answer = server.client().get("/log").await?;
    let request_id = answer.header("x-request-id").unwrap_or_default();
    let entries = entries(&app, &["--level", "trace"])?;
    for (message, stream, level) in [
        ("a line on stdout", "stdout", "info"),
        ("a trace", "log", "trace"),
        ("a debug line", "log", "debug"),
        ("an info line", "log", "info"),
        ("a warning", "log", "warn"),
        ("an error", "log", "error"),
        ("a critical line", "log", "critical"),
    ] {
        let entry = find(&entries, message)?;
        assert_eq!(
            (&entry["stream"], &entry["level"]),
            (&stream.into(), &level.into())
        );
        assert_eq!(
            (&entry["app"], &entry["function"]),
            (&"proof".into(), &"main".into())
        );
        assert_eq!(entry["request_id"], request_id);
    }
    assert_eq!(find(&entries, "a line on stderr")?["stream"], "stderr");
    Ok(())
}

#[tokio::test]
async fn a_service_of_wasi_0_3_logs_too() -> Result<()> {
    for isolation in ["fresh", "concurrent"] {
        let app = App::new("http-p3", &format!("isolation = \"{isolation}\""))?;
        let server = app.up()?;
        let answer = server.client().get("/log").await?;
        assert_eq!(answer.status, 200);
        let entries = entries(&app, &[])?;
        let entry = find(&entries, "a line on stdout")?;
        assert_eq!(entry["stream"], "stdout", "{isolation}");
        let request_id = answer.header("x-request-id").unwrap_or_default();
        assert_eq!(entry["request_id"], request_id, "{isolation}");
        assert_eq!(find(&entries, "a line on stderr")?["stream"], "stderr");
    }
    Ok(())
}

#[tokio::test]
async fn filters_keep_what_was_asked_for() -> Result<()> {
    let app = App::new("http-kitchen", "")?;
    let server = app.up()?;
    server.client().get("/log").await?;
    let important = entries(&app, &["--level", "warn"])?;
    find(&important, "a warning")?;
    assert!(find(&important, "an info line").is_err());
    let matching = entries(&app, &["--grep", "on std(out|err)$"])?;
    assert_eq!(matching.len(), 2, "{matching:?}");
    Ok(())
}

#[tokio::test]
async fn a_trap_is_logged_with_the_names_of_functions() -> Result<()> {
    let app = App::new("http-kitchen", "")?;
    let server = app.up()?;
    assert_eq!(server.client().get("/trap").await?.status, 502);
    let entries = entries(&app, &[])?;
    let told = entries
        .iter()
        .any(|entry| entry.to_string().contains("deliberately_broken"));
    assert!(told, "{entries:?}");
    Ok(())
}

#[tokio::test]
async fn a_served_component_logs_and_traps_before_the_eyes_of_who_serves_it() -> Result<()> {
    let server = Server::serve("http-kitchen", &[])?;
    server.client().get("/log").await?;
    server.wait_for_log("a line on stdout")?;
    server.client().get("/trap").await?;
    // The frames stand below one another, and the empty line before a panic's message is left out.
    server.wait_for_log("deliberately_broken\n")?;
    assert!(!server.log().contains("\n\n"), "{}", server.log());
    Ok(())
}

#[tokio::test]
async fn the_first_line_is_the_address_however_much_is_logged() -> Result<()> {
    let server = Server::serve("http-hello", &["-vv"])?;
    assert_eq!(server.before_address(), "");
    server.wait_for_log("the runtime has started")
}
