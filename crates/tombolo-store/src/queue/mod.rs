//! One queue as a pure state machine: what is in it, what may be handed out, what becomes of it. No I/O, no clock, no randomness of its own.
//!
//! Work comes in two steps. A *decision* ([`Queue::admit`], [`Queue::settle`], [`Queue::sweep`],
//! [`Queue::purge`], [`Queue::remove`]) changes nothing; it says which [`Operation`]s follow. Once
//! they are on disk they are *applied* ([`Queue::apply`]), and a restart applies the same
//! operations again, in the same order: that is all of recovery. Several decisions that go to disk
//! together share a [`Plan`], so that each knows what those before it decided.
//!
//! [`Queue::take`] is no operation: leases live in memory, and after a restart what was leased is
//! handed out again with the attempts that it had.
//!
//! **Order.** The lowest priority number first, then the lowest sequence. Events of one order key
//! go by sequence alone: never two batches with one key at once, and none passes an earlier one of
//! its key that is leased or backs off. Within one batch a key may have several events, in order;
//! the key is free again when the whole batch is settled. An event that its publisher delayed
//! takes its place in this order when it comes due, and holds nobody up before.
//!
//! **Memory.** An event costs 48 bytes of state and 8 of sequence (with a `P` of 12 bytes), 8 in
//! the index of what is ready and 16 in that of order keys if it has one: 67 bytes without an
//! order key and 91 with one, all structures and their slack together (a test measures it).

mod figures;
mod plan;
mod settings;
mod settle;
mod sorted;
mod take;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use figures::{Counters, Figures, Listed, Standing, Wakeup};
pub use plan::{Admission, Arrival, PRIORITY_DEFAULT, Plan, Refusal};
pub use settings::{BatchSettings, Callback, Durability, QueueSettings, RetrySettings, WhenFull};
pub use settle::{Outcome, Stale};
pub use take::{Batch, Lease, TakeBounds, Taken};

use sorted::Sorted;
use take::{Bucket, Out};

/// Priorities are 0 (first) to 9.
const PRIORITIES: usize = 10;

/// Until when an event waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// Its publisher delayed it, until this time of the wall clock.
    Wall(u64),
    /// It backs off after a failed attempt, until the store has lived this long.
    Lived(u64),
}

/// An event in a queue, without its content.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Entry<P> {
    /// Its number in the queue.
    pub sequence: u64,
    /// Where its content is; the queue does not look at it.
    pub place: P,
    /// What it counts against the queue's bound of bytes.
    pub bytes: u32,
    /// Attempts that failed.
    pub attempts: u16,
    /// Until when it waits, if it does.
    pub due: Option<Due>,
    /// 0 first, 9 last.
    pub priority: u8,
    /// Hash of its order key, if it has one. Keys that collide are served as if they were one.
    pub order: Option<u64>,
    /// When it was published.
    pub published_lived_ms: u64,
}

/// Why an event left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Its function acknowledged it.
    Done,
    /// It made room for newer ones.
    Dropped,
    /// It was older than the queue keeps events.
    Expired,
    /// A newer one of its order key superseded it.
    Compacted,
    /// An operator removed it.
    Purged,
    /// A dead letter, published again in the queue that it came from.
    Redriven,
    /// It became a dead letter.
    Buried(Burial),
}

/// Why an event became a dead letter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Burial {
    /// The function's answer was final.
    Refused,
    /// The last of its attempts failed.
    Attempts,
    /// An attempt failed when it was too old for another.
    Age,
}

/// A change of a queue: what the log keeps.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Operation<P> {
    /// An event came. Of one that is there already only the place changes (its content was
    /// written again elsewhere).
    Enqueued(Entry<P>),
    /// An event left.
    Removed {
        /// Which.
        sequence: u64,
        /// Why.
        reason: Reason,
    },
    /// An attempt failed, or there was no place for one, and another follows.
    Retried {
        /// Of which event.
        sequence: u64,
        /// Attempts that failed so far.
        attempts: u16,
        /// Not before the store has lived this long.
        due_lived_ms: u64,
    },
}

