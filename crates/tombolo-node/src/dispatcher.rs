//! Decides where a call runs: here when the function is placed here; there is no other place yet.

use tombolo_core::invoke::HOPS_MAX;
use tombolo_core::{Blame, Call, Code, Failure, Invoke, InvokeFuture};
use tombolo_runtime::Runtime;

/// The one way from triggers, the API and functions themselves to functions.
pub(crate) struct Dispatcher {
    runtime: Runtime,
}

impl Dispatcher {
    pub(crate) fn new(runtime: Runtime) -> Self {
        Self { runtime }
    }
}

impl Invoke for Dispatcher {
    fn invoke(&self, call: Call) -> InvokeFuture {
        // Callers count their hops; that none forgot to stop is checked where every call passes.
        if call.context.hops > HOPS_MAX {
            let detail =
                format!("more than {HOPS_MAX} functions called one another for this request");
            return Box::pin(async { Err(Failure::new(Code::Loop, Blame::Caller, detail)) });
        }
        self.runtime.invoke(call)
    }
}
