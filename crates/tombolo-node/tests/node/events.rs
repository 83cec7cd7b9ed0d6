//! Events on a whole node: sent by the API, ticking, delivered, buried, redriven, and there after a restart.

use std::time::Duration;

use crate::support::{Connection, Running, Site};
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::Empty;
use hyper::Request;
use tombolo_api::{ClientError, Queue, Receipt, Selection, Standing, TriggerKind};
use tombolo_core::event::{Event, http::write_binary, json};
use tombolo_core::{Code, FunctionId, QueueId};

/// Longer than any test that is right needs.
const PATIENCE: Duration = Duration::from_secs(60);

const READINGS: &str = "
    [queues.readings]
    [[triggers.queue]]
    queue = \"readings\"
    function = \"hello\"
    retry = { attempts = 2, backoff = \"1ms\" }
";

fn queue(name: &str) -> QueueId {
    QueueId {
        app: "demo".parse().unwrap(),
        queue: name.parse().unwrap(),
    }
}

fn hello() -> FunctionId {
    FunctionId {
        app: "demo".parse().unwrap(),
        function: "hello".parse().unwrap(),
    }
}

fn event(id: &str) -> Event {
    Event::new(id, "/machine/7", "reading").with_data("application/json", "{\"rpm\":1797}")
}

fn code<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> Code {
    let ClientError::Refused(problem) = answer.unwrap_err() else {
        panic!("not refused")
    };
    problem.code()
}

impl Running {
    async fn send(&self, name: &str, id: &str) -> Result<Receipt, ClientError> {
        let (headers, body) = write_binary(event(id)).unwrap();
        self.client.send_events(&queue(name), headers, body).await
    }

    async fn until(&self, name: &str, right: impl Fn(&Queue) -> bool) -> Queue {
        let waiting = async {
            loop {
                let found = self.client.queue(&queue(name)).await.unwrap();
                if right(&found) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap()
    }

    fn invocations(&self) -> u64 {
        self.telemetry.function(&hello()).snapshot().invocations
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_sent_are_delivered_once() {
    let site = Site::new();
    let app = site.app_with("demo", "hello", 204, 1, READINGS);
    let node = site.start(vec![app]).await.unwrap();
    let new = Receipt {
        accepted: 1,
        duplicates: 0,
    };
    assert_eq!(node.send("readings", "1").await.unwrap(), new);
    let again = Receipt {
        accepted: 0,
        duplicates: 1,
    };
    assert_eq!(node.send("readings", "1").await.unwrap(), again);
    let mut headers = HeaderMap::new();
    let batch = "application/cloudevents-batch+json";
    headers.insert("content-type", batch.parse().unwrap());
    let events = [event("1"), event("2"), event("3")];
    let body = json::write_batch(&events).unwrap().into();
    let sent = node
        .client
        .send_events(&queue("readings"), headers, body)
        .await;
    assert_eq!(
        (sent.as_ref().unwrap().accepted, sent.unwrap().duplicates),
        (2, 1)
    );
    let found = node
        .until("readings", |queue| queue.counters.delivered == 3)
        .await;
    assert_eq!(
        (found.depth, found.function.unwrap().as_str()),
        (0, "hello")
    );
    assert_eq!(node.invocations(), 3);

    let (headers, body) = write_binary(event("later")).unwrap();
    let later = node
        .client
        .invoke_later(&hello(), headers, body)
        .await
        .unwrap();
    assert_eq!(later, new);
    node.until("hello.async", |queue| queue.counters.delivered == 1)
        .await;
    assert_eq!(node.invocations(), 4);

    assert_eq!(code(node.send("absent", "1").await), Code::QueueMissing);
    let readings = queue("readings");
    let nothing = node
        .client
        .send_events(&readings, HeaderMap::new(), Bytes::new());
    assert_eq!(code(nothing.await), Code::EventFormat);
    let metrics = node.telemetry.render_metrics();
    let line = r#"tombolo_queue_delivered_total{app="demo",queue="readings"} 3"#;
    assert!(metrics.lines().any(|seen| seen == line), "{metrics}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_looked_at_and_redriven_into_a_mended_release() {
    let site = Site::new();
    let app = site.app_with("demo", "hello", 422, 1, READINGS);
    let node = site.start(vec![app]).await.unwrap();
    for id in ["1", "2", "3"] {
        node.send("readings", id).await.unwrap();
    }
    node.until("readings.dead", |queue| queue.depth == 3).await;
    let dead = queue("readings.dead");
    let page = node.client.queue_events(&dead, 0, 2).await.unwrap().items;
    assert_eq!(page.len(), 2);
    let next = node
        .client
        .queue_events(&dead, page[1].sequence + 1, 2)
        .await
        .unwrap();
    assert_eq!(next.items.len(), 1);
    let one = node
        .client
        .queue_event(&dead, page[0].sequence)
        .await
        .unwrap();
    assert_eq!(one, page[0]);
    assert_eq!(
        (
            one.standing,
            one.event.as_ref().and_then(|event| event["id"].as_str())
        ),
        (Standing::Ready, Some("1"))
    );
    let letter = one.dead.unwrap();
    assert_eq!(
        (letter.origin.as_str(), letter.burial.as_str()),
        ("demo/readings", "refused")
    );
    assert!(letter.history[0].detail.contains("422"), "{letter:?}");
    assert_eq!(
        code(node.client.queue_event(&dead, 99).await),
        Code::NotFound
    );

    node.handle
        .deploy(site.app_with("demo", "hello", 204, 1, READINGS))
        .await
        .unwrap();
    let all = |dry_run| Selection {
        all: true,
        dry_run,
        ..Selection::default()
    };
    let nothing = node.client.redrive(&dead, &Selection::default()).await;
    assert_eq!(code(nothing), Code::BadRequest);
    assert_eq!(
        node.client.redrive(&dead, &all(true)).await.unwrap().events,
        3
    );
    assert_eq!(node.client.queue(&dead).await.unwrap().depth, 3);
    let last = Selection {
        sequence: Some(next.items[0].sequence),
        ..Selection::default()
    };
    assert_eq!(node.client.purge(&dead, &last).await.unwrap().events, 1);
    let found = node.client.queue(&dead).await.unwrap();
    assert_eq!((found.depth, found.counters.purged), (2, 1));
    // What an operator removed is not listed as dropped.
    assert!(
        node.client
            .queue_drops(&dead)
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert_eq!(
        node.client
            .redrive(&dead, &all(false))
            .await
            .unwrap()
            .events,
        2
    );
    node.until("readings", |queue| queue.counters.delivered == 2)
        .await;
    assert_eq!(node.client.queue(&dead).await.unwrap().depth, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_ticks_and_is_described() {
    let site = Site::new();
    let cron = "
        [[triggers.cron]]
        schedule = \"* * * * * *\"
        function = \"hello\"
    ";
    let app = site.app_with("demo", "hello", 204, 1, cron);
    let node = site.start(vec![app]).await.unwrap();
    let ticked = node
        .until("hello.cron", |queue| queue.counters.delivered >= 2)
        .await;
    assert_eq!(ticked.counters.dead, 0);
    let triggers = node.client.triggers().await.unwrap().items;
    let cron = triggers
        .iter()
        .find(|trigger| trigger.kind == TriggerKind::Cron);
    assert_eq!(cron.unwrap().route, "* * * * * *");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_for_the_next_start_and_queues_for_the_next_release() {
    let site = Site::new();
    let keeping = site.app_with("demo", "hello", 204, 1, "[queues.readings]");
    let node = site.start(vec![keeping.clone()]).await.unwrap();
    node.send("readings", "1").await.unwrap();
    node.stop().await;

    let node = site.start(vec![keeping]).await.unwrap();
    assert_eq!(
        node.client.queue(&queue("readings")).await.unwrap().depth,
        1
    );
    node.handle
        .deploy(site.app("demo", "hello", 204, 1))
        .await
        .unwrap();
    assert_eq!(code(node.send("readings", "2").await), Code::QueueMissing);
    let queues = node.client.queues().await.unwrap().items;
    let unused = queues
        .iter()
        .find(|queue| queue.name.as_str() == "readings")
        .unwrap();
    assert!(!unused.used && unused.depth == 1);

    let consuming = site.app_with("demo", "hello", 204, 1, READINGS);
    node.handle.deploy(consuming).await.unwrap();
    node.until("readings", |queue| queue.counters.delivered == 1)
        .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_cannot_do_is_refused_when_it_is_deployed() {
    let site = Site::new();
    let node = site.start(Vec::new()).await.unwrap();
    let hosts = site.app("tombolo", "hello", 204, 1);
    let error = node.handle.deploy(hosts).await.unwrap_err();
    assert_eq!(error.code(), Code::ManifestValue);
    assert!(node.client.apps().await.unwrap().items.is_empty());
    assert!(node.client.queues().await.unwrap().items.is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_sender_asks_and_then_posts_with_the_routes_token() {
    let site = Site::new();
    let hook = format!(
        "{READINGS}
        [[triggers.http]]
        route = \"/hook\"
        queue = \"readings\"
        token = \"hook-token\"
        "
    );
    let app = site.app_with("demo", "hello", 204, 1, &hook);
    let missing = site.start(vec![app.clone()]).await.map(|_| ()).unwrap_err();
    assert_eq!(missing.code(), Code::SecretMissing);
    std::fs::write(site.path().join("secrets/hook-token"), "s3cret+/=\n").unwrap();
    let node = site.start(vec![app]).await.unwrap();
    let mut connection = Connection::open(node.http()).await;
    let asks = Request::options("/hook").header("WebHook-Request-Origin", "sender.example");
    let asked = connection.send(asks.body(Empty::new()).unwrap()).await;
    assert_eq!(asked.status(), 204);
    assert_eq!(asked.headers()["webhook-allowed-origin"], "sender.example");
    let post = |id: &str, path: &str, token: Option<&str>| {
        let mut request = Request::post(path)
            .header("ce-specversion", "1.0")
            .header("ce-id", id)
            .header("ce-source", "/sender")
            .header("ce-type", "reading");
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        request.body(Empty::new()).unwrap()
    };
    for (path, token) in [
        ("/hook", None),
        ("/hook", Some("Bearer wrong")),
        ("/hook", Some("Bearer ")),
        ("/hook", Some("Basic s3cret+/=")),
        ("/hook?access_token=wrong", None),
        ("/hook?access_token=", None),
        (
            "/hook?access_token=s3cret%2B%2F%3D",
            Some("Bearer s3cret+/="),
        ),
    ] {
        let refused = connection.send(post("0", path, token)).await;
        assert_eq!(refused.status(), 401, "{path} {token:?}");
        assert_eq!(refused.headers()["www-authenticate"], "Bearer");
        let problem = String::from_utf8(refused.into_body().to_vec()).unwrap();
        assert!(problem.contains("TB0409"), "{problem}");
    }
    for (id, path, token) in [
        ("1", "/hook", Some("Bearer s3cret+/=")),
        ("2", "/hook?access_token=s3cret%2B%2F%3D", None),
    ] {
        let sent = connection.send(post(id, path, token)).await;
        assert_eq!(sent.status(), 202, "{path}");
    }
    let queue = node
        .until("readings", |queue| queue.counters.delivered == 2)
        .await;
    assert_eq!(queue.depth, 0);
    assert_eq!(node.invocations(), 2);
    node.stop().await;
}
