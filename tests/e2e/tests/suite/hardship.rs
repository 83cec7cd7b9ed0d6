//! Poison events, functions that never answer, and very many events: the others go on, and a restart takes seconds.

use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::Value;
use tombolo_e2e::{Api, App};

/// Events of the restart, unless `TOMBOLO_TEST_EVENTS` says otherwise.
const EVENTS: usize = 1_000_000;
/// More than the node delivers at once.
const STUCK: usize = 300;

async fn send(api: &Api, queue: &str, kind: &str, ids: std::ops::Range<usize>) -> Result<()> {
    let event = |id: usize| serde_json::json!({"specversion": "1.0", "id": id.to_string(), "source": "/m", "type": kind});
    let events: Vec<Value> = ids.map(event).collect();
    let path = format!("/apps/proof/queues/{queue}/events");
    let kind = "application/cloudevents-batch+json";
    let sent = api.post(&path, kind, serde_json::to_vec(&events)?).await?;
    anyhow::ensure!(sent.status == 202, "{}", sent.text());
    Ok(())
}

#[tokio::test]
async fn poison_and_functions_that_never_answer_leave_the_others_alone() -> Result<()> {
    let queue = |name: &str| {
        format!(
            "\n[queues.{name}]\n[[triggers.queue]]\nqueue = \"{name}\"\nfunction = \"{name}\"\n\
             concurrency = 400\nretry = {{ attempts = 2, backoff = \"1ms\" }}\n"
        )
    };
    let stuck = "limits = { wall = \"10min\", concurrency = 400 }";
    let app = App::with_functions(&[
        ("good", "event-types", ""),
        ("poison", "event-types", ""),
        ("stuck", "event-types", stuck),
    ])?;
    let app = app.with(&["good", "poison", "stuck"].map(queue).concat())?;
    let mut server = app.up()?;
    let api = app.api()?;
    send(&api, "stuck", "stuck", 0..STUCK).await?;
    api.until("stuck", |queue| queue["leased"].as_u64() > Some(100))
        .await?;
    send(&api, "poison", "poison", 0..50).await?;
    send(&api, "good", "fine", 0..200).await?;
    api.until("good", |queue| queue["counters"]["delivered"] == 200)
        .await?;
    let dead = api
        .until("poison.dead", |queue| queue["depth"] == 50)
        .await?;
    assert_eq!(dead["depth"], 50);
    let letters = api.events("poison.dead").await?;
    let cause = &letters[0]["dead"]["history"];
    assert_eq!(cause.as_array().map(Vec::len), Some(2), "{cause}");
    assert_eq!(cause[1]["code"], "TB0301");
    assert_eq!(server.client().get("/").await?.text(), "taken");

    // Nothing was answered, so nothing is settled.
    server.kill()?;
    let _server = app.up()?;
    let stuck = app.api()?.queue("stuck").await?;
    assert_eq!(
        (&stuck["depth"], &stuck["counters"]["dead"]),
        (&STUCK.into(), &0.into())
    );
    Ok(())
}

#[tokio::test]
async fn a_node_with_very_many_events_restarts_in_seconds() -> Result<()> {
    let events = std::env::var("TOMBOLO_TEST_EVENTS").ok();
    let events = events.map_or(Ok(EVENTS), |events| events.parse())?;
    let app = App::new("event-types", "")?.with("\n[queues.readings]\n")?;
    let mut server = app.up()?;
    let api = app.api()?;
    let chunks: Vec<usize> = (0..events).step_by(1000).collect();
    for some in chunks.chunks(8) {
        let sent = some.iter().map(|first| {
            let ids = *first..(first + 1000).min(events);
            send(&api, "readings", "reading", ids)
        });
        futures_util::future::try_join_all(sent).await?;
    }
    server.kill()?;
    let begun = Instant::now();
    let server = app.up()?;
    let ready = begun.elapsed();
    let queue = app.api()?.queue("readings").await?;
    assert_eq!(queue["depth"], events);
    println!("a node with {events} queued events serves {ready:.1?} after its start");
    let answer = server.client().get("/").await?;
    assert_eq!(answer.text(), "taken", "{}", answer.status);
    let last = (events - 1).to_string();
    let found = api_event(&app, events).await?;
    assert_eq!(
        found["event"]["id"].as_str().context("no id")?.len(),
        last.len()
    );
    Ok(())
}

/// The newest event of the queue.
async fn api_event(app: &App, events: usize) -> Result<Value> {
    let path = format!("/apps/proof/queues/readings/events/{}", events - 1);
    app.api()?.get(&path).await
}
