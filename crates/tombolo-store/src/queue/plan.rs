//! What a group of changes has decided and not applied yet, and whether what is published finds room.

use std::collections::{BTreeMap, BTreeSet};

use tombolo_core::Moment;

use super::{Operation, Queue, Reason, Slot, WhenFull};

/// The priority of an event that names none.
pub const PRIORITY_DEFAULT: u8 = 4;

/// Most events that one admission drops or compacts. A queue whose bounds were made smaller can be
/// further beyond them; it refuses until sweeps have caught up.
const REMOVALS_MAX: usize = 1000;

/// An event that wants in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// What it counts against the bound of bytes.
    pub bytes: u32,
    /// Hash of its order key, if it has one.
    pub order: Option<u64>,
    /// Not to be delivered before this time of the wall clock.
    pub due_wall_ms: Option<u64>,
}

/// The answer to a publication that is accepted. What is removed goes to the log before the events.
#[derive(Clone, PartialEq, Debug)]
pub struct Admission<P> {
    /// The sequence of the first event; the others count on from there.
    pub first_sequence: u64,
    /// What makes room ([`Operation::Removed`], at most 1000).
    pub removals: Vec<Operation<P>>,
}

/// Why a publication is refused. None of its events was accepted.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no room now.
    #[error("the queue is full")]
    Full,
    /// It is a queue of dead letters, and those are not published.
    #[error("it keeps dead letters only; publish to the queue that they come from")]
    Grave,
    /// There will never be room.
    #[error("the events have {bytes} bytes, the whole queue has room for {bytes_max}")]
    TooLong {
        /// Bytes of the publication.
        bytes: u64,
        /// The queue's bound.
        bytes_max: u64,
    },
    /// There will never be room for so many.
    #[error("{events} events at once, the whole queue has room for {events_max}")]
    TooMany {
        /// Events of the publication.
        events: u64,
        /// The queue's bound.
        events_max: u64,
    },
    /// The event would be too old to keep when it comes due.
    #[error("the event is due in {wait_ms} ms, the queue keeps events for {age_ms} ms")]
    TooLate {
        /// How far away it is.
        wait_ms: u64,
        /// The queue's bound of age.
        age_ms: u64,
    },
}

/// What was decided for one queue and is not applied yet.
///
/// It lives from the first decision of a group of changes until all operations of the group are
/// applied, or none; nothing else may be applied meanwhile. A transaction over several queues
/// keeps a clone, to go back to when a later queue refuses.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    events_in: u64,
    bytes_in: u64,
    events_out: u64,
    bytes_out: u64,
    /// Events that something was decided about, so that nothing is decided twice.
    decided: BTreeSet<u64>,
    /// Below it, what may make room in the queue is decided already.
    cursor: u64,
    /// Planned events that are not planned to go again: bytes and order key.
    arrivals: BTreeMap<u64, (u32, Option<u64>)>,
    /// The newest planned event of an order key.
    newest: BTreeMap<u64, u64>,
    /// What planned events supersede.
    superseded: BTreeSet<u64>,
}

impl Plan {
    /// Whether something was decided about an event.
    pub(super) fn has_decided(&self, sequence: u64) -> bool {
        self.decided.contains(&sequence)
    }

    /// Notes that an event stays, and that something was decided about it.
    pub(super) fn keep(&mut self, sequence: u64) {
        self.decided.insert(sequence);
    }

    /// Notes that an event goes.
    pub(super) fn remove(&mut self, sequence: u64, bytes: u32) {
        self.decided.insert(sequence);
        self.arrivals.remove(&sequence);
        self.superseded.remove(&sequence);
        self.events_out += 1;
        self.bytes_out += u64::from(bytes);
    }

    fn enqueue(&mut self, sequence: u64, arrival: &Arrival) {
        self.events_in += 1;
        self.bytes_in += u64::from(arrival.bytes);
        // A scheduled event has no place among those of its key before it is due.
        let order = arrival.order.filter(|_| arrival.due_wall_ms.is_none());
        self.arrivals.insert(sequence, (arrival.bytes, order));
        if let Some(key) = order
            && let Some(before) = self.newest.insert(key, sequence)
            && self.arrivals.contains_key(&before)
        {
            self.superseded.insert(before);
        }
    }
}

