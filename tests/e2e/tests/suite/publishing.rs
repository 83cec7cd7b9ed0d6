//! Functions that publish events, by `wasi:messaging` and by HTTP.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tombolo_e2e::App;

/// How long anything that must happen may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn messaging_without_a_grant_is_refused_with_the_line_that_allows_it() -> Result<()> {
    for guest in ["messaging-draft", "messaging-p3"] {
        let app = App::new(guest, "")?;
        let output = app.run(&["up", "--listen", "127.0.0.1:0"])?;
        assert_eq!(output.code, Some(5), "{guest}: {}", output.stderr);
        for part in ["error[TB0204]", "wasi:messaging/", "grants = { queues = ["] {
            assert!(output.stderr.contains(part), "{guest}: {}", output.stderr);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_queue_that_is_not_granted_is_refused() -> Result<()> {
    let app = App::new("http-kitchen", "")?;
    let server = app.up()?;
    let answer = server.client().post("/publish?queue=plans", "{}").await?;
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(answer.text().contains("TB0004"), "{}", answer.text());
    Ok(())
}

/// Waits until a queue has one dead letter, and gives it.
fn letter(app: &App, queue: &str) -> Result<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let page = app.run(&["queue", "peek", &format!("{queue}.dead"), "--json"])?;
        let page: Value = serde_json::from_str(&page.stdout).with_context(|| page.stderr)?;
        match page["items"].as_array().map(Vec::as_slice) {
            Some([letter]) => return Ok(letter.clone()),
            _ if Instant::now() > deadline => bail!("not one dead letter: {page:#}"),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

#[test]
fn a_function_that_makes_events_for_itself_comes_to_an_end() -> Result<()> {
    for (env, grants, trigger, queue) in [
        (
            "PUBLISH = \"round\"",
            "queues = [\"round\"], keyvalue = [\"unused\"]",
            "[queues.round]\n[[triggers.queue]]\nqueue = \"round\"",
            "round",
        ),
        (
            "COUNT = \"counts\"",
            "keyvalue = [\"counts\"]",
            "[[triggers.change]]\nkeyvalue = \"counts\"\nprefix = \"count\"",
            "main.change",
        ),
    ] {
        let settings = format!("env = {{ {env}, NOTES = \"notes\" }}\ngrants = {{ {grants} }}");
        let settings = settings.replacen("keyvalue = [", "keyvalue = [\"notes\", ", 1);
        let look = "grants = { keyvalue = [\"notes\"] }";
        let app =
            App::with_functions(&[("look", "kv-draft2", look), ("main", "events", &settings)])?;
        let path = app.folder().join("tombolo.toml");
        let text = std::fs::read_to_string(&path)?;
        std::fs::write(&path, format!("{text}\n{trigger}\nfunction = \"main\"\n"))?;
        let server = app.up()?;
        let begun = app.run(&["invoke", "main", "--later", "--data", "x"])?;
        assert_eq!(begun.code, Some(0), "{begun:?}");
        let letter = letter(&app, queue)?;
        let dead = &letter["dead"];
        assert_eq!(dead["history"][0]["code"], "TB0309", "{dead:#}");
        // The first by asynchronous invocation, and 16 that led to one another.
        let client = server.client();
        let asked = tokio::runtime::Runtime::new()?.block_on(client.get("/keys?store=notes"));
        let notes = asked?.text();
        assert_eq!(notes.split(',').count(), 17, "{notes}");
    }
    Ok(())
}
