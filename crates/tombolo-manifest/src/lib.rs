//! The app's manifest `tombolo.toml` and the node's config `node.toml`: types, parsing with places, JSON Schema. Pure: no I/O.

pub mod broker;
mod check;
pub mod diagnostic;
mod format;
pub mod grant;
pub mod http_grant;
pub mod manifest;
pub mod node;
pub mod queue;
mod read;
mod reference;
pub mod route;
pub mod schedule;
pub mod schema;
pub mod text;
pub mod topic;
pub mod trigger;

pub use broker::{BrokerConfig, BrokerListener, BrokerRule, BrokerTls, BrokerUser, PasswordText};
pub use diagnostic::{Diagnostic, Diagnostics};
pub use grant::{DirectoryGrant, Grants, SocketGrant};
pub use http_grant::{HostPattern, HttpGrant, Scheme};
pub use manifest::{App, Build, Function, Isolation, Limits, Manifest};
pub use node::{
    AdminConfig, HttpConfig, KeyValueConfig, LogFormat, NodeConfig, RuntimeConfig, TelemetryConfig,
    Tier, TlsConfig,
};
pub use queue::{AttributeName, Durability, Queue, Retention, WhenFull};
pub use route::{Route, Segment};
pub use schedule::{Schedule, Zone};
pub use schema::{manifest_schema, node_config_schema};
pub use text::{format_size, parse_duration, parse_size};
pub use topic::TopicFilter;
pub use trigger::{
    Batch, Broker, ChangeTrigger, CronTrigger, HttpTarget, HttpTrigger, Missed, MqttTrigger,
    QueueTrigger, Retry, Triggers,
};
