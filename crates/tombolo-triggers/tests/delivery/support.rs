//! A journal in a folder of its own, functions that do as they are told, and the deliveries between them.

use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, stream};
use http::{HeaderMap, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tombolo_core::event::Event;
use tombolo_core::{
    Body, BodyError, Call, CallContext, Failure, FunctionId, Invoke, InvokeFuture, Publication,
    Publish as _, Published, QueueId,
};
use tombolo_store::queue::{BatchSettings, Figures, QueueSettings, RetrySettings, TakeBounds};
use tombolo_store::{Effects, Journal, Peeked, Store};
use tombolo_telemetry::{Telemetry, TelemetryOptions};
use tombolo_triggers::delivery::{Consumer, Deliveries, DeliveriesHandle, DeliveryConfig, Target};

/// Longer than any test that is right needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a test looks at what it waits for.
const POLL: Duration = Duration::from_millis(2);

/// What a function was called with.
#[derive(Clone, Debug)]
pub struct Seen {
    pub function: FunctionId,
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub context: CallContext,
    pub effects: Option<Effects>,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub fn attempt(&self) -> u32 {
        self.header("x-tombolo-attempt").parse().unwrap()
    }

    /// The ids of the events of a batch.
    pub fn ids(&self) -> Vec<String> {
        let events: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        let events = events.as_array().unwrap().iter();
        events
            .map(|event| event["id"].as_str().unwrap().to_owned())
            .collect()
    }
}

type Answered = Result<Response<Body>, Failure>;
type Behaviour = dyn Fn(Seen) -> BoxFuture<'static, Answered> + Send + Sync;

/// Functions that note every call, and behave as the test says.
pub struct Functions {
    seen: Mutex<Vec<Seen>>,
    behaviour: Box<Behaviour>,
}

impl Functions {
    pub fn new<F>(behaviour: impl Fn(Seen) -> F + Send + Sync + 'static) -> Arc<Self>
    where
        F: Future<Output = Answered> + Send + 'static,
    {
        Arc::new(Self {
            seen: Mutex::default(),
            behaviour: Box::new(move |seen| behaviour(seen).boxed()),
        })
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// The functions as the deliveries call them.
pub struct Called(pub Arc<Functions>);

impl Invoke for Called {
    fn invoke(&self, call: Call) -> InvokeFuture {
        let functions = self.0.clone();
        Box::pin(async move {
            let (head, body) = call.request.into_parts();
            let seen = Seen {
                function: call.function,
                method: head.method.to_string(),
                path: head.uri.to_string(),
                headers: head.headers,
                effects: head.extensions.get().cloned(),
                body: body.collect().await.unwrap().to_bytes(),
                context: call.context,
            };
            functions.seen.lock().unwrap().push(seen.clone());
            (functions.behaviour)(seen).await
        })
    }
}

pub fn answer(status: u16) -> Response<Body> {
    answer_with(status, &[], "")
}

pub fn answer_with(status: u16, headers: &[(&str, &str)], body: &str) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    response
        .body(body.map_err(|never| match never {}).boxed_unsync())
        .unwrap()
}

/// 200, and a body that breaks off.
pub fn broken() -> Response<Body> {
    let frames = [
        Ok(http_body::Frame::data(Bytes::from("half"))),
        Err(BodyError::Cut("the instance is gone".into())),
    ];
    Response::new(StreamBody::new(stream::iter(frames)).boxed_unsync())
}

/// 200, and a body that never ends.
pub fn endless() -> Response<Body> {
    let first = stream::iter([Ok(http_body::Frame::data(Bytes::from("half")))]);
    let rest = stream::pending();
    Response::new(StreamBody::new(futures_util::StreamExt::chain(first, rest)).boxed_unsync())
}

/// Where functions wait until the test lets them go.
pub fn gate() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(0))
}

pub async fn pass(gate: Arc<Semaphore>) {
    gate.acquire().await.unwrap().forget();
}

pub fn queue(name: &str) -> QueueId {
    QueueId {
        app: "plant".parse().unwrap(),
        queue: name.parse().unwrap(),
    }
}

/// Retries come at once, and there are three attempts.
pub fn settings() -> QueueSettings {
    QueueSettings {
        retry: RetrySettings {
            attempts: 3,
            backoff_ms: 1,
            ..QueueSettings::default().retry
        },
        ..QueueSettings::default()
    }
}

pub fn batched(events: u32) -> QueueSettings {
    let batch = BatchSettings {
        events,
        ..settings().batch
    };
    QueueSettings {
        batch,
        ..settings()
    }
}

/// A consumer of a queue by a function named like it, without its suffix.
pub fn consumer(name: &str, trigger: &'static str) -> Consumer {
    let function = name.split('.').next().unwrap();
    Consumer {
        queue: queue(name),
        function: FunctionId {
            app: "plant".parse().unwrap(),
            function: function.parse().unwrap(),
        },
        target: Target::Function,
        trigger,
        batch: TakeBounds {
            events: 1,
            bytes: 1 << 20,
        },
        reply: None,
        callback: None,
        transactional: false,
        lingers: Duration::ZERO,
    }
}

pub fn event(id: &str) -> Event {
    Event::new(id, "/machine/7", "reading").with_data("application/json", "{\"rpm\":1797}")
}

/// A store in a folder.
pub struct Site(TempDir);

impl Site {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Opens the store, with these queues.
    pub async fn open(&self, queues: &[(&str, QueueSettings)]) -> Opened {
        let store = Store::open(self.path()).unwrap();
        let journal = store.journal();
        for (name, settings) in queues {
            journal
                .configure(queue(name), settings.clone())
                .await
                .unwrap();
        }
        Opened { store, journal }
    }
}

pub struct Opened {
    pub store: Store,
    pub journal: Journal,
}

impl Opened {
    pub async fn publish(
        &self,
        name: &str,
        events: impl IntoIterator<Item = Event>,
    ) -> Vec<Published> {
        let publication = |event| Publication::new(queue(name), event);
        let publications = events.into_iter().map(publication).collect();
        self.journal.publish(publications).await.unwrap()
    }

    pub fn figures(&self, name: &str) -> Figures {
        self.journal.figures(&queue(name)).unwrap().figures
    }

    /// Waits until the queue is as it should be.
    pub async fn until(&self, name: &str, right: impl Fn(&Figures) -> bool) {
        let waiting = async {
            while !right(&self.figures(name)) {
                tokio::time::sleep(POLL).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "{name}: {:?}", self.figures(name));
    }

    pub async fn until_empty(&self, name: &str) {
        self.until(name, |figures| figures.depth == 0).await;
    }

    /// The dead letters of a queue.
    pub fn dead(&self, name: &str) -> Vec<Peeked> {
        let dead = queue(name).dead();
        let listed = self.journal.list(&dead, 0, 1000).unwrap();
        let peek = |sequence| self.journal.peek(&dead, sequence).unwrap().unwrap();
        listed.into_iter().map(|one| peek(one.sequence)).collect()
    }

    /// Starts deliveries.
    pub fn deliver(&self, functions: &Arc<Functions>, consumers: Vec<Consumer>) -> Delivering {
        self.deliver_with(functions, consumers, config())
    }

    pub fn deliver_with(
        &self,
        functions: &Arc<Functions>,
        consumers: Vec<Consumer>,
        config: DeliveryConfig,
    ) -> Delivering {
        self.start(Arc::new(Called(functions.clone())), consumers, config)
    }

    /// Starts deliveries to something else than the functions alone.
    pub fn deliver_by(&self, invoke: Arc<dyn Invoke>, consumers: Vec<Consumer>) -> Delivering {
        self.start(invoke, consumers, config())
    }

    fn start(
        &self,
        invoke: Arc<dyn Invoke>,
        consumers: Vec<Consumer>,
        config: DeliveryConfig,
    ) -> Delivering {
        let deliveries = Deliveries::new(
            self.journal.clone(),
            invoke.clone(),
            invoke,
            telemetry(),
            config,
        );
        let handle = deliveries.handle();
        handle
            .consume(&"plant".parse().unwrap(), consumers)
            .unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(deliveries.run(shutdown.clone()));
        Delivering {
            handle,
            shutdown,
            task,
        }
    }
}

pub fn config() -> DeliveryConfig {
    let mut headers = HeaderMap::new();
    headers.insert("x-tombolo-node", "press-4".parse().unwrap());
    DeliveryConfig {
        concurrency: 64,
        drain_timeout: PATIENCE,
        log: false,
        headers,
    }
}

fn telemetry() -> Telemetry {
    let options = TelemetryOptions {
        otlp: None,
        sample_ratio: 0.0,
    };
    Telemetry::start(&options, "node").unwrap().0
}

pub struct Delivering {
    pub handle: DeliveriesHandle,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<()>,
}

impl Delivering {
    /// Shuts down, and waits until all that was under way has ended or was cut.
    pub async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .unwrap()
            .unwrap();
    }

    /// Ends as a crash does.
    pub async fn crash(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// Waits until something holds that calls of functions change.
pub async fn eventually(right: impl Fn() -> bool) {
    let waiting = async {
        while !right() {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}
