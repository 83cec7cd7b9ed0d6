//! Turns what wasmtime reports into data: code, blame, cause and the guest's frames by name.

use std::fmt::Write as _;
use std::time::Duration;

use tombolo_core::{Blame, Code, Failure, Limit};
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::memory::MemoryBound;
use crate::meter::Meter;

const FRAMES_MAX: usize = 64;

/// The failure of an invocation whose guest ended with `error`.
pub(crate) fn of_guest(error: &wasmtime::Error, meter: &Meter) -> Failure {
    // An instance that served several invocations has told already why it ended.
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.clone();
    }
    let failure = match meter.hit() {
        Some(limit) => of_limit(limit, meter),
        None => of_error(error, meter),
    };
    Failure {
        backtrace: backtrace(error),
        ..failure
    }
}

/// The failure of an invocation that hit a limit.
pub(crate) fn of_limit(limit: Limit, meter: &Meter) -> Failure {
    let budget = meter.budget();
    let (code, detail) = match limit {
        Limit::Wall => (
            Code::WallExceeded,
            format!(
                "the function ran longer than `limits.wall` ({:?})",
                budget.wall
            ),
        ),
        Limit::Cpu => (
            Code::CpuExceeded,
            format!(
                "the function used more CPU time than `limits.cpu` ({:?})",
                budget.cpu
            ),
        ),
        Limit::Memory => (
            Code::MemoryExceeded,
            format!(
                "the function needed more memory than `limits.memory` ({} bytes)",
                budget.memory_bytes
            ),
        ),
        Limit::HostcallBytes => (
            Code::HostcallExceeded,
            format!(
                "one host call was larger than `limits.hostcall` ({} bytes)",
                budget.hostcall_bytes
            ),
        ),
        Limit::ResponseBytes => (
            Code::ResponseTooLong,
            format!(
                "the response was longer than `limits.response` ({} bytes)",
                budget.response_bytes
            ),
        ),
        Limit::Concurrency => (Code::Busy, "the function is busy".into()),
    };
    Failure::new(code, Blame::Guest, detail).limit(limit)
}

/// Whether an instance could not be made because others have what it needs.
pub(crate) fn lacks_room(error: &wasmtime::Error, meter: &Meter) -> bool {
    error.is::<PoolConcurrencyLimitError>() || meter.memory_refused() == Some(MemoryBound::Node)
}

/// The failure of an invocation that did not cope with being refused memory.
fn of_memory(bound: MemoryBound, meter: &Meter) -> Failure {
    match bound {
        MemoryBound::Function => of_limit(Limit::Memory, meter),
        MemoryBound::Node => busy("the memory that the node has for instances is used up"),
    }
}

fn busy(detail: &str) -> Failure {
    Failure::new(Code::Busy, Blame::Host, detail).retry_after(Duration::from_secs(1))
}

fn of_error(error: &wasmtime::Error, meter: &Meter) -> Failure {
    if error.is::<PoolConcurrencyLimitError>() {
        return busy("the node's pool of instances is used up").limit(Limit::Concurrency);
    }
    let trap = error.downcast_ref::<Trap>();
    if let Some(bound) = meter.memory_refused()
        && trap.is_some()
    {
        return of_memory(bound, meter);
    }
    if let Some(trap) = trap {
        return Failure::new(
            Code::Trap,
            Blame::Guest,
            format!("the function trapped: {trap}"),
        );
    }
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        let detail = format!(
            "the function exited with code {} before it answered",
            exit.0
        );
        return Failure::new(Code::NoAnswer, Blame::Guest, detail);
    }
    let root = error.root_cause().to_string();
    // wasmtime keeps the type of this error to itself.
    if root.contains("fuel allocated for hostcalls has been exhausted") {
        return of_limit(Limit::HostcallBytes, meter);
    }
    if let Some(bound) = meter.memory_refused() {
        return of_memory(bound, meter);
    }
    // With frames of the guest on the stack it was the guest's call that was refused.
    match error.downcast_ref::<WasmBacktrace>() {
        Some(_) => Failure::new(
            Code::Trap,
            Blame::Guest,
            format!("the function was stopped: {root}"),
        ),
        None => Failure::new(
            Code::HostError,
            Blame::Host,
            format!("the function could not be run: {root}"),
        ),
    }
}

/// The frames of the guest, innermost first, one a line; `None` when no guest was running.
fn backtrace(error: &wasmtime::Error) -> Option<String> {
    let frames = error.downcast_ref::<WasmBacktrace>()?.frames();
    let mut text = String::new();
    for (position, frame) in frames.iter().take(FRAMES_MAX).enumerate() {
        let name = frame
            .symbols()
            .first()
            .and_then(|symbol| symbol.name())
            .or_else(|| frame.func_name())
            .unwrap_or("<unknown>");
        let _ = write!(text, "{position:>3}: {}", demangle(name));
        if let Some((file, line)) = frame
            .symbols()
            .first()
            .and_then(|symbol| Some((symbol.file()?, symbol.line()?)))
        {
            let _ = write!(text, " at {file}:{line}");
        }
        text.push('\n');
    }
    (!text.is_empty()).then_some(text)
}

fn demangle(name: &str) -> String {
    rustc_demangle::try_demangle(name)
        .map_or_else(|_| name.into(), |demangled| format!("{demangled:#}"))
}
