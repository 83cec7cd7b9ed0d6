//! What calls an app's functions.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tombolo_core::Name;

use crate::route::Route;
use crate::schedule::{Schedule, Zone};
use crate::text::{self, BrokerText, DurationText, NameText, PathText, SizeText};
use crate::topic::TopicFilter;

/// The triggers of an app, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Triggers {
    /// HTTP routes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100_000))]
    pub http: Vec<HttpTrigger>,
    /// Schedules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub cron: Vec<CronTrigger>,
    /// Consumers of queues.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub queue: Vec<QueueTrigger>,
    /// MQTT topics.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub mqtt: Vec<MqttTrigger>,
    /// Changes of key-value stores.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub change: Vec<ChangeTrigger>,
}

/// A schedule, and the function that receives each tick as an event of type `tombolo.cron.tick`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CronTrigger {
    /// Minute, hour, day, month and weekday, with seconds before them where they are wanted, such as `*/5 * * * *`.
    pub schedule: Schedule,
    /// The time zone of the schedule, such as `Europe/Berlin`.
    #[serde(default)]
    pub timezone: Zone,
    /// What happens to ticks whose time passed while the node was down, or was jumped over by its clock.
    #[serde(default)]
    pub missed: Missed,
    /// The function, one of this manifest's.
    #[schemars(with = "NameText")]
    pub function: Name,
}

/// What happens to missed ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Missed {
    /// They are skipped.
    Skip,
    /// The last of them is made up for, unless another is due just then.
    #[default]
    Once,
    /// Each is made up for, at most the last 1000.
    All,
}

/// A queue of this manifest, and the one function that receives its events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueueTrigger {
    /// The queue, one of this manifest's; it has one trigger at most.
    #[schemars(with = "NameText")]
    pub queue: Name,
    /// The function, one of this manifest's.
    #[schemars(with = "NameText")]
    pub function: Name,
    /// How many events make one invocation.
    #[serde(default)]
    pub batch: Batch,
    /// What happens after an invocation that failed.
    #[serde(default)]
    pub retry: Retry,
    /// Invocations of this trigger that run at once.
    #[serde(default = "concurrency")]
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrency: u32,
    /// Most invocations of this trigger that start in a second; no bound when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub rate: Option<u32>,
    /// The queue of this manifest that receives the events that the function replies with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<NameText>")]
    pub reply: Option<Name>,
    /// Whether key-value writes and events of an invocation take effect together with its acknowledgement, or not at all.
    #[serde(default)]
    pub transactional: bool,
}

fn concurrency() -> u32 {
    64
}

/// How many events make one invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    /// Most events; with 1 the function receives a single event, with more a batch.
    #[schemars(range(min = 1, max = 1000))]
    pub max: u32,
    /// Most bytes; a larger event comes alone.
    #[serde(with = "text::size")]
    #[schemars(with = "SizeText", extend("x-minimum" = "1KiB", "x-maximum" = "16MiB"))]
    pub bytes: u64,
    /// How long the first event waits for more.
    #[serde(with = "text::duration")]
    #[schemars(with = "DurationText", extend("x-minimum" = "0s", "x-maximum" = "5min"))]
    pub wait: Duration,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            max: 1,
            bytes: 1 << 20,
            wait: Duration::ZERO,
        }
    }
}

/// What happens after an invocation that failed and may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Deliveries of an event in all; after the last it goes to the dead letters, the queue `<queue>.dead`.
    #[schemars(range(min = 1, max = 1000))]
    pub attempts: u32,
    /// How long the first retry waits at most; it doubles with each.
    #[serde(with = "text::duration")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1ms", "x-maximum" = "1h"))]
    pub backoff: Duration,
    /// The age beyond which an event is not tried again; only `attempts` bounds it when absent.
    #[serde(
        with = "text::optional_duration",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(
        with = "Option<DurationText>",
        extend("x-minimum" = "1s", "x-maximum" = "365days")
    )]
    pub age: Option<Duration>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 5,
            backoff: Duration::from_secs(1),
            age: None,
        }
    }
}

