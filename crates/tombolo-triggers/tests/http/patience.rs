//! Slow clients, idle connections and the bound of connections.

use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tombolo_core::Code;
use tombolo_manifest::HttpConfig;

use crate::support::*;

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_head_that_comes_in_drops_is_refused() {
    let server = Server::with(HttpConfig {
        header_timeout: SHORT,
        ..config()
    });
    let (mut reading, mut writing) = server.connect().await.into_split();
    let dripping = tokio::spawn(async move {
        writing
            .write_all(b"GET /hello HTTP/1.1\r\nhost: a\r\nx: ")
            .await
            .unwrap();
        // Each drop alone is in time: it is the whole head that has a bound.
        while writing.write_all(b"y").await.is_ok() {
            tokio::time::sleep(SHORT / 10).await;
        }
    });
    let head = read_until(&mut reading, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    assert!(head.contains("application/problem+json"), "{head}");
    dripping.abort();
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed() {
    let server = Server::with(HttpConfig {
        header_timeout: SHORT,
        ..config()
    });
    assert_eq!(server.raw("").await, "", "one that never says anything");
    assert_eq!(
        server.raw("PRI * HT").await,
        "",
        "one that stops within the preface"
    );

    let server = Server::with(HttpConfig {
        idle_timeout: SHORT,
        ..config()
    });
    let text = server.raw("GET /hello HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(
        text.ends_with("hello"),
        "one that was served and says nothing more: {text}"
    );
    let mut http2 = server.http2().await;
    assert_eq!(http2.send(get("/hello")).await.unwrap().status, 200);
    while http2.0.ready().await.is_ok() {
        tokio::time::sleep(SHORT / 10).await;
    }
}

#[tokio::test]
async fn an_idle_connection_may_be_idle_for_longer_than_a_head_may_take() {
    let server = Server::with(HttpConfig {
        header_timeout: SHORT,
        ..config()
    });
    let mut http1 = server.http1().await;
    let mut http2 = server.http2().await;
    for _ in 0..2 {
        assert_eq!(http1.send(get("/hello")).await.unwrap().status, 200);
        assert_eq!(http2.send(get("/hello")).await.unwrap().status, 200);
        tokio::time::sleep(SHORT * 2).await;
    }
}

#[tokio::test]
async fn a_body_that_stops_coming_is_refused() {
    let server = Server::with(HttpConfig {
        body_idle_timeout: SHORT,
        ..config()
    });
    for is_http2 in [false, true] {
        let (parts, body) = channel_body();
        parts.send(Frame::data(Bytes::from("first"))).await.unwrap();
        let request = post("/sink", body);
        let answer = if is_http2 {
            server.http2().await.send(request).await
        } else {
            server.http1().await.send(request).await
        };
        answer.unwrap().problem(408, Code::ClientTooSlow);
        drop(parts);
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_holds_no_invocation() {
    let mut server = Server::with(HttpConfig {
        body_idle_timeout: SHORT,
        ..config()
    });
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    server.dropped.recv().await.unwrap();

    let mut http2 = Http2::with_window(server.connect().await, 1000).await;
    let mut request = get("/endless");
    *request.uri_mut() = "http://tests/endless".parse().unwrap();
    let response = http2.0.send_request(request).await.unwrap();
    server.dropped.recv().await.unwrap();
    assert_eq!(
        http2.send(get("/hello")).await.unwrap().status,
        200,
        "only the stream is reset"
    );
    drop(response);
    drop(stream);
}

#[tokio::test]
async fn a_client_that_takes_slowly_is_not_cut() {
    let server = Server::with(HttpConfig {
        body_idle_timeout: SHORT * 5,
        ..config()
    });
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(32 << 10).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    stream
        .write_all(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let end = tokio::time::Instant::now() + SHORT * 12;
    let mut part = vec![0; 256 << 10];
    while tokio::time::Instant::now() < end {
        stream.read_exact(&mut part).await.unwrap();
        tokio::time::sleep(SHORT / 20).await;
    }
}

#[tokio::test]
async fn connections_beyond_the_bound_wait() {
    let server = Server::with(HttpConfig {
        connections_max: 2,
        ..config()
    });
    let mut first = server.http1().await;
    let mut second = server.http1().await;
    assert_eq!(first.send(get("/hello")).await.unwrap().status, 200);
    assert_eq!(second.send(get("/hello")).await.unwrap().status, 200);
    let mut third = server.http1().await;
    let waiting = tokio::spawn(async move { third.send(get("/hello")).await });
    for _ in 0..20 {
        assert_eq!(first.send(get("/hello")).await.unwrap().status, 200);
    }
    assert!(!waiting.is_finished() && server.telemetry.http().connections() == 2);
    drop(second);
    assert_eq!(waiting.await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn a_client_has_no_more_connections_than_its_share() {
    let server = Server::with(HttpConfig {
        connections_per_client_max: 2,
        ..config()
    });
    let mut first = server.http1().await;
    let mut second = server.http1().await;
    assert_eq!(first.send(get("/hello")).await.unwrap().status, 200);
    assert_eq!(second.send(get("/hello")).await.unwrap().status, 200);
    let mut third = server.connect().await;
    assert_eq!(third.read(&mut [0]).await.unwrap_or(0), 0);
    assert_eq!(first.send(get("/hello")).await.unwrap().status, 200);
    drop(second);
    while server.telemetry.http().connections() > 1 {
        tokio::task::yield_now().await;
    }
    let mut fourth = server.http1().await;
    assert_eq!(fourth.send(get("/hello")).await.unwrap().status, 200);
}

#[tokio::test]
async fn an_answer_that_is_not_read_ends_at_its_deadline() {
    let mut server = Server::with(HttpConfig {
        body_idle_timeout: Duration::from_secs(600),
        ..config()
    });
    let mut stream = server.connect().await;
    let request = b"GET /unread HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(request).await.unwrap();
    server.dropped.recv().await.unwrap();
    let mut http2 = Http2::with_window(server.connect().await, 1000).await;
    let mut request = get("/unread");
    *request.uri_mut() = "http://tests/unread".parse().unwrap();
    let answer = http2.0.send_request(request).await.unwrap();
    server.dropped.recv().await.unwrap();
    assert_eq!(
        http2.send(get("/hello")).await.unwrap().status,
        200,
        "only the stream is reset"
    );
    drop((answer, stream));
}

#[tokio::test]
async fn each_head_has_its_own_time() {
    let server = Server::with(HttpConfig {
        header_timeout: SHORT * 2,
        ..config()
    });
    let mut stream = server.connect().await;
    for _ in 0..4 {
        stream.write_all(b"GET /sized HTTP/1.1\r\n").await.unwrap();
        tokio::time::sleep(SHORT).await;
        stream.write_all(b"host: a\r\n\r\n").await.unwrap();
        let answer = read_until(&mut stream, "hello").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}
