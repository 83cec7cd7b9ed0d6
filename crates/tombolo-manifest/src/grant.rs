//! What a function may reach: nothing that its manifest does not name.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tombolo_core::{FunctionId, Name};

use crate::http_grant::{HostError, HostPattern, HttpGrant, parse_port, split_authority};
use crate::text::{self, FunctionIdText, NameText, text_type};
use crate::topic::TopicFilter;

/// What a function may reach. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Origins that outgoing HTTP requests may go to, such as `https://weather.example`, `https://*.example.com:8443` or `http://127.0.0.1:9000`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub http: Vec<HttpGrant>,
    /// Functions that may be called at `http://<function>.fn.tombolo.internal/`, as `app/function`.
    #[serde(with = "text::function_ids", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<FunctionIdText>", length(max = 1000))]
    pub functions: Vec<FunctionId>,
    /// Key-value stores of the app.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<NameText>", length(max = 1000))]
    pub keyvalue: Vec<Name>,
    /// Queues of the app that events may be sent to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<NameText>", length(max = 1000))]
    pub queues: Vec<Name>,
    /// Filters of the MQTT topics that may be published to, such as `plans/#`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub topics: Vec<TopicFilter>,
    /// Secrets of the node, which the function reads as config values of the same name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<NameText>", length(max = 1000))]
    pub secrets: Vec<Name>,
    /// Folders, as `HOST::GUEST`, or `HOST::GUEST:ro` for reading only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub directories: Vec<DirectoryGrant>,
    /// Endpoints that sockets may connect to, as `HOST:PORT`, `HOST:*` or `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub sockets: Vec<SocketGrant>,
}

/// A folder of the host that the guest sees under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryGrant {
    /// The folder on the host.
    pub host: PathBuf,
    /// Its name for the guest.
    pub guest: String,
    /// Whether the guest may change it.
    pub writable: bool,
}

/// Why a text grants no folder.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DirectoryGrantError {
    #[error("a folder is granted as `HOST::GUEST` or `HOST::GUEST:ro`")]
    Shape,
    #[error("the {0} side of a folder is empty")]
    Empty(&'static str),
    #[error("a path has no NUL")]
    Nul,
}

impl FromStr for DirectoryGrant {
    type Err = DirectoryGrantError;

    fn from_str(text: &str) -> Result<Self, DirectoryGrantError> {
        let (host, guest) = text.split_once("::").ok_or(DirectoryGrantError::Shape)?;
        let (guest, writable) = match guest.strip_suffix(":ro") {
            Some(guest) => (guest, false),
            None => (guest, true),
        };
        if host.is_empty() {
            return Err(DirectoryGrantError::Empty("host"));
        }
        if guest.is_empty() {
            return Err(DirectoryGrantError::Empty("guest"));
        }
        if text.contains('\0') {
            return Err(DirectoryGrantError::Nul);
        }
        Ok(Self {
            host: host.into(),
            guest: guest.into(),
            writable,
        })
    }
}

impl fmt::Display for DirectoryGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.writable { "" } else { ":ro" };
        write!(f, "{}::{}{mode}", self.host.display(), self.guest)
    }
}

text_type!(DirectoryGrant, "directory-grant");

/// Where sockets may connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketGrant {
    /// Anywhere.
    Any,
    /// One host, on one port or on any.
    Endpoint {
        /// Which hosts.
        host: HostPattern,
        /// Which port; any when absent.
        port: Option<u16>,
    },
}

/// Why a text grants no sockets.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SocketGrantError {
    #[error("sockets are granted as `HOST:PORT`, `HOST:*` or `*`")]
    Shape,
    #[error(transparent)]
    Host(#[from] HostError),
}

impl FromStr for SocketGrant {
    type Err = SocketGrantError;

    fn from_str(text: &str) -> Result<Self, SocketGrantError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (host, port) = split_authority(text)?;
        let port = match port.ok_or(SocketGrantError::Shape)? {
            "*" => None,
            digits => Some(parse_port(digits)?),
        };
        let host = match host {
            "*" => HostPattern::Any,
            host => host.parse()?,
        };
        Ok(Self::Endpoint { host, port })
    }
}

impl fmt::Display for SocketGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Endpoint {
                host,
                port: Some(port),
            } => write!(f, "{host}:{port}"),
            Self::Endpoint { host, port: None } => write!(f, "{host}:*"),
        }
    }
}

text_type!(SocketGrant, "socket-grant");
