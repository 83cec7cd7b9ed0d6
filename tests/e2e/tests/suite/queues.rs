//! Queues from the command line: sending, looking, duplicates, dead letters and what is done with them, `kill -9`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tombolo_e2e::{App, Output, run_with};

/// How long anything that must happen may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A queue that `main` consumes.
const CONSUMED: &str = "
[queues.readings]

[[triggers.queue]]
queue = \"readings\"
function = \"main\"
retry = { attempts = 2, backoff = \"1ms\" }
";
/// A queue that only keeps events.
const KEPT: &str = "\n[queues.readings]\n";
/// A function that acknowledges every event.
const TAKES: &str = "http-kitchen";
/// A function that answers every event with 500.
const FAILS: &str = "kv-draft2";

/// An app with a queue.
fn app(guest: &str, events: &str) -> Result<App> {
    let app = App::new(guest, "grants = { keyvalue = [\"default\"] }")?;
    let manifest = app.folder().join("tombolo.toml");
    let text = std::fs::read_to_string(&manifest)?;
    std::fs::write(manifest, text + events)?;
    Ok(app)
}

/// Gives the app of a folder another function or other queues.
fn change(app: &App, from: &str, to: &str) -> Result<()> {
    let manifest = app.folder().join("tombolo.toml");
    let text = std::fs::read_to_string(&manifest)?;
    std::fs::write(manifest, text.replace(from, to))?;
    Ok(())
}

fn queue(app: &App, arguments: &[&str]) -> Result<Output> {
    app.run(&[&["queue"], arguments].concat())
}

/// What a command that must succeed prints.
fn done(output: &Output) -> Result<&str> {
    match output.code {
        Some(0) => Ok(&output.stdout),
        _ => bail!("{output:?}"),
    }
}

fn json(app: &App, arguments: &[&str]) -> Result<Value> {
    let output = queue(app, &[arguments, &["--json"]].concat())?;
    Ok(serde_json::from_str(done(&output)?)?)
}

fn send(app: &App, id: &str, more: &[&str]) -> Result<Value> {
    let event = ["send", "readings", "--data", "{\"rpm\": 1797}", "--id", id];
    json(app, &[&event, more].concat())
}

/// The queue of this name, as `queue list` tells of it, once it is right.
fn until(app: &App, name: &str, right: impl Fn(&Value) -> bool) -> Result<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listed = json(app, &["list"])?;
        let queues = listed["items"].as_array().context("no list")?;
        let found = queues.iter().find(|queue| queue["name"] == name);
        if let Some(found) = found.filter(|queue| right(queue)) {
            return Ok(found.clone());
        }
        if Instant::now() > deadline {
            bail!("{name} does not become right: {listed:#}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn events_are_sent_once_and_delivered() -> Result<()> {
    let app = app(TAKES, CONSUMED)?;
    let _server = app.up()?;
    let new = serde_json::json!({"accepted": 1, "duplicates": 0});
    let again = serde_json::json!({"accepted": 0, "duplicates": 1});
    assert_eq!(send(&app, "1", &["--source", "/m/1"])?, new);
    assert_eq!(send(&app, "1", &["--source", "/m/1"])?, again);
    assert_eq!(send(&app, "1", &["--source", "/m/2"])?, new);
    let batch = r#"[{"specversion": "1.0", "id": "1", "source": "/m/1", "type": "t"},
                    {"specversion": "1.0", "id": "2", "source": "/m/1", "type": "t"}]"#;
    let arguments = ["queue", "send", "proof/readings", "--event", "-"];
    let sent = run_with(&arguments, app.folder(), batch)?;
    assert_eq!(done(&sent)?, "accepted 1, duplicates 1\n");
    let found = until(&app, "readings", |queue| {
        queue["counters"]["delivered"] == 3
    })?;
    assert_eq!(found["depth"], 0);
    assert_eq!(found["function"], "main");

    let later = app.run(&["invoke", "main", "--later", "--data", "x", "--json"])?;
    assert_eq!(serde_json::from_str::<Value>(done(&later)?)?, new);
    until(&app, "main.async", |queue| {
        queue["counters"]["delivered"] == 1
    })?;
    Ok(())
}

#[test]
fn what_waits_is_seen_in_its_order_and_not_taken() -> Result<()> {
    let app = app(TAKES, KEPT)?;
    let _server = app.up()?;
    send(&app, "now", &["--type", "reading", "--subject", "m7"])?;
    send(&app, "later", &["--delay", "1h", "--priority", "0"])?;
    let dry = queue(&app, &["send", "readings", "--data", "x", "--dry-run"])?;
    assert!(done(&dry)?.contains("tombolo.queue"), "{dry:?}");
    for _ in 0..2 {
        let listed = json(&app, &["peek", "readings"])?;
        let items = listed["items"].as_array().context("no list")?;
        let seen: Vec<_> = items
            .iter()
            .map(|item| (item["event"]["id"].as_str(), item["standing"].as_str()))
            .collect();
        let expected =
            [("now", "ready"), ("later", "scheduled")].map(|(id, at)| (Some(id), Some(at)));
        assert_eq!(seen, expected);
        assert_eq!(items[1]["priority"], 0);
    }
    let names = queue(&app, &["peek", "readings", "-o", "name", "--limit", "1"])?;
    let one = queue(&app, &["peek", "readings", done(&names)?.trim()])?;
    for part in ["reading", "m7", "\"rpm\": 1797"] {
        assert!(done(&one)?.contains(part), "no {part}: {}", one.stdout);
    }
    for (arguments, code) in [
        (&["peek", "readings", "99"][..], 4),
        (&["peek", "absent"], 4),
        (&["peek", "proof/absent"], 4),
        (&["peek", "no name"], 2),
        (&["send", "readings", "--data", "x", "--source", "a b"], 2),
        (&["purge", "readings"], 2),
        (&["purge", "readings", "--all"], 2),
    ] {
        let output = queue(&app, arguments)?;
        assert_eq!(output.code, Some(code), "{arguments:?} {output:?}");
    }
    let purged = queue(&app, &["purge", "readings", "--type", "read*"])?;
    assert_eq!(done(&purged)?, "purged 1 of proof/readings\n");
    let purged = json(&app, &["purge", "readings", "--all", "--yes"])?;
    assert_eq!(
        (&purged["events"], &purged["dry_run"]),
        (&1.into(), &false.into())
    );
    until(&app, "readings", |queue| queue["depth"] == 0)?;
    Ok(())
}

#[test]
fn dead_letters_tell_why_and_are_redriven_when_the_function_is_mended() -> Result<()> {
    let app = app(FAILS, CONSUMED)?;
    let mut server = app.up()?;
    for id in ["1", "2", "3"] {
        send(&app, id, &[])?;
    }
    until(&app, "readings.dead", |queue| queue["depth"] == 3)?;
    let listed = json(&app, &["list"])?;
    let living = listed["items"].as_array().context("no list")?;
    let living = living.iter().find(|queue| queue["name"] == "readings");
    assert_eq!(living.context("no queue")?["dead_letters"], 3);
    let page = json(&app, &["peek", "readings.dead"])?;
    let letter = &page["items"][0];
    assert_eq!(letter["dead"]["burial"], "attempts");
    let sequence = letter["sequence"].to_string();
    let one = queue(&app, &["peek", "readings.dead", &sequence])?;
    for part in ["of proof/readings: its last attempt failed", "500"] {
        assert!(done(&one)?.contains(part), "no {part}: {}", one.stdout);
    }

    server.terminate()?;
    assert!(server.wait()?.success());
    change(&app, "kv_draft2.wasm", "http_kitchen.wasm")?;
    let _server = app.up()?;
    let dry = queue(&app, &["redrive", "readings", "--all", "--dry-run"])?;
    assert_eq!(done(&dry)?, "would redrive 3 of proof/readings\n");
    let purged = queue(&app, &["purge", "readings.dead", &sequence])?;
    assert_eq!(done(&purged)?, "purged 1 of proof/readings.dead\n");
    let unconfirmed = queue(&app, &["redrive", "readings.dead", "--all"])?;
    assert_eq!(unconfirmed.code, Some(2), "{unconfirmed:?}");
    let redriven = queue(&app, &["redrive", "readings.dead", "--all", "--yes"])?;
    assert_eq!(done(&redriven)?, "redriven 2 of proof/readings.dead\n");
    until(&app, "readings", |queue| {
        queue["counters"]["delivered"] == 2
    })?;
    until(&app, "readings.dead", |queue| queue["depth"] == 0)?;
    Ok(())
}

#[test]
fn what_was_accepted_is_delivered_after_kill_9() -> Result<()> {
    let app = app(TAKES, KEPT)?;
    let mut server = app.up()?;
    for id in ["1", "2", "3"] {
        send(&app, id, &[])?;
    }
    server.kill()?;
    change(&app, KEPT, CONSUMED)?;
    let _server = app.up()?;
    until(&app, "readings", |queue| {
        queue["counters"]["delivered"] == 3
    })?;
    let again = send(&app, "3", &[])?;
    assert_eq!(again["duplicates"], 1);
    Ok(())
}
