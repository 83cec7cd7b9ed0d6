//! Concurrent isolation: instances of 0.3 components that serve several invocations at once, kept per core.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tombolo_core::{Budget, Failure};
use wasmtime::Store;
use wasmtime::component::Accessor;
use wasmtime_wasi_http::p3::bindings::Service;

use crate::egress::Caller;
use crate::failure;
use crate::function::{Function, REUSE_MAX};
use crate::instance::{Pre, into_concurrent, serve_concurrent};
use crate::invocation::{Begin, Ended, Run, fresh_state};
use crate::meter::Meter;
use crate::output::InvocationLog;
use crate::runtime::Shared;
use crate::state::State;

/// Invocations that one instance serves at once.
const AT_ONCE_MAX: usize = 16;

/// Longer than any instance lives.
const INSTANCE_WALL: Duration = Duration::from_secs(1 << 30);

/// The reused instances of one function: a shard for each serving thread, so that they stay on their core.
pub(crate) struct Shards(Box<[Mutex<Vec<Worker>>]>);

/// An instance that takes jobs.
#[derive(Clone)]
struct Worker {
    jobs: mpsc::Sender<Job>,
    taken: Arc<AtomicUsize>,
    served: usize,
    /// What ended the instance, for those whose invocations it took along.
    broken: Arc<OnceLock<Failure>>,
}

struct Job {
    begin: Begin,
    done: oneshot::Sender<Result<Duration, Failure>>,
    taken: Taken,
}

/// One of the places of a worker.
struct Taken(Arc<AtomicUsize>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Shards {
    pub(crate) fn new(threads: usize) -> Self {
        Self((0..threads.max(1)).map(|_| Mutex::default()).collect())
    }

    /// The shard of the calling thread.
    fn mine(&self) -> Option<MutexGuard<'_, Vec<Worker>>> {
        let shard = self.0.get(thread_number() % self.0.len())?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets every instance end after what it serves now.
    pub(crate) fn clear(&self) {
        for shard in &self.0 {
            shard.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    pub(crate) fn instances(&self) -> usize {
        self.0
            .iter()
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len())
            .sum()
    }
}

/// A small number for each thread, given in the order in which threads ask.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
    }
    NUMBER.get().unwrap_or_else(|| {
        let number = NEXT.fetch_add(1, Relaxed);
        NUMBER.set(Some(number));
        number
    })
}

/// Gives the request to an instance of this thread that has a place, or to a new one.
pub(crate) async fn submit(
    shared: &Arc<Shared>,
    function: &Arc<Function>,
    code: &Arc<Pre>,
    begin: Begin,
) -> Result<Run, Failure> {
    let (done, finished) = oneshot::channel();
    let caller = begin.caller.clone();
    let give = |workers: &mut Vec<Worker>, begin, done| {
        workers.retain(|worker| !worker.jobs.is_closed() && worker.served < REUSE_MAX as usize);
        let worker = workers
            .iter_mut()
            .find(|worker| worker.taken.load(Relaxed) < AT_ONCE_MAX)?;
        worker.taken.fetch_add(1, Relaxed);
        worker.served += 1;
        let taken = Taken(Arc::clone(&worker.taken));
        worker.jobs.try_send(Job { begin, done, taken }).ok()?;
        Some(Arc::clone(&worker.broken))
    };
    let busy = || {
        Failure::new(
            tombolo_core::Code::Busy,
            tombolo_core::Blame::Host,
            "an instance ended meanwhile",
        )
        .retry_after(Duration::from_secs(1))
    };
    let has_place = function.concurrent.mine().is_some_and(|workers| {
        let usable =
            |worker: &Worker| !worker.jobs.is_closed() && worker.served < REUSE_MAX as usize;
        workers
            .iter()
            .any(|worker| usable(worker) && worker.taken.load(Relaxed) < AT_ONCE_MAX)
    });
    if !has_place {
        let worker = start(shared, function, code, caller)?;
        if let Some(mut workers) = function.concurrent.mine() {
            workers.push(worker);
        }
    }
    let given = function
        .concurrent
        .mine()
        .and_then(|mut workers| give(&mut workers, begin, done));
    let broken = given.ok_or_else(busy)?;
    Ok(Box::pin(async move {
        match finished.await {
            Ok(Ok(cpu)) => Ok(Ended::Shared { cpu }),
            Ok(Err(failure)) => Err(wasmtime::Error::new(failure)),
            Err(_) => Err(match broken.get() {
                Some(failure) => wasmtime::Error::new(failure.clone()),
                None => wasmtime::format_err!("the instance ended before the invocation"),
            }),
        }
    }))
}

