//! What the API tells about a node: the node itself, its apps, functions and triggers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tombolo_core::{Budget, Digest, Name};

/// An answer with several items, in the order of their names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct List<T> {
    pub items: Vec<T>,
}

/// The node that answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Node {
    #[schemars(with = "String")]
    pub name: Name,
    /// device, local, regional or cloud.
    pub tier: String,
    /// The version of the binary.
    pub version: String,
    pub pid: u32,
    /// When the node started (RFC 3339, UTC).
    pub started: String,
    /// Whether answers carry backtraces and timings.
    pub dev: bool,
    /// The addresses that functions are served at.
    #[schemars(with = "Vec<String>")]
    pub http: Vec<SocketAddr>,
    /// The addresses that MQTT clients connect to.
    #[schemars(with = "Vec<String>")]
    pub mqtt: Vec<SocketAddr>,
    #[schemars(with = "String")]
    pub admin: SocketAddr,
    /// What was found damaged in the store since the node started, and what became of it.
    #[serde(default)]
    pub damages: Vec<String>,
}

/// A deployed app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct App {
    #[schemars(with = "String")]
    pub name: Name,
    pub version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The folder of the manifest, where the app came from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// The names of its functions.
    #[schemars(with = "Vec<String>")]
    pub functions: Vec<Name>,
    /// How many triggers it has.
    pub triggers: u32,
}

/// A line of the list of functions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FunctionSummary {
    #[schemars(with = "String")]
    pub app: Name,
    #[schemars(with = "String")]
    pub name: Name,
    /// fresh, serial or concurrent.
    pub isolation: String,
    /// What the component exports, for instance `wasi:http 0.2`.
    pub world: String,
    pub usage: Usage,
}

/// A function with everything that is known about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Function {
    #[schemars(with = "String")]
    pub app: Name,
    #[schemars(with = "String")]
    pub name: Name,
    /// The component's file.
    pub component: PathBuf,
    #[schemars(with = "String")]
    pub digest: Digest,
    /// fresh, serial or concurrent.
    pub isolation: String,
    /// What the component exports, for instance `wasi:http 0.2`.
    pub world: String,
    /// Instances that exist at this moment.
    pub instances: u32,
    /// Whether the machine code is in memory.
    pub code_loaded: bool,
    pub limits: Limits,
    pub grants: Grants,
    /// Names of the environment variables; their values stay on the node.
    pub env: Vec<String>,
    /// What the function reads through wasi:config.
    pub config: BTreeMap<String, String>,
    pub triggers: Vec<Trigger>,
    pub usage: Usage,
}

/// The limits of one invocation, and of how many there may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Limits {
    pub wall_ms: u64,
    pub cpu_ms: u64,
    pub memory_bytes: u64,
    pub hostcall_bytes: u64,
    pub response_bytes: u64,
    pub log_bytes: u64,
    pub concurrency: u32,
    pub waiting: u32,
}

/// What the function may use, as written in its manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Grants {
    pub http: Vec<String>,
    pub functions: Vec<String>,
    pub keyvalue: Vec<String>,
    pub queues: Vec<String>,
    pub topics: Vec<String>,
    pub secrets: Vec<String>,
    pub directories: Vec<String>,
    pub sockets: Vec<String>,
}

/// How many invocations took so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bucket {
    /// All of them took longer than this.
    pub over_ns: u64,
    /// None of them took longer; absent for those beyond all bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to_ns: Option<u64>,
    pub count: u64,
}

/// What a function has used since the node started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Usage {
    pub invocations: u64,
    pub errors: u64,
    pub cold_starts: u64,
    pub cpu_ns: u64,
    pub wall_ns: u64,
    pub gb_seconds: f64,
    /// Request and response bodies.
    pub bytes: u64,
    /// Invocations that run at this moment.
    pub running: u32,
    /// Invocations that wait at this moment.
    pub waiting: u32,
    /// The invocations by their wall time, in the order of time; buckets without any are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wall: Vec<Bucket>,
}

/// What starts a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Trigger {
    #[schemars(with = "String")]
    pub app: Name,
    pub kind: TriggerKind,
    /// The route of an http trigger; of the others the schedule, the queue, the topics, or the store.
    pub route: String,
    /// The function that answers, or gets the events of the queue; none for static files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub function: Option<Name>,
    /// The folder of static files.
    #[serde(default, rename = "static", skip_serializing_if = "Option::is_none")]
    pub static_folder: Option<PathBuf>,
    /// The queue that takes the events of an http trigger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub queue: Option<Name>,
}

/// The kind of a trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TriggerKind {
    Http,
    Cron,
    Queue,
    Mqtt,
    Change,
}

impl Limits {
    /// The limits as they are on the wire.
    pub fn new(budget: &Budget, concurrency: u32, waiting: u32) -> Self {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            wall_ms: ms(budget.wall),
            cpu_ms: ms(budget.cpu),
            memory_bytes: budget.memory_bytes,
            hostcall_bytes: budget.hostcall_bytes,
            response_bytes: budget.response_bytes,
            log_bytes: budget.log_bytes,
            concurrency,
            waiting,
        }
    }
}
