//! What leaves a function by `wasi:http`: calls of other functions and events for queues and topics stay in process, everything else goes through the policy.

mod client;
mod idle;
mod policy;
mod queue;
mod topic;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Instant;

use http::header::{HOST, HeaderValue};
use http::{HeaderName, Request};
use http_body_util::{BodyExt as _, Full};
use tombolo_core::invoke::HOPS_MAX;
use tombolo_core::{
    Blame, BodyError, Call, CallContext, Code, Failure, FunctionId, Invoke, Name, Origin,
    TraceContext, header,
};
use tombolo_store::{Effects, Scope};
use wasmtime::AsContextMut as _;
use wasmtime::component::{Accessor, GuestTaskId, Linker, Resource};
use wasmtime_wasi_http::p3::{self, bindings::http::client as client_03};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, RequestOptions, WasiBody, WasiHttp, WasiHttpHooks,
    WasiHttpView,
};

pub(crate) use client::{Client, Machine};
pub(crate) use policy::{Refusal, special};

use crate::function::Grants;
use crate::output::InvocationLog;
use crate::publishing::{Publisher, Publishing, TopicPublisher};
use crate::state::State;

/// The domain under which functions are called by name.
const FUNCTION_DOMAIN: &str = ".fn.tombolo.internal";

/// What an invocation passes on to the calls it makes.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) function: FunctionId,
    pub(crate) trace: TraceContext,
    pub(crate) request_id: String,
    pub(crate) deadline: Instant,
    pub(crate) hops: u8,
    pub(crate) client: Option<IpAddr>,
    /// Where its changes wait for the commit with its event, if they do.
    pub(crate) effects: Option<Effects>,
}

impl Caller {
    /// What whatever it makes comes of.
    pub(crate) fn origin(&self) -> Origin {
        Origin {
            trace: Some(self.trace),
            hops: self.hops.saturating_add(1),
        }
    }

    /// For whom it uses stores.
    pub(crate) fn scope(&self) -> Scope {
        Scope {
            origin: self.origin(),
            effects: self.effects.clone(),
        }
    }
}

/// The hooks of one instance.
pub(crate) struct Egress {
    /// For whom the guest is running: set before each request that leaves.
    pub(crate) caller: Caller,
    /// Those whom an instance serves at once, by the guest's task.
    pub(crate) callers: BTreeMap<GuestTaskId, Caller>,
    pub(crate) grants: Arc<Grants>,
    pub(crate) http: Client,
    pub(crate) dispatcher: Option<Weak<dyn Invoke>>,
    /// Where the function's users read what was refused; a command has none.
    pub(crate) log: Option<Arc<InvocationLog>>,
    pub(crate) publishing: Publishing,
}

/// What goes on with an exchange behind its response.
type Rest = Box<dyn Future<Output = Result<(), Error>> + Send>;

type Sent = Result<(http::Response<WasiBody>, Rest), Error>;

/// Nothing goes on behind an answer from this process.
fn done() -> Rest {
    Box::new(async { Ok(()) })
}

