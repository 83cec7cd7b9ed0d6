//! Log entries and the query that selects them.
//!
//! `GET` of [`path::LOGS`](crate::path::LOGS) answers `application/x-ndjson`: one [`LogEntry`] a
//! line, oldest first. With `follow=true` the answer does not end and goes on with what is logged
//! meanwhile; an empty line is a sign of life and is skipped by readers. What a slow reader missed
//! is told in an entry of stream `node` and level `warn`.

use std::borrow::Cow;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use tombolo_core::{LogLevel, LogLevelError};

/// The content type of a stream of entries.
pub const CONTENT_TYPE: &str = "application/x-ndjson";

/// The schema of a level, whose crate knows nothing of schemas.
pub(crate) struct LevelText;

impl JsonSchema for LevelText {
    fn schema_name() -> Cow<'static, str> {
        "Level".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "How important an entry is, least first.",
            "enum": LogLevel::ALL,
            "type": "string",
        })
    }
}

/// One line that a function or the node logged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LogEntry {
    /// RFC 3339 in UTC with milliseconds: `2026-01-31T12:00:00.000Z`.
    pub time: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// stdout, stderr, log (`wasi:logging`) or node.
    pub stream: String,
    #[schemars(with = "LevelText")]
    pub level: LogLevel,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Which entries are wanted. In the URL each field is one parameter of the same name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    pub app: Option<String>,
    pub function: Option<String>,
    /// The least level.
    pub level: Option<LogLevel>,
    /// A regular expression that the message matches.
    pub grep: Option<String>,
    /// Entries from this moment on; RFC 3339 in UTC with milliseconds, so that text compares as time.
    pub since: Option<String>,
    /// At most so many of the newest entries that exist already.
    pub tail: Option<usize>,
    /// Go on with what is logged from now on.
    pub follow: bool,
}

/// Why a query cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("there is no parameter `{0}`")]
    Unknown(String),
    #[error("the value of `{name}` is not valid: {reason}")]
    Value { name: String, reason: String },
}

impl LogQuery {
    /// The query as the part of a URL after `?`.
    pub fn to_query(&self) -> String {
        let parameters = [
            ("app", self.app.clone()),
            ("function", self.function.clone()),
            ("level", self.level.map(|level| level.to_string())),
            ("grep", self.grep.clone()),
            ("since", self.since.clone()),
            ("tail", self.tail.map(|tail| tail.to_string())),
            ("follow", self.follow.then(|| "true".into())),
        ];
        let pairs: Vec<String> = parameters
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name, value)))
            .map(|(name, value)| {
                format!("{name}={}", utf8_percent_encode(&value, NON_ALPHANUMERIC))
            })
            .collect();
        pairs.join("&")
    }

    /// Understands the part of a URL after `?`.
    pub fn from_query(query: &str) -> Result<Self, QueryError> {
        let mut parsed = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let spaced = value.replace('+', " ");
            let invalid = |reason: String| QueryError::Value {
                name: name.into(),
                reason,
            };
            let value = percent_decode_str(&spaced)
                .decode_utf8()
                .map_err(|error| invalid(error.to_string()))?
                .into_owned();
            match name {
                "app" => parsed.app = Some(value),
                "function" => parsed.function = Some(value),
                "level" => {
                    let level = value
                        .parse()
                        .map_err(|error: LogLevelError| invalid(error.to_string()))?;
                    parsed.level = Some(level);
                }
                "grep" => parsed.grep = Some(value),
                "since" => parsed.since = Some(value),
                "tail" => {
                    parsed.tail =
                        Some(value.parse().map_err(|error: std::num::ParseIntError| {
                            invalid(error.to_string())
                        })?);
                }
                "follow" => parsed.follow = value != "false",
                other => return Err(QueryError::Unknown(other.into())),
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_round_trips() {
        let query = LogQuery {
            app: Some("hello".into()),
            function: Some("api".into()),
            level: Some(LogLevel::Warn),
            grep: Some("a b&c=é|^$".into()),
            since: Some("2026-01-31T12:00:00.000Z".into()),
            tail: Some(7),
            follow: true,
        };
        assert_eq!(LogQuery::from_query(&query.to_query()), Ok(query));
        assert_eq!(LogQuery::from_query(""), Ok(LogQuery::default()));
    }

    #[test]
    fn bad_queries_are_refused() {
        for bad in ["level=loud", "tail=-1", "colour=red", "grep=%ff"] {
            assert!(LogQuery::from_query(bad).is_err(), "{bad}");
        }
    }
}
