//! Spans: begun under a parent, ended when dropped, recorded only when their trace is sampled.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SpanData, SpanEvents, SpanLinks};
use tokio::sync::mpsc;
use tombolo_core::{Failure, TraceContext};

use crate::name;

/// Most links of a span (OpenTelemetry's default, `OTEL_SPAN_LINK_COUNT_LIMIT`).
const LINKS_MAX: usize = 128;

/// Decides for traces that begin here whether they are recorded.
#[derive(Debug)]
pub struct Sampler {
    ids: RandomIdGenerator,
    /// A trace is recorded when the upper 63 bits of its id's lower half are below this
    /// (OpenTelemetry's `TraceIdRatioBased`, so that nodes of one ratio agree).
    threshold: u64,
}

impl Sampler {
    pub fn new(ratio: f64) -> Self {
        // A cast from float to integer saturates, and maps NaN to 0.
        let threshold = (ratio.clamp(0.0, 1.0) * (1u64 << 63) as f64) as u64;
        Self {
            ids: RandomIdGenerator::default(),
            threshold,
        }
    }

    pub fn root(&self) -> TraceContext {
        let trace_id = loop {
            let id = u128::from_be_bytes(self.ids.new_trace_id().to_bytes());
            // The lower half becomes the span id, and neither may be zero.
            if lower_half(id) != 0 {
                break id;
            }
        };
        let span_id = lower_half(trace_id);
        TraceContext {
            trace_id,
            span_id,
            sampled: (span_id >> 1) < self.threshold,
        }
    }
}

/// The span id of a context from [`Sampler::root`], which is how it is recognised: it names no span that exists.
fn lower_half(trace_id: u128) -> u64 {
    (trace_id & u128::from(u64::MAX)) as u64
}

/// A span. It ends when it is dropped.
#[derive(Debug)]
#[must_use = "a span ends when it is dropped"]
pub struct Span {
    context: TraceContext,
    recording: Option<Recording>,
}

#[derive(Debug)]
struct Recording {
    data: Box<SpanData>,
    queue: mpsc::Sender<Box<SpanData>>,
    dropped: Arc<AtomicU64>,
}

impl Span {
    pub(crate) fn begin(
        name: &'static str,
        parent: &TraceContext,
        remote: bool,
        queue: Option<&mpsc::Sender<Box<SpanData>>>,
        dropped: &Arc<AtomicU64>,
    ) -> Self {
        let context = TraceContext {
            span_id: new_span_id(),
            ..*parent
        };
        let recording = queue.filter(|_| parent.sampled).map(|queue| Recording {
            data: Box::new(span_data(name, &context, parent, remote)),
            queue: queue.clone(),
            dropped: dropped.clone(),
        });
        Self { context, recording }
    }

    /// Makes it the span of a consumer, linked to the spans that published what it consumes: as many as
    /// [`LINKS_MAX`], the others are counted.
    pub(crate) fn consumes<'t>(&mut self, published: impl Iterator<Item = &'t TraceContext>) {
        let Some(recording) = &mut self.recording else {
            return;
        };
        let data = &mut recording.data;
        data.span_kind = SpanKind::Consumer;
        for context in published {
            if data.links.links.len() < LINKS_MAX {
                let link = Link::with_context(span_context(context, true));
                data.links.links.push(link);
            } else {
                data.links.dropped_count += 1;
            }
        }
    }

    /// The context of what this span causes: the same trace, this span as parent.
    pub fn context(&self) -> TraceContext {
        self.context
    }

    /// Whether attributes of this span will be seen by anybody.
    pub fn is_recording(&self) -> bool {
        self.recording.is_some()
    }

    /// Adds an attribute; `key` is a constant of [`crate::name`]. Costs nothing when the span is not recorded and `value` is no new string.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(recording) = &mut self.recording {
            recording.data.attributes.push(KeyValue::new(key, value));
        }
    }

    /// Marks the span as failed.
    pub fn fail(&mut self, failure: &Failure) {
        if let Some(recording) = &mut self.recording {
            let data = &mut recording.data;
            data.status = Status::error(failure.detail.clone());
            data.attributes
                .push(KeyValue::new(name::ERROR_TYPE, failure.code.to_string()));
            let blame = format!("{:?}", failure.blame).to_ascii_lowercase();
            data.attributes
                .push(KeyValue::new(name::TOMBOLO_BLAME, blame));
        }
    }

    /// Marks the span as failed for a reason that is no [`Failure`]; `kind` is the value of `error.type`.
    pub fn error(&mut self, kind: String, detail: &str) {
        if let Some(recording) = &mut self.recording {
            let data = &mut recording.data;
            data.status = Status::error(detail.to_owned());
            data.attributes.push(KeyValue::new(name::ERROR_TYPE, kind));
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(mut recording) = self.recording.take() {
            recording.data.end_time = SystemTime::now();
            if recording.queue.try_send(recording.data).is_err() {
                recording.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn new_span_id() -> u64 {
    loop {
        let id = u64::from_be_bytes(RandomIdGenerator::default().new_span_id().to_bytes());
        if id != 0 {
            return id;
        }
    }
}

fn span_context(context: &TraceContext, remote: bool) -> SpanContext {
    let flags = match context.sampled {
        true => TraceFlags::SAMPLED,
        false => TraceFlags::default(),
    };
    SpanContext::new(
        TraceId::from_bytes(context.trace_id.to_be_bytes()),
        SpanId::from_bytes(context.span_id.to_be_bytes()),
        flags,
        remote,
        TraceState::NONE,
    )
}

fn span_data(
    name: &'static str,
    context: &TraceContext,
    parent: &TraceContext,
    remote: bool,
) -> SpanData {
    let is_root = !remote && parent.span_id == lower_half(parent.trace_id);
    let now = SystemTime::now();
    SpanData {
        span_context: span_context(
            &TraceContext {
                sampled: true,
                ..*context
            },
            false,
        ),
        parent_span_id: if is_root {
            SpanId::INVALID
        } else {
            SpanId::from_bytes(parent.span_id.to_be_bytes())
        },
        parent_span_is_remote: remote,
        span_kind: if remote || is_root {
            SpanKind::Server
        } else {
            SpanKind::Internal
        },
        name: Cow::Borrowed(name),
        start_time: now,
        end_time: now,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("tombolo").build(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_the_share_of_sampled_roots() {
        for (ratio, least, most) in [(0.0, 0, 0), (1.0, 10_000, 10_000), (0.5, 4_500, 5_500)] {
            let sampler = Sampler::new(ratio);
            let sampled = (0..10_000).filter(|_| sampler.root().sampled).count();
            assert!((least..=most).contains(&sampled), "{ratio}: {sampled}");
        }
        assert!(!Sampler::new(f64::NAN).root().sampled);
    }

    #[test]
    fn a_child_keeps_the_trace_and_the_flag_and_gets_an_id_of_its_own() {
        let dropped = Arc::default();
        for ratio in [0.0, 1.0] {
            let root = Sampler::new(ratio).root();
            let child = Span::begin("child", &root, false, None, &dropped).context();
            assert_eq!(
                (child.trace_id, child.sampled),
                (root.trace_id, root.sampled)
            );
            assert_ne!(child.span_id, root.span_id);
        }
    }
}
