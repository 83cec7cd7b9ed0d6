//! One invocation, polled inline by whoever waits for its answer: admission, instance, head, body, account.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Sleep;
use tombolo_core::{Blame, Body, Call, Code, Failure, FunctionId, Limit, LogLevel};
use tombolo_manifest::Isolation;
use tombolo_telemetry::{Outcome, Span, name};
use wasmtime_wasi_http::{Error, WasiBody};

use crate::answer::{Afterwards, Answer};
use crate::concurrent;
use crate::egress::{Caller, Egress, from_body_error};
use crate::failure;
use crate::function::Function;
use crate::instance::{Head, Instance};
use crate::memory::Memory;
use crate::meter::Meter;
use crate::output::InvocationLog;
use crate::publishing::Publishing;
use crate::runtime::Shared;
use crate::state::State;
use crate::ticker::Ticking;

/// What a guest does until it is done; an instance comes back when it may serve again.
pub(crate) type Run = Pin<Box<dyn Future<Output = wasmtime::Result<Ended>> + Send>>;

/// What is left when a guest is done.
pub(crate) enum Ended {
    /// The instance, as it stands.
    Instance(Instance),
    /// The instance serves others as well; this is the CPU time that is put down to this invocation.
    Shared { cpu: Duration },
}

/// Runs `function` for one call.
pub(crate) async fn invoke(
    shared: Arc<Shared>,
    function: Arc<Function>,
    mut call: Call,
) -> Result<Response<Body>, Failure> {
    let budget = function.limits.budget;
    let meter = Arc::new(Meter::start(budget, call.context.deadline));
    let mut span = shared
        .telemetry
        .span(name::SPAN_INVOKE, &call.context.trace, false);
    let permits = match admit(&shared, &function, call.context.nested, meter.deadline()).await {
        Ok(permits) => permits,
        Err(failure) => {
            function.metrics.rejected();
            span.fail(&failure);
            return Err(failure);
        }
    };
    let bytes_in = Arc::new(AtomicU64::new(0));
    let idle = function.take_idle();
    // A used instance writes to the log it was made with.
    let log = idle.as_ref().map_or_else(
        || {
            Arc::new(InvocationLog::new(
                shared.telemetry.logs().clone(),
                function.id.clone(),
            ))
        },
        |instance| Arc::clone(&instance.store.data().log),
    );
    log.begin(
        &call.context.request_id,
        call.context.trace.trace_id,
        budget.log_bytes,
    );
    if span.is_recording() {
        span.set(name::FAAS_NAME, function.id.to_string());
        span.set(name::FAAS_INVOCATION_ID, call.context.request_id.clone());
    }
    let caller = Caller {
        function: function.id.clone(),
        trace: span.context(),
        request_id: call.context.request_id,
        deadline: meter.deadline(),
        hops: call.context.hops,
        client: call.context.client,
        effects: call.request.extensions_mut().remove(),
    };
    function.metrics.start();
    let mut account = Account {
        function: Arc::clone(&function),
        meter: Arc::clone(&meter),
        log: Arc::clone(&log),
        span,
        outcome: Outcome::Cancelled,
        bytes_in: Arc::clone(&bytes_in),
        bytes_out: 0,
        _ticking: shared.ticker.begin(),
        _permits: permits,
    };
    let (head, head_receiver) = oneshot::channel();
    let (body_read, body_read_receiver) = oneshot::channel();
    let request = guest_request(call.request, &function.id, bytes_in);
    let begin = Begin {
        request,
        head,
        body_read: body_read_receiver,
        caller,
    };
    let afterwards = match call.context.event {
        true => Afterwards::Answer,
        false => Afterwards::Task(shared.afterwards.clone()),
    };
    let run = match begin_run(shared, &function, &meter, idle, log, begin).await {
        Ok(run) => run,
        Err(failure) => {
            account.fail(&failure);
            return Err(failure);
        }
    };
    let guest = Guest {
        run: Some(run),
        sleep: None,
        account,
    };
    Answer::wait(guest, head_receiver, body_read, afterwards).await
}

