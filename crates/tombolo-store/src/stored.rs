//! What the log keeps of an event besides its place in a queue: the event itself, its trace, and the history of its attempts.

use blake3::Hasher;
use serde::{Deserialize, Serialize};
use tombolo_core::event::Event;
use tombolo_core::{Code, Moment, Origin, QueueId, TraceContext};

use crate::queue::Burial;

/// Attempts that a history keeps: the newest.
pub const ATTEMPTS_MAX: usize = 16;
/// The longest text of a cause; what is longer is cut.
pub const DETAIL_BYTES_MAX: usize = 1 << 10;

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The error, when it is one of ours and not an answer of the function.
    pub code: Option<Code>,
    /// What happened, in a sentence; at most [`DETAIL_BYTES_MAX`] are kept.
    pub detail: String,
    /// The trace of the attempt.
    pub trace: Option<TraceContext>,
}

impl Cause {
    /// A cause that is a sentence.
    pub fn new(detail: impl Into<String>) -> Self {
        Self {
            code: None,
            detail: detail.into(),
            trace: None,
        }
    }
}

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its number, from 1.
    pub attempt: u16,
    /// When it had failed.
    pub at: Moment,
    /// Why.
    pub cause: Cause,
}

/// What a dead letter tells beside the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The queue that it came from.
    pub origin: QueueId,
    /// Why it is one.
    pub burial: Burial,
    /// How often it was tried.
    pub attempts: u16,
    /// The newest of its attempts, the last one last.
    pub history: Vec<Attempt>,
}

/// An event as the log keeps it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    pub(crate) event: Event,
    pub(crate) origin: Origin,
    pub(crate) published_wall_ms: u64,
    pub(crate) dead: Option<DeadLetter>,
}

type TraceFields = (u128, u64, bool);
type AttemptFields = (u16, Moment, Option<u16>, String, Option<TraceFields>);
type DeadFields = (QueueId, u8, u16, Vec<AttemptFields>);

#[derive(Serialize, Deserialize)]
struct StoredFields<E> {
    event: E,
    trace: Option<TraceFields>,
    hops: u8,
    published_wall_ms: u64,
    dead: Option<DeadFields>,
}

impl Stored {
    pub(crate) fn encode(&self) -> Vec<u8> {
        encode(&StoredFields {
            event: &self.event,
            trace: self.origin.trace.map(trace_fields),
            hops: self.origin.hops,
            published_wall_ms: self.published_wall_ms,
            dead: self.dead.as_ref().map(|dead| {
                let history = dead.history.iter().map(attempt_fields).collect();
                let burial = BURIALS.iter().position(|known| *known == dead.burial);
                let burial = u8::try_from(burial.unwrap_or(0)).unwrap_or(0);
                (dead.origin.clone(), burial, dead.attempts, history)
            }),
        })
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let fields: StoredFields<Event> = postcard::from_bytes(bytes).ok()?;
        let dead = fields.dead.map(|(origin, burial, attempts, history)| {
            Some(DeadLetter {
                origin,
                burial: *BURIALS.get(usize::from(burial))?,
                attempts,
                history: history.into_iter().map(attempt_of).collect(),
            })
        });
        Some(Self {
            event: fields.event,
            origin: Origin {
                trace: fields.trace.map(trace_of),
                hops: fields.hops,
            },
            published_wall_ms: fields.published_wall_ms,
            dead: match dead {
                Some(dead) => Some(dead?),
                None => None,
            },
        })
    }
}

const BURIALS: [Burial; 3] = [Burial::Refused, Burial::Attempts, Burial::Age];

/// A history as the log keeps it.
pub(crate) fn encode_history(history: &[Attempt]) -> Vec<u8> {
    let fields: Vec<AttemptFields> = history.iter().map(attempt_fields).collect();
    encode(&fields)
}

/// A history as it was before it was encoded; empty when it cannot be understood.
pub(crate) fn decode_history(bytes: &[u8]) -> Vec<Attempt> {
    let fields: Vec<AttemptFields> = postcard::from_bytes(bytes).unwrap_or_default();
    fields.into_iter().map(attempt_of).collect()
}

