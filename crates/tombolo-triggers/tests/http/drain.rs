//! Shutdown: what was begun is finished, nothing that was sent is lost, and what does not end is cut.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tombolo_manifest::HttpConfig;

use crate::support::*;

/// Asks again and again, over new connections when the server ends one, until it takes no more.
async fn ask_until_refused(address: std::net::SocketAddr) -> usize {
    let mut answered = 0;
    loop {
        let Ok(stream) = tokio::net::TcpStream::connect(address).await else {
            return answered;
        };
        let mut client = Http1::new(stream).await;
        loop {
            let answer = client.send(get("/slow")).await;
            let answer = answer.expect("a request that was sent is answered whole");
            assert_eq!((answer.status, answer.text()), (200, "slow"));
            answered += 1;
            if answer.header("connection") == "close" {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_loses_no_request() {
    let server = Server::start();
    let clients: Vec<_> = (0..32)
        .map(|_| tokio::spawn(ask_until_refused(server.address)))
        .collect();
    let mut http2 = server.http2().await;
    let multiplexed = tokio::spawn(async move {
        // A GOAWAY makes the client not ready; what it has sent before is answered.
        while http2.0.ready().await.is_ok() {
            match http2.send(get("/slow")).await {
                Ok(answer) => assert_eq!(answer.text(), "slow"),
                Err(error) => assert!(error.is_canceled(), "never sent: {error:?}"),
            }
        }
    });
    while !server
        .telemetry
        .render_metrics()
        .contains("http_response_status_code=\"200\"")
    {
        tokio::task::yield_now().await;
    }
    server.shutdown.cancel();
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
    multiplexed.await.unwrap();
    server.stopped().await;
}

#[tokio::test]
async fn idle_connections_do_not_hold_a_drain_up() {
    let server = Server::with(HttpConfig {
        drain_timeout: Duration::from_secs(600),
        ..config()
    });
    let mut http1 = server.http1().await;
    let mut http2 = server.http2().await;
    assert_eq!(http1.send(get("/hello")).await.unwrap().status, 200);
    assert_eq!(http2.send(get("/hello")).await.unwrap().status, 200);
    let silent = server.connect().await;
    server.shutdown.cancel();
    server.stopped().await;
    drop(silent);
}

#[tokio::test]
async fn an_answer_under_way_is_finished_before_the_end() {
    let server = Server::start();
    let mut http2 = server.http2().await;
    let mut stream = server.connect().await;
    stream
        .write_all(b"POST /sink HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n")
        .await
        .unwrap();
    let (parts, body) = channel_body();
    let uploading = tokio::spawn(async move { http2.send(post("/sink", body)).await });
    while server.telemetry.http().active_requests() < 2 {
        tokio::task::yield_now().await;
    }
    server.shutdown.cancel();
    // The listener is closed once nobody can connect any more.
    while tokio::net::TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    stream.write_all(b"body").await.unwrap();
    drop(parts);
    let text = read_all(&mut stream).await;
    assert!(
        text.starts_with("HTTP/1.1 200 ") && text.ends_with("4\n"),
        "{text}"
    );
    assert!(text.contains("connection: close\r\n"), "{text}");
    assert_eq!(uploading.await.unwrap().unwrap().text(), "0\n");
    server.stopped().await;
}

#[tokio::test]
async fn what_does_not_end_is_cut_at_the_deadline() {
    let mut server = Server::with(HttpConfig {
        drain_timeout: Duration::from_millis(200),
        ..config()
    });
    let mut http1 = server.http1().await;
    let never = tokio::spawn(async move { http1.send(get("/never")).await });
    while server.telemetry.http().active_requests() < 1 {
        tokio::task::yield_now().await;
    }
    server.shutdown.cancel();
    server.dropped.recv().await.unwrap();
    assert!(never.await.unwrap().is_err());
    server.stopped().await;
}
