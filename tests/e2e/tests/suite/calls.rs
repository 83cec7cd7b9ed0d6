//! Functions that call one another, in process and by name.

use anyhow::Result;
use http::Request;
use serde_json::Value;
use tombolo_e2e::{App, body};

#[tokio::test]
async fn a_function_calls_another_of_its_app() -> Result<()> {
    let functions = [("front", "http-kitchen", ""), ("back", "http-hello", "")];
    let app = App::with_functions(&functions)?;
    let server = app.up()?;
    let answer = server.client().get("/call?function=back&path=/").await?;
    assert_eq!(
        (answer.status.as_u16(), answer.text()),
        (200, "hello, world".to_owned())
    );
    Ok(())
}

#[tokio::test]
async fn a_call_streams_both_ways_between_all_worlds() -> Result<()> {
    let sent: Vec<u8> = (0..2_000_000_u32).map(|i| (i * 17 % 253) as u8).collect();
    for back in ["http-kitchen", "http-p3"] {
        let functions = [("front", "http-kitchen", ""), ("back", back, "")];
        let app = App::with_functions(&functions)?;
        let server = app.up()?;
        let client = server.client();
        let path = "/call?function=back&path=/echo";
        let answer = client.post(path, sent.clone()).await?;
        assert!(
            answer.whole && answer.body == sent,
            "{back}: {}",
            answer.status
        );
        let mut talk = client.converse(path, "one").await?;
        assert_eq!(talk.hear(3).await?, "one");
        talk.say("two").await?;
        assert_eq!(talk.end().await?, "two");
    }
    Ok(())
}

#[tokio::test]
async fn a_call_keeps_the_trace() -> Result<()> {
    let functions = [("front", "http-kitchen", ""), ("back", "http-kitchen", "")];
    let app = App::with_functions(&functions)?;
    let server = app.up()?;
    let request = Request::get("/call?function=back&path=/headers").header(
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    );
    let answer = server.client().send(request.body(body(""))?).await?;
    let seen: Value = serde_json::from_slice(&answer.body)?;
    let passed_on = seen["headers"]["traceparent"][0].to_string();
    assert!(
        passed_on.contains("4bf92f3577b34da6a3ce929d0e0e4736"),
        "{seen}"
    );
    // The callee is told what every function is told.
    assert_eq!(seen["headers"]["x-tombolo-client-ip"][0], "127.0.0.1");
    assert_eq!(seen["headers"]["x-tombolo-tier"][0], "local");
    assert!(seen["headers"]["x-tombolo-node"][0].is_string(), "{seen}");
    Ok(())
}

#[tokio::test]
async fn invocations_that_share_an_instance_each_keep_their_own_trace() -> Result<()> {
    let functions = [
        ("front", "http-p3", "isolation = \"concurrent\""),
        ("back", "http-kitchen", ""),
    ];
    let app = App::with_functions(&functions)?;
    let server = app.up()?;
    let asked = (1..=8_u32).map(|number| {
        let client = server.client();
        async move {
            let trace = format!("{number:032x}");
            let path = format!("/call?{}&/headers", 200 - number * 20);
            let request =
                Request::get(path).header("traceparent", format!("00-{trace}-00000000000000aa-01"));
            let answer = client.send(request.body(body(""))?).await?;
            let seen: Value = serde_json::from_slice(&answer.body)?;
            let passed_on = seen["headers"]["traceparent"][0].to_string();
            assert!(passed_on.contains(&trace), "{trace} became {passed_on}");
            anyhow::Ok(())
        }
    });
    futures_util::future::try_join_all(asked).await?;
    Ok(())
}

#[tokio::test]
async fn a_function_that_traps_does_not_take_its_caller_along() -> Result<()> {
    let functions = [("front", "http-kitchen", ""), ("back", "http-kitchen", "")];
    let app = App::with_functions(&functions)?;
    let server = app.up()?;
    let client = server.client();
    let answer = client.get("/call?function=back&path=/trap").await?;
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert_eq!(client.get("/leak").await?.text(), "1");
    Ok(())
}

#[tokio::test]
async fn a_loop_of_calls_ends() -> Result<()> {
    let app = App::new("http-kitchen", "")?;
    let server = app.up()?;
    let answer = server.client().get("/loop?function=main").await?;
    assert_eq!(answer.status, 508, "{}", answer.text());
    Ok(())
}

#[tokio::test]
async fn another_app_and_an_unknown_function_are_not_reached() -> Result<()> {
    let app = App::new("http-kitchen", "")?;
    let server = app.up()?;
    let answer = server.client().get("/call?function=nobody&path=/").await?;
    assert!(answer.status.is_client_error() || answer.status.is_server_error());
    Ok(())
}
