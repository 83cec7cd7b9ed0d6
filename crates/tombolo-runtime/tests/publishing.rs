//! Functions that publish: real components, and the store's own journal behind them.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use tempfile::TempDir;
use tombolo_core::event::Event;
use tombolo_core::{
    BodyError, Call, CallContext, Code, FunctionId, Invoke as _, QueueId, TraceContext,
};
use tombolo_manifest::Manifest;
use tombolo_runtime::{FunctionSpec, LoadError, Runtime, RuntimeOptions};
use tombolo_store::queue::QueueSettings;
use tombolo_store::{Peeked, Store};
use tombolo_telemetry::{Telemetry, TelemetryOptions};

/// An app `plant` with one function `sensor`, the queues `readings` and `plans`, and a grant of the first.
struct Plant {
    runtime: Runtime,
    store: Store,
    telemetry: Telemetry,
    _folder: TempDir,
}

struct Answer {
    status: u16,
    text: String,
}

impl Plant {
    async fn new(guest: &str, settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let options = TelemetryOptions {
            otlp: None,
            sample_ratio: 1.0,
        };
        let (telemetry, _) = Telemetry::start(&options, "test").unwrap();
        let options = RuntimeOptions {
            code_key: folder.path().join("code.key"),
            folder: folder.path().join("runtime"),
            threads: 1,
            concurrency: 16,
            waiting: 16,
            pooling: false,
            memory_bytes_max: None,
            idle_after: Duration::from_secs(60),
        };
        std::fs::create_dir(&options.folder).unwrap();
        let runtime = Runtime::start(&options, store.clone(), telemetry.clone()).unwrap();
        let spec = FunctionSpec {
            id: id(),
            component: component(guest),
            function: function(settings),
            secrets: [].into(),
        };
        let loaded = runtime.load(spec).unwrap();
        runtime.install(&id().app, vec![loaded]);
        let plant = Self {
            runtime,
            store,
            telemetry,
            _folder: folder,
        };
        let journal = plant.store.journal();
        for name in ["readings", "plans"] {
            let settings = QueueSettings::default();
            journal.configure(queue(name), settings).await.unwrap();
        }
        plant.runtime.connect_queues(Arc::new(journal));
        plant
    }

    async fn ask(&self, request: http::request::Builder, body: &str) -> Answer {
        self.ask_in(self.telemetry.root(), request, body).await
    }

    async fn ask_in(
        &self,
        trace: TraceContext,
        request: http::request::Builder,
        body: &str,
    ) -> Answer {
        match self.runtime.invoke(call(trace, request, body)).await {
            Ok(response) => {
                let status = response.status().as_u16();
                let body = response.into_body().collect().await.unwrap().to_bytes();
                let text = String::from_utf8(body.into()).unwrap();
                Answer { status, text }
            }
            Err(failure) => Answer {
                status: failure.code.http_status().as_u16(),
                text: failure.detail,
            },
        }
    }

    /// What lies in a queue.
    fn kept(&self, name: &str) -> Vec<Peeked> {
        let journal = self.store.journal();
        let listed = journal.list(&queue(name), 0, 100).unwrap();
        let peeked = listed
            .iter()
            .map(|listed| journal.peek(&queue(name), listed.sequence).unwrap());
        peeked.map(Option::unwrap).collect()
    }

    fn events(&self, name: &str) -> Vec<Event> {
        self.kept(name).into_iter().map(|kept| kept.event).collect()
    }
}

fn call(trace: TraceContext, request: http::request::Builder, body: &str) -> Call {
    let body = Full::from(Bytes::copy_from_slice(body.as_bytes()));
    let body = body.map_err(|never| match never {}).boxed_unsync();
    Call {
        function: id(),
        request: request.body(body).unwrap(),
        context: CallContext {
            trace,
            request_id: "request-1".into(),
            deadline: None,
            hops: 0,
            nested: false,
            event: false,
            client: None,
        },
    }
}

fn id() -> FunctionId {
    FunctionId {
        app: "plant".parse().unwrap(),
        function: "sensor".parse().unwrap(),
    }
}

