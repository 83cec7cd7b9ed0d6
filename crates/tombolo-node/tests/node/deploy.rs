//! Apps come to a node, are replaced while requests run, and stay when their successor is no good.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Connection, LONG, Site};
use tombolo_core::{Call, CallContext, Code, FunctionId};
use tombolo_node::Node;

fn id(app: &str, function: &str) -> FunctionId {
    FunctionId {
        app: app.parse().unwrap(),
        function: function.parse().unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_served_and_the_store_is_free_afterwards() {
    let site = Site::new();
    let node = site
        .start(vec![site.app("demo", "hello", 201, 1)])
        .await
        .unwrap();
    assert_eq!(node.get("/demo").await, 201);
    assert_eq!(node.get("/elsewhere").await, 404);
    assert_eq!(
        node.telemetry
            .function(&id("demo", "hello"))
            .snapshot()
            .invocations,
        1
    );
    node.stop().await;
    assert!(site.address().is_none(), "node.json is left behind");
    site.start(Vec::new()).await.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_follow_one_another_without_a_lost_request() {
    let site = Site::new();
    let node = site
        .start(vec![site.app("demo", "first", 201, 1)])
        .await
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let (stop, address) = (stop.clone(), node.http());
            tokio::spawn(async move {
                let mut connection = Connection::open(address).await;
                let mut statuses = BTreeMap::<u16, u64>::new();
                while !stop.load(Ordering::Relaxed) {
                    *statuses.entry(connection.get("/demo").await).or_default() += 1;
                }
                statuses
            })
        })
        .collect();
    for round in 0..10 {
        // The function gets another name each time: old routes must not lead to nothing.
        let (function, status) = if round % 2 == 0 {
            ("second", 202)
        } else {
            ("first", 201)
        };
        let release = site.app("demo", function, status, 1);
        node.handle.deploy(release).await.unwrap();
        assert_eq!(
            node.get("/demo").await,
            status,
            "the new release answers at once"
        );
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let statuses = client.await.unwrap();
        assert!(
            statuses.keys().all(|status| [201, 202].contains(status)),
            "{statuses:?}"
        );
        assert!(statuses.len() == 2, "{statuses:?}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_finishes_on_the_old_release_and_through_a_drain() {
    let site = Site::new();
    let node = site
        .start(vec![site.app("demo", "hello", 201, LONG)])
        .await
        .unwrap();
    let usage = node.telemetry.function(&id("demo", "hello"));
    let address = node.http();
    let slow = || tokio::spawn(async move { Connection::open(address).await.get("/demo").await });
    let running = async || {
        while usage.snapshot().running == 0 {
            tokio::task::yield_now().await;
        }
    };
    let old = slow();
    running().await;
    node.handle
        .deploy(site.app("demo", "hello", 202, LONG))
        .await
        .unwrap();
    assert_eq!(old.await.unwrap(), 201);

    let last = slow();
    running().await;
    node.stop().await;
    assert_eq!(last.await.unwrap(), 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_is_no_good_changes_nothing() {
    let site = Site::new();
    let node = site
        .start(vec![site.app("demo", "hello", 201, 1)])
        .await
        .unwrap();

    let secret = site.app_with(
        "demo",
        "hello",
        202,
        1,
        "grants = { secrets = [\"weather-key\"] }",
    );
    let error = node.handle.deploy(secret.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::SecretMissing);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    let file = site.path().join("secrets/weather-key");
    assert!(cause.contains(&file.display().to_string()), "{cause}");
    assert!(cause.contains("TOMBOLO_SECRET_WEATHER_KEY"), "{cause}");

    let mut missing = site.app("demo", "hello", 202, 1);
    missing.folder = site.path().join("nowhere");
    let error = node.handle.deploy(missing).await.unwrap_err();
    assert_eq!(error.code(), Code::ComponentMissing);
    assert!(error.to_string().contains("nowhere/hello.wat"), "{error}");

    let mut conflict = site.app("other", "hello", 202, 1);
    conflict.manifest.triggers.http[0].route = "/demo".parse().unwrap();
    let error = node.handle.deploy(conflict).await.unwrap_err();
    assert_eq!(error.code(), Code::ManifestValue);
    assert_eq!(node.client.apps().await.unwrap().items.len(), 1);

    let broken = site.app("demo", "hello", 202, 1);
    std::fs::write(broken.folder.join("hello.wat"), "(component)").unwrap();
    let error = node.handle.deploy(broken).await.unwrap_err();
    assert_eq!(error.code(), Code::HandlerMissing);

    assert_eq!(node.get("/demo").await, 201);
    site.app("demo", "hello", 202, 1);
    std::fs::write(file, "rain\n").unwrap();
    node.handle.deploy(secret).await.unwrap();
    assert_eq!(node.get("/demo").await, 202);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_does_not_get_the_store_and_leaves_the_first_alone() {
    let site = Site::new();
    let node = site.start(Vec::new()).await.unwrap();
    let address = site.address().unwrap();
    let Err(error) = site.start(Vec::new()).await else {
        panic!("two nodes in one store")
    };
    assert_eq!(error.code(), Code::StoreLocked);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains(&std::process::id().to_string()), "{cause}");
    assert!(site.address().unwrap() == address, "node.json was touched");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_leaves_nothing_behind() {
    let site = Site::new();
    let mut app = site.app("demo", "hello", 201, 1);
    app.folder = site.path().join("nowhere");
    let Err(error) = site.start(vec![app]).await else {
        panic!("no component, but a node")
    };
    assert_eq!(error.code(), Code::ComponentMissing);
    assert!(site.address().is_none());
    site.start(Vec::new()).await.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_listeners_invokes_and_ends_at_once() {
    let site = Site::new();
    let mut config = site.config();
    config.http.listen.clear();
    let apps = vec![site.app("demo", "hello", 201, 1)];
    let options = tombolo_node::NodeOptions {
        config,
        apps,
        dev: true,
    };
    let node = Node::start(options).await.unwrap();
    assert!(node.http_addrs().is_empty());
    let call = |function: &str, hops| Call {
        function: id("demo", function),
        request: http::Request::get("/").body(empty()).unwrap(),
        context: CallContext {
            trace: node.telemetry().root(),
            request_id: "r1".into(),
            deadline: None,
            hops,
            nested: hops > 0,
            event: false,
            client: None,
        },
    };
    assert_eq!(node.invoke(call("hello", 0)).await.unwrap().status(), 201);
    assert_eq!(
        node.invoke(call("hello", 17)).await.unwrap_err().code,
        Code::Loop
    );
    assert_eq!(
        node.invoke(call("absent", 0)).await.unwrap_err().code,
        Code::NotFound
    );
    let stop = tombolo_node::Stop::default();
    stop.drain.cancel();
    node.run(stop).await.unwrap();
}

fn empty() -> tombolo_core::Body {
    use http_body_util::BodyExt as _;
    http_body_util::Empty::new()
        .map_err(|never| match never {})
        .boxed_unsync()
}
