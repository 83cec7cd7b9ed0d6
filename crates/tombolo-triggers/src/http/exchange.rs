//! One request from its head to the end of its answer: metrics, span and access log.

use std::rc::Rc;
use std::time::Duration;

use http::{Method, StatusCode, Version};
use tokio::time::Instant;
use tombolo_core::{Failure, TraceContext};
use tombolo_telemetry::{Span, name};

use super::front::Front;
use super::link::ConnectionState;

/// nginx's status for a client that went away before it had an answer; it is counted, never sent.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// A request that is being answered. It ends when it is dropped.
pub struct Exchange {
    front: Rc<Front>,
    connection: Rc<ConnectionState>,
    start: Instant,
    status: StatusCode,
    bytes_out: u64,
    broken: bool,
    pub span: Span,
    /// What only the access log needs.
    access: Option<Box<Access>>,
}

struct Access {
    method: Method,
    path: String,
    request_id: String,
    version: Version,
}

impl Exchange {
    /// The head of a request arrived on this connection.
    pub fn start(
        front: &Rc<Front>,
        connection: &Rc<ConnectionState>,
        parent: &TraceContext,
        remote: bool,
    ) -> Self {
        connection.in_flight.set(connection.in_flight.get() + 1);
        connection.served.set(true);
        connection.head_begun.set(false);
        front.telemetry.http().start();
        Self {
            front: front.clone(),
            connection: connection.clone(),
            start: Instant::now(),
            status: StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or_default(),
            bytes_out: 0,
            broken: false,
            span: front.telemetry.span(name::SPAN_HTTP, parent, remote),
            access: None,
        }
    }

    /// Notes what the access log and the span will tell.
    pub fn describe(&mut self, request: &http::request::Parts, request_id: &str) {
        if self.span.is_recording() {
            self.span.set(
                name::HTTP_REQUEST_METHOD,
                request.method.as_str().to_owned(),
            );
            self.span.set(name::URL_PATH, request.uri.path().to_owned());
            self.span
                .set(name::CLIENT_ADDRESS, self.connection.client.to_string());
            self.span
                .set(name::FAAS_INVOCATION_ID, request_id.to_owned());
        }
        if self.front.config.access_log {
            self.access = Some(Box::new(Access {
                method: request.method.clone(),
                path: request.uri.path().to_owned(),
                request_id: request_id.to_owned(),
                version: request.version,
            }));
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub fn connection(&self) -> &ConnectionState {
        &self.connection
    }

    /// The head of the answer is on its way.
    pub fn answer(&mut self, status: StatusCode) {
        self.status = status;
        self.span
            .set(name::HTTP_RESPONSE_STATUS_CODE, i64::from(status.as_u16()));
    }

    /// A part of the answer is on its way.
    pub fn sent(&mut self, bytes: usize) {
        self.bytes_out += bytes as u64;
    }

    /// The answer broke after its head: the client must not take it for whole.
    pub fn broke(&mut self, failure: Option<&Failure>) {
        self.broken = true;
        if let Some(failure) = failure {
            self.span.fail(failure);
        }
    }

    fn log(&self, access: &Access, duration: Duration) {
        tracing::info!(
            target: "access",
            {
            { name::HTTP_REQUEST_METHOD } = %access.method,
            { name::URL_PATH } = access.path.as_str(),
            { name::HTTP_RESPONSE_STATUS_CODE } = self.status.as_u16(),
            { name::CLIENT_ADDRESS } = %self.connection.client,
            { name::FAAS_INVOCATION_ID } = access.request_id.as_str(),
            { name::NETWORK_PROTOCOL_VERSION } = ?access.version,
            { name::HTTP_RESPONSE_BODY_SIZE } = self.bytes_out,
            { name::DURATION_US } = duration.as_micros() as u64,
            { name::CUT } = self.broken,
            },
            "request"
        );
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = Instant::now();
        let duration = now - self.start;
        self.connection
            .in_flight
            .set(self.connection.in_flight.get().saturating_sub(1));
        self.connection.idle_since.set(now);
        self.front.telemetry.http().finish(self.status, duration);
        if let Some(access) = self.access.take() {
            self.log(&access, duration);
        }
    }
}
