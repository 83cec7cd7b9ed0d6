//! The model of `tombolo.toml`: an app, its queues, its functions with their limits, and how they are built.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tombolo_core::{Budget, Name};

use crate::grant::Grants;
use crate::queue::Queue;
use crate::text::{self, DurationText, EnvKeyText, NameText, PathText, SizeText, VersionText};
use crate::trigger::Triggers;

/// An app: its functions, its queues and what triggers the functions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The app itself: a table with at least `name` and `version`.
    pub app: App,
    /// The functions by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(
        with = "BTreeMap<String, Function>",
        extend("propertyNames" = text::schema_of::<NameText>(), "maxProperties" = 1000)
    )]
    pub functions: BTreeMap<Name, Function>,
    /// The queues of the app by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(
        with = "BTreeMap<String, Queue>",
        extend("propertyNames" = text::schema_of::<NameText>(), "maxProperties" = 1000)
    )]
    pub queues: BTreeMap<Name, Queue>,
    /// What calls the functions.
    #[serde(default)]
    pub triggers: Triggers,
}

/// Name and version of an app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// The name of the app, unique on a node.
    #[schemars(with = "NameText")]
    pub name: Name,
    /// The version of the app, by semver.org.
    #[schemars(with = "VersionText")]
    pub version: semver::Version,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
}

/// One function: a component and the rules it runs under.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// The WebAssembly component, a path relative to the manifest's folder.
    #[schemars(with = "PathText")]
    pub component: PathBuf,
    /// How `tombolo build` makes the component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
    /// What one invocation may use, and how many may run at once.
    #[serde(default)]
    pub limits: Limits,
    /// Whether invocations share an instance.
    #[serde(default)]
    pub isolation: Isolation,
    /// What the function may reach; nothing by default.
    #[serde(default)]
    pub grants: Grants,
    /// Environment variables that the function sees.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("propertyNames" = text::schema_of::<EnvKeyText>(), "maxProperties" = 1000))]
    pub env: BTreeMap<String, String>,
    /// Values that the function reads through `wasi:config`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 1000))]
    pub config: BTreeMap<String, String>,
}

/// How a function's component is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// The command, run by the shell in the manifest's folder.
    #[schemars(length(min = 1, max = 8192))]
    pub command: String,
    /// Patterns of the files whose change leads to a new build under `tombolo dev`, relative to the manifest's folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub watch: Vec<String>,
}

/// What one invocation may use, and how many invocations may run and wait on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "LimitKeys", into = "LimitKeys")]
pub struct Limits {
    /// The limits of one invocation.
    pub budget: Budget,
    /// How many invocations run at once.
    pub concurrency: u32,
    /// How many more wait; those beyond are answered 429.
    pub waiting: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            budget: Budget::default(),
            concurrency: 200,
            waiting: 1000,
        }
    }
}

impl JsonSchema for Limits {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        LimitKeys::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        LimitKeys::json_schema(generator)
    }
}

/// What one invocation may use, and how many may run at once.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Limits")]
struct LimitKeys {
    /// Most linear memory of an instance.
    #[serde(with = "text::size")]
    #[schemars(with = "SizeText", extend("x-minimum" = "64KiB", "x-maximum" = "4GiB"))]
    memory: u64,
    /// Longest time from the start of an invocation to the end of its response.
    #[serde(with = "text::duration")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1ms", "x-maximum" = "15min"))]
    wall: Duration,
    /// Most CPU time of an invocation.
    #[serde(with = "text::duration")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1ms", "x-maximum" = "15min"))]
    cpu: Duration,
    /// Invocations that run at once on a node.
    #[schemars(range(min = 1, max = 100_000))]
    concurrency: u32,
    /// Invocations that wait for one of those to end; those beyond are answered 429.
    #[schemars(range(min = 0, max = 1_000_000))]
    waiting: u32,
    /// Longest response body.
    #[serde(with = "text::size")]
    #[schemars(with = "SizeText", extend("x-minimum" = "1KiB", "x-maximum" = "64GiB"))]
    response: u64,
    /// Most log output of an invocation: stdout, stderr and `wasi:logging` together. What is beyond is cut.
    #[serde(with = "text::size")]
    #[schemars(with = "SizeText", extend("x-minimum" = "0B", "x-maximum" = "64MiB"))]
    logs: u64,
    /// Most bytes that one host call may copy from guest to host.
    #[serde(with = "text::size")]
    #[schemars(with = "SizeText", extend("x-minimum" = "4KiB", "x-maximum" = "1GiB"))]
    hostcall: u64,
}

impl Default for LimitKeys {
    fn default() -> Self {
        Limits::default().into()
    }
}

impl From<LimitKeys> for Limits {
    fn from(keys: LimitKeys) -> Self {
        Self {
            budget: Budget {
                wall: keys.wall,
                cpu: keys.cpu,
                memory_bytes: keys.memory,
                hostcall_bytes: keys.hostcall,
                response_bytes: keys.response,
                log_bytes: keys.logs,
            },
            concurrency: keys.concurrency,
            waiting: keys.waiting,
        }
    }
}

impl From<Limits> for LimitKeys {
    fn from(limits: Limits) -> Self {
        Self {
            memory: limits.budget.memory_bytes,
            wall: limits.budget.wall,
            cpu: limits.budget.cpu,
            concurrency: limits.concurrency,
            waiting: limits.waiting,
            response: limits.budget.response_bytes,
            logs: limits.budget.log_bytes,
            hostcall: limits.budget.hostcall_bytes,
        }
    }
}

/// Whether invocations share an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// A new instance for each invocation; no state is ever shared.
    #[default]
    Fresh,
    /// Instances are used again, one invocation at a time.
    Serial,
    /// Instances are used again, several invocations at once; only for components of wasi:http 0.3.
    Concurrent,
}

/// The text names no isolation.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("isolation is `fresh`, `serial` or `concurrent`")]
pub struct IsolationError;

impl FromStr for Isolation {
    type Err = IsolationError;

    fn from_str(text: &str) -> Result<Self, IsolationError> {
        match text {
            "fresh" => Ok(Self::Fresh),
            "serial" => Ok(Self::Serial),
            "concurrent" => Ok(Self::Concurrent),
            _ => Err(IsolationError),
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fresh => "fresh",
            Self::Serial => "serial",
            Self::Concurrent => "concurrent",
        })
    }
}
