//! Functions that publish events, by `wasi:messaging` and by HTTP.

use anyhow::Result;
use tombolo_e2e::App;

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
