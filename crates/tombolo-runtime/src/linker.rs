//! Everything the host offers to components, linked once for each engine.

use std::sync::{Arc, OnceLock};

use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::capabilities;
use crate::egress;
use crate::engine::EngineKind;
use crate::state::State;

/// The linkers of the two engines, made when the first component needs them.
#[derive(Default)]
pub(crate) struct Linkers {
    plain: OnceLock<Arc<Linker<State>>>,
    concurrent: OnceLock<Arc<Linker<State>>>,
}

impl Linkers {
    pub(crate) fn get(
        &self,
        kind: EngineKind,
        engine: &Engine,
    ) -> wasmtime::Result<Arc<Linker<State>>> {
        let slot = match kind {
            EngineKind::Plain => &self.plain,
            EngineKind::Concurrent => &self.concurrent,
        };
        if let Some(linker) = slot.get() {
            return Ok(Arc::clone(linker));
        }
        let linker = Arc::new(link(kind, engine)?);
        Ok(Arc::clone(slot.get_or_init(|| linker)))
    }
}

fn link(kind: EngineKind, engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    capabilities::link(&mut linker)?;
    if kind == EngineKind::Concurrent {
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
        egress::link_client(&mut linker)?;
        capabilities::link_concurrent(&mut linker)?;
    }
    Ok(linker)
}
