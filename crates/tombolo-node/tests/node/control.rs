//! What the admin listener answers, and to whom.

use std::os::unix::fs::PermissionsExt as _;
use std::time::SystemTime;

use crate::support::{Connection, LONG, Running, Site};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use tombolo_api::{ClientError, LogQuery, path};
use tombolo_core::{Code, FunctionId, LogLevel};
use tombolo_telemetry::{LogEntry, LogStream};

fn id(function: &str) -> FunctionId {
    FunctionId {
        app: "demo".parse().unwrap(),
        function: function.parse().unwrap(),
    }
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(path).body(Empty::new()).unwrap()
}

fn refused(error: ClientError) -> Code {
    let ClientError::Refused(problem) = error else {
        panic!("{error}")
    };
    problem.code()
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_for_all_the_api_for_the_token() {
    let site = Site::new();
    let node = site
        .start(vec![site.app("demo", "hello", 201, 1)])
        .await
        .unwrap();
    assert_eq!(node.get("/demo").await, 201);
    for open in ["/_tombolo/healthz", "/_tombolo/readyz"] {
        assert_eq!(node.admin(get(open)).await.status(), 200, "{open}");
    }
    let metrics = node.admin(get("/_tombolo/metrics")).await;
    let kind = metrics.headers()["content-type"].to_str().unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let text = String::from_utf8(metrics.into_body().into()).unwrap();
    let line = r#"faas_invocations_total{app="demo",function="hello"} 1"#;
    assert!(text.lines().any(|seen| seen == line), "{text}");

    let token = site.address().unwrap().token;
    let wrong = format!("Bearer {}", "0".repeat(token.len()));
    for path in [path::APPS, path::LOGS, "/_tombolo/api/v1/absent"] {
        let bare = node.admin(get(path)).await;
        assert_eq!(bare.status(), 401, "{path}");
        assert_eq!(bare.headers()["www-authenticate"], "Bearer");
        assert_eq!(bare.headers()["content-type"], "application/problem+json");
        let mut request = get(path);
        request
            .headers_mut()
            .insert("authorization", wrong.parse().unwrap());
        assert_eq!(node.admin(request).await.status(), 401, "{path}");
    }
    let right = |mut request: Request<Empty<Bytes>>| {
        let value = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", value);
        request
    };
    assert_eq!(node.admin(right(get(path::APPS))).await.status(), 200);
    assert_eq!(
        node.admin(right(get("/_tombolo/api/v1/absent")))
            .await
            .status(),
        404
    );
    let post = Request::post(path::APPS).body(Empty::new()).unwrap();
    assert_eq!(node.admin(right(post)).await.status(), 405);
    // The listener of functions serves none of it.
    assert_eq!(node.get("/_tombolo/healthz").await, 404);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_the_node_is_the_owners_alone() {
    let site = Site::new();
    let node = site.start(Vec::new()).await.unwrap();
    let metadata = std::fs::metadata(site.path().join("store/node.json")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let told = node.client.node().await.unwrap();
    assert_eq!(told.pid, std::process::id());
    assert_eq!(told.http, node.handle.http_addrs());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_functions_and_triggers_are_described() {
    let site = Site::new();
    let app = site.app_with("demo", "hello", 201, 1, "env = { CITY = \"Portland\" }");
    let node = site.start(vec![app]).await.unwrap();
    assert_eq!(node.get("/demo").await, 201);
    let app = node.client.app("demo").await.unwrap();
    assert_eq!((app.version.as_str(), app.triggers), ("1.0.0", 1));
    let function = node.client.function(&id("hello")).await.unwrap();
    assert_eq!(function.world, "wasi:http 0.2");
    assert_eq!(function.env, ["CITY"]);
    assert_eq!(function.limits.wall_ms, 300_000);
    assert_eq!(function.triggers[0].route, "/demo");
    assert_eq!(function.usage.invocations, 1);
    assert!(function.code_loaded && function.usage.gb_seconds > 0.0);
    assert_eq!(node.client.functions().await.unwrap().items.len(), 1);
    assert_eq!(
        node.client.triggers().await.unwrap().items,
        function.triggers
    );
    assert_eq!(
        refused(node.client.app("absent").await.unwrap_err()),
        Code::NotFound
    );
    let absent = node.client.function(&id("absent")).await;
    assert_eq!(refused(absent.unwrap_err()), Code::NotFound);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_invokes_functions() {
    let site = Site::new();
    let node = site
        .start(vec![site.app("demo", "hello", 201, 1)])
        .await
        .unwrap();
    let request = || {
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        Request::get("/x")
            .header("x-request-id", "mine")
            .body(body)
            .unwrap()
    };
    let answer = node.client.invoke(&id("hello"), request()).await.unwrap();
    assert_eq!(answer.head.status, 201);
    assert_eq!(answer.head.headers["x-request-id"], "mine");
    let absent = node.client.invoke(&id("absent"), request()).await;
    assert_eq!(refused(absent.unwrap_err()), Code::NotFound);
    node.stop().await;
}

fn log(node: &Running, message: &str, level: LogLevel) {
    node.telemetry.logs().push(LogEntry {
        time: SystemTime::now(),
        app: "demo".parse().unwrap(),
        function: "hello".parse().unwrap(),
        request_id: "r1".into(),
        trace_id: "0".repeat(32),
        stream: LogStream::Stdout,
        level,
        message: message.into(),
        fields: serde_json::Map::new(),
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_filtered_followed_and_end_with_the_node() {
    let site = Site::new();
    let node = site.start(Vec::new()).await.unwrap();
    log(&node, "red one", LogLevel::Warn);
    log(&node, "green", LogLevel::Info);
    let query = LogQuery {
        grep: Some("^red".into()),
        follow: true,
        ..LogQuery::default()
    };
    let mut followed = node.client.logs(&query).await.unwrap();
    assert_eq!(followed.next().await.unwrap().unwrap().message, "red one");
    log(&node, "green again", LogLevel::Info);
    log(&node, "red two", LogLevel::Warn);
    assert_eq!(followed.next().await.unwrap().unwrap().message, "red two");

    let level = LogQuery {
        level: Some(LogLevel::Warn),
        tail: Some(1),
        ..LogQuery::default()
    };
    let mut recent = node.client.logs(&level).await.unwrap();
    assert_eq!(recent.next().await.unwrap().unwrap().message, "red two");
    assert!(recent.next().await.unwrap().is_none());

    let bad = LogQuery {
        grep: Some("(".into()),
        ..LogQuery::default()
    };
    assert_eq!(
        refused(node.client.logs(&bad).await.unwrap_err()),
        Code::BadRequest
    );
    node.stop().await;
    assert!(
        followed.next().await.unwrap().is_none(),
        "the stream ends whole"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_drains_says_so_until_its_last_answer() {
    let site = Site::new();
    let node = site
        .start(vec![site.app("demo", "hello", 201, LONG)])
        .await
        .unwrap();
    let (http, admin) = (node.http(), node.handle.admin_addr());
    let last = tokio::spawn(async move { Connection::open(http).await.get("/demo").await });
    let usage = node.telemetry.function(&id("hello"));
    while usage.snapshot().running == 0 {
        tokio::task::yield_now().await;
    }
    let mut probe = Connection::open(admin).await;
    assert_eq!(probe.get("/_tombolo/readyz").await, 200);
    node.shutdown.cancel();
    while probe.get("/_tombolo/readyz").await == 200 {}
    assert_eq!(probe.get("/_tombolo/readyz").await, 503);
    assert_eq!(last.await.unwrap(), 201);
    node.task.await.unwrap().unwrap();
}