fn start(
    shared: &Arc<Shared>,
    function: &Arc<Function>,
    code: &Arc<Pre>,
    caller: Caller,
) -> Result<Worker, Failure> {
    // One store serves many: its time is not theirs, so the wall limit is each invocation's own.
    let budget = Budget {
        wall: INSTANCE_WALL,
        ..function.limits.budget
    };
    let meter = Arc::new(Meter::start(budget, None));
    let log = Arc::new(InvocationLog::new(
        shared.telemetry.logs().clone(),
        function.id.clone(),
    ));
    let state = fresh_state(shared, function, &meter, caller, log)?;
    let store = state.into_store(&function.engine);
    let (jobs, receiver) = mpsc::channel(AT_ONCE_MAX);
    let code = Arc::clone(code);
    let broken = Arc::new(OnceLock::new());
    let breaking = Arc::clone(&broken);
    shared.afterwards.spawn(async move {
        let work = work(store, code, receiver, &meter, &breaking);
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|context| meter.poll(|| work.as_mut().poll(context))).await;
    });
    Ok(Worker {
        jobs,
        taken: Arc::default(),
        served: 0,
        broken,
    })
}

/// The life of one instance: it takes jobs until nobody sends any, or until one of them breaks it.
async fn work(
    store: Store<State>,
    code: Arc<Pre>,
    mut jobs: mpsc::Receiver<Job>,
    meter: &Meter,
    broken: &OnceLock<Failure>,
) {
    let instance = match code.instantiate(store).await {
        Ok(instance) => into_concurrent(instance),
        Err(error) => {
            let _ = broken.set(failure::of_guest(&error, meter));
            return;
        }
    };
    let Some((mut store, service)) = instance else {
        return;
    };
    let serve =
        async |accessor: &Accessor<State>| serve_jobs(accessor, &service, &mut jobs, meter).await;
    // Those whose invocations end with the instance run on this very thread: they look after this.
    if let Err(error) = store.run_concurrent(serve).await.flatten() {
        let _ = broken.set(failure::of_guest(&error, meter));
    }
}

async fn serve_jobs(
    accessor: &Accessor<State>,
    service: &Service,
    jobs: &mut mpsc::Receiver<Job>,
    meter: &Meter,
) -> wasmtime::Result<()> {
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            job = jobs.recv() => match job {
                Some(job) => {
                    meter.begin_share();
                    begin_log(accessor, &job.begin.caller, running.is_empty());
                    running.push(serve_job(accessor, service, job, meter));
                }
                None if running.is_empty() => return Ok(()),
                None => {
                    if let Some(result) = running.next().await { result?; }
                }
            },
            Some(result) = running.next(), if !running.is_empty() => result?,
        }
    }
}

/// Each invocation brings a budget of log bytes. Which of several a line belongs to cannot be told, so
/// lines name the invocation only while it is alone.
fn begin_log(accessor: &Accessor<State>, caller: &Caller, alone: bool) {
    accessor.with(|mut access| {
        let state = access.data_mut();
        let log_bytes = state.function.limits.budget.log_bytes;
        if alone {
            let trace_id = caller.trace.trace_id;
            state.log.begin(&caller.request_id, trace_id, log_bytes);
        } else {
            state.log.begin("", 0, log_bytes);
        }
    });
}

async fn serve_job(
    accessor: &Accessor<State>,
    service: &Service,
    job: Job,
    meter: &Meter,
) -> wasmtime::Result<()> {
    let Job { begin, done, taken } = job;
    let result = serve_concurrent(
        accessor,
        service,
        begin.request,
        begin.head,
        begin.body_read,
        Some(begin.caller),
    )
    .await;
    drop(taken);
    let cpu = meter.end_share();
    // The receiver is gone when the caller is.
    let _ = done.send(match &result {
        Ok(()) => Ok(cpu),
        Err(error) => Err(failure::of_guest(error, meter)),
    });
    result
}
