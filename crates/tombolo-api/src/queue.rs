//! What the API tells about queues and their events, and what can be asked of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tombolo_core::{Name, QueueName};

/// A queue in numbers; counters are since the node started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Queue {
    #[schemars(with = "String")]
    pub app: Name,
    /// The queue's name within the app: `readings`, `readings.dead`, `rollup.cron`.
    #[schemars(with = "String")]
    pub name: QueueName,
    /// Whether an app uses it; one that none uses keeps what is in it.
    pub used: bool,
    /// The function that receives its events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub function: Option<Name>,
    /// Events in the queue, with those that are being delivered.
    pub depth: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The age of the oldest of them; none when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_age_ms: Option<u64>,
    /// Events that may be delivered.
    pub ready: u64,
    /// Events that are being delivered.
    pub leased: u64,
    /// Events that their publishers delayed.
    pub scheduled: u64,
    /// Events that wait after a failed attempt.
    pub backing_off: u64,
    pub counters: QueueCounters,
    /// What the queue remembers of the events that it accepted, to know duplicates.
    #[serde(default)]
    pub remembered: RememberedIds,
}

/// The ids that a queue remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RememberedIds {
    /// Ids that are remembered now, at least.
    pub ids: u64,
    /// Ids that were forgotten before their time because there were too many, since the node
    /// started: duplicates of these events would be accepted.
    pub forgotten_early: u64,
    /// Places of the disk with ids that were found damaged since the node started: as above.
    pub damages: u64,
}

/// What happened to the events of a queue since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct QueueCounters {
    pub published: u64,
    /// Deliveries, again and again.
    pub attempts: u64,
    /// Attempts that failed and were followed by another.
    pub retried: u64,
    /// Events that were acknowledged.
    pub delivered: u64,
    /// Events that became dead letters.
    pub dead: u64,
    /// Events that made room for newer ones.
    pub dropped: u64,
    /// Events that grew too old.
    pub expired: u64,
    /// Events that a newer one of their key superseded.
    pub compacted: u64,
    /// Events that an operator removed.
    pub purged: u64,
    /// Dead letters that were published again.
    pub redriven: u64,
    /// Events that damage of the disk has taken, over the life of the store.
    pub lost: u64,
}

/// An event of a queue. Looking at it does not take it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct QueuedEvent {
    /// Its number in the queue.
    pub sequence: u64,
    /// ready, behind, backing-off, scheduled or leased.
    pub standing: Standing,
    /// From 0, the highest, to 9.
    pub priority: u8,
    pub bytes: u32,
    /// When it was published (RFC 3339, UTC).
    pub published: String,
    /// When it comes due (RFC 3339, UTC), if its publisher delayed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    /// In how many milliseconds it is tried again, if it waits after a failed attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_in_ms: Option<u64>,
    /// Attempts that failed.
    pub attempts: u16,
    /// The newest of them, the last one last.
    pub history: Vec<Attempt>,
    /// The `traceparent` of the span that published it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// What is told of it if it is a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead: Option<DeadLetter>,
    /// The event in the JSON format of CloudEvents 1.0; none when its content is damaged or cannot
    /// be written so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Value>,
    /// What is wrong with the event, if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Where an event of a queue stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It may be delivered.
    Ready,
    /// It waits for an earlier one of its order key.
    Behind,
    /// It waits after a failed attempt.
    BackingOff,
    /// Its publisher delayed it.
    Scheduled,
    /// It is being delivered.
    Leased,
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// Its number, from 1.
    pub attempt: u16,
    /// When it had failed (RFC 3339, UTC).
    pub at: String,
    /// The error code, when it was no answer of the function: `TB0301`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What happened, in a sentence.
    pub detail: String,
    /// The `traceparent` of the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// What a dead letter tells beside its event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetter {
    /// The queue that it came from, `app/queue`.
    pub origin: String,
    /// refused (the answer was final), attempts (the last one failed) or age (too old for another).
    pub burial: String,
    /// How often it was tried.
    pub attempts: u16,
    /// The newest of its attempts, the last one last.
    pub history: Vec<Attempt>,
}

/// An event that a queue dropped, unread or unanswered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DroppedEvent {
    pub sequence: u64,
    pub source: String,
    pub id: String,
    /// dropped, compacted or expired.
    pub reason: String,
    /// When (RFC 3339, UTC).
    pub at: String,
}

/// Which events of a queue an operator means: `all`, the one of a number, or those that everything
/// else that is given fits. Nothing at all selects nothing and is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    pub all: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// The event's source; what stands before a final `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The event's type; what stands before a final `*`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The event's subject; what stands before a final `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Published before this moment (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Only count them.
    pub dry_run: bool,
}

/// How many events were meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Selected {
    pub events: u64,
}

/// What became of events that were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Receipt {
    /// New ones; they are as durable as the queue says.
    pub accepted: u64,
    /// Those of a source and an id that the queue had accepted before.
    pub duplicates: u64,
}

/// On what terms events are sent; what is not given is left to the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// After how many milliseconds they may be delivered.
    pub delay_ms: Option<u64>,
    /// From 0, the highest, to 9.
    pub priority: Option<u8>,
}

impl Terms {
    /// The query of the request.
    pub fn to_query(self) -> String {
        let delay = self.delay_ms.map(|delay| format!("delay={delay}ms"));
        let priority = self.priority.map(|priority| format!("priority={priority}"));
        let terms: Vec<String> = delay.into_iter().chain(priority).collect();
        terms.join("&")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_a_query() {
        assert_eq!(Terms::default().to_query(), "");
        let terms = Terms {
            delay_ms: Some(5000),
            priority: Some(0),
        };
        assert_eq!(terms.to_query(), "delay=5000ms&priority=0");
    }
}
