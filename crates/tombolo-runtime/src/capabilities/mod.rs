//! The interfaces that functions may import beside WASI itself, one module each.

mod config;
mod keyvalue;
mod keyvalue_draft;
mod keyvalue_draft2;
mod logging;
mod messaging;
mod spin2;
mod spin3;

use wasmtime::component::Linker;

use crate::state::State;

/// Links what components without async can use.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    keyvalue_draft::link(linker)?;
    keyvalue_draft2::link(linker)?;
    config::link(linker)?;
    logging::link(linker)?;
    messaging::link(linker)?;
    spin2::link(linker)
}

/// Links what needs async components.
pub(crate) fn link_concurrent(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    messaging::link_concurrent(linker)?;
    spin3::link(linker)
}
