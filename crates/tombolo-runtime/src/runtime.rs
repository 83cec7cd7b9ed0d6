//! The wasmtime host of a node: loads functions, keeps them, and runs them through `Invoke`.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use tokio_util::task::TaskTracker;
use tombolo_core::{
    Blame, Call, Code, Failure, FunctionId, Invoke, InvokeFuture, Name, Publish, PublishTopic,
};
use tombolo_manifest::Isolation;
use tombolo_store::Store;
use tombolo_telemetry::Telemetry;

use crate::code_cache::{CodeCache, CodeError, Stored};
use crate::concurrent::Shards;
use crate::egress::{Client, Machine};
use crate::engine::{Allocation, EngineError, EngineKind, Engines, Probe};
use crate::function::{Function, FunctionStatus, IDLE_INSTANCES_MAX, LoadedFunction};
use crate::gate::Gate;
use crate::imports::{self, LoadError};
use crate::invocation;
use crate::linker::Linkers;
use crate::memory::NodeMemory;
use crate::ticker::Ticker;
use crate::world::{Outline, World};

/// How a runtime is set up.
#[derive(Clone, Debug)]
pub struct RuntimeOptions {
    /// Where compiled code and its key are kept.
    pub folder: PathBuf,
    /// The file with the key that authenticates compiled code; made when it is not there.
    pub code_key: PathBuf,
    /// Threads that serve requests; instances for concurrent use are kept for each.
    pub threads: usize,
    /// Invocations of all functions that run at once.
    pub concurrency: u32,
    /// Invocations of all functions that wait for a place.
    pub waiting: u32,
    /// Whether instances get their memory from a pool that is reserved beforehand.
    pub pooling: bool,
    /// Memory that instances may take in all; what the machine has when absent.
    pub memory_bytes_max: Option<u64>,
    /// After so long without an invocation a function's machine code leaves memory.
    pub idle_after: Duration,
}

/// A function as it is deployed.
#[derive(Clone)]
pub struct FunctionSpec {
    pub id: FunctionId,
    /// The component's bytes.
    pub component: Vec<u8>,
    /// The function of the manifest, with its folders resolved.
    pub function: tombolo_manifest::Function,
    /// The granted secrets.
    pub secrets: BTreeMap<Name, String>,
}

/// Why a runtime does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Cache(#[from] CodeError),
    #[error("the epoch thread cannot start")]
    Thread(#[source] std::io::Error),
}

/// The runtime of a node; a clone is the same runtime.
#[derive(Clone)]
pub struct Runtime(Arc<Shared>);

pub(crate) struct Shared {
    engines: Engines,
    linkers: Arc<Linkers>,
    cache: Arc<CodeCache>,
    /// Whether the cache was looked through since the last deployment.
    swept: AtomicBool,
    pub(crate) memory: Arc<NodeMemory>,
    store: Store,
    threads: usize,
    idle_after: Duration,
    pub(crate) telemetry: Telemetry,
    pub(crate) ticker: Ticker,
    pub(crate) http: Client,
    pub(crate) dispatcher: OnceLock<Weak<dyn Invoke>>,
    pub(crate) publish: OnceLock<Arc<dyn Publish>>,
    pub(crate) topics: OnceLock<Arc<dyn PublishTopic>>,
    pub(crate) afterwards: TaskTracker,
    outer_gate: Gate,
    inner_gate: Gate,
    functions: RwLock<HashMap<FunctionId, Arc<Function>>>,
}

/// Files of the code cache that no function needs may take so much.
const UNNEEDED_CODE_BYTES_MAX: u64 = 256 << 20;

impl Shared {
    /// The bound on invocations of the node: one for calls from outside, one for calls between functions.
    pub(crate) fn node_gate(&self, nested: bool) -> &Gate {
        if nested {
            &self.inner_gate
        } else {
            &self.outer_gate
        }
    }

    /// Instances that one function may keep for reuse: no more than a quarter of what the pool has.
    fn idle_max(&self) -> usize {
        let slots = self.engines.allocation().pool_slots;
        let quarter = slots.and_then(|slots| usize::try_from(slots / 4).ok());
        quarter.map_or(IDLE_INSTANCES_MAX, |quarter| {
            quarter.clamp(1, IDLE_INSTANCES_MAX)
        })
    }

