//! Each limit of an invocation: its answer, its name, and that the node goes on.

use anyhow::Result;
use tombolo_e2e::{Answer, App, Server};

/// An answer that names the limit it hit.
fn assert_limit(answer: &Answer, status: u16, code: &str, limit: &str) -> Result<()> {
    assert_eq!(answer.status, status, "{}", answer.text());
    let problem = answer.problem()?;
    assert_eq!(problem["status"], status);
    assert_eq!(problem["code"], code);
    assert_eq!(problem["limit"], limit);
    assert_eq!(problem["blame"], "guest");
    Ok(())
}

const LIMITS: &str = r#"limits = { memory = "32MiB", wall = "1s", cpu = "200ms", hostcall = "64KiB", response = "1MiB", logs = "16KiB" }"#;

#[tokio::test]
async fn every_limit_answers_with_its_name() -> Result<()> {
    let app = App::new("http-kitchen", LIMITS)?;
    let server = app.up()?;
    let client = server.client();
    for (path, status, code, limit) in [
        ("/allocate?mib=64", 502, "TB0304", "memory"),
        ("/sleep?ms=60000", 504, "TB0302", "wall"),
        ("/spin", 504, "TB0303", "cpu"),
        ("/host-call?kib=1024", 502, "TB0305", "hostcall"),
    ] {
        let answer = client.get(path).await?;
        assert_limit(&answer, status, code, limit)?;
        assert_eq!(client.get("/").await?.text(), "kitchen", "after {path}");
    }
    Ok(())
}

#[tokio::test]
async fn within_the_limits_nothing_happens() -> Result<()> {
    let app = App::new("http-kitchen", LIMITS)?;
    let server = app.up()?;
    let client = server.client();
    for path in ["/allocate?mib=8", "/sleep?ms=10", "/host-call?kib=32"] {
        assert_eq!(client.get(path).await?.status, 200, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn a_response_that_is_too_long_is_cut() -> Result<()> {
    let app = App::new("http-kitchen", LIMITS)?;
    let server = app.up()?;
    for client in [server.client(), server.client_http2()] {
        let answer = client.get("/stream-long").await?;
        assert_eq!(answer.status, 200);
        assert!(!answer.whole, "it looks whole");
        assert!(answer.body.len() <= 1 << 20, "{} bytes", answer.body.len());
        assert_eq!(client.get("/").await?.text(), "kitchen");
    }
    Ok(())
}

#[tokio::test]
async fn too_many_log_lines_are_cut_and_no_failure() -> Result<()> {
    let app = App::new("http-kitchen", LIMITS)?;
    let server = app.up()?;
    let answer = server.client().get("/big-log?kib=512").await?;
    assert_eq!(
        (answer.status.as_u16(), answer.text()),
        (200, "logged".to_owned())
    );
    Ok(())
}

#[tokio::test]
async fn limits_of_a_service_of_wasi_0_3_hold_too() -> Result<()> {
    let app = App::new("http-p3", LIMITS)?;
    let server = app.up()?;
    let client = server.client();
    assert_limit(&client.get("/sleep?ms=60000").await?, 504, "TB0302", "wall")?;
    assert_limit(&client.get("/spin").await?, 504, "TB0303", "cpu")?;
    assert_eq!(client.get("/").await?.text(), "hello, world");
    Ok(())
}

#[tokio::test]
async fn serve_takes_limits_as_an_argument() -> Result<()> {
    let limits = ["--limits", "memory=32MiB,wall=1s,cpu=200ms"];
    let server = Server::serve("http-kitchen", &limits)?;
    let client = server.client();
    assert_limit(
        &client.get("/allocate?mib=64").await?,
        502,
        "TB0304",
        "memory",
    )?;
    assert_limit(&client.get("/sleep?ms=60000").await?, 504, "TB0302", "wall")?;
    assert_limit(&client.get("/spin").await?, 504, "TB0303", "cpu")?;
    Ok(())
}

#[tokio::test]
async fn a_full_function_answers_429_and_serves_again_when_it_is_free() -> Result<()> {
    let settings = "limits = { concurrency = 1, waiting = 0 }";
    for guest in ["http-kitchen", "http-p3"] {
        let app = App::new(guest, settings)?;
        let server = app.up()?;
        let client = server.client();
        let mut held = client.converse("/echo", "a").await?;
        assert_eq!(held.hear(1).await?, "a");
        let refused = client.get("/leak").await?;
        assert_eq!(refused.status, 429, "{}", refused.text());
        assert_eq!(refused.problem()?["code"], "TB0308");
        assert_eq!(refused.problem()?["limit"], "concurrency");
        let retry_after: u32 = refused.header("retry-after").unwrap_or_default().parse()?;
        assert!(retry_after >= 1);
        assert_eq!(held.end().await?, "");
        assert_eq!(client.get("/leak").await?.status, 200);
    }
    Ok(())
}

#[tokio::test]
async fn who_waits_is_served_when_a_place_is_free() -> Result<()> {
    let settings = "limits = { concurrency = 1, waiting = 10 }";
    let app = App::new("http-kitchen", settings)?;
    let server = app.up()?;
    let client = server.client();
    let mut held = client.converse("/echo", "a").await?;
    assert_eq!(held.hear(1).await?, "a");
    let waiting: Vec<_> = (0..5)
        .map(|_| tokio::spawn(async move { client.get("/leak").await }))
        .collect();
    assert_eq!(held.end().await?, "");
    for answer in waiting {
        assert_eq!(answer.await??.text(), "1");
    }
    Ok(())
}
