//! Concurrent isolation: instances of 0.3 components that serve several invocations at once, kept per core.

use std::cell::Cell;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{FutureExt as _, OptionFuture, Shared as SharedFuture};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, oneshot};
use tombolo_core::{Blame, Budget, Code, Failure, Limit};
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

/// The reused instances of one function: a shard for each thread with a runtime of its own, so that they
/// stay on their core, and one for the threads of the runtime that moves its tasks between cores.
pub(crate) struct Shards {
    shards: Box<[Mutex<Vec<Worker>>]>,
    /// Set when a new release has taken the function's place: nothing is kept any more.
    retired: AtomicBool,
}

/// An instance that takes jobs.
struct Worker {
    jobs: mpsc::Sender<Job>,
    taken: Arc<AtomicUsize>,
    served: usize,
    broken: Broken,
}

/// What ended the instance, for those whose invocations it took along; known once it is gone.
type Broken = SharedFuture<oneshot::Receiver<Failure>>;

struct Job {
    begin: Begin,
    done: oneshot::Sender<Result<Duration, Failure>>,
    taken: Option<Taken>,
}

/// One of the places of a worker.
struct Taken(Arc<AtomicUsize>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Worker {
    fn is_usable(&self) -> bool {
        !self.jobs.is_closed() && self.served < REUSE_MAX as usize
    }

    /// Gives the instance a job in one of its places; the job comes back when it has ended meanwhile.
    #[expect(
        clippy::result_large_err,
        reason = "the job goes on to another instance; a box would cost every request"
    )]
    fn give(&mut self, mut job: Job) -> Result<Broken, Job> {
        self.taken.fetch_add(1, Relaxed);
        job.taken = Some(Taken(Arc::clone(&self.taken)));
        match self.jobs.try_send(job) {
            Ok(()) => {
                self.served += 1;
                Ok(self.broken.clone())
            }
            Err(error) => Err(error.into_inner()),
        }
    }
}

impl Shards {
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            shards: (0..=threads).map(|_| Mutex::default()).collect(),
            retired: AtomicBool::new(false),
        }
    }

    /// The shard of the calling thread.
    fn mine(&self) -> Option<MutexGuard<'_, Vec<Worker>>> {
        let (shared, own) = self.shards.split_first()?;
        let number = thread_number().zip(NonZero::new(own.len()));
        let shard = number.and_then(|(number, length)| own.get(number % length));
        Some(lock(shard.unwrap_or(shared)))
    }

    /// Gives the job to an instance of this thread that has a place; the job comes back when none has.
    #[expect(
        clippy::result_large_err,
        reason = "the job goes on to another instance; a box would cost every request"
    )]
    fn give(&self, job: Job) -> Result<Broken, Job> {
        let Some(mut workers) = self.mine() else {
            return Err(job);
        };
        workers.retain(Worker::is_usable);
        let has_place = |worker: &&mut Worker| worker.taken.load(Relaxed) < AT_ONCE_MAX;
        match workers.iter_mut().find(has_place) {
            Some(worker) => worker.give(job),
            None => Err(job),
        }
    }

    /// Keeps an instance for more jobs. One that is not kept ends after those it has.
    fn keep(&self, worker: Worker) {
        if let Some(mut workers) = self.mine()
            && !self.retired.load(Relaxed)
        {
            workers.push(worker);
        }
    }

    /// Lets every instance end after what it serves now.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            lock(shard).clear();
        }
    }

    /// Keeps no instance from now on.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Relaxed);
        self.clear();
    }

    /// Lets one instance end that serves nothing now; false when there is none.
    pub(crate) fn give_way(&self) -> bool {
        self.shards.iter().any(|shard| {
            let mut workers = lock(shard);
            let resting = |worker: &Worker| worker.taken.load(Relaxed) == 0;
            let found = workers.iter().position(resting);
            found.map(|at| workers.swap_remove(at)).is_some()
        })
    }

    pub(crate) fn instances(&self) -> usize {
        let usable = |shard| {
            lock(shard)
                .iter()
                .filter(|worker| worker.is_usable())
                .count()
        };
        self.shards.iter().map(usable).sum()
    }
}

fn lock(shard: &Mutex<Vec<Worker>>) -> MutexGuard<'_, Vec<Worker>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A small number for each thread that drives a runtime of its own, given in the order in which they
/// ask; `None` on the threads of a runtime that moves its tasks.
fn thread_number() -> Option<usize> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<Option<Option<usize>>> = const { Cell::new(None) };
    }
    NUMBER.get().unwrap_or_else(|| {
        let flavor = Handle::try_current().map(|handle| handle.runtime_flavor());
        let own = matches!(flavor, Ok(RuntimeFlavor::CurrentThread));
        let number = own.then(|| NEXT.fetch_add(1, Relaxed));
        NUMBER.set(Some(number));
        number
    })
}

/// Gives the request to an instance of this thread that has a place, or to a new one.
pub(crate) fn submit(
    shared: &Arc<Shared>,
    function: &Arc<Function>,
    code: &Arc<Pre>,
    begin: Begin,
) -> Result<Run, Failure> {
    let (done, finished) = oneshot::channel();
    let job = Job {
        begin,
        done,
        taken: None,
    };
    let broken = match function.concurrent.give(job) {
        Ok(broken) => broken,
        Err(job) => {
            let mut worker = start(shared, function, code, job.begin.caller.clone())?;
            let broken = worker.give(job).map_err(|_| ended_meanwhile())?;
            function.concurrent.keep(worker);
            broken
        }
    };
    Ok(Box::pin(async move {
        match finished.await {
            Ok(Ok(cpu)) => Ok(Ended::Shared { cpu }),
            Ok(Err(failure)) => Err(wasmtime::Error::new(failure)),
            Err(_) => Err(wasmtime::Error::new(
                broken.await.unwrap_or_else(|_| ended_meanwhile()),
            )),
        }
    }))
}

