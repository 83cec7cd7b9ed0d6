//! What the admin listener answers: health, readiness and metrics to all, the control API to whoever has the token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tombolo_api::List;
use tombolo_api::path::{self, Endpoint, QueueEndpoint};
use tombolo_core::{Body, Code, Feed, Invoke, QueueId, QueueName};
use tombolo_store::Journal;
use tombolo_telemetry::Telemetry;

use crate::deploy::Apps;
use crate::refusal::{Refusal, refuse};
use crate::token::Token;
use crate::{describe, invocation, logs, queues};

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that answers need.
pub(crate) struct Control {
    pub(crate) node: tombolo_api::Node,
    pub(crate) token: Token,
    pub(crate) apps: Arc<Apps>,
    pub(crate) invoke: Arc<dyn Invoke>,
    pub(crate) journal: Journal,
    pub(crate) telemetry: Telemetry,
    pub(crate) ready: AtomicBool,
    /// Ends the streams of logs that are followed.
    pub(crate) shutdown: CancellationToken,
}

impl Control {
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let answer = match request.uri().path() {
            "/_tombolo/healthz" => read_only(&request).map(|()| text("ok\n")),
            "/_tombolo/readyz" => {
                let ready = read_only(&request).and_then(|()| self.is_ready());
                ready.map(|()| text("ready\n"))
            }
            "/_tombolo/metrics" => read_only(&request).map(|()| self.metrics()),
            path if is_api(path) && !self.token.opens(request.headers()) => Err(unauthorized()),
            _ => self.api(request).await,
        };
        answer.unwrap_or_else(|refusal| {
            let unauthorized = refusal.status == StatusCode::UNAUTHORIZED.as_u16();
            let mut response = refusal.into_response().map(full);
            if unauthorized {
                // RFC 9110, section 11.6.1.
                let scheme = HeaderValue::from_static("Bearer");
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, scheme);
            }
            response
        })
    }

    fn is_ready(&self) -> Result<(), Refusal> {
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(refuse(Code::Draining, "the node takes no requests"))
    }

    fn metrics(&self) -> Response<Body> {
        let mut response = text(self.telemetry.render_metrics());
        let kind = HeaderValue::from_static(METRICS_TYPE);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }

    /// The node, with what was found damaged until now.
    fn node(&self) -> Result<tombolo_api::Node, Refusal> {
        let mut node = self.node.clone();
        node.damages.extend(queues::damages(&self.journal)?);
        Ok(node)
    }

    async fn api(&self, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let path = request.uri().path().to_owned();
        let Some(endpoint) = path::parse(&path) else {
            return Err(refuse(
                Code::NotFound,
                format!("there is nothing at {path}"),
            ));
        };
        check_method(&endpoint, &request)?;
        let (apps, telemetry) = (&*self.apps, &self.telemetry);
        match endpoint {
            Endpoint::Node => Ok(json(&self.node()?)),
            Endpoint::Apps => Ok(json(&List {
                items: describe::apps(apps),
            })),
            Endpoint::App(name) => Ok(json(&describe::app(&*describe::find_app(apps, name)?))),
            Endpoint::Functions => Ok(json(&List {
                items: describe::functions(apps, telemetry),
            })),
            Endpoint::Function { app, function } => {
                let (id, app) = describe::find(apps, app, function)?;
                Ok(json(&describe::function(apps, telemetry, &app, &id)?))
            }
            Endpoint::Invoke { app, function } => {
                self.is_ready()?;
                let (id, _) = describe::find(apps, app, function)?;
                invocation::answer(self, id, request).await
            }
            Endpoint::FunctionEvents { app, function } => {
                let (id, _) = describe::find(apps, app, function)?;
                let queue = QueueName::of_function(&id.function, Feed::Async);
                let queue = QueueId { app: id.app, queue };
                Ok(queues::receive(self, &queue, request).await)
            }
            Endpoint::Queues => queues::all(self),
            Endpoint::Queue { app, queue, what } => {
                let id = queue_id(app, queue)?;
                queues::answer(self, &id, what, request).await
            }
            Endpoint::Triggers => {
                let apps = apps.list();
                Ok(json(&List {
                    items: apps
                        .iter()
                        .flat_map(|app| describe::triggers(app))
                        .collect(),
                }))
            }
            Endpoint::Logs => {
                let query = request.uri().query().unwrap_or_default();
                logs::answer(telemetry.logs(), query, &self.shutdown)
            }
        }
    }
}

/// Whether the path needs the token.
fn is_api(path: &str) -> bool {
    path.starts_with(path::PREFIX)
}

/// The queue of these names, whether it is there or not.
fn queue_id(app: &str, queue: &str) -> Result<QueueId, Refusal> {
    let missing = || {
        refuse(
            Code::QueueMissing,
            format!("there is no queue `{app}/{queue}`"),
        )
    };
    Ok(QueueId {
        app: app.parse().map_err(|_| missing())?,
        queue: queue.parse().map_err(|_| missing())?,
    })
}

fn check_method<B>(endpoint: &Endpoint<'_>, request: &Request<B>) -> Result<(), Refusal> {
    let detail = match endpoint {
        Endpoint::Invoke { .. } => "functions are invoked by POST",
        Endpoint::Queue {
            what: QueueEndpoint::Redrive | QueueEndpoint::Purge,
            ..
        } => "this is done by POST",
        // The ingress knows the methods of events.
        Endpoint::FunctionEvents { .. } => return Ok(()),
        Endpoint::Queue {
            what: QueueEndpoint::Events,
            ..
        } => return Ok(()),
        _ => return read_only(request),
    };
    match *request.method() {
        Method::POST => Ok(()),
        _ => Err(refuse(Code::MethodNotAllowed, detail)),
    }
}

fn read_only<B>(request: &Request<B>) -> Result<(), Refusal> {
    match *request.method() {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(refuse(Code::MethodNotAllowed, "this can only be read")),
    }
}

fn unauthorized() -> Refusal {
    let detail = "the request has no token, or not the one of this node";
    let mut refusal = refuse(Code::NotAllowed, detail);
    refusal.status = StatusCode::UNAUTHORIZED.as_u16();
    refusal
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn text(text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(text));
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

pub(crate) fn json<T: Serialize>(value: &T) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = Response::new(full(bytes));
            let kind = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => refuse(Code::HostError, error.to_string())
            .into_response()
            .map(full),
    }
}
