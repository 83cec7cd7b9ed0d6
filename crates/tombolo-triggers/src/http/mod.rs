//! The HTTP listener: connections, bounds, routes, static files and graceful drain; functions are called through `Invoke` alone.
//!
//! | type | what it is |
//! | --- | --- |
//! | `HttpServer` | bound addresses, before anything is accepted |
//! | `HttpService` | what runs: an acceptor and one thread for each core |
//! | `Front` | what all connections of one thread share |
//! | `ConnectionState` | what the socket, the requests and the timers of one connection tell one another |
//! | `Exchange` | one request until its answer has ended: metrics, span, access log |

mod accept;
mod answer;
mod answer_body;
mod clients;
mod connection;
mod exchange;
mod files;
mod front;
mod limits;
mod link;
mod listener;
mod refusal;
mod request_body;
mod routes;
mod service;
mod streams;
mod tls;
mod unreadable;
mod worker;

pub(crate) use refusal::refuse;

pub use listener::{BindError, HttpServer};
pub use routes::{RouteConflict, RouteEntry, RouteTarget, Routes};
pub use service::{HttpService, ServiceError};
