//! What a node tells about itself: traces by OTLP, metrics in OpenMetrics text, logs of invocations, and the name of every one of them.

mod broker;
mod export;
mod function;
mod histogram;
mod http;
mod log_book;
pub mod name;
pub mod node_log;
mod queue;
mod render;
mod span;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use tokio::sync::mpsc;
use tombolo_core::{FunctionId, Name, QueueId, TraceContext};

pub use broker::{BrokerReading, RemoteReading};
pub use export::{StartError, TelemetryService};
pub use function::{AnswerReading, FunctionMetrics, FunctionUsage, Outcome};
pub use http::HttpMetrics;
pub use log_book::{Followed, LogBook, LogEntry, LogFilter, LogStream, LogSubscription};
pub use opentelemetry::Value;
pub use queue::{QueueMetrics, QueueReading};
pub use span::Span;

/// What telemetry can be told.
#[derive(Clone, Debug)]
pub struct TelemetryOptions {
    /// The OTLP collector, `http://host:4318`; without it, `OTEL_EXPORTER_OTLP_ENDPOINT`; without both, no spans leave the node.
    pub otlp: Option<String>,
    /// The share of traces begun here that are recorded, from 0 to 1.
    pub sample_ratio: f64,
}

/// The handle of everything a node measures; a clone is cheap and means the same.
#[derive(Clone, Debug)]
pub struct Telemetry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sampler: span::Sampler,
    /// `None` when no collector is configured: then no span is ever recorded.
    spans: Option<mpsc::Sender<Box<opentelemetry_sdk::trace::SpanData>>>,
    spans_dropped: Arc<AtomicU64>,
    functions: RwLock<BTreeMap<FunctionId, Arc<FunctionMetrics>>>,
    queues: RwLock<BTreeMap<QueueId, Arc<QueueMetrics>>>,
    queue_source: Source<Vec<QueueReading>>,
    answer_source: Source<Vec<AnswerReading>>,
    broker_source: Source<BrokerReading>,
    key_value_source: Source<Vec<(Name, u64)>>,
    http: HttpMetrics,
    logs: LogBook,
}

/// Reads a part of the node's state when metrics are asked for.
struct Source<T>(OnceLock<Box<dyn Fn() -> T + Send + Sync>>);

impl<T: Default> Source<T> {
    fn read(&self) -> T {
        self.0.get().map(|read| read()).unwrap_or_default()
    }
}

impl<T> Default for Source<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> fmt::Debug for Source<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

impl Telemetry {
    /// Starts telemetry for the node of this name. The service has to be run for spans to leave the node.
    ///
    /// # Errors
    /// The collector's address is no `http://` URL.
    pub fn start(
        options: &TelemetryOptions,
        node: &str,
    ) -> Result<(Self, TelemetryService), StartError> {
        let spans_dropped = Arc::new(AtomicU64::new(0));
        let (spans, service) = export::start(options, node, spans_dropped.clone())?;
        let ratio = if spans.is_some() {
            options.sample_ratio
        } else {
            0.0
        };
        let telemetry = Self(Arc::new(Inner {
            sampler: span::Sampler::new(ratio),
            spans,
            spans_dropped,
            functions: RwLock::default(),
            queues: RwLock::default(),
            queue_source: Source::default(),
            answer_source: Source::default(),
            broker_source: Source::default(),
            key_value_source: Source::default(),
            http: HttpMetrics::default(),
            logs: LogBook::default(),
        }));
        Ok((telemetry, service))
    }

    /// The counters of a function: the same ones for the same id, for as long as the node runs.
    pub fn function(&self, id: &FunctionId) -> Arc<FunctionMetrics> {
        let functions = self
            .0
            .functions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = functions.get(id) {
            return metrics.clone();
        }
        drop(functions);
        let mut functions = self
            .0
            .functions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        functions.entry(id.clone()).or_default().clone()
    }

