//! One delivery: the events become a request, the function answers, and the answer settles them.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Request};
use http_body_util::{BodyExt as _, Full};
use tokio::sync::OwnedSemaphorePermit;
use tombolo_core::event::{Event, EventError, http as binding};
use tombolo_core::header::{REQUEST_ID, TRACEPARENT};
use tombolo_core::{Call, CallContext, Code, Publication, TraceContext};
use tombolo_store::{Batch, Cause, Delivery, Lease, Outcome, Settled, StoreError, Transaction};
use tombolo_telemetry::{Span, name};

use super::answer::read;
use super::lane::Lane;
use super::told::Told;
use super::verdict::{Asked, Fault, Verdict, judge};

/// The most that a function's answer is given up before its lease ends, so that what is settled
/// says why; a tenth of the lease where that is less.
const MARGIN: Duration = Duration::from_secs(1);

/// What was taken, in the shape in which it is worked on.
struct Taken {
    leases: Vec<Lease>,
    events: Vec<Event>,
    /// The highest of the events' attempts.
    attempt: u16,
    lease: Duration,
    /// The id of the invocation: queue, number of the first event, attempt.
    request_id: String,
}

/// Delivers what was taken, and settles it. The place is given back at the end.
pub(super) async fn deliver(lane: Arc<Lane>, batch: Batch, place: OwnedSemaphorePermit) {
    let begun = Instant::now();
    let mut span = begin(&lane, &batch.deliveries);
    let told = Told::of(&lane, &batch.deliveries);
    let taken = Taken::new(batch);
    if span.is_recording() {
        taken.describe(&lane, &mut span);
    }
    let Taken {
        leases,
        events,
        attempt,
        lease,
        request_id,
    } = taken;
    let trace = span.context();
    let verdict = match lane.is_batched() {
        false => {
            let asked = Asked::Single {
                reply: lane.consumer.reply.is_some(),
            };
            let event = events.into_iter().next();
            let event = event.ok_or(EventError::NotAnEvent);
            let request =
                event.and_then(|event| event.into_request(lane.consumer.trigger, attempt.into()));
            match request {
                Ok(request) => lane.call(request, asked, lease, request_id, trace).await,
                Err(error) => Verdict::Dead(unwritable(&error)),
            }
        }
        true => match binding::batch_request(&events, lane.consumer.trigger, attempt.into()) {
            Ok(request) => {
                let asked = Asked::Batch(&events);
                lane.call(request, asked, lease, request_id, trace).await
            }
            Err(error) => Verdict::Dead(unwritable(&error)),
        },
    };
    lane.metrics.delivered(begun.elapsed());
    if let Some(told) = told {
        told.tell(&lane, &verdict);
    }
    if let Verdict::Partly(_, fault) | Verdict::Retry(fault) | Verdict::Dead(fault) = &verdict {
        span.error(
            fault.code.map_or("answer".into(), |code| code.to_string()),
            &fault.detail,
        );
    }
    lane.settle(leases, verdict, trace).await;
    drop(place);
}

fn unwritable(error: &EventError) -> Fault {
    Fault::new(
        Some(Code::EventInvalid),
        format!("the event cannot be written: {error}"),
    )
}

/// The span of a delivery. One event's belongs to the trace that published it; several begin a
/// trace of their own, which is recorded when one of theirs is. Either is linked to every span that
/// published.
fn begin(lane: &Lane, deliveries: &[Delivery]) -> Span {
    let telemetry = &lane.shared.telemetry;
    let published = || {
        deliveries
            .iter()
            .filter_map(|delivery| delivery.trace.as_ref())
    };
    let parent = match deliveries {
        [
            Delivery {
                trace: Some(trace), ..
            },
        ] => *trace,
        _ => {
            let root = telemetry.root();
            let sampled = root.sampled || published().any(|trace| trace.sampled);
            TraceContext { sampled, ..root }
        }
    };
    telemetry.delivery_span(name::SPAN_DELIVERY, &parent, published())
}

impl Taken {
    fn new(batch: Batch) -> Self {
        let Batch {
            deliveries,
            lease_ms,
        } = batch;
        let attempt = deliveries.iter().map(|delivery| delivery.attempt).max();
        let attempt = attempt.unwrap_or(1);
        let first = deliveries.first();
        let request_id = first.map_or_else(String::new, |first| {
            format!("{}/{}/{attempt}", first.lease.queue(), first.sequence)
        });
        let (leases, events) = deliveries
            .into_iter()
            .map(|delivery| (delivery.lease, delivery.event))
            .unzip();
        Self {
            leases,
            events,
            attempt,
            lease: Duration::from_millis(lease_ms),
            request_id,
        }
    }

    fn describe(&self, lane: &Lane, span: &mut Span) {
        let consumer = &lane.consumer;
        span.set(name::MESSAGING_SYSTEM, "tombolo");
        span.set(name::MESSAGING_OPERATION_TYPE, "process");
        span.set(name::MESSAGING_DESTINATION_NAME, consumer.queue.to_string());
        span.set(name::FAAS_NAME, consumer.function.to_string());
        span.set(name::FAAS_INVOCATION_ID, self.request_id.clone());
        span.set(name::TOMBOLO_TRIGGER, consumer.trigger);
        span.set(name::TOMBOLO_ATTEMPT, i64::from(self.attempt));
        if lane.is_batched() {
            let events = i64::try_from(self.events.len()).unwrap_or(i64::MAX);
            span.set(name::MESSAGING_BATCH_MESSAGE_COUNT, events);
        } else if let Some(event) = self.events.first() {
            span.set(name::MESSAGING_MESSAGE_ID, event.id.clone());
        }
    }
}

