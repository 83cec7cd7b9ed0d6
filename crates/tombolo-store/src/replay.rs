//! Recovery: what the log says, applied again to empty queues and to the keys of the last checkpoint.

use std::collections::HashMap;

use tombolo_core::QueueId;

use crate::StoreError;
use crate::commit::Known;
use crate::engine::Transaction;
use crate::ids::Ids;
use crate::log::Record;
use crate::operation::{self, Found, Operation, Unreadable};
use crate::queue::Operation as QueueOperation;
use crate::queues::{Content, Dropped, Effect, Queues};
use crate::remembered::Fingerprint;

/// The state of a replay.
pub(crate) struct Replay<'a> {
    known: &'a Known,
    pub(crate) queues: Queues,
    pub(crate) ids: Ids,
    /// How long the store had lived at its last record.
    pub(crate) lived_ms: u64,
    slots: HashMap<String, usize>,
    gaps: Vec<Gaps>,
}

/// Sequences of a queue that the log does not tell of.
#[derive(Default)]
struct Gaps {
    /// The sequence that comes next if nothing is missing.
    next: Option<u64>,
    /// Ranges that are missing, in ascending order.
    ranges: Vec<(u64, u64)>,
    missing: u64,
}

impl Gaps {
    fn enqueued(&mut self, sequence: u64) {
        if let Some(next) = self.next.filter(|next| *next < sequence) {
            self.ranges.push((next, sequence));
            self.missing += sequence - next;
        }
        self.next = Some(sequence + 1);
    }

    /// Something else is known of an event: it is not missing.
    fn known(&mut self, sequence: u64) {
        let behind = self.ranges.partition_point(|(start, _)| *start <= sequence);
        let range = behind.checked_sub(1).and_then(|at| self.ranges.get(at));
        if range.is_some_and(|(_, end)| sequence < *end) {
            self.missing = self.missing.saturating_sub(1);
        }
    }
}

impl<'a> Replay<'a> {
    pub(crate) fn new(known: &'a Known, ids: Ids) -> Result<Self, StoreError> {
        let mut replay = Self {
            known,
            queues: Queues::default(),
            ids,
            lived_ms: known.lived_ms,
            slots: HashMap::new(),
            gaps: Vec::new(),
        };
        for queue in &known.queues {
            replay.slot(&queue.queue).map_err(unreadable)?;
        }
        Ok(replay)
    }

    /// Applies a record.
    pub(crate) fn record(
        &mut self,
        record: Record<'_>,
        engine: &mut Transaction<'_>,
    ) -> Result<(), StoreError> {
        self.lived_ms = self.lived_ms.max(record.moment.lived_ms);
        let fresh = record.position >= self.known.position;
        for found in operation::read(record.body_position(), record.body) {
            let found = found.map_err(unreadable)?;
            if !self.keys(&found, &record, fresh, engine)? {
                self.queue(&found, &record)?;
            }
        }
        // Between records: the ids of one are in files all or none.
        Ok(self.ids.tend(self.lived_ms)?)
    }

