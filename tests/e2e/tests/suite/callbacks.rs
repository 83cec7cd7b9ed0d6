//! Asynchronous invocations that call back: where the function's grants allow, until somebody is there.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tombolo_e2e::{App, Origin};

/// How long anything that must happen may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

fn app(origin: &Origin, answer: &str) -> Result<App> {
    let settings = format!(
        "env = {{ ANSWER = \"{answer}\" }}\ngrants = {{ http = [\"http://{}\"], keyvalue = [\"unused\"] }}",
        origin.address()
    );
    App::new("events", &settings)
}

/// The body of the first request that the origin did not refuse, behind so many that it did.
fn called_back(origin: &Origin, refused: usize) -> Result<(String, Value)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(request) = origin.requests().get(refused) {
            let (head, body) = request.split_once("\r\n\r\n").context("no body")?;
            return Ok((head.to_owned(), serde_json::from_str(body)?));
        }
        if Instant::now() > deadline {
            bail!("no callback: {:?}", origin.requests());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_answer_is_sent_to_whoever_asked_for_it_even_when_they_are_away_at_first() -> Result<()> {
    let origin = Origin::refusing(2)?;
    let app = app(&origin, "201")?;
    let _server = app.up()?;
    let url = format!("http://{}/done?job=7", origin.address());
    let sent = app.run(&[
        "invoke",
        "main",
        "--later",
        "--data",
        "x",
        "--callback",
        &url,
    ])?;
    assert_eq!(sent.code, Some(0), "{sent:?}");
    let (head, told) = called_back(&origin, 2)?;
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("post /done?job=7 http/1.1"), "{head}");
    for part in [
        "ce-type: tombolo.invocation.answered",
        "ce-source: /proof/main",
    ] {
        assert!(head.contains(part), "{head}");
    }
    assert!(!head.contains("x-tombolo-"), "{head}");
    assert_eq!(
        (&told["status"], &told["body"]),
        (&201.into(), &"as it was told".into())
    );
    Ok(())
}

#[test]
fn a_function_that_fails_is_told_of_too() -> Result<()> {
    let origin = Origin::start()?;
    let app = app(&origin, "422")?;
    let _server = app.up()?;
    let url = format!("http://{}/", origin.address());
    app.run(&[
        "invoke",
        "main",
        "--later",
        "--data",
        "x",
        "--callback",
        &url,
    ])?;
    let (head, told) = called_back(&origin, 0)?;
    assert!(head.contains("tombolo.invocation.failed"), "{head}");
    let detail = told["error"]["detail"].as_str().context("no detail")?;
    assert!(detail.contains("422"), "{detail}");
    Ok(())
}

#[test]
fn a_callback_that_no_grant_covers_is_refused_at_once() -> Result<()> {
    let (granted, other) = (Origin::start()?, Origin::start()?);
    let app = app(&granted, "200")?;
    let _server = app.up()?;
    for (url, code) in [
        (format!("http://{}/", other.address()), 5),
        ("nowhere".to_owned(), 2),
    ] {
        let arguments = [
            "invoke",
            "main",
            "--later",
            "--data",
            "x",
            "--callback",
            &url,
        ];
        let refused = app.run(&arguments)?;
        assert_eq!(refused.code, Some(code), "{refused:?}");
        assert!(refused.stderr.contains(&url), "{}", refused.stderr);
    }
    let listed = app.run(&["queue", "list", "--json"])?;
    let listed: Value = serde_json::from_str(&listed.stdout)?;
    let queues = listed["items"].as_array().context("no list")?;
    assert!(
        queues
            .iter()
            .all(|queue| queue["counters"]["published"] == 0)
    );
    assert_eq!(other.connections(), 0);
    Ok(())
}
