//! What the writer thread has, and what it does between groups: checkpoints, and dropping what the log no longer needs.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::changes::Watched;
use super::moving::Moving;
use crate::StoreError;
use crate::engine::CACHE_BYTES;
use crate::ids::Ids;
use crate::log::{Group, Log, LogError, RESERVE_BYTES};
use crate::store::{Limits, Open};
use crate::stored;

/// What a checkpoint writes besides the pages that changed, generously.
const CHECKPOINT_BYTES: u64 = 4 << 20;

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
    pub(super) limits: Limits,
    /// The position of the last checkpoint.
    checkpoint: u64,
    /// Where moving what lives in the oldest segment goes on.
    pub(super) moving: Option<Moving>,
    /// The end of the log when it was looked after last.
    tidied: u64,
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
            tidied: log.end(),
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

    /// Begins a group, if there is room for it. Before it is refused, room is made.
    pub(super) fn begin(&mut self, bytes: u64) -> Result<Group, StoreError> {
        match self.log.begin(bytes, self.kept_bytes()) {
            Err(LogError::Full) => {
                if let Err(error) = self.make_room() {
                    tracing::debug!(%error, "the disk is full, and no room can be made");
                }
                Ok(self.log.begin(bytes, self.kept_bytes())?)
            }
            begun => Ok(begun?),
        }
    }

    /// Begins a group that makes room: it may use what is kept in reserve.
    pub(super) fn begin_shrinking(&mut self) -> Result<Group, StoreError> {
        Ok(self.log.begin_in_reserve()?)
    }

    /// What a group that needs room leaves free: the reserve, what the next checkpoint writes, and
    /// room to write again what lives in the oldest segment. So that segment can always be dropped.
    fn kept_bytes(&self) -> u64 {
        let live = self.open.queues().live_bytes_in(self.log.start());
        RESERVE_BYTES + self.owed_bytes() + live
    }

    /// What the next checkpoint may make the engine's file grow by. Pages beyond those that the
    /// engine holds in memory are on the disk already.
    pub(super) fn owed_bytes(&self) -> u64 {
        self.dirty_bytes.min(CACHE_BYTES as u64)
    }

    /// A checkpoint that fails stops the store. So there is none that the disk has no room for: the
    /// log keeps what it would have made durable.
    fn has_room_for_checkpoint(&self) -> Result<bool, StoreError> {
        Ok(self.log.free_bytes()? >= self.owed_bytes().saturating_add(CHECKPOINT_BYTES))
    }

    /// On a full disk, drops what can be dropped.
    fn make_room(&mut self) -> Result<(), StoreError> {
        let scrap = self.limits.scrap_bytes;
        if self.log.end() - self.checkpoint >= scrap && self.has_room_for_checkpoint()? {
            self.checkpoint()?;
        }
        self.drop_dead(scrap)?;
        self.condense(scrap, self.limits.segment_bytes)
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
        let due = self.log.end() - self.checkpoint >= self.limits.checkpoint_bytes;
        if due && self.has_room_for_checkpoint()? {
            self.checkpoint()?;
            self.drop_dead(self.limits.checkpoint_bytes)?;
        }
        // In step with what is written: what is passed by is dropped, so the log cannot outgrow it.
        let written = self.log.end() - self.tidied;
        let budget = written.saturating_mul(2).max(self.limits.step_bytes);
        let condensed = self.condense(self.limits.slack_bytes, budget);
        self.tidied = self.log.end();
        condensed
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
    pub(super) fn drop_dead(&mut self, current_bytes: u64) -> Result<(), StoreError> {
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

    /// Ends the writing with a checkpoint, so that the next start reads as little as possible.
    pub(super) fn close(mut self) -> Arc<Open> {
        let done = self.log.ready().map_err(StoreError::from);
        let done = done.and_then(|()| match self.has_room_for_checkpoint()? {
            true => self.checkpoint(),
            false => Err(StoreError::Full),
        });
        if let Err(error) = done.and_then(|()| self.drop_dead(self.limits.checkpoint_bytes)) {
            tracing::warn!(%error, "the store was closed without a checkpoint");
        }
        self.open
    }
}