/// What a publication means for order keys.
#[derive(Default)]
struct Arriving {
    /// The keys that come.
    keys: BTreeSet<u64>,
    /// The events that are the newest of these keys until then.
    superseded: BTreeSet<u64>,
}

/// What lies beyond the bounds.
struct Excess {
    events: u64,
    bytes: u64,
}

impl Excess {
    fn none(&self) -> bool {
        self.events == 0 && self.bytes == 0
    }

    fn shrink(&mut self, bytes: u32) {
        self.events = self.events.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(u64::from(bytes));
    }
}

impl<P: Copy> Queue<P> {
    /// Decides whether events come in: all of them or none.
    ///
    /// # Errors
    /// The plan is unchanged when they are refused.
    pub fn admit(
        &self,
        plan: &mut Plan,
        now: Moment,
        arrivals: &[Arrival],
    ) -> Result<Admission<P>, Refusal> {
        let bytes = arrivals.iter().map(|one| u64::from(one.bytes)).sum();
        self.check(now, arrivals, bytes)?;
        let arriving = match self.settings.full {
            WhenFull::Compact => self.arriving(plan, arrivals),
            WhenFull::Refuse | WhenFull::DropOldest => Arriving::default(),
        };
        let excess = self.excess(plan, arrivals.len() as u64, bytes);
        let (picked, excess) = self.pick(plan, &arriving, excess, REMOVALS_MAX);
        if !excess.none() {
            return Err(Refusal::Full);
        }
        plan.superseded.extend(arriving.superseded);
        let removals = self.plan_removals(plan, picked);
        let first_sequence = self.next_sequence.saturating_add(plan.events_in);
        for (sequence, arrival) in (first_sequence..).zip(arrivals) {
            plan.enqueue(sequence, arrival);
        }
        Ok(Admission {
            first_sequence,
            removals,
        })
    }

    /// What goes because bounds were made smaller; at most `max` events.
    pub(super) fn trim(&self, plan: &mut Plan, max: usize) -> Vec<Operation<P>> {
        let excess = self.excess(plan, 0, 0);
        let (picked, _) = self.pick(plan, &Arriving::default(), excess, max);
        self.plan_removals(plan, picked)
    }

    fn check(&self, now: Moment, arrivals: &[Arrival], bytes: u64) -> Result<(), Refusal> {
        let settings = &self.settings;
        let events = arrivals.len() as u64;
        if bytes > settings.bytes {
            return Err(Refusal::TooLong {
                bytes,
                bytes_max: settings.bytes,
            });
        }
        if events > settings.events {
            return Err(Refusal::TooMany {
                events,
                events_max: settings.events,
            });
        }
        let latest = arrivals.iter().filter_map(|one| one.due_wall_ms).max();
        let wait_ms = latest.unwrap_or(0).saturating_sub(now.wall_ms);
        if wait_ms > settings.age_ms {
            return Err(Refusal::TooLate {
                wait_ms,
                age_ms: settings.age_ms,
            });
        }
        Ok(())
    }

    fn excess(&self, plan: &Plan, events: u64, bytes: u64) -> Excess {
        let events = (self.depth() + plan.events_in + events).saturating_sub(plan.events_out);
        let bytes = (self.bytes + plan.bytes_in + bytes).saturating_sub(plan.bytes_out);
        Excess {
            events: events.saturating_sub(self.settings.events),
            bytes: bytes.saturating_sub(self.settings.bytes),
        }
    }

    /// What arrivals mean for order keys.
    fn arriving(&self, plan: &Plan, arrivals: &[Arrival]) -> Arriving {
        let unscheduled = arrivals.iter().filter(|one| one.due_wall_ms.is_none());
        let keys: BTreeSet<u64> = unscheduled.filter_map(|one| one.order).collect();
        // What a purge in this plan made the newest again is found in the queue's index already,
        // unless the cursor has passed it.
        let listed = |one: &u64| *one >= plan.cursor && self.superseded.contains(*one);
        let superseded = keys
            .iter()
            .filter_map(|key| self.newest_planned(plan, *key))
            .filter(|one| !listed(one))
            .collect();
        Arriving { keys, superseded }
    }

