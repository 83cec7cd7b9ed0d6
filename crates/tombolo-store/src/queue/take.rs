//! Handing events out: which, how many together, how many batches at once and how often.

use std::num::NonZeroU32;

use tombolo_core::Moment;

use super::sorted::Sorted;
use super::{Position, Queue, Slot};

/// Most events that one call makes ready because they came due.
const RIPE_MAX: usize = 4096;
/// A token of the rate, in the thousandths that one millisecond brings at one per second.
const TOKEN: u64 = 1000;

/// The right to settle one event that was handed out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Lease {
    /// The event.
    pub sequence: u64,
    /// The batch that it was handed out in; never used again while the store is open.
    pub batch: u64,
}

/// What the one who takes has room for, besides the queue's own bounds of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TakeBounds {
    /// Most events.
    pub events: u32,
    /// Most bytes; one event comes in any case.
    pub bytes: u32,
}

/// Events for one invocation, in the order in which they are to be worked on.
#[derive(Clone, PartialEq, Debug)]
pub struct Batch<P> {
    /// The events, at least one.
    pub events: Vec<Taken<P>>,
    /// When the lease ends, in the life of the store.
    pub ends_lived_ms: u64,
}

/// An event that is handed out.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Taken<P> {
    /// With which it is settled.
    pub lease: Lease,
    /// Where its content is.
    pub place: P,
    /// What it counts against the queue's bound of bytes.
    pub bytes: u32,
    /// Which attempt this is, from 1.
    pub attempt: u16,
    /// When it was published.
    pub published_lived_ms: u64,
}

/// A batch that is out.
#[derive(Debug)]
pub(super) struct Out {
    pub(super) members: Vec<u64>,
    /// Members that are not settled yet.
    unsettled: usize,
    keys: Vec<u64>,
    ends_lived_ms: u64,
}

/// A token bucket, full at first.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// What is missing from a full bucket, in thousandths of a token, at `seen_lived_ms`.
    missing: u64,
    seen_lived_ms: u64,
}

impl Bucket {
    fn missing(&self, rate_per_s: NonZeroU32, lived_ms: u64) -> u64 {
        let passed_ms = lived_ms.saturating_sub(self.seen_lived_ms);
        self.missing
            .saturating_sub(passed_ms.saturating_mul(u64::from(rate_per_s.get())))
    }

    /// Milliseconds until there is a token.
    fn wait_ms(&self, rate_per_s: NonZeroU32, lived_ms: u64) -> u64 {
        let room = u64::from((rate_per_s.get() / 10).max(1)) * TOKEN;
        let excess = (self.missing(rate_per_s, lived_ms) + TOKEN).saturating_sub(room);
        excess.div_ceil(u64::from(rate_per_s.get()))
    }

    fn spend(&mut self, rate_per_s: NonZeroU32, lived_ms: u64) {
        self.missing = self.missing(rate_per_s, lived_ms) + TOKEN;
        self.seen_lived_ms = lived_ms;
    }
}