/// A place among the function's invocations and one among the node's. A call from within an invocation
/// never waits for the node: two functions that wait for each other's places would wait for ever.
async fn admit(
    shared: &Shared,
    function: &Function,
    nested: bool,
    deadline: Instant,
) -> Result<[OwnedSemaphorePermit; 2], Failure> {
    let gate = shared.node_gate(nested);
    if let (Ok(own), Ok(node)) = (function.gate.try_enter(), gate.try_enter()) {
        return Ok([own, node]);
    }
    function.metrics.wait();
    let _waited = Waited(function);
    let own = function.gate.enter(deadline).await?;
    let node = if nested {
        gate.try_enter()?
    } else {
        gate.enter(deadline).await?
    };
    Ok([own, node])
}

struct Waited<'a>(&'a Function);

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        self.0.metrics.waited();
    }
}

/// What an instance gets for one invocation.
pub(crate) struct Begin {
    pub(crate) request: Request<WasiBody>,
    pub(crate) head: oneshot::Sender<Head>,
    pub(crate) body_read: oneshot::Receiver<()>,
    pub(crate) caller: Caller,
}

async fn begin_run(
    shared: Arc<Shared>,
    function: &Arc<Function>,
    meter: &Arc<Meter>,
    idle: Option<Instance>,
    log: Arc<InvocationLog>,
    begin: Begin,
) -> Result<Run, Failure> {
    let code = function.code(&shared.afterwards).await?;
    if function.isolation == Isolation::Concurrent {
        return concurrent::submit(&shared, function, &code, begin);
    }
    let Begin {
        request,
        head,
        body_read,
        caller,
    } = begin;
    if let Some(mut instance) = idle {
        instance.take_up(meter, caller);
        return Ok(Box::pin(async move {
            Ok(Ended::Instance(
                instance.serve(request, head, body_read).await?,
            ))
        }));
    }
    let state = fresh_state(&shared, function, meter, caller, log)?;
    let store = state.into_store(&function.engine);
    Ok(Box::pin(async move {
        let instance = code.instantiate(&shared, store).await?;
        Ok(Ended::Instance(
            instance.serve(request, head, body_read).await?,
        ))
    }))
}

pub(crate) fn fresh_state(
    shared: &Shared,
    function: &Arc<Function>,
    meter: &Arc<Meter>,
    caller: Caller,
    log: Arc<InvocationLog>,
) -> Result<State, Failure> {
    let egress = Egress {
        caller,
        callers: BTreeMap::new(),
        grants: Arc::clone(&function.grants),
        http: shared.http.clone(),
        dispatcher: shared.dispatcher.get().cloned(),
        publishing: Publishing::new(shared.publish.get().cloned(), shared.topics.get().cloned()),
        log: Some(Arc::clone(&log)),
    };
    let memory = Memory::new(Arc::clone(meter), Arc::clone(&shared.memory));
    State::new(Arc::clone(function), memory, egress, log).map_err(|error| {
        let detail = format!("a grant of the function cannot be honoured: {error:#}");
        Failure::new(Code::HostError, Blame::Host, detail)
    })
}

impl Instance {
    /// Makes a used instance ready for another invocation.
    fn take_up(&mut self, meter: &Arc<Meter>, caller: Caller) {
        let state = self.store.data_mut();
        state.memory.take_up(meter);
        state.egress.caller = caller;
        self.store.set_epoch_deadline(1);
    }
}

/// A guest that is not done yet. Dropping it cancels it.
pub(crate) struct Guest {
    run: Option<Run>,
    sleep: Option<Pin<Box<Sleep>>>,
    pub(crate) account: Account,
}