impl WasiHttpHooks for Egress {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        DEFAULT_FORBIDDEN_HEADERS.contains(name)
    }

    fn send_request(
        &mut self,
        mut request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        header::strip_reserved(request.headers_mut());
        if !request.headers().contains_key(header::TRACEPARENT)
            && let Ok(value) = HeaderValue::from_str(&self.caller.trace.to_string())
        {
            request.headers_mut().insert(header::TRACEPARENT, value);
        }
        let host = request
            .uri()
            .host()
            .map(|host| host.trim_end_matches('.').to_ascii_lowercase());
        if let Some(name) = host
            .as_deref()
            .and_then(|host| host.strip_suffix(FUNCTION_DOMAIN))
        {
            let call = self.call(name, request);
            return Box::new(async move {
                let response = call?.await.unwrap_or_else(|failure| refusal(&failure));
                Ok((response, done()))
            });
        }
        if let Some(name) = host
            .as_deref()
            .and_then(|host| host.strip_suffix(queue::DOMAIN))
        {
            let answer = queue::answer(self.publisher(name), self.publishing.room(), request);
            return Box::new(async move { Ok((answer.await, done())) });
        }
        if host.as_deref() == Some(topic::HOST) {
            let publisher = topic::topic(request.uri().path());
            let publisher = publisher.and_then(|topic| self.topic_publisher(&topic));
            let answer = topic::answer(publisher, self.publishing.room(), request);
            return Box::new(async move { Ok((answer.await, done())) });
        }
        let (client, grants) = (self.http.clone(), Arc::clone(&self.grants));
        let (function, log) = (self.caller.function.clone(), self.log.clone());
        Box::new(async move {
            let refused = |refusal: &Refusal| {
                tracing::debug!(%function, %refusal, "an outgoing request was refused");
                if let Some(log) = &log {
                    log.refused(&format!("an outgoing request was refused: {refusal}"));
                }
            };
            client
                .send(&function, request, options, &grants.http, refused)
                .await
        })
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<WasiBody>, Failure>> + Send>>;

impl Egress {
    /// The task works for this caller from now on.
    pub(crate) fn begin(&mut self, task: GuestTaskId, caller: Caller) {
        // An import that does not tell its task is put down to the newest caller, with the hops of
        // the one that has most: a loop is found all the same.
        let hops = self.callers.values().map(|other| other.hops).max();
        self.caller = caller.clone();
        self.caller.hops = caller.hops.max(hops.unwrap_or_default());
        self.callers.insert(task, caller);
    }

    /// The task is done.
    pub(crate) fn end(&mut self, task: GuestTaskId) {
        self.callers.remove(&task);
    }

    /// Who publishes what leaves next into a queue.
    pub(crate) fn publisher(&self, queue: &str) -> Result<Publisher, Failure> {
        self.publishing.publisher(&self.caller, &self.grants, queue)
    }

    /// Who publishes what leaves next to a topic.
    pub(crate) fn topic_publisher(&self, topic: &str) -> Result<TopicPublisher, Failure> {
        self.publishing
            .topic_publisher(&self.caller, &self.grants, topic)
    }

    /// What leaves next, leaves for the caller of one of these tasks.
    pub(crate) fn work_for(&mut self, tasks: &[GuestTaskId]) {
        if let Some(caller) = tasks.iter().find_map(|task| self.callers.get(task)) {
            self.caller = caller.clone();
        }
    }

    /// A call of another function: `<function>` of the same app, or `<function>.<app>` by grant.
    fn call(&self, name: &str, mut request: Request<WasiBody>) -> Result<Answer, Error> {
        let function = self.callee(name)?;
        let dispatcher = self.dispatcher.as_ref().and_then(Weak::upgrade);
        let dispatcher = dispatcher.ok_or(Error::DestinationUnavailable)?;
        let caller = self.caller.clone();
        if caller.hops >= HOPS_MAX {
            let detail = format!("{HOPS_MAX} functions have called one another for this request");
            let failure = Failure::new(Code::Loop, Blame::Caller, detail);
            return Ok(Box::pin(async move { Err(failure) }));
        }
        if let Some(authority) = request.uri().authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            request.headers_mut().insert(HOST, host);
        }
        if let Ok(id) = HeaderValue::from_str(&caller.request_id) {
            request.headers_mut().insert(header::REQUEST_ID, id);
        }
        let call = Call {
            function,
            request: request.map(|body| body.map_err(into_body_error).boxed_unsync()),
            context: CallContext {
                trace: caller.trace,
                request_id: caller.request_id,
                deadline: Some(caller.deadline),
                hops: caller.hops + 1,
                nested: true,
                event: false,
                client: caller.client,
            },
        };
        Ok(Box::pin(async move {
            let response = dispatcher.invoke(call).await?;
            Ok(response.map(|body| body.map_err(from_body_error).boxed_unsync()))
        }))
    }

    fn callee(&self, name: &str) -> Result<FunctionId, Error> {
        let own = &self.caller.function.app;
        let (function, app) = name.split_once('.').unwrap_or((name, own.as_str()));
        let parse = |text: &str| {
            text.parse::<Name>()
                .map_err(|_| Error::HttpRequestUriInvalid)
        };
        let callee = FunctionId {
            app: parse(app)?,
            function: parse(function)?,
        };
        if callee.app != *own && !self.grants.functions.contains(&callee) {
            if let Some(log) = &self.log {
                log.refused(&format!(
                    "a call of {callee} was refused; `grants.functions = [\"{callee}\"]` in the manifest would allow it"
                ));
            }
            return Err(Error::HttpRequestDenied);
        }
        Ok(callee)
    }
}

/// Links `wasi:http/client` so that each request leaves for the invocation whose task sends it.
pub(crate) fn link_client(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker
        .instance("wasi:http/client@0.3.0")?
        .func_wrap_concurrent(
            "send",
            |accessor: &Accessor<State>, (request,): (Resource<p3::Request>,)| {
                Box::pin(async move {
                    accessor.with(|mut access| -> wasmtime::Result<()> {
                        let mut store = access.as_context_mut();
                        let tasks: Vec<_> = store.async_call_stack()?.collect();
                        store.data_mut().egress.work_for(&tasks);
                        Ok(())
                    })?;
                    let http = accessor.with_getter::<WasiHttp>(<State as WasiHttpView>::http);
                    let sent = <WasiHttp as client_03::HostWithStore<State>>::send(&http, request);
                    match sent.await {
                        Ok(response) => Ok((Ok(response),)),
                        Err(error) => Ok((Err(error.downcast()?),)),
                    }
                })
            },
        )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The answer that a caller outside the process would see.
fn refusal(failure: &Failure) -> http::Response<WasiBody> {
    let body = Full::from(failure.problem_json("", false))
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = http::Response::new(body);
    *response.status_mut() = failure.code.http_status();
    let headers = response.headers_mut();
    headers.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if let Some(after) = failure.retry_after {
        headers.insert(
            http::header::RETRY_AFTER,
            HeaderValue::from(after.as_secs().max(1)),
        );
    }
    response
}

/// How a failing body of a request or response appears to the guest that reads it.
pub(crate) fn from_body_error(error: BodyError) -> Error {
    match error {
        BodyError::TooLong { bound_bytes } => Error::HttpRequestBodySize(Some(bound_bytes)),
        BodyError::Failure(_) => Error::HttpResponseIncomplete,
        BodyError::Cut(_) => Error::ConnectionTerminated,
    }
}

/// How a body that a guest ended early appears to who reads it.
pub(crate) fn into_body_error(error: Error) -> BodyError {
    BodyError::Cut(error.to_string().into())
}
