//! An instance of a component and how it serves one request, for both versions of `wasi:http`.

use std::future::poll_fn;
use std::pin::Pin;

use http::{Request, Response};
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::{Accessor, Component, Linker};
use wasmtime_wasi_http::p2::bindings as p2;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p3::{self, bindings as p3_bindings};
use wasmtime_wasi_http::{Error, WasiBody, WasiHttpView as _};

use crate::egress::Caller;
use crate::failure;
use crate::runtime::Shared;
use crate::state::State;
use crate::world::World;

/// A component whose imports are linked and whose exports are looked up: all that instances share.
pub(crate) enum Pre {
    Http02(p2::ProxyPre<State>),
    Http03(p3_bindings::ServicePre<State>),
}

/// One instance with its memory.
pub(crate) struct Instance {
    pub(crate) store: Store<State>,
    exports: Exports,
    /// Invocations that it served, the current one included.
    pub(crate) uses: u32,
}

enum Exports {
    Http02(p2::Proxy),
    Http03(p3_bindings::Service),
}

/// The head of a guest's answer with its body, or the error that the guest set instead.
pub(crate) type Head = Result<Response<WasiBody>, String>;

/// Resting instances that one start may end to have room.
const GIVE_WAY_MAX: u32 = 16;

impl Pre {
    pub(crate) fn new(
        linker: &Linker<State>,
        component: &Component,
        world: World,
    ) -> wasmtime::Result<Self> {
        let pre = linker.instantiate_pre(component)?;
        match world {
            World::Http03 => Ok(Self::Http03(p3_bindings::ServicePre::new(pre)?)),
            World::Http02 | World::Cli02 | World::Cli03 | World::Module => {
                Ok(Self::Http02(p2::ProxyPre::new(pre)?))
            }
        }
    }

    /// A fresh instance in `store`. When the node has no room for it, an instance that rests gives way.
    pub(crate) async fn instantiate(
        &self,
        shared: &Shared,
        mut store: Store<State>,
    ) -> wasmtime::Result<Instance> {
        let mut tries = 0;
        let exports = loop {
            match self.exports(&mut store).await {
                // Another start may take the place that one gave up, so once is not enough.
                Err(error)
                    if tries < GIVE_WAY_MAX
                        && failure::lacks_room(&error, &store.data().memory.meter)
                        && shared.give_way(store.data().function.kind) =>
                {
                    tries += 1;
                    let engine = store.engine().clone();
                    let mut state = store.into_data();
                    state.memory.give_back();
                    store = state.into_store(&engine);
                }
                exports => break exports?,
            }
        };
        Ok(Instance {
            store,
            exports,
            uses: 0,
        })
    }

    async fn exports(&self, store: &mut Store<State>) -> wasmtime::Result<Exports> {
        Ok(match self {
            Self::Http02(pre) => Exports::Http02(pre.instantiate_async(store).await?),
            Self::Http03(pre) => Exports::Http03(pre.instantiate_async(store).await?),
        })
    }
}

impl Instance {
    /// Serves one request. The head is sent as soon as the guest has set it; the future goes on until the
    /// guest is done, and for 0.3 until the answer's body has been read (`body_read`).
    pub(crate) async fn serve(
        mut self,
        request: Request<WasiBody>,
        head: oneshot::Sender<Head>,
        body_read: oneshot::Receiver<()>,
    ) -> wasmtime::Result<Self> {
        self.uses += 1;
        match &self.exports {
            Exports::Http02(proxy) => serve_02(&mut self.store, proxy, request, head).await?,
            Exports::Http03(service) => {
                serve_03(&mut self.store, service, request, head, body_read).await?;
            }
        }
        Ok(self)
    }
}

async fn serve_02(
    store: &mut Store<State>,
    proxy: &p2::Proxy,
    request: Request<WasiBody>,
    head: oneshot::Sender<Head>,
) -> wasmtime::Result<()> {
    let scheme = match request.uri().scheme_str() {
        Some("https") => Scheme::Https,
        _ => Scheme::Http,
    };
    let request = store
        .data_mut()
        .http()
        .new_incoming_request(scheme, request)?;
    let out = store
        .data_mut()
        .http()
        .new_response_outparam_from_callback(move |answer| {
            // The receiver is gone only when the caller is.
            let _ = head.send(answer.map_err(|code| format!("{code:?}")));
        })?;
    proxy
        .wasi_http_incoming_handler()
        .call_handle(store, request, out)
        .await
}

async fn serve_03(
    store: &mut Store<State>,
    service: &p3_bindings::Service,
    request: Request<WasiBody>,
    head: oneshot::Sender<Head>,
    body_read: oneshot::Receiver<()>,
) -> wasmtime::Result<()> {
    store
        .run_concurrent(async |accessor| {
            serve_concurrent(accessor, service, request, head, body_read, None).await?;
            poll_fn(|context| accessor.poll_no_interesting_tasks(context)).await;
            Ok(())
        })
        .await?
}

/// Tells how the guest fared with the request's body.
type Processed = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Serves one request in an instance of 0.3 that may be serving others; ends when the body was read.
/// What the guest does for this request is then known to be done for `caller`.
pub(crate) async fn serve_concurrent(
    accessor: &Accessor<State>,
    service: &p3_bindings::Service,
    request: Request<WasiBody>,
    head: oneshot::Sender<Head>,
    body_read: oneshot::Receiver<()>,
    caller: Option<Caller>,
) -> wasmtime::Result<()> {
    let handle = service.wasi_http_handler().func_handle();
    let (call, processed) = accessor.with(|mut access| -> wasmtime::Result<_> {
        let (request, processed) = p3::Request::from_http(access.data_mut().http().hooks, request);
        let processed: Processed = Box::pin(processed);
        let request = access.data_mut().table.push(request)?;
        let call = handle.start_call_concurrent(&mut access, (request,))?;
        if let Some(caller) = caller {
            access.data_mut().egress.begin(call.task(), caller);
        }
        Ok((call, processed))
    })?;
    let task = call.task();
    let (answer,) = handle.finish_call_concurrent(accessor, call).await?;
    let answer = accessor.with(|mut access| -> wasmtime::Result<Head> {
        match answer {
            Ok(response) => {
                let response = access.data_mut().table.delete(response)?;
                Ok(Ok(response.into_http(access, processed)?))
            }
            Err(code) => Ok(Err(format!("{code:?}"))),
        }
    })?;
    let _ = head.send(answer);
    // The body is moved by the instance's own loop, which therefore lives until the body is read; a
    // sender that is dropped says that nobody reads any more.
    let _ = body_read.await;
    accessor.with(|mut access| access.data_mut().egress.end(task));
    Ok(())
}

/// What an instance for concurrent use needs.
pub(crate) fn into_concurrent(instance: Instance) -> Option<(Store<State>, p3_bindings::Service)> {
    match instance.exports {
        Exports::Http03(service) => Some((instance.store, service)),
        Exports::Http02(_) => None,
    }
}
