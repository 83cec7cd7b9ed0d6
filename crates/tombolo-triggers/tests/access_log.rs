//! The access log: one event for each request, when it is enabled.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test says with a panic that something is wrong"
)]

#[path = "http/support.rs"]
#[allow(dead_code, reason = "shared with the larger test")]
mod support;

use std::io::Write;
use std::sync::{Arc, Mutex};

use support::{Server, config, function_route, get};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let mut lines = self.0.lock().expect("no test panics while it writes");
        lines.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_request_is_one_event() {
    let lines = Lines::default();
    let writer = lines.clone();
    tracing_subscriber::fmt()
        .json()
        .with_writer(move || writer.clone())
        .init();
    for (access_log, path) in [(true, "/hello"), (true, "/cut"), (false, "/slow")] {
        let mut config = config();
        config.access_log = access_log;
        let server = Server::with_routes(config, vec![function_route(path)], false);
        let mut request = get(&format!("{path}?token=hidden"));
        request
            .headers_mut()
            .insert("x-request-id", "r1".parse().unwrap());
        let _ = server.http1().await.send(request).await;
        server.shutdown.cancel();
        server.stopped().await;
    }
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("hidden"), "queries may hold secrets: {text}");
    let events: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|event: &serde_json::Value| event["target"] == "access")
        .collect();
    assert_eq!(events.len(), 2, "{text}");
    let fields = &events[0]["fields"];
    assert_eq!(fields["http.request.method"], "GET");
    assert_eq!(fields["url.path"], "/hello");
    assert_eq!(fields["http.response.status_code"], 200);
    assert_eq!(fields["http.response.body.size"], 5);
    assert_eq!(fields["faas.invocation_id"], "r1");
    assert_eq!(
        (&fields["cut"], &events[1]["fields"]["cut"]),
        (&false.into(), &true.into())
    );
}
