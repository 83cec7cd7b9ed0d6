//! Clients of the broker that publish too much or read too little: what finds no room is counted, and the others go on.

use std::collections::BTreeSet;

use anyhow::Result;
use tombolo_e2e::{App, Device, Hello, Message, Reply};

use crate::mqtt::{Node, TAKES, app};

const DONE: Reply = Reply::Code(0);
const DROPPED: &str = "tombolo_mqtt_dropped_total{reason=\"full\"}";

/// A node whose broker has these bounds.
fn bounded(bounds: &str) -> Result<(App, Node, u16)> {
    let trigger = "\n[[triggers.mqtt]]\ntopic = \"machines/#\"\nfunction = \"main\"\n";
    let app = app(TAKES, "", trigger)?;
    std::fs::write(
        app.folder().join("node.toml"),
        format!("[mqtt]\n{bounds}\n"),
    )?;
    let (node, port) = up(&app)?;
    Ok((app, node, port))
}

fn up(app: &App) -> Result<(Node, u16)> {
    let node = Node::up(app)?;
    let port = node.port.parse()?;
    Ok((node, port))
}

async fn client(port: u16, name: &str) -> Result<Device> {
    let client = name.as_bytes();
    Device::connect(
        port,
        Hello {
            client,
            ..Hello::default()
        },
    )
    .await
}

/// Everything that is retained, which is so many messages.
async fn retained(port: u16, count: usize) -> Result<BTreeSet<Message>> {
    let mut reader = client(port, "reader").await?;
    assert_eq!(reader.subscribe(b"#").await?, Reply::Code(1));
    let mut kept = BTreeSet::new();
    while kept.len() < count {
        kept.insert(reader.message().await?);
    }
    assert_eq!(reader.settled().await?, [], "more than is counted");
    Ok(kept)
}

#[tokio::test]
async fn a_flood_of_retained_messages_is_counted_and_what_was_kept_outlives_a_kill() -> Result<()> {
    const FLOOD: usize = 400;
    const ROOM: usize = 50;
    let (app, mut node, port) = bounded(&format!("retained_max = {ROOM}"))?;
    let mut machine = client(port, "machine").await?;
    assert_eq!(machine.publish(b"state/1", b"old", true).await?, DONE);
    let mut flood = client(port, "flood").await?;
    for number in 0..FLOOD {
        let topic = format!("flood/{number}");
        assert_eq!(flood.publish(topic.as_bytes(), b"x", true).await?, DONE);
    }
    // Others go on, and what is retained already can be replaced.
    assert_eq!(machine.publish(b"state/1", b"new", true).await?, DONE);
    assert_eq!(machine.publish(b"machines/1", b"x", false).await?, DONE);
    let api = app.api()?;
    api.until("main.mqtt", |queue| queue["counters"]["delivered"] == 1)
        .await?;
    assert_eq!(node.server.client().get("/").await?.status, 200);

    let count = api.metric("tombolo_mqtt_retained").await?;
    let unretained = api.metric("tombolo_mqtt_unretained_total").await?;
    assert_eq!(count, ROOM as f64);
    assert_eq!(count + unretained, FLOOD as f64 + 1.0);
    let kept = retained(port, ROOM).await?;
    let state = Message {
        topic: "state/1".into(),
        payload: b"new".to_vec(),
    };
    assert!(kept.contains(&state), "{kept:?}");

    node.server.kill()?;
    let (_node, port) = up(&app)?;
    assert_eq!(retained(port, ROOM).await?, kept);
    Ok(())
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_loses_messages_and_nobody_else_does() -> Result<()> {
    const MESSAGES: usize = 400;
    let (app, node, port) = bounded("queue_messages_max = 20")?;
    let mut deaf = client(port, "deaf").await?;
    let mut keen = client(port, "keen").await?;
    for subscriber in [&mut deaf, &mut keen] {
        assert_eq!(subscriber.subscribe(b"feed").await?, Reply::Code(1));
    }
    let mut publisher = client(port, "publisher").await?;
    let payload = |number: usize| format!("{number:060000}").into_bytes();
    for number in 0..MESSAGES {
        let payload = payload(number);
        assert_eq!(publisher.publish(b"feed", &payload, false).await?, DONE);
        assert!(keen.message().await?.payload == payload, "{number}");
    }
    assert_eq!(publisher.publish(b"machines/1", b"x", false).await?, DONE);
    assert_eq!(node.server.client().get("/").await?.status, 200);
    let api = app.api()?;
    api.until("main.mqtt", |queue| queue["counters"]["delivered"] == 1)
        .await?;

    let dropped = api.metric(DROPPED).await?;
    assert!(dropped > 0.0);
    let mut got = 0;
    let mut next = 0;
    while (got as f64) < MESSAGES as f64 - dropped {
        let number: usize = String::from_utf8(deaf.message().await?.payload)?.parse()?;
        assert!(number >= next, "{number} comes after {next}");
        (got, next) = (got + 1, number + 1);
    }
    assert_eq!(deaf.settled().await?, [], "more than were not dropped");
    Ok(())
}
