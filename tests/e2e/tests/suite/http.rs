//! HTTP as callers see it: bodies, trailers, headers, failures, and the end of the process.

use anyhow::Result;
use http::Request;
use serde_json::Value;
use tombolo_e2e::{App, Server, body};

#[tokio::test]
async fn the_first_line_says_where_and_the_function_answers() -> Result<()> {
    let server = Server::serve("http-hello", &[])?;
    assert_eq!(server.before_address(), "");
    for client in [server.client(), server.client_http2()] {
        let answer = client.get("/anything").await?;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.text(), "hello, world");
        assert!(answer.whole);
        assert!(answer.header("x-request-id").is_some());
    }
    Ok(())
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() -> Result<()> {
    for guest in ["http-kitchen", "http-p3"] {
        let server = Server::serve(guest, &[])?;
        for client in [server.client(), server.client_http2()] {
            let mut talk = client.converse("/echo", "first").await?;
            assert_eq!(talk.status, 200);
            assert_eq!(talk.hear(5).await?, "first");
            talk.say("second").await?;
            assert_eq!(talk.hear(6).await?, "second");
            talk.say("third").await?;
            assert_eq!(talk.end().await?, "third");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_long_body_comes_back_as_it_was() -> Result<()> {
    let sent: Vec<u8> = (0..3_000_000_u32).map(|i| (i * 31 % 251) as u8).collect();
    for guest in ["http-kitchen", "http-p3"] {
        let server = Server::serve(guest, &[])?;
        for client in [server.client(), server.client_http2()] {
            let answer = client.post("/echo", sent.clone()).await?;
            assert!(answer.whole && answer.body == sent, "{guest}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn trailers_arrive() -> Result<()> {
    let server = Server::serve("http-kitchen", &[])?;
    let answer = server.client_http2().get("/trailers").await?;
    assert_eq!(answer.text(), "a body with trailers");
    assert_eq!(answer.trailers["x-checksum"], "1234");
    let request = Request::get("/trailers").header("te", "trailers");
    let answer = server.client().send(request.body(body(""))?).await?;
    assert_eq!(answer.trailers["x-checksum"], "1234");
    Ok(())
}

#[tokio::test]
async fn a_body_over_the_bound_is_refused() -> Result<()> {
    let server = Server::serve("http-kitchen", &[])?;
    let answer = server.client().announce("/echo", 17 << 20).await?;
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert_eq!(answer.problem()?["code"], "TB0402");
    Ok(())
}

#[tokio::test]
async fn the_function_sees_the_request_and_only_true_host_headers() -> Result<()> {
    let server = Server::serve("http-kitchen", &[])?;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = Request::put("/headers?a=b")
        .header("host", "example.test")
        .header("x-tombolo-node", "forged")
        .header("x-tombolo-trigger", "forged")
        .header("x-own", "one")
        .header("x-own", "two")
        .header("traceparent", trace)
        .header("x-request-id", "given-by-the-client");
    let answer = server.client().send(request.body(body(""))?).await?;
    let seen: Value = serde_json::from_slice(&answer.body)?;
    assert_eq!(seen["method"], "PUT");
    assert_eq!(seen["path"], "/headers?a=b");
    assert_eq!(seen["authority"], "example.test");
    assert_eq!(seen["headers"]["x-own"], serde_json::json!(["one", "two"]));
    assert_eq!(seen["headers"]["x-tombolo-client-ip"][0], "127.0.0.1");
    assert!(!answer.text().contains("forged"), "{seen}");
    let passed_on = seen["headers"]["traceparent"][0].to_string();
    assert!(passed_on.contains("4bf92f3577b34da6a3ce929d0e0e4736"));
    assert_eq!(answer.header("x-request-id"), Some("given-by-the-client"));
    Ok(())
}

#[tokio::test]
async fn a_trap_is_an_answer_with_a_cause_and_no_end_of_the_node() -> Result<()> {
    for guest in ["http-kitchen", "http-p3"] {
        let server = Server::serve(guest, &[])?;
        let client = server.client();
        for _ in 0..3 {
            let answer = client.get("/trap").await?;
            assert_eq!(answer.status, 502, "{}", answer.text());
            let problem = answer.problem()?;
            assert_eq!(problem["code"], "TB0301");
            assert_eq!(problem["blame"], "guest");
            assert!(problem["request_id"].is_string());
        }
        assert_eq!(client.get("/leak").await?.text(), "1");
    }
    Ok(())
}

#[tokio::test]
async fn no_answer_and_an_error_for_an_answer_are_told_apart() -> Result<()> {
    let server = Server::serve("http-kitchen", &[])?;
    let client = server.client();
    let none = client.get("/none").await?;
    assert_eq!(
        (none.status.as_u16(), &none.problem()?["code"]),
        (502, &"TB0307".into())
    );
    let error = client.get("/error").await?;
    assert_eq!(
        (error.status.as_u16(), &error.problem()?["code"]),
        (502, &"TB0311".into())
    );
    Ok(())
}

#[tokio::test]
async fn an_answer_that_breaks_is_cut_and_never_ended() -> Result<()> {
    for guest in ["http-kitchen", "http-p3"] {
        let server = Server::serve(guest, &[])?;
        for client in [server.client(), server.client_http2()] {
            // The head may still be held back when the trap comes: then it is a plain 502.
            match client.get("/break").await {
                Ok(answer) if answer.status == 200 => {
                    assert!(!answer.whole, "{guest}: it looks whole");
                }
                Ok(answer) => assert_eq!(answer.status, 502),
                // Over HTTP/2 the reset may overtake the head on its way through the client.
                Err(error) => assert!(format!("{error:#}").contains("stream error"), "{error:#}"),
            }
            assert_eq!(client.get("/leak").await?.text(), "1");
        }
    }
    Ok(())
}

#[tokio::test]
async fn on_sigterm_answers_in_flight_are_finished_and_the_exit_code_is_0() -> Result<()> {
    for guest in ["http-kitchen", "http-p3"] {
        let mut server = Server::serve(guest, &[])?;
        let mut held = server.client().converse("/echo", "before").await?;
        assert_eq!(held.hear(6).await?, "before");
        server.terminate()?;
        // New connections are refused as soon as the listener is gone.
        while server
            .client()
            .get("/leak")
            .await
            .is_ok_and(|a| a.status == 200)
        {
            tokio::task::yield_now().await;
        }
        held.say("after").await?;
        assert_eq!(held.end().await?, "after");
        assert_eq!(server.wait()?.code(), Some(0), "{}", server.log());
    }
    Ok(())
}

#[tokio::test]
async fn a_store_in_use_is_refused_with_its_owner() -> Result<()> {
    let app = App::new("http-hello", "")?;
    let server = app.up()?;
    let second = app.run(&["up", "--listen", "127.0.0.1:0"])?;
    assert_eq!(second.code, Some(7), "{}", second.stderr);
    assert!(second.stderr.contains("error[TB0501]"), "{}", second.stderr);
    assert_eq!(server.client().get("/").await?.status, 200);
    Ok(())
}