/// MQTT topics, and the function that receives each message as an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MqttTrigger {
    /// The topics: levels between slashes, `+` for any one level, `#` at the end for all that follow.
    pub topic: TopicFilter,
    /// The quality of service of the subscription to a broker elsewhere; the node's own keeps every message before it acknowledges it.
    #[serde(default = "qos")]
    #[schemars(range(min = 0, max = 2))]
    pub qos: u8,
    /// The function, one of this manifest's.
    #[schemars(with = "NameText")]
    pub function: Name,
    /// A broker elsewhere; the node's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<Broker>,
}

fn qos() -> u8 {
    1
}

/// An MQTT broker elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// Its address, such as `mqtts://broker.example:8883`; `mqtt` is without TLS.
    #[schemars(with = "BrokerText")]
    pub url: String,
    /// The user name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub username: Option<String>,
    /// The secret of the node that is the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<NameText>")]
    pub password: Option<Name>,
}

/// A key-value store, and the function that receives each change of it as an event of type `tombolo.keyvalue.changed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeTrigger {
    /// The store, one that a function of this manifest is granted.
    #[schemars(with = "NameText")]
    pub keyvalue: Name,
    /// Only keys that begin so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub prefix: String,
    /// The function, one of this manifest's.
    #[schemars(with = "NameText")]
    pub function: Name,
}

/// A route of HTTP requests, and what answers them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "HttpTriggerKeys", into = "HttpTriggerKeys")]
pub struct HttpTrigger {
    /// Which paths.
    pub route: Route,
    /// What answers.
    pub target: HttpTarget,
}

/// What answers the requests of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpTarget {
    /// A function of the app.
    Function(Name),
    /// The files of a folder, relative to the manifest's folder.
    Static(PathBuf),
    /// A queue of the app, which takes events from whoever has the token.
    Queue {
        /// The queue.
        queue: Name,
        /// The secret that holds the token.
        token: Name,
    },
}

/// A trigger has several of `function`, `static` and `queue`, or none, or a queue without a token.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "an HTTP trigger has exactly one of `function`, `static` and `queue`, and `token` with `queue`"
)]
pub struct TargetError;

impl JsonSchema for HttpTrigger {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        HttpTriggerKeys::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        HttpTriggerKeys::json_schema(generator)
    }
}

/// A route of HTTP requests, and what answers them: exactly one of `function`, `static` and `queue`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(
    rename = "HttpTrigger",
    extend("oneOf" = [
        { "required": ["function"] },
        { "required": ["static"] },
        { "required": ["queue", "token"] }
    ])
)]
struct HttpTriggerKeys {
    /// The path, with `{name}` for one segment and, at the end, `{*rest}` for all that is left; the longest match wins.
    route: Route,
    /// The function that answers, one of this manifest's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<NameText>")]
    function: Option<Name>,
    /// A folder of files that answer, with all that is below the route, relative to the manifest's folder.
    #[serde(default, rename = "static", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PathText>")]
    folder: Option<PathBuf>,
    /// The queue that takes the CloudEvents that are posted, one of this manifest's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<NameText>")]
    queue: Option<Name>,
    /// The secret that holds the token of those who may post to the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<NameText>")]
    token: Option<Name>,
}

impl TryFrom<HttpTriggerKeys> for HttpTrigger {
    type Error = TargetError;

    fn try_from(keys: HttpTriggerKeys) -> Result<Self, TargetError> {
        let target = match (keys.function, keys.folder, keys.queue, keys.token) {
            (Some(function), None, None, None) => HttpTarget::Function(function),
            (None, Some(folder), None, None) => HttpTarget::Static(folder),
            (None, None, Some(queue), Some(token)) => HttpTarget::Queue { queue, token },
            _ => return Err(TargetError),
        };
        Ok(Self {
            route: keys.route,
            target,
        })
    }
}

impl From<HttpTrigger> for HttpTriggerKeys {
    fn from(trigger: HttpTrigger) -> Self {
        let mut keys = Self {
            route: trigger.route,
            function: None,
            folder: None,
            queue: None,
            token: None,
        };
        match trigger.target {
            HttpTarget::Function(function) => keys.function = Some(function),
            HttpTarget::Static(folder) => keys.folder = Some(folder),
            HttpTarget::Queue { queue, token } => {
                (keys.queue, keys.token) = (Some(queue), Some(token));
            }
        }
        keys
    }
}