    fn installed(&self) -> Vec<Arc<Function>> {
        let functions = self
            .functions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        functions.values().cloned().collect()
    }

    /// Lets go of one instance that serves nothing now, of an engine of this kind if there is one;
    /// false when none rests.
    pub(crate) fn give_way(&self, kind: EngineKind) -> bool {
        let functions = self.installed();
        let of_kind = |function: &&Arc<Function>| function.kind == kind;
        functions.iter().filter(of_kind).any(|f| f.give_way())
            || functions.iter().any(|f| f.give_way())
    }
}

impl Runtime {
    /// Starts the engines. Nothing is compiled or mapped yet.
    ///
    /// # Errors
    /// The folder cannot be used, or not even an engine without a pool starts.
    pub fn start(
        options: &RuntimeOptions,
        store: Store,
        telemetry: Telemetry,
    ) -> Result<Self, StartError> {
        let ticker = Ticker::start().map_err(StartError::Thread)?;
        let mut probe = Probe::machine();
        if let Some(memory_bytes) = options.memory_bytes_max {
            probe.memory_bytes = probe.memory_bytes.min(memory_bytes);
        }
        let memory_bytes_max = options
            .memory_bytes_max
            .unwrap_or(probe.memory_bytes / 4 * 3);
        // As many again for the functions that are called by functions.
        let slots = options.concurrency.saturating_mul(2);
        let wanted = match options.pooling {
            true => probe.allocation(slots),
            false => Allocation::on_demand(true),
        };
        let engines = Engines::start(wanted, ticker.clone())?;
        let allocation = engines.allocation();
        tracing::info!(%allocation, "the runtime has started");
        let instances = allocation
            .pool_slots
            .unwrap_or_else(|| probe.instances(slots));
        let concurrency = options.concurrency.min(instances / 2);
        let cache = CodeCache::open(&options.folder.join("code"), &options.code_key)?;
        Ok(Self(Arc::new(Shared {
            engines,
            linkers: Arc::default(),
            cache: Arc::new(cache),
            swept: AtomicBool::new(true),
            memory: Arc::new(NodeMemory::new(memory_bytes_max)),
            store,
            threads: options.threads,
            idle_after: options.idle_after,
            telemetry,
            ticker,
            http: Client::new(Arc::new(Machine::new())),
            dispatcher: OnceLock::new(),
            publish: OnceLock::new(),
            topics: OnceLock::new(),
            afterwards: TaskTracker::new(),
            outer_gate: Gate::new("the node", concurrency, options.waiting),
            inner_gate: Gate::new("the node (for calls between functions)", concurrency, 0),
            functions: RwLock::default(),
        })))
    }

    /// Says where calls between functions go; the first word counts.
    pub fn connect(&self, dispatcher: Weak<dyn Invoke>) {
        let _ = self.0.dispatcher.set(dispatcher);
    }

    /// Says where the events go that functions publish; the first word counts.
    pub fn connect_queues(&self, publish: Arc<dyn Publish>) {
        let _ = self.0.publish.set(publish);
    }

    /// Says where the messages go that functions publish to topics; the first word counts.
    pub fn connect_topics(&self, topics: Arc<dyn PublishTopic>) {
        let _ = self.0.topics.set(topics);
    }

    /// How instances get their memory.
    pub fn allocation(&self) -> Allocation {
        self.0.engines.allocation()
    }

    /// Checks a function's imports against its grants and compiles it, or maps the code that was compiled
    /// before. Blocks for as long as compiling takes.
    ///
    /// # Errors
    /// The file is no function, needs what the host lacks or the manifest does not grant, or does not compile.
    pub fn load(&self, spec: FunctionSpec) -> Result<LoadedFunction, LoadError> {
        let binary = imports::binary(&spec.component)?;
        let outline = Outline::read(&binary).map_err(|_| LoadError::NotComponent)?;
        let world = imports::check(&outline, &spec.function)?;
        let engine = self.0.engines.get(outline.engine)?;
        let stored = self.0.cache.keep_source(&engine, &binary)?;
        let function = self.function(spec, world, outline.engine, engine, stored);
        let component = self.0.cache.load(&function.engine, &function.stored)?;
        let linked = imports::link(&self.0.linkers, &function, &component, &outline)?;
        function.set_code(Some(Arc::new(linked)));
        Ok(LoadedFunction(function))
    }