/// Where an event stands that nobody works on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Position {
    /// In the index `ready`.
    Ready,
    /// Behind an earlier one of its order key.
    Behind,
    /// In `backing_off`, and holding up its order key.
    BackingOff,
    /// In `scheduled`.
    Scheduled,
}

/// An entry as it is kept.
#[derive(Clone, Copy, Debug)]
struct Slot<P> {
    /// Meaningful if `ordered`.
    key: u64,
    published_lived_ms: u64,
    /// Meaningful if `position` is `BackingOff` or `Scheduled`.
    due_ms: u64,
    place: P,
    bytes: u32,
    attempts: u16,
    priority: u8,
    ordered: bool,
    position: Position,
}

impl<P: Copy> Slot<P> {
    fn order(&self) -> Option<u64> {
        self.ordered.then_some(self.key)
    }

    fn entry(&self, sequence: u64) -> Entry<P> {
        Entry {
            sequence,
            place: self.place,
            bytes: self.bytes,
            attempts: self.attempts,
            due: match self.position {
                Position::Ready | Position::Behind => None,
                Position::BackingOff => Some(Due::Lived(self.due_ms)),
                Position::Scheduled => Some(Due::Wall(self.due_ms)),
            },
            priority: self.priority,
            order: self.order(),
            published_lived_ms: self.published_lived_ms,
        }
    }
}

/// One queue. `P` is where an event's content is.
#[derive(Debug)]
pub struct Queue<P> {
    settings: QueueSettings,
    next_sequence: u64,
    bytes: u64,
    counters: Counters,

    /// Events that nobody works on.
    free: Sorted<u64, Slot<P>>,
    /// Those of them that may be handed out, by priority.
    ready: [Sorted<u64>; PRIORITIES],
    ready_events: u64,
    ready_bytes: u64,
    /// Those with an order key that are not scheduled, by key and sequence.
    keyed: Sorted<(u64, u64)>,
    /// All of `keyed` but the newest of each key, if the queue compacts.
    superseded: Sorted<u64>,
    /// By the time (lived) at which they come due.
    backing_off: Sorted<(u64, u64)>,
    /// By the time (wall) at which they come due.
    scheduled: Sorted<(u64, u64)>,

    /// Events that are handed out, with the number of their batch.
    leased: Sorted<u64, (Slot<P>, u64)>,
    batches: BTreeMap<u64, Out>,
    /// Batches by the time (lived) at which their lease ends.
    lease_ends: BTreeSet<(u64, u64)>,
    next_batch: u64,
    /// Order keys of the batches that are out.
    busy: BTreeSet<u64>,
    bucket: Bucket,
}

impl<P: Copy> Queue<P> {
    /// An empty queue.
    pub fn new(settings: QueueSettings) -> Self {
        Self {
            settings,
            next_sequence: 0,
            bytes: 0,
            counters: Counters::default(),
            free: Sorted::default(),
            ready: Default::default(),
            ready_events: 0,
            ready_bytes: 0,
            keyed: Sorted::default(),
            superseded: Sorted::default(),
            backing_off: Sorted::default(),
            scheduled: Sorted::default(),
            leased: Sorted::default(),
            batches: BTreeMap::new(),
            lease_ends: BTreeSet::new(),
            next_batch: 0,
            busy: BTreeSet::new(),
            bucket: Bucket::default(),
        }
    }

    /// The settings in force.
    pub fn settings(&self) -> &QueueSettings {
        &self.settings
    }

    /// Changes the settings. What is out keeps its lease; events beyond smaller bounds stay until
    /// they are settled, or until [`Self::sweep`] drops them where the queue drops or compacts.
    pub fn configure(&mut self, settings: QueueSettings) {
        let compacts = settings.full == WhenFull::Compact;
        if compacts != (self.settings.full == WhenFull::Compact) {
            self.superseded = Sorted::default();
            let mut keyed = self.keyed.iter().map(|(pair, ())| pair).peekable();
            while let Some((key, sequence)) = keyed.next() {
                if compacts && keyed.peek().is_some_and(|(next, _)| *next == key) {
                    self.superseded.insert(sequence, ());
                }
            }
        }
        self.settings = settings;
    }

