//! The wasmtime host: engines, compiled-code cache, instances, budgets and capabilities behind the seam `Invoke`.

mod answer;
mod capabilities;
mod cgroup;
mod code_cache;
mod command;
mod concurrent;
mod egress;
mod engine;
mod failure;
mod function;
mod gate;
mod imports;
mod instance;
mod invocation;
mod linker;
mod memory;
mod meter;
mod output;
mod publishing;
mod runtime;
mod state;
mod ticker;
mod world;

pub use code_cache::CodeError;
pub use command::{CommandError, CommandSpec, run_command};
pub use egress::Callbacks;
pub use engine::{Allocation, EngineError, Probe};
pub use function::{FunctionStatus, LoadedFunction};
pub use imports::LoadError;
pub use runtime::{FunctionSpec, Runtime, RuntimeOptions, StartError};
pub use world::World;
