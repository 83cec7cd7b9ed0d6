//! `wasi:logging` 0.1.0-draft: lines with a level and a context in the log of the invocation.

use tombolo_core::LogLevel;
use wasmtime::component::Linker;

use crate::state::{Capabilities, State};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/logging",
        world: "imports",
        imports: { default: trappable },
        require_store_data_send: true,
    });
}

use bindings::wasi::logging::logging::{self, Level};

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    logging::add_to_linker::<_, Capabilities>(linker, |state| state)
}

impl logging::Host for State {
    fn log(&mut self, level: Level, context: String, message: String) -> wasmtime::Result<()> {
        let level = match level {
            Level::Trace => LogLevel::Trace,
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
            Level::Critical => LogLevel::Critical,
        };
        self.log.message(level, &context, &message);
        Ok(())
    }
}