    /// Applies an operation if it is about keys.
    fn keys(
        &self,
        found: &Found<'_>,
        record: &Record<'_>,
        fresh: bool,
        engine: &mut Transaction<'_>,
    ) -> Result<bool, StoreError> {
        let split = |key_bytes: u32| {
            let split = found.content.split_at_checked(key_bytes as usize);
            split.ok_or_else(|| unreadable(Unreadable))
        };
        match found.operation {
            Operation::Put { key_bytes } if fresh => {
                let (key, value) = split(key_bytes)?;
                engine.put(key, value)?;
            }
            Operation::Delete if fresh => engine.delete(found.content)?,
            Operation::Answered { key_bytes } if fresh => {
                let (key, answer) = split(key_bytes)?;
                engine.answer(key, answer, record.moment.lived_ms)?;
            }
            Operation::Put { .. } | Operation::Delete | Operation::Answered { .. } => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn queue(&mut self, found: &Found<'_>, record: &Record<'_>) -> Result<(), StoreError> {
        let (name, sequence) = match &found.operation {
            Operation::Enqueued { queue, event, .. } | Operation::Moved { queue, event } => {
                (*queue, event.sequence())
            }
            Operation::Removed {
                queue, sequence, ..
            }
            | Operation::Retried {
                queue, sequence, ..
            }
            | Operation::HistoryMoved { queue, sequence } => (*queue, *sequence),
            _ => return Err(unreadable(Unreadable)),
        };
        let slot = self.slot(name).map_err(unreadable)?;
        if let Some(gaps) = self.gaps.get_mut(slot) {
            match found.operation {
                Operation::Enqueued { .. } => gaps.enqueued(sequence),
                Operation::Moved { .. } | Operation::Removed { .. } => gaps.known(sequence),
                _ => {}
            }
        }
        let content = Some(Content::Log(found.place));
        let effect = match &found.operation {
            Operation::Enqueued {
                event, fingerprint, ..
            } => {
                if let Some(fingerprint) = fingerprint {
                    self.remember(slot, *fingerprint, record)?;
                }
                Effect::Queue {
                    slot,
                    operation: QueueOperation::Enqueued(event.at(found.place)),
                    content,
                }
            }
            Operation::Moved { event, .. } => Effect::Queue {
                slot,
                operation: QueueOperation::Enqueued(event.at(found.place)),
                content,
            },
            Operation::Removed { reason, .. } => {
                let reason = operation::reason_of(*reason)
                    .ok_or(Unreadable)
                    .map_err(unreadable)?;
                if !found.content.is_empty() {
                    let (source, id) =
                        postcard::from_bytes(found.content).map_err(|_| unreadable(Unreadable))?;
                    let at = record.moment;
                    let dropped = Dropped {
                        sequence,
                        source,
                        id,
                        reason,
                        at,
                    };
                    self.queues.apply(Effect::Dropped { slot, dropped });
                }
                Effect::Queue {
                    slot,
                    operation: QueueOperation::Removed { sequence, reason },
                    content: None,
                }
            }
            Operation::Retried {
                attempts,
                due_lived_ms,
                ..
            } => Effect::Queue {
                slot,
                operation: QueueOperation::Retried {
                    sequence,
                    attempts: *attempts,
                    due_lived_ms: *due_lived_ms,
                },
                content,
            },
            _ => Effect::HistoryMoved {
                slot,
                sequence,
                place: found.place,
            },
        };
        self.queues.apply(effect);
        Ok(())
    }

    /// Brings back an id that is in no file yet.
    fn remember(
        &mut self,
        slot: usize,
        id: Fingerprint,
        record: &Record<'_>,
    ) -> Result<(), StoreError> {
        if self.ids.flushed_through(slot).is_none() {
            let queue = self.queues.get(slot).map(|slot| slot.id.clone());
            let queue = queue.ok_or_else(|| unreadable(Unreadable))?;
            // For good, until the queue is configured.
            self.ids.retain(slot, &queue, u64::MAX, true)?;
        }
        let position = record.body_position();
        if self
            .ids
            .flushed_through(slot)
            .is_some_and(|through| position > through)
        {
            self.ids
                .remember(slot, id, record.moment.lived_ms, position);
        }
        Ok(())
    }

    fn slot(&mut self, name: &str) -> Result<usize, Unreadable> {
        if let Some(slot) = self.slots.get(name) {
            return Ok(*slot);
        }
        let id: QueueId = operation::queue_id(name)?;
        let slot = self.queues.make(&id);
        self.slots.insert(name.to_owned(), slot);
        self.gaps.resize_with(slot + 1, Gaps::default);
        Ok(slot)
    }

    /// Ends the replay. Sequences that are missing were lost if there was `damage`; without it they
    /// are those of events that were kept in memory.
    pub(crate) fn finish(mut self, damage: bool) -> (Queues, Ids, u64) {
        for known in &self.known.queues {
            if let Ok(slot) = self.slot(&known.queue)
                && let Some(slot) = self.queues.get_mut(slot)
            {
                slot.queue.recovered(known.next_sequence);
            }
        }
        for (slot, gaps) in self.queues.all_mut().zip(&self.gaps) {
            slot.queue.recovered(0);
            slot.lost = if damage { gaps.missing } else { 0 };
        }
        (self.queues, self.ids, self.lived_ms)
    }
}

fn unreadable(error: Unreadable) -> StoreError {
    StoreError::Damaged(error.to_string())
}