impl<P: Copy> Queue<P> {
    /// Hands out one batch; none if nothing may be handed out now ([`Queue::next_wakeup`] says
    /// when to ask again, and so does whatever is applied). Ask until there is none.
    pub fn take(&mut self, now: Moment, bounds: TakeBounds) -> Option<Batch<P>> {
        self.ripen(now);
        if self.take_at(now)? > now.lived_ms {
            return None;
        }
        let events_max = bounds.events.min(self.settings.batch.events).max(1) as usize;
        let bytes_max = u64::from(bounds.bytes.min(self.settings.batch.bytes));
        let batch = self.next_batch;
        let (mut events, mut keys, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some((sequence, slot)) = self.first_ready() {
            let more = bytes + u64::from(slot.bytes);
            if events.len() == events_max || (!events.is_empty() && more > bytes_max) {
                break;
            }
            bytes = more;
            self.lease(sequence, slot, batch, &mut keys);
            events.push(Taken {
                lease: Lease { sequence, batch },
                place: slot.place,
                bytes: slot.bytes,
                attempt: slot.attempts.saturating_add(1),
                published_lived_ms: slot.published_lived_ms,
            });
        }
        // What follows in the keys of this batch was ready for this batch alone.
        for key in &keys {
            if let Some(head) = self.head(*key) {
                self.unready(head);
            }
            self.busy.insert(*key);
        }
        let ends_lived_ms = now.lived_ms.saturating_add(self.settings.lease_ms);
        self.next_batch += 1;
        self.lease_ends.insert((ends_lived_ms, batch));
        let out = Out {
            members: events.iter().map(|taken| taken.lease.sequence).collect(),
            unsettled: events.len(),
            keys,
            ends_lived_ms,
        };
        self.batches.insert(batch, out);
        if let Some(rate) = self.settings.rate_per_s {
            self.bucket.spend(rate, now.lived_ms);
        }
        self.counters.attempts += events.len() as u64;
        Some(Batch {
            events,
            ends_lived_ms,
        })
    }

    /// When the next batch may be handed out, in the life of the store, if nothing changes and
    /// nothing comes due; none if it takes a change.
    pub(super) fn take_at(&self, now: Moment) -> Option<u64> {
        if self.ready_events == 0 || self.batches.len() >= self.settings.concurrency as usize {
            return None;
        }
        let full_at = match self.fills_batch() {
            true => now.lived_ms,
            false => self
                .oldest_ready()?
                .saturating_add(self.settings.batch.wait_ms),
        };
        let wait_ms = match self.settings.rate_per_s {
            Some(rate) => self.bucket.wait_ms(rate, now.lived_ms),
            None => 0,
        };
        Some(full_at.max(now.lived_ms.saturating_add(wait_ms)))
    }

    /// Whether what may go into one batch is as much as a batch holds.
    fn fills_batch(&self) -> bool {
        let batch = &self.settings.batch;
        let (events, bytes) = (u64::from(batch.events), u64::from(batch.bytes));
        if batch.wait_ms == 0 || self.ready_events >= events || self.ready_bytes >= bytes {
            return true;
        }
        let mut found = (self.ready_events, self.ready_bytes);
        if self.keyed.is_empty() || ((self.free.len() as u64) < events && self.bytes < bytes) {
            return false;
        }
        // Behind each first of its key others may follow in the same batch.
        let ready = self.ready.iter().flat_map(|ready| ready.iter());
        for (sequence, ()) in ready {
            let Some(key) = self.free.get(sequence).and_then(Slot::order) else {
                continue;
            };
            let line = self.keyed.range_from((key, sequence + 1));
            for ((_, next), ()) in line.take_while(|((found, _), ())| *found == key) {
                match self.free.get(next) {
                    Some(slot) if slot.position == Position::Behind => {
                        found = (found.0 + 1, found.1 + u64::from(slot.bytes));
                    }
                    _ => break,
                }
                if found.0 >= events || found.1 >= bytes {
                    return true;
                }
            }
        }
        false
    }

    /// When the oldest event that is ready was published.
    fn oldest_ready(&self) -> Option<u64> {
        let firsts = self.ready.iter().filter_map(Sorted::first);
        let oldest = firsts.map(|(sequence, ())| sequence).min()?;
        self.free.get(oldest).map(|slot| slot.published_lived_ms)
    }

    fn first_ready(&self) -> Option<(u64, Slot<P>)> {
        let (sequence, ()) = self.ready.iter().find_map(Sorted::first)?;
        self.free.get(sequence).map(|slot| (sequence, *slot))
    }

    /// Moves a ready event to those that are out, and makes the next of its key ready for the same
    /// batch.
    fn lease(&mut self, sequence: u64, slot: Slot<P>, batch: u64, keys: &mut Vec<u64>) {
        self.unready(sequence);
        self.free.remove(sequence);
        self.leased.insert(sequence, (slot, batch));
        let Some(key) = slot.order() else { return };
        self.leave_line(key, sequence);
        self.promote(key);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }

    /// Notes that a member of a batch is settled. With the last, the batch is over.
    pub(super) fn returned(&mut self, batch: u64) {
        let Some(out) = self.batches.get_mut(&batch) else {
            return;
        };
        out.unsettled = out.unsettled.saturating_sub(1);
        if out.unsettled > 0 {
            return;
        }
        let Some(out) = self.batches.remove(&batch) else {
            return;
        };
        self.lease_ends.remove(&(out.ends_lived_ms, batch));
        for key in out.keys {
            self.busy.remove(&key);
            self.promote(key);
        }
    }

    /// Makes ready what came due.
    fn ripen(&mut self, now: Moment) {
        for _ in 0..RIPE_MAX {
            let Some(((due_ms, sequence), ())) = self.backing_off.first() else {
                break;
            };
            if due_ms > now.lived_ms {
                break;
            }
            self.backing_off.remove((due_ms, sequence));
            let Some(slot) = self.free.get_mut(sequence) else {
                continue;
            };
            slot.position = Position::Behind;
            match slot.order() {
                Some(key) => self.promote(key),
                None => self.make_ready(sequence),
            }
        }
        for _ in 0..RIPE_MAX {
            let Some(((due_ms, sequence), ())) = self.scheduled.first() else {
                break;
            };
            if due_ms > now.wall_ms {
                break;
            }
            self.scheduled.remove((due_ms, sequence));
            let Some(slot) = self.free.get_mut(sequence) else {
                continue;
            };
            slot.position = Position::Behind;
            let slot = *slot;
            self.line_up(sequence, slot);
        }
    }
}
