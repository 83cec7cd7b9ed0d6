//! The app's manifest `tombolo.toml` and the node's config `node.toml`: types, parsing with places, JSON Schema. Pure: no I/O.

mod check;
pub mod diagnostic;
mod format;
pub mod grant;
pub mod http_grant;
pub mod manifest;
pub mod node;
mod read;
mod reference;
pub mod route;
pub mod schema;
pub mod text;
pub mod trigger;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use grant::{DirectoryGrant, Grants, SocketGrant};
pub use http_grant::{HostPattern, HttpGrant, Scheme};
pub use manifest::{App, Build, Function, Isolation, Limits, Manifest};
pub use node::{
    AdminConfig, HttpConfig, LogFormat, NodeConfig, RuntimeConfig, TelemetryConfig, Tier, TlsConfig,
};
pub use route::{Route, Segment};
pub use schema::{manifest_schema, node_config_schema};
pub use text::{format_size, parse_duration, parse_size};
pub use trigger::{HttpTarget, HttpTrigger, Triggers};