    fn function(
        &self,
        spec: FunctionSpec,
        world: World,
        kind: EngineKind,
        engine: wasmtime::Engine,
        stored: Arc<Stored>,
    ) -> Arc<Function> {
        let FunctionSpec {
            id,
            function,
            secrets,
            ..
        } = spec;
        let stores = function.grants.keyvalue.iter();
        let key_values = stores
            .map(|name| (name.clone(), self.0.store.key_value(&id.app, name)))
            .collect();
        let mut config = function.config;
        config.extend(
            secrets
                .into_iter()
                .map(|(name, value)| (name.to_string(), value)),
        );
        Arc::new(Function {
            world,
            kind,
            engine,
            stored,
            isolation: function.isolation,
            gate: Gate::new(
                "the function",
                function.limits.concurrency,
                function.limits.waiting,
            ),
            limits: function.limits,
            grants: Arc::new(function.grants),
            env: function.env.into_iter().collect(),
            config,
            key_values,
            metrics: self.0.telemetry.function(&id),
            cache: Arc::clone(&self.0.cache),
            linkers: Arc::clone(&self.0.linkers),
            concurrent: Shards::new(if function.isolation == Isolation::Concurrent {
                self.0.threads
            } else {
                0
            }),
            code: RwLock::default(),
            loading: tokio::sync::Mutex::default(),
            idle: Mutex::default(),
            idle_max: AtomicUsize::new(self.0.idle_max()),
            made: Instant::now(),
            used_ms: AtomicU64::new(0),
            id,
        })
    }

    /// Puts the functions of an app in the place of those it had. What runs goes on with the old ones.
    pub fn install(&self, app: &Name, functions: Vec<LoadedFunction>) {
        let mut installed = self
            .0
            .functions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let old: Vec<_> = installed.extract_if(|id, _| id.app == *app).collect();
        installed.extend(
            functions
                .into_iter()
                .map(|loaded| (loaded.0.id.clone(), loaded.0)),
        );
        let stays = |function: &Arc<Function>| {
            let now = installed.get(&function.id);
            now.is_some_and(|now| Arc::ptr_eq(now, function))
        };
        let replaced: Vec<_> = old.into_iter().filter(|(_, old)| !stays(old)).collect();
        drop(installed);
        for (_, function) in replaced {
            function.retire();
        }
        self.0.swept.store(false, Relaxed);
    }

    /// Takes the functions of an app away.
    pub fn remove(&self, app: &Name) {
        self.install(app, Vec::new());
    }

    /// What is known of a function now; `None` when it is not installed.
    pub fn status(&self, id: &FunctionId) -> Option<FunctionStatus> {
        self.find(id).map(|function| function.status())
    }

    fn find(&self, id: &FunctionId) -> Option<Arc<Function>> {
        self.0
            .functions
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    /// Lets go of the instances and the code of functions that rest, of instances whose memory others
    /// need, and of code that no release needs. To be called now and then.
    pub fn rest(&self) {
        let memory_lacks = self.0.memory.was_refused();
        for function in self.0.installed() {
            function.rest(self.0.idle_after);
            while memory_lacks && function.give_way() {}
        }
        if !self.0.swept.swap(true, Relaxed) {
            let cache = Arc::clone(&self.0.cache);
            let sweep = move || cache.sweep(UNNEEDED_CODE_BYTES_MAX);
            self.0.afterwards.spawn_blocking(sweep);
        }
    }

    /// Waits for guests that still work after their answer. Every one has a limit of time.
    pub async fn drain(&self) {
        for function in self.0.installed() {
            function.concurrent.clear();
        }
        self.0.afterwards.close();
        self.0.afterwards.wait().await;
    }
}

impl Invoke for Runtime {
    fn invoke(&self, call: Call) -> InvokeFuture {
        match self.find(&call.function) {
            Some(function) => Box::pin(invocation::invoke(Arc::clone(&self.0), function, call)),
            None => {
                let detail = format!("there is no function `{}` on this node", call.function);
                let failure = Failure::new(Code::NotFound, Blame::Caller, detail);
                Box::pin(async move { Err(failure) })
            }
        }
    }
}
