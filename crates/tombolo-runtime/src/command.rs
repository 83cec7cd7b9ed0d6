//! Runs a command (`wasi:cli` 0.2 and 0.3, and core modules of WASI preview 1) with the process's own stdin, stdout and stderr.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use tombolo_core::{Budget, Code, Failure, FunctionId, Limit, TraceContext};
use tombolo_manifest::{DirectoryGrant, Grants, HttpGrant, SocketGrant};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Engine, Module, Store, UpdateDeadline};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::egress::{Caller, Client, Egress, Machine};
use crate::engine::{Allocation, EngineError, EngineKind, Engines};
use crate::failure;
use crate::function::{grant_directories, grant_sockets};
use crate::imports::{self, LoadError};
use crate::memory::{Memory, NodeMemory};
use crate::meter::Meter;
use crate::publishing::Publishing;
use crate::ticker::Ticker;
use crate::world::{Outline, World};

/// A command and what it may use.
#[derive(Clone, Debug)]
pub struct CommandSpec {
    /// A component or a core module, binary or text.
    pub program: Vec<u8>,
    /// The arguments, the program's own name first.
    pub arguments: Vec<String>,
    pub env: Vec<(String, String)>,
    pub directories: Vec<DirectoryGrant>,
    pub sockets: Vec<SocketGrant>,
    pub http: Vec<HttpGrant>,
    pub budget: Budget,
}

/// Why a command did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the program is a function, not a command; `tombolo serve` serves it")]
    Function,
    #[error("the module exports no `_start`, with which a command of WASI preview 1 begins")]
    NoStart,
    #[error("the epoch thread cannot start")]
    Thread(#[source] std::io::Error),
    #[error("the program cannot be set up: {0:#}")]
    SetUp(wasmtime::Error),
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl CommandError {
    /// The error code under which `explain` tells more.
    pub fn code(&self) -> Code {
        match self {
            Self::Load(error) => error.code(),
            Self::Engine(_) | Self::Thread(_) => Code::HostError,
            Self::Function | Self::NoStart => Code::HandlerMissing,
            Self::SetUp(_) => Code::ComponentInvalid,
            Self::Failed(failure) => failure.code,
        }
    }
}

struct State {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    egress: Egress,
    memory: Memory,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http,
            table: &mut self.table,
            hooks: &mut self.egress,
        }
    }
}

/// Runs a command to its end; returns its exit code.
///
/// # Errors
/// The program cannot be loaded, traps, or hits a limit.
pub async fn run_command(spec: CommandSpec) -> Result<i32, CommandError> {
    let binary = imports::binary(&spec.program)?;
    let outline = Outline::read(&binary).map_err(|_| LoadError::NotComponent)?;
    let ticker = Ticker::start().map_err(CommandError::Thread)?;
    let on_demand = Allocation::on_demand(true);
    let engine = Engines::start(on_demand, ticker.clone())?.get(outline.engine)?;
    let _ticking = ticker.begin();
    let meter = Arc::new(Meter::start(spec.budget, None));
    let run: Run<'_> = match outline.world {
        Some(World::Module) => Box::pin(run_module(&engine, &binary, &spec, Arc::clone(&meter))),
        Some(World::Cli02 | World::Cli03) => Box::pin(run_component(
            &engine,
            &binary,
            &spec,
            outline.engine,
            outline.world,
            Arc::clone(&meter),
        )),
        Some(World::Http02 | World::Http03) => return Err(CommandError::Function),
        None => return Err(LoadError::HandlerMissing.into()),
    };
    watched(run, &meter).await
}

type Run<'a> =
    Pin<Box<dyn Future<Output = Result<Result<(), wasmtime::Error>, CommandError>> + 'a>>;

/// Polls the command under its budget.
async fn watched(run: Run<'_>, meter: &Meter) -> Result<i32, CommandError> {
    let mut run = pin!(run);
    let mut sleep = pin!(tokio::time::sleep_until(meter.deadline().into()));
    let ended = poll_fn(|context| {
        if let Poll::Ready(ended) = meter.poll(|| run.as_mut().poll(context)) {
            return Poll::Ready(ended);
        }
        if sleep.as_mut().poll(context).is_ready() {
            meter.record(Limit::Wall);
        }
        match meter.hit() {
            Some(limit) => Poll::Ready(Err(failure::of_limit(limit, meter).into())),
            None => Poll::Pending,
        }
    })
    .await?;
    match ended {
        Ok(()) => Ok(0),
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(exit) => Ok(exit.0),
            None => Err(failure::of_guest(&error, meter).into()),
        },
    }
}

fn wasi(spec: &CommandSpec) -> Result<WasiCtxBuilder, CommandError> {
    let mut wasi = WasiCtxBuilder::new();
    wasi.inherit_stdio().args(&spec.arguments).envs(&spec.env);
    grant_directories(&mut wasi, &spec.directories).map_err(CommandError::SetUp)?;
    grant_sockets(&mut wasi, &spec.sockets);
    Ok(wasi)
}

