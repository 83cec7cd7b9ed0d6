//! The queues of an app: how durable, how long and how large they are, and what happens when one is full.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::{self, DurationText, SizeText, text_type};

/// A queue of events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// When an event counts as accepted.
    pub durability: Durability,
    /// How long and how many bytes of events are kept that nothing has taken.
    pub retention: Retention,
    /// What happens to an event for which there is no room.
    pub full: WhenFull,
    /// An attribute of the events, such as `subject`: events with the same value are delivered one at a time, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_by: Option<AttributeName>,
}

/// When an event counts as accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// When it is on the disk; it survives a power cut.
    #[default]
    Fsync,
    /// When it is in memory; it is lost when the node stops.
    Memory,
}

/// What happens to an event for which there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// Its sender is answered 429.
    #[default]
    Refuse,
    /// The oldest events make room; each is counted and listed.
    DropOldest,
    /// Of events with the same value of `order_by` only the newest is kept; each that goes is counted and listed.
    Compact,
}

/// How long and how many bytes of events are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// How long an event waits at most, while the node runs; for as long its source and id are remembered against duplicates.
    #[serde(with = "text::duration")]
    #[schemars(with = "DurationText", extend("x-minimum" = "1s", "x-maximum" = "3650days"))]
    pub age: Duration,
    /// Most bytes of events that wait; 1GiB when absent, in memory 16MiB, where each event counts 128 bytes more than it has.
    #[serde(with = "text::optional_size", skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "Option<SizeText>",
        extend("x-minimum" = "64KiB", "x-maximum" = "1024GiB")
    )]
    pub bytes: Option<u64>,
}

impl Queue {
    /// Most bytes of events that wait, by what the manifest says or by the queue's durability.
    pub fn bytes_max(&self) -> u64 {
        self.retention.bytes.unwrap_or(match self.durability {
            Durability::Fsync => 1 << 30,
            Durability::Memory => 16 << 20,
        })
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            age: Duration::from_secs(30 * 24 * 60 * 60),
            bytes: None,
        }
    }
}

/// The name of an attribute of events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttributeName(String);

/// The text names no attribute.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an attribute of events is named by 1 to 64 of the characters a-z and 0-9, and not `data`")]
pub struct AttributeNameError;

impl AttributeName {
    /// The name as text, as `Event::attribute` takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AttributeName {
    type Err = AttributeNameError;

    fn from_str(text: &str) -> Result<Self, AttributeNameError> {
        let mut bytes = text.bytes();
        let shape = (1..=64).contains(&text.len())
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        match shape && text != "data" {
            true => Ok(Self(text.into())),
            false => Err(AttributeNameError),
        }
    }
}

impl fmt::Display for AttributeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_type!(AttributeName, "event-attribute");
