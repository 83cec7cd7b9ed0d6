//! Keeping the log short: what lives in its oldest segment is written again at its end, so that the segment can be dropped.

use std::sync::Arc;

use super::ahead::Ahead;
use super::decide::{Decisions, Outcomes, Refused};
use super::upkeep::Writing;
use crate::StoreError;
use crate::log::{Place, RESERVE_BYTES, Record, unseal};
use crate::operation::{self, Body, Enqueued, Operation};
use crate::queue::{Entry, Operation as QueueOperation};
use crate::queues::{Content, Effect, Queues};
use crate::store::Open;
use crate::stored;

/// What an operation takes in a record besides its content, generously.
const OPERATION_BYTES: u64 = 256;

/// Where moving what lives in the oldest segment goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moving {
    /// The segment is read, and this position is next.
    Reading(u64),
    /// The segment was read, and something that lives in it was not found: its record is damaged.
    /// The queues are searched for it, from a slot and a sequence on.
    Searching(usize, u64),
}

/// An event that lives in the oldest segment.
struct Living {
    slot: usize,
    queue: Arc<str>,
    entry: Entry<Place>,
    content: Vec<u8>,
    /// Where its history is, which stands behind it in the log and would not be understood without
    /// it.
    history: Option<Place>,
}

impl Writing {
    /// Drops from the beginning of the log what is dead and moves what lives, until so many bytes
    /// of it were passed by or the log is at most `slack` longer than twice what lives in it.
    ///
    /// Called with twice what was written since the last time, the log grows to two and a half
    /// times what lives, and `slack`, and no further: at worst all that lives stands before all
    /// that is dead, and is passed by while half of it is written anew.
    pub(super) fn condense(&mut self, slack: u64, budget: u64) -> Result<(), StoreError> {
        let mut left = budget;
        while left > 0 && self.is_longer_than_allowed(slack) {
            let first = self.log.start();
            if self.open.queues().live_in(first) == 0 {
                self.drop_dead(self.limits.checkpoint_bytes)?;
                if self.log.start() == first {
                    // It waits for a checkpoint.
                    return Ok(());
                }
                continue;
            }
            let Some(end) = self.log.oldest_end() else {
                self.log.roll()?;
                continue;
            };
            let passed = match self.moving.unwrap_or(Moving::Reading(first)) {
                Moving::Reading(from) => self.read_on(from, end)?,
                Moving::Searching(slot, from) => self.search_on((slot, from), first..end)?,
            };
            left = left.saturating_sub(passed.max(1));
        }
        Ok(())
    }

    fn is_longer_than_allowed(&self, slack: u64) -> bool {
        let live = self.open.queues().live_bytes();
        self.log.end() - self.log.start() > live.saturating_mul(2).saturating_add(slack)
    }

    /// Reads on in the oldest segment, and moves what lives there; how many bytes that were.
    fn read_on(&mut self, from: u64, end: u64) -> Result<u64, StoreError> {
        let open = Arc::clone(&self.open);
        let mut found = Vec::new();
        let behind = open
            .segments
            .records(from, self.limits.step_bytes, |record| {
                living(&open, &record, &mut found);
            })?;
        self.rewrite(&found)?;
        let next = behind.filter(|behind| (from + 1..end).contains(behind));
        self.moving = Some(next.map_or(Moving::Searching(0, 0), Moving::Reading));
        Ok(next.unwrap_or(end) - from)
    }

    /// Writes events again, in a group of their own: no decision about an event may be open when
    /// its content moves. May use half of what is kept in reserve, since it makes room.
    fn rewrite(&mut self, living: &[Living]) -> Result<(), StoreError> {
        if living.is_empty() {
            return Ok(());
        }
        let histories = living.iter().map(|one| self.history(one.history));
        let histories: Vec<_> = histories.collect();
        let bytes = living.iter().zip(&histories).map(|(one, history)| {
            let history = history.as_ref().map_or(0, Vec::len);
            OPERATION_BYTES + (one.content.len() + history) as u64
        });
        let kept = RESERVE_BYTES / 2 + self.owed_bytes();
        let mut group = self.log.begin(bytes.sum(), kept)?;
        let now = self.open.life.now();
        let mut body = Body::at(group.next_body_position());
        let mut outcomes = Outcomes::default();
        for (one, history) in living.iter().zip(histories) {
            if body.bytes().len() as u64 >= self.limits.step_bytes {
                group.push(now, body.bytes())?;
                body = Body::at(group.next_body_position());
            }
            write_again(one, history, &mut body, &mut outcomes.effects);
        }
        group.push(now, body.bytes())?;
        self.log.commit(group)?;
        self.apply(outcomes);
        Ok(())
    }

    /// The encoded history at a place. One that is damaged becomes an empty one.
    fn history(&self, place: Option<Place>) -> Option<Vec<u8>> {
        let read = self.open.segments.read(place?).ok().flatten();
        Some(read.unwrap_or_else(|| stored::encode_history(&[])))
    }

