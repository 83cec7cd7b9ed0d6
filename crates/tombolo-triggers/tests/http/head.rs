//! Routes, headers and refusals.

use http::{Request, header};
use tokio::io::AsyncWriteExt as _;
use tombolo_core::Code;
use tombolo_triggers::http::{HttpServer, Routes};

use crate::support::*;

#[tokio::test]
async fn both_protocols_reach_the_function() {
    let server = Server::start();
    let answer = server.get("/hello").await;
    assert_eq!((answer.status, answer.text()), (200, "hello"));
    let mut client = server.http2().await;
    for _ in 0..3 {
        let answer = client.send(get("/hello/world")).await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, "hello"));
    }
}

#[tokio::test]
async fn every_refusal_is_a_problem_with_the_status_of_the_contract() {
    let server = Server::start();
    for (path, status, code) in [
        ("/nothing", 404, Code::NoRoute),
        ("/_tombolo/healthz", 404, Code::NoRoute),
        ("/busy", 429, Code::Busy),
        ("/trap", 502, Code::Trap),
        ("/informational", 502, Code::AnswerInvalid),
    ] {
        server.get(path).await.problem(status, code);
        server
            .http2()
            .await
            .send(get(path))
            .await
            .unwrap()
            .problem(status, code);
    }
    let busy = server.get("/busy").await;
    assert_eq!(busy.header("retry-after"), "1");
    let trap = server.get("/trap").await.problem(502, Code::Trap);
    assert!(
        trap.get("backtrace").is_none(),
        "strangers see no backtrace"
    );
}

#[tokio::test]
async fn headers_have_bounds_in_number_and_in_length() {
    let server = Server::start();
    let many = || {
        let mut request = get("/hello");
        for index in 0..120 {
            request.headers_mut().append("x-filler", index.into());
        }
        request
    };
    let long = || {
        let mut request = get("/hello");
        let value = "v".repeat(70_000).parse().unwrap();
        request.headers_mut().insert("x-filler", value);
        request
    };
    let mut client = server.http2().await;
    for request in [many, long as fn() -> Request<_>] {
        let answer = server.http1().await.send(request()).await.unwrap();
        answer.problem(431, Code::HeadersTooLong);
        let answer = client.send(request()).await.unwrap();
        answer.problem(431, Code::HeadersTooLong);
    }
    // Far beyond the bounds the parser stops reading.
    let huge = format!(
        "GET /hello HTTP/1.1\r\nhost: a\r\nx: {}",
        "v".repeat(200_000)
    );
    let answer = server.raw(&huge).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(answer.contains("\"code\":\"TB0403\""), "{answer}");
}

