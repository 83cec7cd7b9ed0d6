//! Transactional triggers: what a function did is there exactly when its event is acknowledged, whatever was killed when.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tombolo_e2e::{App, Server};

/// How long anything that must happen may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Events between two kills.
const EVENTS: usize = 150;
const KILLS: usize = 10;

/// A function that counts and publishes for each event, and one to look into the store.
fn app(answer: &str, trigger: &str) -> Result<App> {
    let app = App::with_functions(&[
        ("look", "kv-draft2", "grants = { keyvalue = [\"counts\"] }"),
        (
            "count",
            "events",
            &format!(
                "env = {{ COUNT = \"counts\", PUBLISH = \"counted\", ANSWER = \"{answer}\" }}\n\
                 grants = {{ keyvalue = [\"counts\"], queues = [\"counted\"] }}"
            ),
        ),
    ])?;
    let manifest = app.folder().join("tombolo.toml");
    let text = std::fs::read_to_string(&manifest)?;
    let events = format!(
        "\n[queues.counted]\n[queues.readings]\n[[triggers.queue]]\nqueue = \"readings\"\n\
         function = \"count\"\ntransactional = true\n{trigger}\n"
    );
    std::fs::write(manifest, text + &events)?;
    Ok(app)
}

fn send(app: &App, events: Range<usize>) -> Result<()> {
    let event = |id| {
        let source = "/test";
        serde_json::json!({"specversion": "1.0", "id": format!("{id}"), "source": source, "type": "t"})
    };
    let batch: Vec<Value> = events.map(event).collect();
    let file = app.folder().join("events.json");
    std::fs::write(&file, serde_json::to_vec(&batch)?)?;
    let sent = app.run(&["queue", "send", "readings", "--event", "events.json"])?;
    if sent.code != Some(0) {
        bail!("{sent:?}");
    }
    Ok(())
}

/// The figures of a queue.
fn figures(app: &App, name: &str) -> Result<Value> {
    let listed = app.run(&["queue", "list", "--json"])?;
    let listed: Value = serde_json::from_str(&listed.stdout).with_context(|| listed.stderr)?;
    let queues = listed["items"].as_array().context("no list")?;
    let found = queues.iter().find(|queue| queue["name"] == name);
    found.cloned().context("no such queue")
}

/// Waits until the queue has at most so many events.
fn until_at_most(app: &App, name: &str, depth: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = figures(app, name)?;
        if found["depth"].as_u64().is_some_and(|now| now <= depth) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{name} does not become shorter: {found:#}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

async fn look(server: &Server, path: &str) -> Result<String> {
    Ok(server.client().get(path).await?.text())
}

#[tokio::test]
async fn a_count_is_exact_however_often_the_node_is_killed() -> Result<()> {
    let app = app("200", "concurrency = 8\n")?;
    let mut server = app.up()?;
    for kill in 0..KILLS {
        send(&app, kill * EVENTS..(kill + 1) * EVENTS)?;
        // Sooner after some, later after others.
        let left = EVENTS - EVENTS * kill / KILLS;
        until_at_most(&app, "readings", left as u64)?;
        server.kill()?;
        server = app.up()?;
    }
    until_at_most(&app, "readings", 0)?;
    let events = KILLS * EVENTS;
    let count = look(&server, "/get?store=counts&key=count").await?;
    assert_eq!(count, events.to_string());
    let keys = look(&server, "/keys?store=counts").await?;
    assert_eq!(keys.split(',').count(), events + 1, "{keys}");
    assert_eq!(figures(&app, "counted")?["depth"], events);
    assert_eq!(figures(&app, "readings.dead")?["depth"], 0);
    Ok(())
}

#[tokio::test]
async fn an_invocation_that_fails_leaves_nothing() -> Result<()> {
    for answer in ["500", "400", "trap"] {
        let app = app(answer, "retry = { attempts = 3, backoff = \"1ms\" }\n")?;
        let server = app.up()?;
        send(&app, 0..3)?;
        until_at_most(&app, "readings", 0)?;
        assert_eq!(figures(&app, "readings.dead")?["depth"], 3, "{answer}");
        assert_eq!(figures(&app, "counted")?["depth"], 0, "{answer}");
        assert_eq!(look(&server, "/keys?store=counts").await?, "", "{answer}");
    }
    Ok(())
}

#[test]
fn a_transactional_function_is_not_concurrent() -> Result<()> {
    let app = app("200", "")?;
    let manifest = app.folder().join("tombolo.toml");
    let text = std::fs::read_to_string(&manifest)?;
    let text = text.replace("env = ", "isolation = \"concurrent\"\nenv = ");
    std::fs::write(manifest, text)?;
    let refused = app.run(&["up", "--listen", "127.0.0.1:0"])?;
    assert_eq!(refused.code, Some(3), "{refused:?}");
    for part in ["error[TB0103]", "transactional", "`fresh` or `serial`"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    Ok(())
}