    /// Searches the queues for what lives in the oldest segment although reading it did not find
    /// it. What can be read is moved. What was damaged since the store was opened is given up: it
    /// would keep the log from being shortened for ever.
    fn search_on(
        &mut self,
        from: (usize, u64),
        range: std::ops::Range<u64>,
    ) -> Result<u64, StoreError> {
        let open = Arc::clone(&self.open);
        let (found, next) = open.queues().between(range, from, self.limits.step_bytes);
        let (mut readable, mut damaged) = (Vec::new(), Vec::new());
        for (slot, entry) in found {
            match open.segments.read(entry.place) {
                Ok(Some(content)) => {
                    readable.extend(described(&open.queues(), slot, entry, content));
                }
                Ok(None) => damaged.push((slot, entry.sequence)),
                // Perhaps the disk can read it later; its consumer and its age will decide.
                Err(error) => tracing::error!(%error, "an event cannot be read"),
            }
        }
        self.rewrite(&readable)?;
        self.give_up(&damaged)?;
        self.moving = next.map(|(slot, from)| Moving::Searching(slot, from));
        Ok(self.limits.step_bytes)
    }

    /// Removes events whose content is damaged.
    fn give_up(&mut self, damaged: &[(usize, u64)]) -> Result<(), StoreError> {
        if damaged.is_empty() {
            return Ok(());
        }
        let bytes = damaged.len() as u64 * OPERATION_BYTES;
        let kept = RESERVE_BYTES / 2 + self.owed_bytes();
        let mut group = self.log.begin(bytes, kept)?;
        let mut body = Body::at(group.next_body_position());
        let open = Arc::clone(&self.open);
        let now = open.life.now();
        let outcomes = {
            let queues = open.queues();
            let (random, watched) = (&mut || self.random.next(), &self.watched);
            let ahead = Ahead::default();
            let mut decisions =
                Decisions::new(now, &queues, &open.segments, ahead, watched, random);
            for (slot, sequence) in damaged {
                let queue = queues.get(*slot).map(|slot| &slot.id);
                tracing::error!(?queue, sequence, "an event is damaged");
                let lost = decisions.lose(*slot, *sequence, &mut body);
                lost.map_err(|(Refused::Alone(error) | Refused::Group(error))| error)?;
            }
            decisions.outcomes()
        };
        if !body.bytes().is_empty() {
            group.push(now, body.bytes())?;
            self.log.commit(group)?;
            self.apply(outcomes);
        }
        Ok(())
    }
}

/// Adds the events whose content lives in a record.
fn living(open: &Open, record: &Record<'_>, living: &mut Vec<Living>) {
    let queues = open.queues();
    for found in operation::read(record.body_position(), record.body) {
        let Ok(found) = found else { return };
        let (Operation::Enqueued { queue, event, .. } | Operation::Moved { queue, event }) =
            found.operation
        else {
            continue;
        };
        let id = operation::queue_id(queue).ok();
        let Some(slot) = id.and_then(|id| queues.find(&id)) else {
            continue;
        };
        let entry = queues
            .get(slot)
            .and_then(|slot| slot.queue.entry(event.sequence()));
        if let Some(entry) = entry.filter(|entry| entry.place == found.place)
            && let Some(content) = unseal(found.place.position(), found.content)
        {
            living.extend(described(&queues, slot, entry, content.to_vec()));
        }
    }
}

/// An event with what belongs to it; nothing if it is not in the log.
fn described(
    queues: &Queues,
    slot: usize,
    entry: Entry<Place>,
    content: Vec<u8>,
) -> Option<Living> {
    let queue = queues.get(slot)?;
    let history = match queue.history(entry.sequence) {
        Some(Content::Log(place)) => Some(*place),
        _ => None,
    };
    queue.is_logged(entry.sequence).then(|| Living {
        slot,
        queue: Arc::clone(&queue.name),
        entry,
        content,
        history,
    })
}

fn write_again(
    living: &Living,
    history: Option<Vec<u8>>,
    body: &mut Body,
    effects: &mut Vec<Effect>,
) {
    let (slot, entry, sequence) = (living.slot, living.entry, living.entry.sequence);
    let queue = &living.queue;
    let event = Enqueued::of(&entry);
    let place = body.push_sealed(&Operation::Moved { queue, event }, &living.content);
    effects.push(Effect::Queue {
        slot,
        operation: QueueOperation::Enqueued(Entry { place, ..entry }),
        content: Some(Content::Log(place)),
    });
    if let Some(history) = history {
        let moved = Operation::HistoryMoved { queue, sequence };
        let place = body.push_sealed(&moved, &history);
        effects.push(Effect::HistoryMoved {
            slot,
            sequence,
            place,
        });
    }
}