#[tokio::test]
async fn what_is_no_http_is_refused_with_a_problem() {
    let server = Server::start();
    for request in [
        "GET /hello HTTP/9.9\r\nhost: a\r\n\r\n",
        "GET /hello HTTP/1.1\r\nbad header\r\n\r\n",
        "\u{1}\u{2}\u{3} nonsense\r\n\r\n",
    ] {
        // On a new connection, and on one that has served.
        let mut used = server.connect().await;
        used.write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        read_until(&mut used, "hello").await;
        used.write_all(request.as_bytes()).await.unwrap();
        for answer in [server.raw(request).await, read_all(&mut used).await] {
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
            assert!(answer.contains("\"code\":\"TB0407\""), "{answer}");
            assert!(answer.contains("x-request-id: "), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_request_without_its_one_host_is_refused() {
    let server = Server::start();
    for hosts in ["", "host: a\r\nhost: b\r\n"] {
        let request = format!("GET /hello HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
        let answer = server.raw(&request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
}

#[tokio::test]
async fn the_function_sees_the_hosts_headers_and_none_of_a_clients_making() {
    let server = Server::start();
    let mut request = get("/headers");
    for name in [
        "x-tombolo-node",
        "x-tombolo-country",
        "X-Tombolo-Trigger",
        "x-tombolo-made-up",
    ] {
        request.headers_mut().append(
            name.to_lowercase().parse::<http::HeaderName>().unwrap(),
            "forged".parse().unwrap(),
        );
    }
    request
        .headers_mut()
        .insert("ce-id", "mine".parse().unwrap());
    let answer = server.http1().await.send(request).await.unwrap();
    let seen = answer.text();
    assert!(!seen.contains("forged"), "{seen}");
    for line in [
        "x-tombolo-client-ip: 127.0.0.1\n",
        "x-tombolo-tier: device\n",
        "x-tombolo-node: harbour\n",
        "ce-id: mine\n",
        "host: tests\n",
    ] {
        assert!(seen.contains(line), "{line} in {seen}");
    }
}

#[tokio::test]
async fn trace_and_request_id_go_in_and_come_out() {
    let server = Server::start();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let sent = format!("00-{trace}-b7ad6b7169203331-01");
    let mut request = get("/headers");
    request
        .headers_mut()
        .insert("traceparent", sent.parse().unwrap());
    request
        .headers_mut()
        .insert("x-request-id", "order 66".parse().unwrap());
    let answer = server.http1().await.send(request).await.unwrap();
    let traceparent = answer.header("traceparent");
    assert!(traceparent.starts_with(&format!("00-{trace}-")) && traceparent.ends_with("-01"));
    assert_ne!(
        traceparent, sent,
        "the function's parent is the server's span"
    );
    assert!(
        answer
            .text()
            .contains(&format!("traceparent: {traceparent}\n"))
    );
    assert_eq!(answer.header("x-request-id"), "order 66");

    let answer = server.get("/context").await;
    let expected = format!(
        "{} {} Some(127.0.0.1)",
        answer.header("traceparent"),
        answer.header("x-request-id")
    );
    assert_eq!(
        answer.text(),
        expected,
        "without a client's, both are made here"
    );
}

#[tokio::test]
async fn only_a_verbose_listener_tells_times_and_backtraces() {
    let plain = Server::start().get("/hello").await;
    assert!(!plain.headers.contains_key("server-timing"));
    let routes = vec![function_route("/hello"), function_route("/trap")];
    let verbose = Server::with_routes(config(), routes, true);
    let answer = verbose.get("/hello").await;
    assert!(answer.header("server-timing").starts_with("tombolo;dur="));
    let problem = verbose.get("/trap").await.problem(502, Code::Trap);
    assert_eq!(problem["backtrace"], "0: signal::plan");
}

#[tokio::test]
async fn head_calls_the_function_and_drops_the_body() {
    let server = Server::start();
    for path in ["/hello", "/sized", "/busy", "/cut"] {
        let head = || {
            Request::builder()
                .method("HEAD")
                .uri(path)
                .header("host", "tests")
        };
        let text = server
            .raw(&format!(
                "HEAD {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
            ))
            .await;
        assert!(text.ends_with("\r\n\r\n"), "no body follows: {text}");
        let request = head().body(get("/").into_body()).unwrap();
        let answer = server.http2().await.send(request).await.unwrap();
        assert!(answer.body.is_empty());
    }
    let text = server
        .raw("HEAD /sized HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await;
    assert!(text.contains("content-length: 5\r\n"), "{text}");
}

#[tokio::test]
async fn a_new_table_is_taken_over_with_the_next_request() {
    let server = Server::with_routes(config(), vec![function_route("/hello")], false);
    let mut client = server.http1().await;
    assert_eq!(client.send(get("/slow")).await.unwrap().status, 404);
    let routes = vec![function_route("/hello"), function_route("/slow")];
    server
        .routes
        .send(Routes::new(routes).unwrap().into())
        .unwrap();
    let answer = client.send(get("/slow")).await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, "slow"));
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let server = Server::start();
    let mut taken = config();
    taken.listen = vec![server.address];
    let error = HttpServer::bind(&taken).unwrap_err();
    assert_eq!(error.code(), Code::AddressInUse);
    assert!(
        error.to_string().contains(&server.address.to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn requests_and_connections_are_counted() {
    let server = Server::start();
    server.get("/hello").await;
    server.get("/trap").await;
    let metrics = server.telemetry.render_metrics();
    for status in ["200", "502"] {
        let line = format!("http_response_status_code=\"{status}\"}} 1");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let one = "GET /slow HTTP/1.1\r\nhost: a\r\n\r\nGET /hello HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let text = server.raw(one).await;
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
    assert!(text.find("slo") < text.find("hello"), "{text}");
    assert!(text.contains(header::DATE.as_str()));
}
