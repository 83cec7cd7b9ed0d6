//! What the host keeps for one instance: the data of its wasmtime store.

use std::sync::Arc;

use wasmtime::component::{HasData, ResourceTable};
use wasmtime::{Store, StoreContextMut, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::egress::Egress;
use crate::function::Function;
use crate::memory::Memory;
use crate::output::InvocationLog;

/// The host's side of one instance.
pub(crate) struct State {
    pub(crate) wasi: WasiCtx,
    pub(crate) http: WasiHttpCtx,
    pub(crate) table: ResourceTable,
    pub(crate) egress: Egress,
    pub(crate) function: Arc<Function>,
    pub(crate) log: Arc<InvocationLog>,
    pub(crate) memory: Memory,
    /// Bytes of the values that the guest holds to compare them later.
    pub(crate) seen_bytes: usize,
}

/// Live resources that a guest may hold at once.
const RESOURCES_MAX: usize = 2_000;
const RANDOM_BYTES_MAX: u64 = 64 << 10;
const FIELD_BYTES_MAX: usize = 128 << 10;

impl State {
    /// The state of a fresh instance of `function`.
    pub(crate) fn new(
        function: Arc<Function>,
        memory: Memory,
        egress: Egress,
        log: Arc<InvocationLog>,
    ) -> wasmtime::Result<Self> {
        let wasi = function.wasi(&log, RANDOM_BYTES_MAX)?;
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(FIELD_BYTES_MAX);
        Ok(Self {
            wasi,
            http,
            table,
            egress,
            function,
            log,
            memory,
            seen_bytes: 0,
        })
    }

    /// A wasmtime store around the state, with every limit of the budget set.
    pub(crate) fn into_store(self, engine: &wasmtime::Engine) -> Store<Self> {
        let hostcall_bytes = self.memory.meter.budget().hostcall_bytes;
        let mut store = Store::new(engine, self);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(usize::try_from(hostcall_bytes).unwrap_or(usize::MAX));
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(at_epoch);
        store
    }
}

/// A guest that computes reaches this once a tick: it is stopped when its budget is used up, and
/// otherwise lets its neighbours on the same core have a turn.
fn at_epoch(store: StoreContextMut<'_, State>) -> wasmtime::Result<UpdateDeadline> {
    match store.data().memory.meter.check_within_poll() {
        Some(limit) => Err(wasmtime::format_err!("the limit `{limit}` is reached")),
        None => Ok(UpdateDeadline::Yield(1)),
    }
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

/// Selects the whole state for a capability's implementation.
pub(crate) struct Capabilities;

impl HasData for Capabilities {
    type Data<'a> = &'a mut State;
}
