//! The model of `node.toml`, the operator's config of one node. Every key is optional.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tombolo_core::Name;

use crate::broker::BrokerConfig;
use crate::text::{self, AddressText, DurationText, NameText, PathText, SizeText, UrlText};

/// The config of a node. The default is what `tombolo up` uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// The name of the node.
    #[schemars(with = "NameText")]
    pub name: Name,
    /// Where the node stands between the devices and the cloud.
    pub tier: Tier,
    /// The folder of everything that the node keeps.
    #[schemars(with = "PathText")]
    pub store: PathBuf,
    /// Where the secrets of the node are; without it, they come from the node's environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PathText>")]
    pub secrets: Option<PathBuf>,
    /// The listeners of HTTP triggers.
    pub http: HttpConfig,
    /// The listener of `/_tombolo/`: health, metrics and the API.
    pub admin: AdminConfig,
    /// The node's own MQTT broker. Without listeners only functions publish to its topics.
    pub mqtt: BrokerConfig,
    /// How functions run.
    pub runtime: RuntimeConfig,
    /// The key-value stores of apps.
    pub keyvalue: KeyValueConfig,
    /// Traces and logs.
    pub telemetry: TelemetryConfig,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            name: default_name(),
            tier: Tier::default(),
            store: ".tombolo".into(),
            secrets: None,
            http: HttpConfig::default(),
            admin: AdminConfig::default(),
            mqtt: BrokerConfig::default(),
            runtime: RuntimeConfig::default(),
            keyvalue: KeyValueConfig::default(),
            telemetry: TelemetryConfig::default(),
        }
    }
}

#[expect(clippy::expect_used, reason = "the text is constant")]
fn default_name() -> Name {
    "node".parse().expect("`node` is a name")
}

/// Where a node stands between the devices and the cloud.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// A gateway or machine next to the things it serves.
    Device,
    /// A server on the site.
    #[default]
    Local,
    /// A point of presence.
    Regional,
    /// The cloud.
    Cloud,
}

/// The text names no tier.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a tier is `device`, `local`, `regional` or `cloud`")]
pub struct TierError;

impl FromStr for Tier {
    type Err = TierError;

    fn from_str(text: &str) -> Result<Self, TierError> {
        match text {
            "device" => Ok(Self::Device),
            "local" => Ok(Self::Local),
            "regional" => Ok(Self::Regional),
            "cloud" => Ok(Self::Cloud),
            _ => Err(TierError),
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device",
            Self::Local => "local",
            Self::Regional => "regional",
            Self::Cloud => "cloud",
        })
    }
}