    /// Says that recovery is over: the counters begin at zero, and no sequence below `sequence`
    /// will be given (what the log no longer knows was numbered too).
    pub fn recovered(&mut self, sequence: u64) {
        self.counters = Counters::default();
        self.next_sequence = self.next_sequence.max(sequence);
    }

    /// The sequence that the next event gets.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Events in the queue, with those that are handed out.
    pub fn depth(&self) -> u64 {
        (self.free.len() + self.leased.len()) as u64
    }

    /// Bytes of all events, with those that are handed out.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The event of that sequence, if it is there.
    pub fn entry(&self, sequence: u64) -> Option<Entry<P>> {
        let free = self.free.get(sequence);
        let slot = free.or_else(|| self.leased.get(sequence).map(|(slot, _)| slot));
        slot.map(|slot| slot.entry(sequence))
    }

    /// Applies a change that is on disk. Gives back the entry that left, or the one whose place
    /// changed, as it was. Changes of events that are not there do nothing (the log drops its
    /// oldest part before what settled the events in it).
    pub fn apply(&mut self, operation: Operation<P>) -> Option<Entry<P>> {
        match operation {
            Operation::Enqueued(entry) => self.enqueued(entry),
            Operation::Removed { sequence, reason } => {
                self.next_sequence = self.next_sequence.max(sequence.saturating_add(1));
                self.removed(sequence, reason)
            }
            Operation::Retried {
                sequence,
                attempts,
                due_lived_ms,
            } => {
                self.next_sequence = self.next_sequence.max(sequence.saturating_add(1));
                self.retried(sequence, attempts, due_lived_ms);
                None
            }
        }
    }

    fn enqueued(&mut self, entry: Entry<P>) -> Option<Entry<P>> {
        let sequence = entry.sequence;
        let known = match self.free.get_mut(sequence) {
            Some(slot) => Some(slot),
            None => self.leased.get_mut(sequence).map(|(slot, _)| slot),
        };
        if let Some(slot) = known {
            let before = slot.entry(sequence);
            slot.place = entry.place;
            return Some(before);
        }
        self.next_sequence = self.next_sequence.max(sequence.saturating_add(1));
        self.bytes += u64::from(entry.bytes);
        self.counters.published += 1;
        let (position, due_ms) = match entry.due {
            None => (Position::Behind, 0),
            Some(Due::Lived(due_ms)) => (Position::BackingOff, due_ms),
            Some(Due::Wall(due_ms)) => (Position::Scheduled, due_ms),
        };
        let slot = Slot {
            key: entry.order.unwrap_or_default(),
            published_lived_ms: entry.published_lived_ms,
            due_ms,
            place: entry.place,
            bytes: entry.bytes,
            attempts: entry.attempts,
            priority: entry.priority.min(PRIORITIES as u8 - 1),
            ordered: entry.order.is_some(),
            position,
        };
        self.put(sequence, slot);
        None
    }

    fn removed(&mut self, sequence: u64, reason: Reason) -> Option<Entry<P>> {
        let slot = match self.leased.remove(sequence) {
            Some((slot, batch)) => {
                self.returned(batch);
                slot
            }
            None => self.withdraw(sequence)?,
        };
        self.bytes = self.bytes.saturating_sub(u64::from(slot.bytes));
        self.counters.count(reason);
        Some(slot.entry(sequence))
    }

    fn retried(&mut self, sequence: u64, attempts: u16, due_lived_ms: u64) {
        let (mut slot, batch) = match self.leased.remove(sequence) {
            Some((slot, batch)) => (slot, Some(batch)),
            None => match self.withdraw(sequence) {
                Some(slot) => (slot, None),
                None => return,
            },
        };
        slot.attempts = attempts;
        slot.due_ms = due_lived_ms;
        slot.position = Position::BackingOff;
        self.counters.retried += 1;
        self.put(sequence, slot);
        if let Some(batch) = batch {
            self.returned(batch);
        }
    }
}

