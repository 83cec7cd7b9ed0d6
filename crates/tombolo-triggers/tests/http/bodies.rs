//! Bodies: streamed both ways, bounded, with trailers, and cut rather than ended when they break.

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tombolo_core::Code;
use tombolo_manifest::HttpConfig;

use crate::support::*;

fn bounded(body_bytes_max: u64) -> HttpConfig {
    HttpConfig {
        body_bytes_max,
        ..config()
    }
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let server = Server::start();
    let mut http1 = server.http1().await;
    let mut http2 = server.http2().await;
    for is_http2 in [false, true] {
        let (parts, body) = channel_body();
        let request = post("/echo", body);
        let response = if is_http2 {
            let mut request = request;
            *request.uri_mut() = "http://tests/echo".parse().unwrap();
            http2.0.send_request(request).await
        } else {
            http1.0.send_request(request).await
        };
        let mut body = response.unwrap().into_body();
        for text in ["ping", "pong"] {
            parts.send(Frame::data(Bytes::from(text))).await.unwrap();
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), text);
        }
        drop(parts);
        assert!(body.collect().await.unwrap().to_bytes().is_empty());
    }
    assert_eq!(http2.send(get("/hello")).await.unwrap().text(), "hello");
}

#[tokio::test]
async fn trailers_go_both_ways() {
    let server = Server::start();
    let with_trailers = || async {
        let (parts, body) = channel_body();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().unwrap());
        trailers.insert("x-tombolo-node", "forged".parse().unwrap());
        tokio::spawn(async move {
            let _ = parts.send(Frame::data(Bytes::from("seven b"))).await;
            let _ = parts.send(Frame::trailers(trailers)).await;
        });
        let mut request = post("/sink", body);
        request
            .headers_mut()
            .insert("trailer", "x-sum, x-tombolo-node".parse().unwrap());
        request
    };
    let answer = server
        .http1()
        .await
        .send(with_trailers().await)
        .await
        .unwrap();
    assert_eq!(answer.text(), "7\nx-sum: 7\n", "over HTTP/1.1");
    let answer = server
        .http2()
        .await
        .send(with_trailers().await)
        .await
        .unwrap();
    assert_eq!(answer.text(), "7\nx-sum: 7\n", "over HTTP/2");

    let mut request = get("/trailers");
    request
        .headers_mut()
        .insert("te", "trailers".parse().unwrap());
    let answer = server.http1().await.send(request).await.unwrap();
    assert_eq!(
        (
            answer.text(),
            answer.trailers.as_ref().unwrap()["x-sum"].as_bytes()
        ),
        ("data", &b"42"[..])
    );
    let answer = server.http2().await.send(get("/trailers")).await.unwrap();
    assert_eq!(
        (
            answer.text(),
            answer.trailers.as_ref().unwrap()["x-sum"].as_bytes()
        ),
        ("data", &b"42"[..])
    );
}

#[tokio::test]
async fn an_answer_that_breaks_is_cut() {
    let server = Server::start();
    for path in ["/cut", "/short", "/empty"] {
        let error = server.http1().await.send(get(path)).await.unwrap_err();
        assert!(!error.is_user(), "{path} over HTTP/1.1: {error:?}");
        let mut client = server.http2().await;
        let error = client.send(get(path)).await.unwrap_err();
        assert!(
            format!("{error:?}").contains("INTERNAL_ERROR"),
            "{path} over HTTP/2: {error:?}"
        );
        assert_eq!(
            client.send(get("/hello")).await.unwrap().text(),
            "hello",
            "only the stream"
        );
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_sees_a_cut_too() {
    let server = Server::start();
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /cut HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut text = Vec::new();
    let error = stream.read_to_end(&mut text).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_body_announced_too_long_is_refused_before_it_is_sent() {
    let server = Server::with(bounded(1000));
    let request =
        "POST /sink HTTP/1.1\r\nhost: a\r\ncontent-length: 1001\r\nexpect: 100-continue\r\n\r\n";
    let mut stream = server.connect().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    let answer = server
        .http1()
        .await
        .send(post("/sink", sized(1000)))
        .await
        .unwrap();
    assert_eq!(answer.text(), "1000\n", "at the bound it is taken");
    let answer = server
        .http2()
        .await
        .send(post("/sink", sized(1001)))
        .await
        .unwrap();
    answer.problem(413, Code::BodyTooLong);
}

#[tokio::test]
async fn a_body_that_grows_too_long_is_refused_while_it_streams() {
    let server = Server::with(bounded(1000));
    for is_http2 in [false, true] {
        let (parts, body) = channel_body();
        let sending = tokio::spawn(async move {
            while parts
                .send(Frame::data(Bytes::from(vec![0; 400])))
                .await
                .is_ok()
            {}
        });
        let request = post("/sink", body);
        let answer = if is_http2 {
            server.http2().await.send(request).await
        } else {
            server.http1().await.send(request).await
        };
        answer.unwrap().problem(413, Code::BodyTooLong);
        sending.abort();
    }
}

#[tokio::test]
async fn a_client_that_sends_all_before_it_reads_still_sees_the_refusal() {
    let server = Server::with(bounded(1000));
    let mut stream = server.connect().await;
    let length = 500_000;
    let head = format!("POST /sink HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; length]).await.unwrap();
    let text = read_all(&mut stream).await;
    assert!(
        text.starts_with("HTTP/1.1 413 ") && text.contains("TB0402"),
        "{text}"
    );
}

#[tokio::test]
async fn the_body_is_asked_for_only_when_the_function_wants_it() {
    let server = Server::start();
    let head = "POST /sink HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n";
    let mut stream = server.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let interim = read_until(&mut stream, "\r\n\r\n").await;
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    stream.write_all(b"body").await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("4\n"),
        "{answer}"
    );

    let head = head.replace("/sink", "/busy");
    let answer = server.raw(&head).await;
    assert!(
        answer.starts_with("HTTP/1.1 429 "),
        "no 100 Continue before a refusal: {answer}"
    );
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_invocation() {
    let mut server = Server::start();
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /never HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut http2 = server.http2().await;
    let pending = tokio::spawn(async move { http2.send(get("/never")).await });
    while server.telemetry.http().active_requests() < 2 {
        tokio::task::yield_now().await;
    }
    drop(stream);
    server.dropped.recv().await.unwrap();
    pending.abort();
    server.dropped.recv().await.unwrap();
}

fn sized(length: usize) -> tombolo_core::Body {
    http_body_util::Full::new(Bytes::from(vec![0; length]))
        .map_err(|never: std::convert::Infallible| match never {})
        .boxed_unsync()
}

#[tokio::test]
async fn a_long_body_arrives_whole() {
    let server = Server::start();
    let length = 5 << 20;
    let mut http2 = server.http2().await;
    let request: Request<_> = post("/echo", sized(length));
    assert_eq!(http2.send(request).await.unwrap().body.len(), length);
    let answer = server
        .http1()
        .await
        .send(post("/echo", sized(length)))
        .await
        .unwrap();
    assert_eq!(answer.body.len(), length);
}
