//! One delivery: the events become a request, the function answers, and the answer settles them.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use tokio::sync::{OwnedSemaphorePermit, RwLockReadGuard, RwLockWriteGuard};
use tombolo_core::event::{Event, EventError, http as binding};
use tombolo_core::header::{REQUEST_ID, TRACEPARENT};
use tombolo_core::invoke::HOPS_MAX;
use tombolo_core::publish::CALLBACK;
use tombolo_core::{Call, CallContext, Code, Publication, TraceContext};
use tombolo_store::{Batch, Delivery, Effects, Lease, Transaction};
use tombolo_telemetry::{Span, name};

use super::Target;
use super::answer::{Answer, read};
use super::callback::Asking;
use super::lane::Lane;
use super::verdict::{Asked, Fault, Verdict, judge};

/// The most that a function's answer is given up before its lease ends, so that what is settled
/// says why; a tenth of the lease where that is less.
const MARGIN: Duration = Duration::from_secs(1);

/// How often a transactional function runs for one attempt, because others change what it has read.
const RUNS_MAX: usize = 16;

/// What was taken, in the shape in which it is worked on.
pub(super) struct Taken {
    pub(super) leases: Vec<Lease>,
    pub(super) events: Vec<Event>,
    /// The highest of the events' attempts.
    pub(super) attempt: u16,
    pub(super) begun: Instant,
    /// The most functions that led to one of the events.
    pub(super) hops: u8,
    /// A transactional function does not run again later than this.
    begin_by: Instant,
    /// When the answer has to be there.
    deadline: Instant,
    /// The id of the invocation: queue, number of the first event, attempt.
    request_id: String,
}