/// The listeners of HTTP triggers, and the bounds of connections and requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// The addresses to listen on; port 0 picks one.
    #[schemars(with = "Vec<AddressText>", length(min = 1, max = 64))]
    pub listen: Vec<SocketAddr>,
    /// Certificate and key; with them, every address of `listen` speaks TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// Longest request body; longer ones are answered 413.
    #[serde(with = "text::size")]
    #[schemars(with = "SizeText", extend("x-minimum" = "0B", "x-maximum" = "1024GiB"))]
    pub body_bytes_max: u64,
    /// Most bytes of a request's headers together; beyond them the answer is 431.
    #[serde(with = "text::size")]
    #[schemars(with = "SizeText", extend("x-minimum" = "8KiB", "x-maximum" = "1MiB"))]
    pub header_bytes_max: u32,
    /// Most headers of a request; beyond them the answer is 431.
    #[schemars(range(min = 16, max = 1000))]
    pub headers_max: u32,
    /// Longest time until the headers of a request are there.
    #[serde(with = "text::duration")]
    #[schemars(with = "DurationText", extend("x-minimum" = "10ms", "x-maximum" = "1h"))]
    pub header_timeout: Duration,
    /// Longest time between two parts of a request's body.
    #[serde(with = "text::duration")]
    #[schemars(with = "DurationText", extend("x-minimum" = "10ms", "x-maximum" = "1h"))]
    pub body_idle_timeout: Duration,
    /// Longest time that a connection stays open without a request.
    #[serde(with = "text::duration")]
    #[schemars(with = "DurationText", extend("x-minimum" = "10ms", "x-maximum" = "1day"))]
    pub idle_timeout: Duration,
    /// Most connections at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_max: u32,
    /// Most connections at once of one address (64 bits of an IPv6 one); raise it behind a proxy.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections_per_client_max: u32,
    /// How long the node goes on accepting while it says already that it is not ready, before it drains.
    #[serde(with = "text::duration")]
    #[schemars(with = "DurationText", extend("x-minimum" = "0s", "x-maximum" = "1h"))]
    pub drain_delay: Duration,
    /// Longest time that requests may take to end when the node stops.
    #[serde(with = "text::duration")]
    #[schemars(with = "DurationText", extend("x-minimum" = "0s", "x-maximum" = "1h"))]
    pub drain_timeout: Duration,
    /// Whether each request is logged.
    pub access_log: bool,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 3000))],
            tls: None,
            body_bytes_max: 16 << 20,
            header_bytes_max: 64 << 10,
            headers_max: 100,
            header_timeout: Duration::from_secs(10),
            body_idle_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            connections_max: 10_000,
            connections_per_client_max: 1000,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(30),
            access_log: false,
        }
    }
}

/// Files of a TLS listener, read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate chain, in PEM.
    #[schemars(with = "PathText")]
    pub certificate: PathBuf,
    /// The private key, in PEM.
    #[schemars(with = "PathText")]
    pub key: PathBuf,
}

/// The listener of `/_tombolo/`: health, metrics and the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// The address to listen on; port 0 picks one.
    #[schemars(with = "AddressText")]
    pub listen: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        }
    }
}

/// How functions run on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimeConfig {
    /// How many cores serve requests; all that the machine offers when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub cores: Option<u32>,
    /// Invocations of all functions that run at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub concurrency: u32,
    /// Invocations of all functions that wait; those beyond are answered 429.
    #[schemars(range(min = 0, max = 10_000_000))]
    pub waiting: u32,
    /// Most memory of all instances together; decided by the machine's when absent.
    #[serde(with = "text::optional_size", skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "Option<SizeText>",
        extend("x-minimum" = "16MiB", "x-maximum" = "65536GiB")
    )]
    pub memory_bytes_max: Option<u64>,
    /// Whether memory for instances is reserved beforehand, which makes them start faster.
    pub pooling: bool,
    /// How long a function is idle before its compiled code leaves memory.
    #[serde(with = "text::duration")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1s", "x-maximum" = "365days"))]
    pub idle_after: Duration,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            cores: None,
            concurrency: 1000,
            waiting: 10_000,
            memory_bytes_max: None,
            pooling: true,
            idle_after: Duration::from_secs(300),
        }
    }
}

/// The key-value stores of apps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeyValueConfig {
    /// Most bytes of keys and values that the stores of one app have together; a write beyond them fails.
    #[serde(with = "text::size")]
    #[schemars(with = "SizeText", extend("x-minimum" = "1KiB", "x-maximum" = "65536GiB"))]
    pub app_bytes_max: u64,
}

impl Default for KeyValueConfig {
    fn default() -> Self {
        Self {
            app_bytes_max: 1 << 30,
        }
    }
}

/// Traces and logs of the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// The collector that traces go to by OTLP over HTTP, such as `http://127.0.0.1:4318`; none when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<UrlText>")]
    pub otlp: Option<String>,
    /// The share of traces that begin here and are recorded.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample_ratio: f64,
    /// How the node writes its own logs.
    pub log_format: LogFormat,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            otlp: None,
            sample_ratio: 0.01,
            log_format: LogFormat::default(),
        }
    }
}

/// How the node writes its own logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
