//! Which invocations share an instance: none, one after the other, or several at once.

use anyhow::Result;
use tombolo_e2e::{Client, Server, run};

/// Asks `/leak` so often, one after the other, and returns the counts.
async fn counts(client: Client, times: usize) -> Result<Vec<u32>> {
    let mut counts = Vec::new();
    for _ in 0..times {
        let answer = client.get("/leak").await?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        counts.push(answer.text().parse()?);
    }
    Ok(counts)
}

#[tokio::test]
async fn a_fresh_instance_knows_nothing_of_the_one_before() -> Result<()> {
    for guest in ["http-kitchen", "http-p3"] {
        let server = Server::serve(guest, &[])?;
        assert_eq!(counts(server.client(), 20).await?, [1; 20], "{guest}");
    }
    Ok(())
}

#[tokio::test]
async fn a_serial_instance_is_used_again_and_replaced_after_a_trap() -> Result<()> {
    for guest in ["http-kitchen", "http-p3"] {
        let server = Server::serve(guest, &["--isolation", "serial"])?;
        let before = counts(server.client(), 40).await?;
        assert!(before.iter().any(|&count| count > 1), "{guest}: {before:?}");
        assert_eq!(server.client().get("/trap").await?.status, 502);
        assert_eq!(counts(server.client(), 5).await?.len(), 5);
    }
    Ok(())
}

#[tokio::test]
async fn a_serial_instance_never_serves_two_at_once() -> Result<()> {
    let server = Server::serve("http-p3", &["--isolation", "serial"])?;
    let mut held = server.client().converse("/echo", "a").await?;
    assert_eq!(held.hear(1).await?, "a");
    let counts = counts(server.client(), 5).await?;
    assert_eq!(counts.len(), 5);
    held.say("b").await?;
    assert_eq!(held.end().await?, "b");
    Ok(())
}

#[tokio::test]
async fn a_concurrent_instance_serves_several_at_once() -> Result<()> {
    let server = Server::serve("http-p3", &["--isolation", "concurrent"])?;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut conversation = server.client().converse("/echo", "a").await?;
        assert_eq!(conversation.hear(1).await?, "a");
        held.push(conversation);
    }
    let counts = counts(server.client(), 40).await?;
    assert!(counts.iter().any(|&count| count > 1), "{counts:?}");
    for conversation in held {
        conversation.say("b").await?;
        assert_eq!(conversation.end().await?, "b");
    }
    Ok(())
}

#[test]
fn concurrency_is_refused_to_a_component_of_wasi_0_2() -> Result<()> {
    let component = tombolo_e2e::guest("http-hello");
    let component = component.to_string_lossy();
    let arguments = [
        "serve",
        &component,
        "--listen=127.0.0.1:0",
        "--isolation=concurrent",
    ];
    let output = run(&arguments)?;
    assert_eq!(output.code, Some(3), "{}", output.stderr);
    assert!(output.stderr.contains("error[TB0205]"), "{}", output.stderr);
    Ok(())
}