/// Held while a transactional function runs and until its effects are settled.
enum Turn<'l> {
    Beside(#[expect(dead_code, reason = "it is held")] RwLockReadGuard<'l, ()>),
    Alone(#[expect(dead_code, reason = "it is held")] RwLockWriteGuard<'l, ()>),
}

/// Delivers what was taken, and settles it. The place is given back at the end.
pub(super) async fn deliver(lane: Arc<Lane>, batch: Batch, place: OwnedSemaphorePermit) {
    let begun = Instant::now();
    let mut place = Some(place);
    let Batch {
        deliveries,
        lease_ms,
    } = batch;
    let loops = |delivery: &Delivery| delivery.origin.hops > HOPS_MAX;
    let (looping, deliveries): (Vec<_>, Vec<_>) = deliveries.into_iter().partition(loops);
    for (deliveries, loops) in [(looping, true), (deliveries, false)] {
        if deliveries.is_empty() {
            continue;
        }
        let mut span = begin(&lane, &deliveries);
        let taken = Taken::new(deliveries, lease_ms, lane.consumer.lingers);
        if span.is_recording() {
            taken.describe(&lane, &mut span);
        }
        let fault = match loops {
            true => Some(lane.bury_loop(&taken, span.context()).await),
            false => lane.exchange(&taken, span.context(), &mut place).await,
        };
        if let Some(fault) = fault {
            let code = fault.code.map_or("answer".into(), |code| code.to_string());
            span.error(code, &fault.detail);
        }
    }
    lane.metrics.delivered(begun.elapsed());
}

/// The span of a delivery. One event's belongs to the trace that published it; several begin a
/// trace of their own, which is recorded when one of theirs is. Either is linked to every span that
/// published.
fn begin(lane: &Lane, deliveries: &[Delivery]) -> Span {
    let telemetry = &lane.shared.telemetry;
    let published = || {
        let traces = deliveries.iter();
        traces.filter_map(|delivery| delivery.origin.trace.as_ref())
    };
    let parent = match (deliveries, published().next()) {
        ([_], Some(trace)) => *trace,
        _ => {
            let root = telemetry.root();
            let sampled = root.sampled || published().any(|trace| trace.sampled);
            TraceContext { sampled, ..root }
        }
    };
    telemetry.delivery_span(name::SPAN_DELIVERY, &parent, published())
}

impl Taken {
    fn new(deliveries: Vec<Delivery>, lease_ms: u64, lingers: Duration) -> Self {
        let (now, lease) = (Instant::now(), Duration::from_millis(lease_ms));
        let attempt = deliveries.iter().map(|delivery| delivery.attempt).max();
        let attempt = attempt.unwrap_or(1);
        let hops = deliveries.iter().map(|delivery| delivery.origin.hops).max();
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
            hops: hops.unwrap_or(0),
            begun: now,
            begin_by: now + lease / 2,
            deadline: now + lease.saturating_sub(MARGIN.min(lease / 10) + lingers),
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

    /// Events that functions have published for one another too often go no further.
    async fn bury_loop(&self, taken: &Taken, trace: TraceContext) -> Fault {
        let detail = format!(
            "more than {HOPS_MAX} functions in a row have led to this event: they publish for one another in a loop"
        );
        let fault = Fault::new(Some(Code::Loop), detail);
        let verdict = Verdict::Dead(fault.clone());
        self.settle(taken, verdict, Transaction::default(), trace)
            .await;
        fault
    }

    /// Calls the function and settles what it was called for. A transactional one runs again while others change what
    /// it has read, within the first half of its time.
    async fn exchange(
        &self,
        taken: &Taken,
        trace: TraceContext,
        place: &mut Option<OwnedSemaphorePermit>,
    ) -> Option<Fault> {
        if !self.consumer.transactional {
            let (verdict, answer) = self.ask(taken, trace, None).await;
            let verdict = self.outwait(verdict, place).await;
            let fault = verdict.fault().cloned();
            let effects = match (&verdict, &answer) {
                (Verdict::Done(_), Some(answer)) => self.told(taken, answer, trace),
                _ => Transaction::default(),
            };
            self.settle(taken, verdict, effects, trace).await;
            return fault;
        }
        let mut lost = None;
        for _ in 0..RUNS_MAX {
            let turn = self.turn(lost.is_some());
            let Ok(_turn) = tokio::time::timeout_at(taken.begin_by.into(), turn).await else {
                break;
            };
            let effects = Effects::default();
            // The answer holds what must not be let go before it is settled.
            let (verdict, _answer) = self.ask(taken, trace, Some(&effects)).await;
            let fault = verdict.fault().cloned();
            lost = self.settle(taken, verdict, effects.seal(), trace).await;
            if lost.is_none() {
                return fault;
            }
        }
        let verdict = match &lost {
            Some(fault) => Verdict::Retry(fault.clone()),
            None => Verdict::Later(Fault::new(
                Some(Code::Busy),
                "other transactional invocations of the queue took all of its time",
            )),
        };
        self.settle(taken, verdict, Transaction::default(), trace)
            .await;
        lost
    }

    /// What follows of an event's order key waits until the function is no more at work for the event, also when that
    /// was its last attempt. The place is for those who have something to do.
    async fn outwait(&self, verdict: Verdict, place: &mut Option<OwnedSemaphorePermit>) -> Verdict {
        let lingers = self.consumer.lingers;
        match verdict {
            Verdict::Retry(fault) if !lingers.is_zero() && fault.code.is_some() => {
                place.take();
                tokio::time::sleep(fault.after.unwrap_or_default().min(lingers)).await;
                Verdict::Retry(Fault {
                    after: None,
                    ..fault
                })
            }
            verdict => verdict,
        }
    }

    /// The turn of a transactional run, beside others or alone.
    async fn turn(&self, alone: bool) -> Turn<'_> {
        match alone {
            true => Turn::Alone(self.turns.write().await),
            false => Turn::Beside(self.turns.read().await),
        }
    }

    /// What is told to whoever asked to be called back, once it is certain: with the acknowledgement. (Of a burial the
    /// store tells.)
    fn told(&self, taken: &Taken, answer: &Answer, trace: TraceContext) -> Transaction {
        let mut effects = Transaction::default();
        let (Some(queue), [event], [lease]) =
            (&self.consumer.callback, &*taken.events, &*taken.leases)
        else {
            return effects;
        };
        let asking = Asking {
            event,
            function: &self.consumer.function,
            id: format!("{}/{}", lease.queue(), lease.sequence()),
            attempt: taken.attempt,
        };
        if let Some(event) = asking.answered(answer) {
            let publication = Publication::new(queue.clone(), event).trace(Some(trace));
            effects.publications.push(publication);
        }
        effects
    }

    /// Calls the function, and says what its answer means. The answer is to be kept until the verdict is settled.
    async fn ask(
        &self,
        taken: &Taken,
        trace: TraceContext,
        effects: Option<&Effects>,
    ) -> (Verdict, Option<Answer>) {
        let (trigger, attempt) = (self.consumer.trigger, taken.attempt.into());
        let (request, asked) = if self.is_batched() {
            let request = binding::batch_request(&taken.events, trigger, attempt);
            (request, Asked::Batch(&taken.events))
        } else {
            let event = taken.events.first().ok_or(EventError::NotAnEvent);
            let request = event.and_then(|event| event.clone().into_request(trigger, attempt));
            let reply = self.consumer.reply.is_some();
            (request, Asked::Single { reply })
        };
        let request = request.and_then(|request| self.addressed(request, taken));
        match request {
            Ok(mut request) => {
                if let Some(effects) = effects {
                    request.extensions_mut().insert(effects.clone());
                }
                self.call(request, asked, taken, trace).await
            }
            Err(error) => {
                let detail = format!("the event cannot be written: {error}");
                let fault = Fault::new(Some(Code::EventInvalid), detail);
                (Verdict::Dead(fault), None)
            }
        }
    }

    /// A request with the URL that it goes to, if it does not go to a function.
    fn addressed(
        &self,
        mut request: Request<Bytes>,
        taken: &Taken,
    ) -> Result<Request<Bytes>, EventError> {
        if self.consumer.target == Target::Callback {
            let url = taken.events.first().and_then(|one| one.attribute(CALLBACK));
            let url: Option<Uri> = url.and_then(|url| url.parse().ok());
            *request.uri_mut() = url.ok_or(EventError::Missing(CALLBACK))?;
        }
        Ok(request)
    }

    /// Calls the function, and waits for the whole of its answer until the deadline.
    async fn call(
        &self,
        mut request: Request<Bytes>,
        asked: Asked<'_>,
        taken: &Taken,
        trace: TraceContext,
    ) -> (Verdict, Option<Answer>) {
        let length = request.body().len();
        let headers = request.headers_mut();
        headers.extend(self.shared.config.headers.clone());
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        for (name, value) in [
            (TRACEPARENT, trace.to_string()),
            (REQUEST_ID, taken.request_id.clone()),
        ] {
            // Both are printable ASCII: hexadecimal digits, names and numbers.
            headers.extend(HeaderValue::try_from(value).ok().map(|value| (name, value)));
        }
        let body = |bytes| {
            Full::new(bytes)
                .map_err(|never| match never {})
                .boxed_unsync()
        };
        let invoke = match self.consumer.target {
            Target::Function => &self.shared.invoke,
            Target::Callback => &self.shared.callbacks,
        };
        let answering = invoke.invoke(Call {
            function: self.consumer.function.clone(),
            request: request.map(body),
            context: CallContext {
                trace,
                request_id: taken.request_id.clone(),
                deadline: Some(taken.deadline),
                hops: taken.hops,
                nested: false,
                event: true,
                client: None,
            },
        });
        let answered = async { read(answering.await?).await.map_err(Fault::from) };
        let verdict = match tokio::time::timeout_at(taken.deadline.into(), answered).await {
            Ok(Ok(answer)) => {
                let verdict = judge(&answer, asked, SystemTime::now());
                return (verdict, Some(answer));
            }
            Ok(Err(fault)) => Verdict::of_fault(fault),
            Err(_) => {
                let lingers = self.consumer.lingers;
                let detail = "the function did not answer within the lease of its events";
                Verdict::Retry(Fault {
                    after: (!lingers.is_zero()).then_some(lingers),
                    ..Fault::new(Some(Code::WallExceeded), detail)
                })
            }
        };
        (verdict, None)
    }
}