fn queue(name: &str) -> QueueId {
    QueueId {
        app: id().app,
        queue: name.parse().unwrap(),
    }
}

fn component(guest: &str) -> Vec<u8> {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests");
    let file = format!(
        "target/wasm32-wasip2/release/{}.wasm",
        guest.replace('-', "_")
    );
    std::fs::read(guests.join(file)).expect(
        "the guests are built: `cargo build --release --target wasm32-wasip2` in tests/guests",
    )
}

fn function(settings: &str) -> tombolo_manifest::Function {
    let text = format!(
        "[app]\nname = \"plant\"\nversion = \"1.0.0\"\n[queues.readings]\n[queues.plans]\n\
         [functions.sensor]\ncomponent = \"sensor.wasm\"\n{settings}"
    );
    let manifest = Manifest::parse(&text, "tombolo.toml");
    let manifest = manifest.unwrap_or_else(|problems| panic!("{problems:?}"));
    manifest.functions.into_values().next().unwrap()
}

const GRANT: &str = "grants = { queues = [\"readings\"] }";

#[tokio::test]
async fn a_message_becomes_an_event_of_the_function() {
    let plant = Plant::new("messaging-draft", GRANT).await;
    let request = Request::post("/send?topic=readings&type=reading&ce-subject=hall-3&site=harbour")
        .header("content-type", "application/json");
    let trace = plant.telemetry.root();
    let answer = plant.ask_in(trace, request, r#"{"rms":0.2}"#).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "sent"));
    let kept = plant.kept("readings");
    let [one] = kept.as_slice() else {
        panic!("{kept:?}");
    };
    let event = &one.event;
    assert_eq!(event.source, "/plant/sensor");
    assert_eq!(event.kind, "reading");
    assert_eq!(event.subject.as_deref(), Some("hall-3"));
    assert_eq!(event.datacontenttype.as_deref(), Some("application/json"));
    assert_eq!(event.attribute("site"), Some("harbour"));
    assert_eq!(event.data.as_deref(), Some(&br#"{"rms":0.2}"#[..]));
    // The span that published it is the invocation's own.
    let published = one.trace.unwrap();
    assert_eq!(published.trace_id, trace.trace_id);
    assert_ne!(published.span_id, trace.span_id);
}

#[tokio::test]
async fn a_message_can_be_changed_until_it_is_sent() {
    let plant = Plant::new("messaging-draft", GRANT).await;
    let answer = plant.ask(Request::get("/change?topic=readings"), "").await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "sent"));
    let events = plant.events("readings");
    assert_eq!(events[0].kind, "final");
    assert_eq!(events[0].attribute("colour"), Some("red"));
    assert_eq!(events[0].attribute("size"), None);
    assert_eq!(events[0].data.as_deref(), Some(&b"second"[..]));
}

#[tokio::test]
async fn what_is_not_granted_or_not_valid_is_an_error_of_the_guest() {
    let plant = Plant::new("messaging-draft", GRANT).await;
    for (path, error) in [
        ("/send?topic=plans", "denied: "),
        ("/send?topic=readings.dead", "denied: "),
        ("/send?topic=absent", "denied: "),
        ("/send?topic=readings&ce-time=now", "other: "),
    ] {
        let answer = plant.ask(Request::post(path), "x").await;
        assert!(answer.text.starts_with(error), "{path}: {}", answer.text);
    }
    assert!(plant.events("readings").is_empty() && plant.events("plans").is_empty());
    plant
        .store
        .journal()
        .retire(&queue("readings"))
        .await
        .unwrap();
    let answer = plant.ask(Request::post("/send?topic=readings"), "x").await;
    assert!(answer.text.contains("TB0705"), "{}", answer.text);
}

#[tokio::test]
async fn an_instance_holds_no_more_messages_than_it_may() {
    let plant = Plant::new("messaging-draft", GRANT).await;
    let answer = plant.ask(Request::get("/hoard?mib=15"), "").await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "hoarded"));
    let answer = plant.ask(Request::get("/hoard?mib=17"), "").await;
    assert_eq!(answer.status, 502, "{}", answer.text);
    assert!(answer.text.contains("has not published"), "{}", answer.text);
}

