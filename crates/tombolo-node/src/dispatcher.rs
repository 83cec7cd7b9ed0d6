//! Decides where a call runs: here when the function is placed here; there is no other place yet.

use http::{HeaderMap, HeaderValue};
use tombolo_core::header::{CLIENT_IP, NODE, TIER};
use tombolo_core::invoke::HOPS_MAX;
use tombolo_core::{Blame, Call, CallContext, Code, Failure, Invoke, InvokeFuture};
use tombolo_runtime::Runtime;

/// The one way from triggers, the API and functions themselves to functions.
pub(crate) struct Dispatcher {
    runtime: Runtime,
    /// What functions are told of the node.
    node: Option<HeaderValue>,
    tier: Option<HeaderValue>,
}

impl Dispatcher {
    pub(crate) fn new(runtime: Runtime, node: &str, tier: &str) -> Self {
        Self {
            runtime,
            // Both are words of lower-case letters, digits and hyphens.
            node: HeaderValue::from_str(node).ok(),
            tier: HeaderValue::from_str(tier).ok(),
        }
    }

    /// Sets what only the host may tell. The listener has done so already, with values made once for
    /// each connection.
    fn tell(&self, headers: &mut HeaderMap, context: &CallContext) {
        if headers.contains_key(NODE) {
            return;
        }
        let client = context
            .client
            .and_then(|address| HeaderValue::try_from(address.to_string()).ok());
        for (name, value) in [
            (NODE, self.node.clone()),
            (TIER, self.tier.clone()),
            (CLIENT_IP, client),
        ] {
            headers.extend(value.map(|value| (name, value)));
        }
    }
}

impl Invoke for Dispatcher {
    fn invoke(&self, mut call: Call) -> InvokeFuture {
        // Callers count their hops; that none forgot to stop is checked where every call passes.
        if call.context.hops > HOPS_MAX {
            let detail =
                format!("more than {HOPS_MAX} functions called one another for this request");
            return Box::pin(async { Err(Failure::new(Code::Loop, Blame::Caller, detail)) });
        }
        self.tell(call.request.headers_mut(), &call.context);
        self.runtime.invoke(call)
    }
}