/// A history with one attempt more, without what is too much.
pub(crate) fn add_attempt(history: &mut Vec<Attempt>, attempt: Attempt) {
    history.push(attempt);
    let beyond = history.len().saturating_sub(ATTEMPTS_MAX);
    history.drain(..beyond);
}

fn attempt_fields(attempt: &Attempt) -> AttemptFields {
    let cause = &attempt.cause;
    let mut detail = cause.detail.clone();
    detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
    (
        attempt.attempt,
        attempt.at,
        cause.code.map(Code::number),
        detail,
        cause.trace.map(trace_fields),
    )
}

fn attempt_of((attempt, at, code, detail, trace): AttemptFields) -> Attempt {
    let known = |number| {
        Code::ALL
            .iter()
            .copied()
            .find(|code| code.number() == number)
    };
    Attempt {
        attempt,
        at,
        cause: Cause {
            code: code.and_then(known),
            detail,
            trace: trace.map(trace_of),
        },
    }
}

fn trace_fields(trace: TraceContext) -> TraceFields {
    (trace.trace_id, trace.span_id, trace.sampled)
}

fn trace_of((trace_id, span_id, sampled): TraceFields) -> TraceContext {
    TraceContext {
        trace_id,
        span_id,
        sampled,
    }
}

#[expect(
    clippy::expect_used,
    reason = "these types have no serialisation of their own that could fail, and a vector grows"
)]
pub(crate) fn encode(fields: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(fields).expect("memory takes every value")
}

/// What is remembered of an event: 128 bits that nobody without the store's key can collide.
pub(crate) fn fingerprint(key: &[u8; 32], queue: &QueueId, event: &Event) -> [u8; 16] {
    let mut hasher = Hasher::new_keyed(key);
    let parts = [
        queue.app.as_str(),
        queue.queue.as_str(),
        &event.source,
        &event.id,
    ];
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut fingerprint = [0; 16];
    hasher.finalize_xof().fill(&mut fingerprint);
    fingerprint
}

/// The hash of an event's order key, if the queue has one and the event a value for it.
pub(crate) fn order(order_by: Option<&str>, event: &Event) -> Option<u64> {
    let value = event.attribute(order_by?)?;
    let mut hash = [0; 8];
    let mut hasher = Hasher::new();
    hasher.update(value.as_bytes());
    hasher.finalize_xof().fill(&mut hash);
    Some(u64::from_le_bytes(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_and_their_histories_come_back() {
        let trace = TraceContext {
            trace_id: u128::MAX,
            span_id: 7,
            sampled: true,
        };
        let mut history = Vec::new();
        for attempt in 1..=20 {
            let cause = Cause {
                code: Some(Code::Trap),
                detail: "é".repeat(DETAIL_BYTES_MAX),
                trace: Some(trace),
            };
            let at = Moment {
                lived_ms: attempt.into(),
                wall_ms: 0,
            };
            add_attempt(&mut history, Attempt { attempt, at, cause });
        }
        assert_eq!(history.len(), ATTEMPTS_MAX);
        let mut back = decode_history(&encode_history(&history));
        assert_eq!(back.last().unwrap().attempt, 20);
        assert_eq!(back[0].cause.detail.len(), DETAIL_BYTES_MAX);
        back.truncate(1);
        let stored = Stored {
            event: Event::new("1", "/machine", "reading").with_data("text/plain", "hot"),
            origin: Origin {
                trace: Some(trace),
                hops: 3,
            },
            published_wall_ms: 5,
            dead: Some(DeadLetter {
                origin: QueueId {
                    app: "app".parse().unwrap(),
                    queue: "readings".parse().unwrap(),
                },
                burial: Burial::Age,
                attempts: 20,
                history: back,
            }),
        };
        assert_eq!(Stored::decode(&stored.encode()), Some(stored));
    }
}