impl Guest {
    /// Lets the guest go on; ready when it is done, or was stopped at a limit.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Some(run) = &mut self.run else {
            return Poll::Ready(Ok(()));
        };
        let polled = match self.account.function.isolation {
            // The instance runs on a task of its own, which measures what it uses.
            Isolation::Concurrent => run.as_mut().poll(context),
            Isolation::Fresh | Isolation::Serial => {
                self.account.meter.poll(|| run.as_mut().poll(context))
            }
        };
        match polled {
            Poll::Ready(result) => {
                self.run = None;
                Poll::Ready(self.finish(result))
            }
            Poll::Pending => self.poll_limits(context),
        }
    }

    fn finish(&mut self, result: wasmtime::Result<Ended>) -> Result<(), Failure> {
        let account = &mut self.account;
        match result {
            Ok(Ended::Instance(instance)) => account.function.keep_idle(instance),
            Ok(Ended::Shared { cpu }) => account.meter.add_cpu(cpu),
            Err(error) => {
                let failure = failure::of_guest(&error, &account.meter);
                account.fail(&failure);
                return Err(failure);
            }
        }
        account.outcome = Outcome::Ok;
        Ok(())
    }

    fn poll_limits(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let deadline = self.account.meter.deadline();
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        if sleep.as_mut().poll(context).is_ready() {
            self.account.meter.record(Limit::Wall);
        }
        match self.account.meter.hit() {
            Some(limit) => Poll::Ready(Err(self.stop(limit))),
            None => Poll::Pending,
        }
    }

    /// Ends the guest because it hit a limit.
    pub(crate) fn stop(&mut self, limit: Limit) -> Failure {
        self.run = None;
        let mut failure = failure::of_limit(limit, &self.account.meter);
        if self.account.function.isolation == Isolation::Concurrent {
            // Its instance may be at work for it until those that it serves besides have ended: as long again.
            let wall = self.account.meter.budget().wall;
            failure = failure.retry_after(wall.saturating_add(Duration::from_secs(1)));
        }
        self.account.fail(&failure);
        failure
    }

    pub(crate) fn is_done(&self) -> bool {
        self.run.is_none()
    }
}

/// What an invocation used and how it ended; written down when it is dropped.
pub(crate) struct Account {
    pub(crate) function: Arc<Function>,
    pub(crate) meter: Arc<Meter>,
    log: Arc<InvocationLog>,
    span: Span,
    outcome: Outcome,
    bytes_in: Arc<AtomicU64>,
    pub(crate) bytes_out: u64,
    _ticking: Ticking,
    _permits: [OwnedSemaphorePermit; 2],
}

impl Account {
    pub(crate) fn fail(&mut self, failure: &Failure) {
        self.outcome = Outcome::Failed(failure.code);
        self.span.fail(failure);
        self.log.end();
        let mut text = format!("error[{}]: {}", failure.code, failure.detail);
        if let Some(backtrace) = &failure.backtrace {
            text.push('\n');
            text.push_str(backtrace.trim_end());
        }
        self.log.node(LogLevel::Error, text);
    }

    pub(crate) fn answered(&mut self, status: http::StatusCode) {
        self.span
            .set(name::HTTP_RESPONSE_STATUS_CODE, i64::from(status.as_u16()));
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.log.end();
        self.function.metrics.finish(
            self.outcome,
            self.meter.wall(),
            self.meter.cpu(),
            self.meter.memory_bytes_peak(),
            self.bytes_in.load(Relaxed),
            self.bytes_out,
        );
    }
}

/// The request as `wasi:http` wants it: with an authority, and a body that counts its bytes.
fn guest_request(
    request: Request<Body>,
    id: &FunctionId,
    bytes: Arc<AtomicU64>,
) -> Request<WasiBody> {
    let (mut parts, body) = request.into_parts();
    if parts.uri.authority().is_none()
        && !parts.headers.contains_key(header::HOST)
        && let Ok(host) = HeaderValue::from_str(&format!("{}.fn.tombolo.internal", id.function))
    {
        parts.headers.insert(header::HOST, host);
    }
    let body = if http_body::Body::is_end_stream(&body) {
        Empty::new().map_err(|never| match never {}).boxed_unsync()
    } else {
        CountedBody { body, bytes }.boxed_unsync()
    };
    Request::from_parts(parts, body)
}

/// A request body on its way to the guest.
struct CountedBody {
    body: Body,
    bytes: Arc<AtomicU64>,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(context).map(|frame| {
            frame.map(|frame| {
                let frame = frame.map_err(from_body_error)?;
                let length = frame.data_ref().map_or(0, Bytes::len);
                self.bytes.fetch_add(length as u64, Relaxed);
                Ok(frame)
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