/// A command has the machine to itself: only its own budget bounds its memory.
fn memory(meter: &Arc<Meter>) -> Memory {
    Memory::new(Arc::clone(meter), Arc::new(NodeMemory::new(u64::MAX)))
}

fn watch<T>(store: &mut Store<T>, meter: &Arc<Meter>) {
    let meter = Arc::clone(meter);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| match meter.check_within_poll() {
        Some(limit) => Err(wasmtime::format_err!("the limit `{limit}` is reached")),
        None => Ok(UpdateDeadline::Yield(1)),
    });
}

async fn run_module(
    engine: &Engine,
    binary: &[u8],
    spec: &CommandSpec,
    meter: Arc<Meter>,
) -> Result<Result<(), wasmtime::Error>, CommandError> {
    let module = Module::from_binary(engine, binary).map_err(CommandError::SetUp)?;
    if module.get_export("_start").is_none() {
        return Err(CommandError::NoStart);
    }
    let mut linker: wasmtime::Linker<(WasiP1Ctx, Memory)> = wasmtime::Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |state| &mut state.0)
        .map_err(CommandError::SetUp)?;
    let memory = memory(&meter);
    let mut store = Store::new(engine, (wasi(spec)?.build_p1(), memory));
    store.limiter(|state| &mut state.1);
    watch(&mut store, &meter);
    let instance = match linker.instantiate_async(&mut store, &module).await {
        Ok(instance) => instance,
        Err(error) => return Ok(Err(error)),
    };
    let start = instance
        .get_typed_func::<(), ()>(&mut store, "_start")
        .map_err(CommandError::SetUp)?;
    Ok(start.call_async(&mut store, ()).await)
}

async fn run_component(
    engine: &Engine,
    binary: &[u8],
    spec: &CommandSpec,
    kind: EngineKind,
    world: Option<World>,
    meter: Arc<Meter>,
) -> Result<Result<(), wasmtime::Error>, CommandError> {
    let component = Component::from_binary(engine, binary).map_err(CommandError::SetUp)?;
    let linker = linker(engine, kind).map_err(CommandError::SetUp)?;
    let hostcall_bytes = usize::try_from(spec.budget.hostcall_bytes).unwrap_or(usize::MAX);
    let state = State {
        wasi: wasi(spec)?.build(),
        http: WasiHttpCtx::new(),
        table: ResourceTable::new(),
        egress: egress(spec, &meter)?,
        memory: memory(&meter),
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(hostcall_bytes);
    watch(&mut store, &meter);
    Ok(match world {
        Some(World::Cli03) => run_03(&mut store, &component, &linker).await,
        _ => run_02(&mut store, &component, &linker).await,
    })
}

/// A command that returns an error exits with 1, as in a shell.
const FAILED: I32Exit = I32Exit(1);

async fn run_02(
    store: &mut Store<State>,
    component: &Component,
    linker: &Linker<State>,
) -> wasmtime::Result<()> {
    use wasmtime_wasi::p2::bindings::Command;
    let command = Command::instantiate_async(&mut *store, component, linker).await?;
    command
        .wasi_cli_run()
        .call_run(store)
        .await?
        .map_err(|()| FAILED.into())
}

async fn run_03(
    store: &mut Store<State>,
    component: &Component,
    linker: &Linker<State>,
) -> wasmtime::Result<()> {
    use wasmtime_wasi::p3::bindings::Command;
    let command = Command::instantiate_async(&mut *store, component, linker).await?;
    let ended = store
        .run_concurrent(async |accessor| command.wasi_cli_run().call_run(accessor).await)
        .await??;
    ended.map_err(|()| FAILED.into())
}

fn linker(engine: &Engine, kind: EngineKind) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    if kind == EngineKind::Concurrent {
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    }
    Ok(linker)
}

fn egress(spec: &CommandSpec, meter: &Meter) -> Result<Egress, CommandError> {
    let name = || {
        "command"
            .parse()
            .map_err(|error| CommandError::SetUp(wasmtime::Error::new(error)))
    };
    let caller = Caller {
        function: FunctionId {
            app: name()?,
            function: name()?,
        },
        trace: TraceContext {
            trace_id: 1,
            span_id: 1,
            sampled: false,
        },
        request_id: String::new(),
        deadline: meter.deadline(),
        hops: 0,
        client: None,
        effects: None,
    };
    let grants = Grants {
        http: spec.http.clone(),
        ..Grants::default()
    };
    Ok(Egress {
        caller,
        callers: BTreeMap::new(),
        grants: Arc::new(grants),
        http: Client::new(Arc::new(Machine::new())),
        dispatcher: None,
        publishing: Publishing::default(),
        log: None,
    })
}
