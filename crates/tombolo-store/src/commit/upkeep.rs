//! What the writer thread has, and what it does between groups: checkpoints, dropping what the log no longer needs, and moving what stands in the way of that.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::changes::Watched;
use super::decide::{Decisions, Refused};
use crate::StoreError;
use crate::ids::Ids;
use crate::log::{Group, Log, LogError, Place};
use crate::operation::{Body, Enqueued, Operation};
use crate::queue::{Entry, Operation as QueueOperation};
use crate::queues::{Content, Effect, Slot};
use crate::store::{Limits, Open};
use crate::stored;

/// What a checkpoint knows besides the keys: all of the log up to a position.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Known {
    /// The keys are as they were here; behind it the log says what changed.
    pub(crate) position: u64,
    /// How long the store had lived.
    pub(crate) lived_ms: u64,
    /// The key of fingerprints.
    pub(crate) key: [u8; 32],
    pub(crate) queues: Vec<KnownQueue>,
}

/// What a checkpoint knows of a queue; its events are in the log.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KnownQueue {
    pub(crate) queue: String,
    /// The next event's number.
    pub(crate) next_sequence: u64,
}

/// A sequence of random numbers (SplitMix64), for jitter.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

/// What the writer thread has.
pub(crate) struct Writing {
    pub(super) open: Arc<Open>,
    pub(super) log: Log,
    pub(super) ids: Ids,
    pub(super) watched: Vec<Watched>,
    pub(super) random: Random,
    /// Bytes that the next checkpoint may make the engine's file grow by, roughly.
    pub(super) dirty_bytes: u64,
    limits: Limits,
    /// The position of the last checkpoint.
    checkpoint: u64,
    /// Where moving what lives in the oldest segment goes on.
    moving: Option<(usize, u64)>,
}

impl Writing {
    pub(crate) fn new(
        open: Arc<Open>,
        log: Log,
        ids: Ids,
        checkpoint: u64,
        limits: Limits,
        dirty_bytes: u64,
    ) -> Self {
        Self {
            open,
            log,
            ids,
            watched: Vec::new(),
            random: Random(RandomState::new().hash_one(checkpoint)),
            dirty_bytes,
            limits,
            checkpoint,
            moving: None,
        }
    }

    /// Begins a group, if there is room for it. Before it is refused, what can be dropped is.
    pub(super) fn begin(&mut self, bytes: u64) -> Result<Group, StoreError> {
        match self.log.begin(bytes, self.dirty_bytes) {
            Err(LogError::Full) if self.log.end() - self.checkpoint >= self.limits.scrap_bytes => {
                self.checkpoint()?;
                self.drop_dead(self.limits.scrap_bytes)?;
                Ok(self.log.begin(bytes, self.dirty_bytes)?)
            }
            begun => Ok(begun?),
        }
    }

    /// Begins a group that makes room: it may use what is kept in reserve.
    pub(super) fn begin_shrinking(&mut self) -> Result<Group, StoreError> {
        Ok(self.log.begin_in_reserve()?)
    }

    /// What is to be done between groups. Nobody waits for it, so its failure is only logged: what
    /// it concerns is still in the log, and will be tried again.
    pub(super) fn look_after(&mut self) {
        if let Err(error) = self.try_look_after() {
            tracing::warn!(%error, "the log cannot be tidied now");
        }
    }

    fn try_look_after(&mut self) -> Result<(), StoreError> {
        self.ids.tend(self.open.life.now().lived_ms)?;
        if self.log.end() - self.checkpoint >= self.limits.checkpoint_bytes {
            self.checkpoint()?;
            self.drop_dead(self.limits.checkpoint_bytes)?;
        }
        let live = self.open.queues().live_bytes();
        let slack = self.limits.slack_bytes;
        if self.moving.is_some()
            || self.log.end() - self.log.start() > live.saturating_mul(2).saturating_add(slack)
        {
            self.move_some()?;
        }
        Ok(())
    }

    /// Makes the engine durable, together with what the log up to here says.
    fn checkpoint(&mut self) -> Result<(), StoreError> {
        let position = self.log.end();
        let known = {
            let queues = self.open.queues();
            let known = queues.all().map(|(_, slot)| KnownQueue {
                queue: slot.name.to_string(),
                next_sequence: slot.queue.next_sequence(),
            });
            Known {
                position,
                lived_ms: self.open.life.now().lived_ms,
                key: self.open.key,
                queues: known.collect(),
            }
        };
        let done = self.open.engine.checkpoint(&stored::encode(&known));
        done.inspect_err(|error| self.log.stop(error))?;
        self.checkpoint = position;
        self.dirty_bytes = 0;
        self.ids.touch_all();
        Ok(())
    }