fn ended_meanwhile() -> Failure {
    let detail = "the instance ended before the invocation";
    Failure::new(Code::Busy, Blame::Host, detail).retry_after(Duration::from_secs(1))
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
    let (breaking, broken) = oneshot::channel();
    let (starting, code) = (Arc::clone(shared), Arc::clone(code));
    shared.afterwards.spawn(async move {
        let work = work(starting, store, &code, receiver, &meter);
        let mut work = std::pin::pin!(work);
        let ended = std::future::poll_fn(|context| meter.poll(|| work.as_mut().poll(context)));
        if let Err(failure) = ended.await {
            // Nobody waits when no invocation was under way.
            let _ = breaking.send(failure);
        }
    });
    Ok(Worker {
        jobs,
        taken: Arc::default(),
        served: 0,
        broken: broken.shared(),
    })
}

/// The life of one instance: it takes jobs until nobody sends any, until one of them breaks it, or until
/// one is given up, whose guest cannot be stopped alone.
async fn work(
    shared: Arc<Shared>,
    store: Store<State>,
    code: &Pre,
    mut jobs: mpsc::Receiver<Job>,
    meter: &Meter,
) -> Result<(), Failure> {
    let of_guest = |error: &wasmtime::Error| failure::of_guest(error, meter);
    let instantiated = code.instantiate(&shared, store).await;
    // An instance that waits for jobs keeps nothing else alive.
    drop(shared);
    let instance = instantiated.map_err(|error| of_guest(&error))?;
    let Some((mut store, service)) = into_concurrent(instance) else {
        return Ok(());
    };
    let serve =
        async |accessor: &Accessor<State>| serve_jobs(accessor, &service, &mut jobs, meter).await;
    let served = store.run_concurrent(serve).await.flatten();
    served.map_err(|error| of_guest(&error))
}

async fn serve_jobs(
    accessor: &Accessor<State>,
    service: &Service,
    jobs: &mut mpsc::Receiver<Job>,
    meter: &Meter,
) -> wasmtime::Result<()> {
    let wall = accessor.with(|mut access| access.data_mut().function.limits.budget.wall);
    let mut running = FuturesUnordered::new();
    let mut taking = true;
    // Once nothing new comes in, those that run have the longest time that any of them may have.
    let mut last = None;
    let until = || Box::pin(tokio::time::sleep(wall));
    while taking || !running.is_empty() {
        // Every branch is cancel safe: none holds anything between two polls that is lost with it.
        tokio::select! {
            job = jobs.recv(), if taking => if let Some(job) = job {
                if !job.done.is_closed() {
                    meter.begin_share();
                    begin_log(accessor, &job.begin.caller, running.is_empty());
                    running.push(serve_job(accessor, service, job, meter));
                }
            } else {
                taking = false;
                last.get_or_insert_with(until);
            },
            Some(served) = running.next(), if !running.is_empty() => {
                if served? == Served::GivenUp {
                    jobs.close();
                    last.get_or_insert_with(until);
                }
            }
            Some(()) = OptionFuture::from(last.as_mut()) => return Err(wasmtime::Error::new(over_time())),
        }
    }
    Ok(())
}

/// The end of invocations that outlast their instance.
fn over_time() -> Failure {
    let detail = "the function ran longer than `limits.wall`";
    Failure::new(Code::WallExceeded, Blame::Guest, detail).limit(Limit::Wall)
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

/// How a job ended.
#[derive(PartialEq, Eq)]
enum Served {
    Whole,
    /// Nobody waits for it any more, but its guest may be at work.
    GivenUp,
}

async fn serve_job(
    accessor: &Accessor<State>,
    service: &Service,
    job: Job,
    meter: &Meter,
) -> wasmtime::Result<Served> {
    let Job {
        begin,
        mut done,
        taken,
    } = job;
    let serving = serve_concurrent(
        accessor,
        service,
        begin.request,
        begin.head,
        begin.body_read,
        Some(begin.caller),
    );
    // An invocation that is given up leaves no body to be read either, which must not look like its end.
    let result = tokio::select! {
        biased;
        () = done.closed() => return Ok(Served::GivenUp),
        result = serving => result,
    };
    drop(taken);
    let cpu = meter.end_share();
    // The receiver is gone when the caller is.
    let _ = done.send(match &result {
        Ok(()) => Ok(cpu),
        Err(error) => Err(failure::of_guest(error, meter)),
    });
    result.map(|()| Served::Whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn threads_that_hand_tasks_around_share_one_shard() {
        let asked = (0..8).map(|_| tokio::spawn(async { thread_number() }));
        for number in asked {
            assert_eq!(number.await.unwrap(), None);
        }
    }

    #[test]
    fn each_thread_with_a_runtime_of_its_own_has_a_number_of_its_own() {
        let number = || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let ask = async { thread_number() };
            let thread = std::thread::spawn(|| runtime.unwrap().block_on(ask));
            thread.join().unwrap().unwrap()
        };
        assert_ne!(number(), number());
    }
}