#[tokio::test]
async fn any_language_publishes_by_http() {
    let plant = Plant::new("http-kitchen", GRANT).await;
    let path = "/publish?queue=readings&priority=0";
    let request = Request::post(path).header("content-type", "text/csv");
    let answer = plant.ask(request, "1,2").await;
    let receipt = r#"{"accepted":1,"duplicates":0}"#;
    assert_eq!((answer.status, answer.text.as_str()), (202, receipt));
    let event = || {
        Request::post("/publish?queue=readings")
            .header("ce-specversion", "1.0")
            .header("ce-id", "1")
            .header("ce-source", "/machines/7")
            .header("ce-type", "reading")
    };
    let answer = plant.ask(event(), "{}").await;
    assert_eq!(answer.text, r#"{"accepted":1,"duplicates":0}"#);
    let answer = plant.ask(event(), "{}").await;
    assert_eq!(answer.text, r#"{"accepted":0,"duplicates":1}"#);
    let events = plant.events("readings");
    assert_eq!(events[0].source, "/plant/sensor");
    assert_eq!(events[0].kind, "tombolo.message");
    assert_eq!(events[0].datacontenttype.as_deref(), Some("text/csv"));
    assert_eq!(events[1].source, "/machines/7");
    let listed = plant.store.journal().list(&queue("readings"), 0, 9);
    assert_eq!(listed.unwrap()[0].priority, 0);
    let answer = plant.ask(Request::post("/publish?queue=plans"), "{}").await;
    assert_eq!(answer.status, 403, "{}", answer.text);
    assert!(answer.text.contains("TB0004"), "{}", answer.text);
}

#[tokio::test]
async fn invocations_that_share_an_instance_publish_in_their_own_traces() {
    let settings = format!("{GRANT}\nisolation = \"concurrent\"");
    let plant = Plant::new("messaging-p3", &settings).await;
    let traces: Vec<_> = (0..8).map(|_| plant.telemetry.root()).collect();
    let asked = traces.iter().enumerate().map(|(number, trace)| {
        let path = format!("/{:032x}?ms={}", trace.trace_id, 200 - number * 20);
        plant.ask_in(*trace, Request::get(path), "")
    });
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let kept = plant.kept("readings");
    assert_eq!(kept.len(), 8);
    for one in kept {
        let text = format!("/{:032x}", one.trace.unwrap().trace_id);
        assert_eq!(one.event.data.as_deref(), Some(text.as_bytes()));
    }
}

#[tokio::test]
async fn messaging_without_a_grant_is_refused_with_the_line_that_allows_it() {
    let plant = Plant::new("http-kitchen", "").await;
    let spec = FunctionSpec {
        id: id(),
        component: component("messaging-draft"),
        function: function("grants = { keyvalue = [\"readings\"] }"),
        secrets: [].into(),
    };
    let error = plant.runtime.load(spec).err().unwrap();
    assert_eq!(error.code().to_string(), "TB0204");
    let LoadError::ImportNotGranted { line, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(line, "grants = { queues = [\"NAME\"] }");
}

#[tokio::test]
async fn the_answer_to_an_event_ends_with_the_function_and_breaks_with_it() {
    let limits = "limits = { wall = \"500ms\" }";
    let plant = Plant::new("http-kitchen", limits).await;
    // It answers, and goes on until its time is over.
    let later = || Request::post("/later?ms=60000&url=http://127.0.0.1:1/");
    let answer = plant.ask(later(), "").await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "later"));
    let delivery = |request| {
        let mut call = call(plant.telemetry.root(), request, "");
        call.context.event = true;
        call
    };
    let answered = plant.runtime.invoke(delivery(later())).await.unwrap();
    assert_eq!(answered.status(), 200);
    let broken = answered.into_body().collect().await.unwrap_err();
    let BodyError::Failure(failure) = broken else {
        panic!("{broken:?}")
    };
    assert_eq!(failure.code, Code::WallExceeded);
    // And one that is done within its time is acknowledged whole.
    let short = Request::post("/later?ms=1&url=http://127.0.0.1:1/");
    let answered = plant.runtime.invoke(delivery(short)).await.unwrap();
    let text = answered.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(text, "later");
}