    /// Drops segments from which nothing is needed: their keys are in a checkpoint, their ids in
    /// runs, and no content in them lives. The current one, too, if it has so many bytes.
    fn drop_dead(&mut self, current_bytes: u64) -> Result<(), StoreError> {
        loop {
            let first = self.log.start();
            if self.open.queues().live_in(first) > 0 {
                return Ok(());
            }
            match self.log.oldest_end() {
                Some(end) if end <= self.checkpoint => {}
                None if self.log.end() - first >= current_bytes => self.log.roll()?,
                _ => return Ok(()),
            }
            let lived_ms = self.open.life.now().lived_ms;
            self.ids.flush(self.checkpoint, lived_ms)?;
            self.log.drop_oldest()?;
            self.open.queues().segment_dropped(first);
            self.moving = None;
        }
    }

    /// Writes again a part of what lives in the oldest segment, in a group of its own: no decision
    /// about an event may be open when its content moves. What was damaged since the store was
    /// opened is given up; it would keep the log from being shortened for ever.
    fn move_some(&mut self) -> Result<(), StoreError> {
        let open = Arc::clone(&self.open);
        let queues = open.queues();
        let first = self.log.start();
        let Some(end) = self.log.oldest_end().filter(|_| queues.live_in(first) > 0) else {
            self.moving = None;
            return Ok(());
        };
        let from = self.moving.unwrap_or_default();
        let (found, next) = queues.between(first..end, from, self.limits.step_bytes);
        let mut group = self
            .log
            .begin(2 * self.limits.step_bytes, self.dirty_bytes)?;
        let mut body = Body::at(group.next_body_position());
        let now = open.life.now();
        let (random, watched) = (&mut || self.random.next(), &self.watched);
        let mut decisions =
            Decisions::new(now, &queues, &open.segments, &mut self.ids, watched, random);
        let mut moved = Vec::new();
        for (slot, entry) in found {
            let Some(queue) = queues.get(slot) else { break };
            match open.segments.read(entry.place) {
                Ok(Some(content)) => {
                    move_one(&open, slot, queue, entry, &content, &mut body, &mut moved);
                }
                Ok(None) => {
                    let sequence = entry.sequence;
                    tracing::error!(queue = %queue.id, sequence, "an event is damaged");
                    let lost = decisions.lose(slot, sequence, &mut body);
                    lost.map_err(|(Refused::Alone(error) | Refused::Group(error))| error)?;
                }
                // Perhaps the disk can read it later; its consumer and its age will decide.
                Err(error) => tracing::error!(%error, queue = %queue.id, "an event cannot be read"),
            }
        }
        let mut outcomes = decisions.outcomes();
        drop(queues);
        if !body.bytes().is_empty() {
            group.push(now, body.bytes());
            self.log.commit(group)?;
            outcomes.effects.extend(moved);
            self.apply(outcomes);
        }
        self.moving = next;
        Ok(())
    }

    /// Ends the writing with a checkpoint, so that the next start reads as little as possible.
    pub(super) fn close(mut self) -> Arc<Open> {
        let done = self.log.ready().map_err(StoreError::from);
        let done = done.and_then(|()| self.checkpoint());
        if let Err(error) = done.and_then(|()| self.drop_dead(self.limits.checkpoint_bytes)) {
            tracing::warn!(%error, "the store was closed without a checkpoint");
        }
        self.open
    }
}

/// Writes an event again, and its history, which stands behind it in the log and would not be
/// understood without it.
fn move_one(
    open: &Open,
    slot: usize,
    queue: &Slot,
    entry: Entry<Place>,
    content: &[u8],
    body: &mut Body,
    effects: &mut Vec<Effect>,
) {
    let moved = Operation::Moved {
        queue: &queue.name,
        event: Enqueued::of(&entry),
    };
    let place = body.push_sealed(&moved, content);
    effects.push(Effect::Queue {
        slot,
        operation: QueueOperation::Enqueued(Entry { place, ..entry }),
        content: Some(Content::Log(place)),
    });
    let sequence = entry.sequence;
    if let Some(Content::Log(history)) = queue.history(sequence) {
        // One that is damaged becomes an empty one.
        let history = open.segments.read(*history).ok().flatten();
        let history = history.unwrap_or_else(|| stored::encode_history(&[]));
        let queue = &queue.name;
        let place = body.push_sealed(&Operation::HistoryMoved { queue, sequence }, &history);
        effects.push(Effect::HistoryMoved {
            slot,
            sequence,
            place,
        });
    }
}
