//! What a queue tells about itself, and when time alone will change something in it.

use tombolo_core::Moment;

use super::{Entry, Position, Queue, Reason, WhenFull};

/// What happened since the store was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Events that came.
    pub published: u64,
    /// Events that were handed out, again and again.
    pub attempts: u64,
    /// Attempts that failed and were followed by another.
    pub retried: u64,
    /// Events that were acknowledged.
    pub done: u64,
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
    /// Events that became dead letters.
    pub dead: u64,
}

impl Counters {
    pub(super) fn count(&mut self, reason: Reason) {
        let counter = match reason {
            Reason::Done => &mut self.done,
            Reason::Dropped => &mut self.dropped,
            Reason::Expired => &mut self.expired,
            Reason::Compacted => &mut self.compacted,
            Reason::Purged => &mut self.purged,
            Reason::Redriven => &mut self.redriven,
            Reason::Buried(_) => &mut self.dead,
        };
        *counter += 1;
    }
}

/// The state of a queue in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Events in the queue, with those that are handed out.
    pub depth: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Age of the oldest of them.
    pub oldest_age_ms: Option<u64>,
    /// Events that may be handed out.
    pub ready: u64,
    /// Events that are handed out.
    pub leased: u64,
    /// Batches that are handed out.
    pub batches: u64,
    /// Events that their publishers delayed and that are not due.
    pub scheduled: u64,
    /// Events that back off after a failed attempt.
    pub backing_off: u64,
    /// What happened since the store was opened.
    pub counters: Counters,
}

/// Where an event of the queue stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It may be handed out.
    Ready,
    /// It waits for an earlier one of its order key.
    Behind,
    /// It waits after a failed attempt.
    BackingOff,
    /// Its publisher delayed it.
    Scheduled,
    /// It is handed out.
    Leased,
}

/// An event of the queue, as it is listed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Listed<P> {
    /// The event.
    pub entry: Entry<P>,
    /// Where it stands.
    pub standing: Standing,
}

/// When time alone will change something: at the earlier of the two, in their two times.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wakeup {
    /// In the life of the store; not above the present when something is to be done now.
    pub lived_ms: Option<u64>,
    /// By the wall clock.
    pub wall_ms: Option<u64>,
}

impl<P: Copy> Queue<P> {
    /// The state in numbers.
    pub fn figures(&self, now: Moment) -> Figures {
        Figures {
            depth: self.depth(),
            bytes: self.bytes,
            oldest_age_ms: self
                .oldest()
                .map(|lived| now.lived_ms.saturating_sub(lived)),
            ready: self.ready_events,
            leased: self.leased.len() as u64,
            batches: self.batches.len() as u64,
            scheduled: self.scheduled.len() as u64,
            backing_off: self.backing_off.len() as u64,
            counters: self.counters,
        }
    }

    /// Up to `max` events by sequence, from the first that is not below `from`.
    pub fn list(&self, from: u64, max: usize) -> Vec<Listed<P>> {
        let free = self
            .free
            .range_from(from)
            .take(max)
            .map(|(sequence, slot)| Listed {
                entry: slot.entry(sequence),
                standing: match slot.position {
                    Position::Ready => Standing::Ready,
                    Position::Behind => Standing::Behind,
                    Position::BackingOff => Standing::BackingOff,
                    Position::Scheduled => Standing::Scheduled,
                },
            });
        let leased = self.leased.range_from(from).take(max);
        let leased = leased.map(|(sequence, (slot, _))| Listed {
            entry: slot.entry(sequence),
            standing: Standing::Leased,
        });
        let mut listed: Vec<_> = free.chain(leased).collect();
        listed.sort_by_key(|one| one.entry.sequence);
        listed.truncate(max);
        listed
    }

    /// When to call [`Queue::take`] and [`Queue::sweep`] again if nothing is applied before. The
    /// two are to be called until they give nothing more before this is asked.
    pub fn next_wakeup(&self, now: Moment) -> Wakeup {
        let lease_end = self.lease_ends.first().map(|(end, _)| *end);
        let back = self.backing_off.first().map(|((due, _), ())| due);
        let expiry = self
            .free
            .first()
            .map(|(_, slot)| slot.published_lived_ms.saturating_add(self.settings.age_ms));
        let lived = [
            lease_end,
            back,
            expiry,
            self.take_at(now),
            self.trim_at(now),
        ];
        Wakeup {
            lived_ms: lived.into_iter().flatten().min(),
            wall_ms: self.scheduled.first().map(|((due, _), ())| due),
        }
    }

    /// Now, if a sweep would drop what lies beyond the bounds.
    fn trim_at(&self, now: Moment) -> Option<u64> {
        let beyond = self.depth() > self.settings.events || self.bytes > self.settings.bytes;
        let removable = match self.settings.full {
            WhenFull::Refuse => false,
            WhenFull::DropOldest => !self.free.is_empty(),
            WhenFull::Compact => !self.superseded.is_empty(),
        };
        (beyond && removable).then_some(now.lived_ms)
    }

    /// When the oldest event was published.
    fn oldest(&self) -> Option<u64> {
        let free = self.free.first().map(|(_, slot)| slot.published_lived_ms);
        let leased = self.leased.first();
        let leased = leased.map(|(_, (slot, _))| slot.published_lived_ms);
        free.into_iter().chain(leased).min()
    }
}
