//! What a record of the log says: the operations of one transaction, one after the other.
//!
//! An operation is its fields in `postcard` and a content behind them, with its length. Content
//! that is read by itself later is sealed (see [`seal`]).

use serde::{Deserialize, Serialize};
use tombolo_core::QueueId;

use crate::log::{Place, SEAL_BYTES, seal};
use crate::queue::{Burial, Due, Entry, Reason};

/// One operation of a transaction. New kinds go to the end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Operation<'a> {
    /// A key of a key-value store got a value. Content: key and value.
    Put { key_bytes: u32 },
    /// A key was deleted. Content: the key.
    Delete,
    /// An event came into a queue. Content: the event, sealed.
    Enqueued {
        queue: &'a str,
        event: Enqueued,
        /// What is remembered of its source and id.
        fingerprint: Option<[u8; 16]>,
    },
    /// An event's content was written again, so that the place where it was can be dropped.
    /// Content: the event, sealed.
    Moved { queue: &'a str, event: Enqueued },
    /// An event left its queue. Content: for one that was dropped, who it was.
    Removed {
        queue: &'a str,
        sequence: u64,
        reason: u8,
    },
    /// An attempt failed and another follows. Content: the attempts so far, sealed.
    Retried {
        queue: &'a str,
        sequence: u64,
        attempts: u16,
        due_lived_ms: u64,
    },
    /// The attempts of an event were written again. Content: the attempts so far, sealed.
    HistoryMoved { queue: &'a str, sequence: u64 },
    /// A function's answer to a key was stored. Content: key and answer.
    Answered { key_bytes: u32 },
}

/// The fields of an [`Entry`] that are not its place.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Enqueued {
    sequence: u64,
    attempts: u16,
    due_wall_ms: Option<u64>,
    due_lived_ms: Option<u64>,
    priority: u8,
    order: Option<u64>,
    published_lived_ms: u64,
}

impl Enqueued {
    pub(crate) fn of(entry: &Entry<Place>) -> Self {
        let (due_wall_ms, due_lived_ms) = match entry.due {
            Some(Due::Wall(due)) => (Some(due), None),
            Some(Due::Lived(due)) => (None, Some(due)),
            None => (None, None),
        };
        Self {
            sequence: entry.sequence,
            attempts: entry.attempts,
            due_wall_ms,
            due_lived_ms,
            priority: entry.priority,
            order: entry.order,
            published_lived_ms: entry.published_lived_ms,
        }
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) fn at(self, place: Place) -> Entry<Place> {
        let backoff = self.due_lived_ms.map(Due::Lived);
        Entry {
            sequence: self.sequence,
            place,
            bytes: place.bytes,
            attempts: self.attempts,
            due: backoff.or(self.due_wall_ms.map(Due::Wall)),
            priority: self.priority,
            order: self.order,
            published_lived_ms: self.published_lived_ms,
        }
    }
}

const REASONS: [Reason; 9] = [
    Reason::Done,
    Reason::Dropped,
    Reason::Expired,
    Reason::Compacted,
    Reason::Purged,
    Reason::Redriven,
    Reason::Buried(Burial::Refused),
    Reason::Buried(Burial::Attempts),
    Reason::Buried(Burial::Age),
];

/// The number that stands for a reason in the log.
pub(crate) fn number_of(reason: Reason) -> u8 {
    let place = REASONS.iter().position(|known| *known == reason);
    place
        .and_then(|place| u8::try_from(place).ok())
        .unwrap_or(0)
}

/// The reason that a number stands for.
pub(crate) fn reason_of(number: u8) -> Option<Reason> {
    REASONS.get(usize::from(number)).copied()
}

/// The body of a record that is being made.
pub(crate) struct Body {
    position: u64,
    bytes: Vec<u8>,
}

impl Body {
    /// An empty body, to be written at a position.
    pub(crate) fn at(position: u64) -> Self {
        Self {
            position,
            bytes: Vec::new(),
        }
    }

    /// Where it will be written.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds an operation with content in parts.
    pub(crate) fn push(&mut self, operation: &Operation<'_>, content: &[&[u8]]) {
        let bytes: usize = content.iter().map(|part| part.len()).sum();
        self.fields(operation);
        self.fields(&bytes);
        for part in content {
            self.bytes.extend_from_slice(part);
        }
    }

    /// Adds an operation with content that is read by itself later.
    pub(crate) fn push_sealed(&mut self, operation: &Operation<'_>, content: &[u8]) -> Place {
        let bytes = content.len() + SEAL_BYTES;
        self.fields(operation);
        self.fields(&bytes);
        let position = self.position + self.bytes.len() as u64;
        self.bytes.extend_from_slice(&seal(position, content));
        self.bytes.extend_from_slice(content);
        Place::new(position, u32::try_from(bytes).unwrap_or(u32::MAX))
    }