    /// What is measured of the deliveries of a queue: the same for the same id, for as long as the node runs.
    pub fn queue(&self, id: &QueueId) -> Arc<QueueMetrics> {
        let queues = self.0.queues.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = queues.get(id) {
            return metrics.clone();
        }
        drop(queues);
        let mut queues = self
            .0
            .queues
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        queues.entry(id.clone()).or_default().clone()
    }

    /// Says where the state of every queue is read when metrics are asked for; the first one that says so is heard.
    pub fn read_queues(&self, read: impl Fn() -> Vec<QueueReading> + Send + Sync + 'static) {
        let _ = self.0.queue_source.0.set(Box::new(read));
    }

    /// Says where the numbers of stored answers are read when metrics are asked for; the first one that says so is heard.
    pub fn read_answers(&self, read: impl Fn() -> Vec<AnswerReading> + Send + Sync + 'static) {
        let _ = self.0.answer_source.0.set(Box::new(read));
    }

    /// Says where the state of the broker is read when metrics are asked for; the first one that says so is heard.
    pub fn read_broker(&self, read: impl Fn() -> BrokerReading + Send + Sync + 'static) {
        let _ = self.0.broker_source.0.set(Box::new(read));
    }

    /// Says where the bytes that each app's key-value stores have are read when metrics are asked for; the first one
    /// that says so is heard.
    pub fn read_key_values(&self, read: impl Fn() -> Vec<(Name, u64)> + Send + Sync + 'static) {
        let _ = self.0.key_value_source.0.set(Box::new(read));
    }

    /// The counters of the HTTP listeners.
    pub fn http(&self) -> &HttpMetrics {
        &self.0.http
    }

    /// Every metric as OpenMetrics text.
    pub fn render_metrics(&self) -> String {
        render::render(self)
    }

    /// The context of a trace that begins here. It stands for no span: the first [`Telemetry::span`] below it has no parent.
    pub fn root(&self) -> TraceContext {
        self.0.sampler.root()
    }

    /// Begins a span below `parent`, which is `remote` when it came with a request. The span ends when it is dropped.
    /// It is recorded when the parent is sampled and a collector is configured; otherwise it costs no allocation and no lock.
    pub fn span(&self, name: &'static str, parent: &TraceContext, remote: bool) -> Span {
        Span::begin(
            name,
            parent,
            remote,
            self.0.spans.as_ref(),
            &self.0.spans_dropped,
        )
    }

    /// Begins the span of a delivery below `parent`, linked to the spans that published what is delivered.
    pub fn delivery_span<'t>(
        &self,
        name: &'static str,
        parent: &TraceContext,
        published: impl Iterator<Item = &'t TraceContext>,
    ) -> Span {
        let mut span = self.span(name, parent, false);
        span.consumes(published);
        span
    }

    /// The logs of invocations.
    pub fn logs(&self) -> &LogBook {
        &self.0.logs
    }

    pub(crate) fn spans_dropped(&self) -> u64 {
        self.0.spans_dropped.load(Ordering::Relaxed)
    }

    pub(crate) fn queues(&self) -> Vec<(QueueId, Arc<QueueMetrics>)> {
        let queues = self.0.queues.read().unwrap_or_else(PoisonError::into_inner);
        queues
            .iter()
            .map(|(id, metrics)| (id.clone(), metrics.clone()))
            .collect()
    }

    pub(crate) fn queue_readings(&self) -> Vec<QueueReading> {
        self.0.queue_source.read()
    }

    pub(crate) fn answer_readings(&self) -> Vec<AnswerReading> {
        self.0.answer_source.read()
    }

    pub(crate) fn broker_reading(&self) -> BrokerReading {
        self.0.broker_source.read()
    }

    pub(crate) fn key_value_readings(&self) -> Vec<(Name, u64)> {
        self.0.key_value_source.read()
    }

    pub(crate) fn functions(&self) -> Vec<(FunctionId, Arc<FunctionMetrics>)> {
        let functions = self
            .0
            .functions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        functions
            .iter()
            .map(|(id, metrics)| (id.clone(), metrics.clone()))
            .collect()
    }
}