    /// The newest of an order key once the plan is carried out.
    fn newest_planned(&self, plan: &Plan, key: u64) -> Option<u64> {
        let planned = plan.newest.get(&key);
        if let Some(planned) = planned.filter(|planned| plan.arrivals.contains_key(planned)) {
            return Some(*planned);
        }
        let mut newest = self.newest(key)?;
        while plan.has_decided(newest) {
            let ((found, before), ()) = self.keyed.last_to((key, newest.checked_sub(1)?))?;
            newest = Some(before).filter(|_| found == key)?;
        }
        Some(newest)
    }

    /// Whether an event that was superseded still is: what superseded it may be about to leave.
    fn is_superseded(&self, plan: &Plan, arriving: &Arriving, sequence: u64) -> bool {
        let here = self.free.get(sequence).map(Slot::order);
        let planned = || plan.arrivals.get(&sequence).map(|(_, order)| *order);
        here.or_else(planned).flatten().is_some_and(|key| {
            arriving.keys.contains(&key)
                || self
                    .newest_planned(plan, key)
                    .is_some_and(|newest| newest > sequence)
        })
    }

    /// Chooses what makes room, in order of age, and says what excess is left.
    fn pick(
        &self,
        plan: &Plan,
        arriving: &Arriving,
        mut excess: Excess,
        max: usize,
    ) -> (Vec<(u64, u32)>, Excess) {
        let mut picked = Vec::new();
        if excess.none() {
            return (picked, excess);
        }
        let candidates: Box<dyn Iterator<Item = u64> + '_> = match self.settings.full {
            WhenFull::Refuse => return (picked, excess),
            WhenFull::DropOldest => {
                let here = self.free.range_from(plan.cursor);
                Box::new(
                    here.map(|(sequence, _)| sequence)
                        .chain(plan.arrivals.keys().copied()),
                )
            }
            WhenFull::Compact => {
                let here = self.superseded.range_from(plan.cursor);
                let here = here.map(|(sequence, ())| sequence);
                let planned = plan.superseded.union(&arriving.superseded).copied();
                let both = merge(here, planned);
                Box::new(both.filter(|one| self.is_superseded(plan, arriving, *one)))
            }
        };
        for sequence in candidates.filter(|sequence| !plan.has_decided(*sequence)) {
            if excess.none() || picked.len() == max {
                break;
            }
            let here = self.free.get(sequence).map(|slot| slot.bytes);
            let planned = || plan.arrivals.get(&sequence).map(|(bytes, _)| *bytes);
            if let Some(bytes) = here.or_else(planned) {
                excess.shrink(bytes);
                picked.push((sequence, bytes));
            }
        }
        (picked, excess)
    }

    fn plan_removals(&self, plan: &mut Plan, picked: Vec<(u64, u32)>) -> Vec<Operation<P>> {
        let reason = match self.settings.full {
            WhenFull::Compact => Reason::Compacted,
            WhenFull::Refuse | WhenFull::DropOldest => Reason::Dropped,
        };
        picked
            .into_iter()
            .map(|(sequence, bytes)| {
                if self.free.contains(sequence) {
                    plan.cursor = plan.cursor.max(sequence + 1);
                }
                plan.remove(sequence, bytes);
                Operation::Removed { sequence, reason }
            })
            .collect()
    }
}

/// Two ascending sequences as one.
fn merge(
    left: impl Iterator<Item = u64>,
    right: impl Iterator<Item = u64>,
) -> impl Iterator<Item = u64> {
    let (mut left, mut right) = (left.peekable(), right.peekable());
    std::iter::from_fn(move || match (left.peek(), right.peek()) {
        (Some(one), Some(other)) if one > other => right.next(),
        (None, _) => right.next(),
        _ => left.next(),
    })
}