    #[expect(
        clippy::expect_used,
        reason = "these types have no serialisation of their own that could fail, and a vector grows"
    )]
    fn fields(&mut self, fields: &impl Serialize) {
        let bytes = std::mem::take(&mut self.bytes);
        self.bytes = postcard::to_extend(fields, bytes).expect("memory takes every value");
    }
}

/// An operation with its content and where that is.
#[derive(Clone, Debug)]
pub(crate) struct Found<'a> {
    pub(crate) operation: Operation<'a>,
    pub(crate) content: &'a [u8],
    pub(crate) place: Place,
}

/// A record passes its checks and cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("a record of the log cannot be understood")]
pub(crate) struct Unreadable;

/// The operations of a body that was written at a position.
pub(crate) fn read(
    position: u64,
    body: &[u8],
) -> impl Iterator<Item = Result<Found<'_>, Unreadable>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let found = split(position + (body.len() - rest.len()) as u64, rest);
        let Ok((found, behind)) = found else {
            rest = &[];
            return Some(Err(Unreadable));
        };
        rest = behind;
        Some(Ok(found))
    })
}

fn split(position: u64, bytes: &[u8]) -> Result<(Found<'_>, &[u8]), Unreadable> {
    let (operation, rest) =
        postcard::take_from_bytes::<Operation<'_>>(bytes).map_err(|_| Unreadable)?;
    let (len, rest) = postcard::take_from_bytes::<usize>(rest).map_err(|_| Unreadable)?;
    let (content, behind) = rest.split_at_checked(len).ok_or(Unreadable)?;
    let position = position + (bytes.len() - rest.len()) as u64;
    let place = Place::new(position, u32::try_from(len).map_err(|_| Unreadable)?);
    let found = Found {
        operation,
        content,
        place,
    };
    Ok((found, behind))
}

/// The queue that a text in the log names.
pub(crate) fn queue_id(text: &str) -> Result<QueueId, Unreadable> {
    let (app, queue) = text.split_once('/').ok_or(Unreadable)?;
    Ok(QueueId {
        app: app.parse().map_err(|_| Unreadable)?,
        queue: queue.parse().map_err(|_| Unreadable)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::unseal;

    #[test]
    fn operations_and_their_contents_come_back_in_order() {
        let entry = Entry {
            sequence: 7,
            place: Place::new(0, 0),
            bytes: 0,
            attempts: 3,
            due: Some(Due::Lived(99)),
            priority: 2,
            order: Some(u64::MAX),
            published_lived_ms: 50,
        };
        let enqueued = Operation::Enqueued {
            queue: "app/readings.dead",
            event: Enqueued::of(&entry),
            fingerprint: Some([9; 16]),
        };
        let mut body = Body::at(1 << 40);
        body.push(&Operation::Put { key_bytes: 3 }, &[b"key", b"value"]);
        let place = body.push_sealed(&enqueued, b"event");
        body.push(&Operation::Delete, &[b"other"]);

        let found: Vec<_> = read(1 << 40, body.bytes()).map(Result::unwrap).collect();
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].content, b"keyvalue");
        assert_eq!(found[1].operation, enqueued);
        assert_eq!(found[1].place, place);
        assert_eq!(
            unseal(place.position(), found[1].content),
            Some(&b"event"[..])
        );
        let back = Enqueued::of(&entry).at(place);
        assert_eq!((back.due, back.place), (entry.due, place));
        assert_eq!(found[2].operation, Operation::Delete);
        let cut = &body.bytes()[..body.bytes().len() - 1];
        assert!(read(0, cut).any(|found| found.is_err()));
    }

    #[test]
    fn every_reason_has_its_number() {
        for (number, reason) in (0..).zip(REASONS) {
            assert_eq!(number_of(reason), number);
            assert_eq!(reason_of(number), Some(reason));
        }
        assert_eq!(reason_of(9), None);
    }

    proptest::proptest! {
        /// What passes the checks of a record was written by this program, or by somebody who can make
        /// checksums too.
        #[test]
        fn any_body_is_read_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let found: Vec<_> = read(0, &bytes).collect();
            proptest::prop_assert!(found.len() <= bytes.len());
            let refused = found.iter().filter(|one| one.is_err()).count();
            // Nothing is read behind what cannot be understood.
            proptest::prop_assert!(refused <= 1);
        }
    }
}