/// The indexes of what nobody works on.
impl<P: Copy> Queue<P> {
    /// Puts an event among the free ones, in every index that its position asks for.
    fn put(&mut self, sequence: u64, slot: Slot<P>) {
        self.free.insert(sequence, slot);
        match slot.position {
            Position::Scheduled => {
                self.scheduled.insert((slot.due_ms, sequence), ());
                return;
            }
            Position::BackingOff => {
                self.backing_off.insert((slot.due_ms, sequence), ());
            }
            Position::Ready | Position::Behind => {}
        }
        self.line_up(sequence, slot);
    }

    /// Takes a free event out of every index.
    fn withdraw(&mut self, sequence: u64) -> Option<Slot<P>> {
        self.unready(sequence);
        let slot = self.free.remove(sequence)?;
        match slot.position {
            Position::Scheduled => {
                self.scheduled.remove((slot.due_ms, sequence));
                return Some(slot);
            }
            Position::BackingOff => {
                self.backing_off.remove((slot.due_ms, sequence));
            }
            Position::Ready | Position::Behind => {}
        }
        if let Some(key) = slot.order() {
            self.leave_line(key, sequence);
            self.promote(key);
        }
        Some(slot)
    }

    /// Gives an event that is not scheduled its place among those of its order key.
    fn line_up(&mut self, sequence: u64, slot: Slot<P>) {
        let Some(key) = slot.order() else {
            if slot.position != Position::BackingOff {
                self.make_ready(sequence);
            }
            return;
        };
        if self.settings.full == WhenFull::Compact {
            match self.newest(key) {
                Some(newest) if newest > sequence => self.superseded.insert(sequence, ()),
                Some(newest) => self.superseded.insert(newest, ()),
                None => None,
            };
        }
        let head = self.head(key);
        self.keyed.insert((key, sequence), ());
        if head.is_some_and(|head| head < sequence) {
            return;
        }
        if let Some(head) = head {
            self.unready(head);
        }
        if slot.position == Position::Behind && !self.busy.contains(&key) {
            self.make_ready(sequence);
        }
    }

    fn leave_line(&mut self, key: u64, sequence: u64) {
        self.keyed.remove((key, sequence));
        if self.superseded.is_empty() {
            return;
        }
        if self.superseded.remove(sequence).is_none()
            && let Some(newest) = self.newest(key)
        {
            self.superseded.remove(newest);
        }
    }

    /// The first of an order key, if nobody works on it.
    fn head(&self, key: u64) -> Option<u64> {
        let ((found, sequence), ()) = self.keyed.first_from((key, 0))?;
        (found == key).then_some(sequence)
    }

    fn newest(&self, key: u64) -> Option<u64> {
        let ((found, sequence), ()) = self.keyed.last_to((key, u64::MAX))?;
        (found == key).then_some(sequence)
    }

    /// Makes the first of an order key ready, unless the key is busy or the event backs off.
    fn promote(&mut self, key: u64) {
        if self.busy.contains(&key) {
            return;
        }
        if let Some(head) = self.head(key)
            && let Some(slot) = self.free.get(head)
            && slot.position == Position::Behind
        {
            self.make_ready(head);
        }
    }

    fn make_ready(&mut self, sequence: u64) {
        let Some(slot) = self.free.get_mut(sequence) else {
            return;
        };
        slot.position = Position::Ready;
        self.ready_events += 1;
        self.ready_bytes += u64::from(slot.bytes);
        if let Some(ready) = self.ready.get_mut(usize::from(slot.priority)) {
            ready.insert(sequence, ());
        }
    }

    /// The opposite of [`Self::make_ready`]; nothing if the event is not ready.
    fn unready(&mut self, sequence: u64) {
        let Some(slot) = self.free.get_mut(sequence) else {
            return;
        };
        if slot.position != Position::Ready {
            return;
        }
        slot.position = Position::Behind;
        self.ready_events -= 1;
        self.ready_bytes -= u64::from(slot.bytes);
        if let Some(ready) = self.ready.get_mut(usize::from(slot.priority)) {
            ready.remove(sequence);
        }
    }
}