impl Lane {
    fn is_batched(&self) -> bool {
        self.consumer.batch.events > 1
    }

    /// Calls the function, and waits for the whole of its answer as long as the lease lasts.
    async fn call(
        &self,
        mut request: Request<Bytes>,
        asked: Asked<'_>,
        lease: Duration,
        request_id: String,
        trace: TraceContext,
    ) -> Verdict {
        let length = request.body().len();
        let headers = request.headers_mut();
        headers.extend(self.shared.config.headers.clone());
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        for (name, value) in [
            (TRACEPARENT, trace.to_string()),
            (REQUEST_ID, request_id.clone()),
        ] {
            // Both are printable ASCII: hexadecimal digits, names and numbers.
            headers.extend(HeaderValue::try_from(value).ok().map(|value| (name, value)));
        }
        let body = |bytes| {
            Full::new(bytes)
                .map_err(|never| match never {})
                .boxed_unsync()
        };
        let deadline = Instant::now() + lease.saturating_sub(MARGIN.min(lease / 10));
        let answering = self.shared.invoke.invoke(Call {
            function: self.consumer.function.clone(),
            request: request.map(body),
            context: CallContext {
                trace,
                request_id,
                deadline: Some(deadline),
                hops: 0,
                client: None,
            },
        });
        let answered = async { read(answering.await?).await.map_err(Fault::from) };
        match tokio::time::timeout_at(deadline.into(), answered).await {
            Ok(Ok(answer)) => judge(&answer, asked, SystemTime::now()),
            Ok(Err(fault)) => Verdict::Retry(fault),
            Err(_) => Verdict::Retry(Fault::new(
                Some(Code::WallExceeded),
                "the function did not answer within the lease of its events",
            )),
        }
    }

    /// Makes the verdict durable. An event that it cannot be made for stays leased until its lease
    /// ends, and is then delivered again.
    async fn settle(&self, leases: Vec<Lease>, verdict: Verdict, trace: TraceContext) {
        let settlements = match verdict {
            Verdict::Done(replies) if !replies.is_empty() => {
                return self.settle_with(leases, replies, trace).await;
            }
            Verdict::Done(_) => all(leases, &Outcome::Done),
            Verdict::Retry(fault) => all(leases, &retry(fault, trace)),
            Verdict::Dead(fault) => {
                let cause = cause(fault, trace);
                all(leases, &Outcome::Dead { cause })
            }
            Verdict::Partly(failed, fault) => {
                let failure = retry(fault, trace);
                let outcome = |place| match failed.contains(&place) {
                    true => failure.clone(),
                    false => Outcome::Done,
                };
                let places = leases.into_iter().enumerate();
                places
                    .map(|(place, lease)| (lease, outcome(place)))
                    .collect()
            }
        };
        self.tell(self.shared.journal.settle(settlements).await);
    }

    /// Acknowledges and publishes replies, both or neither. A reply that its queue does not take
    /// fails the attempt.
    async fn settle_with(&self, leases: Vec<Lease>, replies: Vec<Event>, trace: TraceContext) {
        let Some(queue) = &self.consumer.reply else {
            return;
        };
        let publication = |event| Publication::new(queue.clone(), event).trace(Some(trace));
        let committed = self.shared.journal.commit(Transaction {
            publications: replies.into_iter().map(publication).collect(),
            settlements: all(leases.clone(), &Outcome::Done),
            ..Transaction::default()
        });
        match committed.await {
            Err(
                error @ (StoreError::UnknownQueue(_)
                | StoreError::QueueFull { .. }
                | StoreError::Unfit { .. }
                | StoreError::EventsTooLong { .. }),
            ) => {
                let detail = format!("the reply cannot be published: {error}");
                let failure = retry(Fault::new(Some(error.code()), detail), trace);
                self.tell(self.shared.journal.settle(all(leases, &failure)).await);
            }
            committed => self.tell(committed.map(|committed| committed.settled)),
        }
    }

    fn tell(&self, settled: Result<Vec<Settled>, StoreError>) {
        let (queue, function) = (&self.consumer.queue, &self.consumer.function);
        match settled {
            Ok(settled) => {
                let count = |what| settled.iter().filter(|one| **one == what).count();
                let (dead, late) = (count(Settled::Buried), count(Settled::Stale));
                if dead > 0 {
                    tracing::warn!(%queue, %function, events = dead, "events became dead letters");
                }
                if late > 0 {
                    tracing::warn!(%queue, %function, events = late, "a function answered after the lease had ended");
                }
                tracing::debug!(%queue, %function, events = settled.len(), "delivered");
            }
            Err(StoreError::Stale) => {
                tracing::warn!(%queue, %function, "a function answered after the lease had ended");
            }
            Err(error) => {
                tracing::warn!(%queue, %function, %error, "an answer cannot be kept; its events are delivered again");
            }
        }
    }
}

fn all(leases: Vec<Lease>, outcome: &Outcome) -> Vec<(Lease, Outcome)> {
    let settle = |lease| (lease, outcome.clone());
    leases.into_iter().map(settle).collect()
}

fn retry(fault: Fault, trace: TraceContext) -> Outcome {
    let after_ms = fault
        .after
        .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
    Outcome::Retry {
        cause: cause(fault, trace),
        after_ms,
    }
}

fn cause(fault: Fault, trace: TraceContext) -> Cause {
    Cause {
        code: fault.code,
        detail: fault.detail,
        trace: Some(trace),
    }
}
