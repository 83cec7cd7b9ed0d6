//! What the decisions of a group will need from the disk, read before the queues are locked: whoever takes events or asks for figures does not wait for the disk.
//!
//! Only the writer thread changes what is remembered and where contents are, so what is found here
//! is still true when the group is decided. Which events a group drops or buries is guessed from
//! each of its actions alone; where the guess is wrong the decision reads by itself, under the lock.

use std::collections::{HashMap, HashSet};

use tombolo_core::{Moment, QueueId};

use super::Action;
use super::decide::{SWEEP_MAX, arrivals};
use crate::ids::Ids;
use crate::log::{Place, Segments};
use crate::queue::{Operation, Plan, Reason, WhenFull};
use crate::queues::{Content, Queues, Slot, read_history, read_stored};
use crate::remembered::Fingerprint;
use crate::store::Open;
use crate::stored::{Attempt, Stored};
use crate::transaction::{Change, Prepared};

/// Bytes of whole events that are read for a group; what is beyond is read when it is decided.
const WHOLE_BYTES_MAX: u64 = 32 << 20;

/// An event of a queue: its slot and its sequence.
pub(super) type Which = (usize, u64);

/// What was read for a group.
#[derive(Default)]
pub(super) struct Ahead {
    known: HashSet<(usize, Fingerprint)>,
    whole: HashMap<Which, Option<Stored>>,
    names: HashMap<Which, Option<(String, String)>>,
    histories: HashMap<Which, Vec<Attempt>>,
}

/// What is to be read.
#[derive(Default)]
struct Wanted {
    ids: HashSet<(usize, Fingerprint)>,
    whole: Vec<(Which, Content)>,
    whole_bytes: u64,
    names: Vec<(Which, Content)>,
    histories: Vec<(Which, Content)>,
    /// What publications have decided so far, where that makes events go.
    plans: HashMap<usize, Plan>,
}

impl Ahead {
    /// Reads what the actions will need.
    pub(super) fn look<'a>(
        open: &Open,
        ids: &mut Ids,
        now: Moment,
        actions: impl Iterator<Item = &'a Action>,
    ) -> Self {
        let mut wanted = Wanted::default();
        {
            let queues = open.queues();
            for action in actions {
                wanted.add(&queues, now, action);
            }
        }
        let mut ahead = Self::default();
        let known = wanted.ids.into_iter();
        ahead.known = known
            .filter(|(slot, id)| ids.recalls(*slot, *id, now.lived_ms))
            .collect();
        for (which, content) in wanted.whole {
            ahead.whole.insert(which, stored(&open.segments, &content));
        }
        for (which, content) in wanted.names {
            let stored = stored(&open.segments, &content);
            let name = stored.map(|stored| (stored.event.source, stored.event.id));
            ahead.names.insert(which, name);
        }
        for (which, content) in wanted.histories {
            let history = read_history(&open.segments, Some(&content));
            ahead.histories.insert(which, history.unwrap_or_default());
        }
        ahead
    }

    /// Whether a queue remembers the id of an event that is published.
    pub(super) fn recalls(&self, slot: usize, id: Fingerprint) -> bool {
        self.known.contains(&(slot, id))
    }

    /// An event's content.
    pub(super) fn stored(
        &mut self,
        segments: &Segments,
        which: Which,
        content: impl FnOnce() -> Content,
    ) -> Option<Stored> {
        let read = self.whole.remove(&which);
        read.unwrap_or_else(|| stored(segments, &content()))
    }

    /// An event's source and id.
    pub(super) fn name(
        &mut self,
        segments: &Segments,
        which: Which,
        content: impl FnOnce() -> Content,
    ) -> Option<(String, String)> {
        let read = self.names.remove(&which);
        read.unwrap_or_else(|| {
            let stored = self.stored(segments, which, content)?;
            Some((stored.event.source, stored.event.id))
        })
    }

    /// An event's history.
    pub(super) fn history(
        &mut self,
        segments: &Segments,
        which: Which,
        content: Option<&Content>,
    ) -> Vec<Attempt> {
        let read = self.histories.remove(&which);
        read.unwrap_or_else(|| read_history(segments, content).unwrap_or_default())
    }
}

impl Wanted {
    fn add(&mut self, queues: &Queues, now: Moment, action: &Action) {
        match action {
            Action::Change(change) => self.change(queues, now, change),
            Action::Sweep(queue) => {
                let Some((index, slot)) = of(queues, queue) else {
                    return;
                };
                let mut plan = Plan::default();
                for operation in slot.queue.sweep(&mut plan, now, SWEEP_MAX, || 0) {
                    self.operation(index, slot, operation);
                }
            }
            Action::Redrive(queue, sequences) => {
                if let Some((index, slot)) = of(queues, queue) {
                    let wanted = sequences.iter();
                    wanted.for_each(|sequence| self.whole(index, slot, *sequence));
                }
            }
            _ => {}
        }
    }

    fn change(&mut self, queues: &Queues, now: Moment, change: &Change) {
        for (lease, outcome) in &change.settlements {
            if let Some(slot) = queues.get(lease.slot) {
                let mut plan = Plan::default();
                let outcome = outcome.of_queue();
                let settled = slot.queue.settle(&mut plan, lease.lease, outcome, now, 0);
                if let Ok(operation) = settled {
                    self.operation(lease.slot, slot, operation);
                }
            }
        }
        let mut dropping: HashMap<usize, Vec<&Prepared>> = HashMap::new();
        for event in &change.publications {
            if let Some((index, slot)) = of(queues, &event.queue) {
                self.ids.extend(event.fingerprint.map(|id| (index, id)));
                if slot.queue.settings().full != WhenFull::Refuse {
                    dropping.entry(index).or_default().push(event);
                }
            }
        }
        for (index, events) in dropping {
            let Some(slot) = queues.get(index) else {
                continue;
            };
            let plan = self.plans.entry(index).or_default();
            let arrivals = arrivals(slot, events.into_iter(), now);
            let admitted = slot.queue.admit(plan, now, &arrivals);
            for removal in admitted.into_iter().flat_map(|one| one.removals) {
                self.operation(index, slot, removal);
            }
        }
    }

    /// Adds what becoming of an event so needs.
    fn operation(&mut self, index: usize, slot: &Slot, operation: Operation<Place>) {
        match operation {
            Operation::Removed {
                sequence,
                reason: Reason::Buried(_),
            } => {
                self.whole(index, slot, sequence);
                self.history(index, slot, sequence);
            }
            Operation::Removed {
                sequence,
                reason: Reason::Dropped | Reason::Expired | Reason::Compacted,
            } => {
                let entry = slot.queue.entry(sequence);
                let content = entry.map(|entry| ((index, sequence), slot.content(&entry)));
                self.names.extend(content);
            }
            Operation::Retried { sequence, .. } => self.history(index, slot, sequence),
            Operation::Removed { .. } | Operation::Enqueued(_) => {}
        }
    }

    fn whole(&mut self, index: usize, slot: &Slot, sequence: u64) {
        let Some(entry) = slot.queue.entry(sequence) else {
            return;
        };
        self.whole_bytes += u64::from(entry.bytes);
        if self.whole_bytes <= WHOLE_BYTES_MAX {
            self.whole.push(((index, sequence), slot.content(&entry)));
        }
    }

    fn history(&mut self, index: usize, slot: &Slot, sequence: u64) {
        let history = slot.history(sequence).cloned();
        let history = history.map(|content| ((index, sequence), content));
        self.histories.extend(history);
    }
}

fn of<'q>(queues: &'q Queues, id: &QueueId) -> Option<(usize, &'q Slot)> {
    let index = queues.find(id)?;
    Some((index, queues.get(index)?))
}

/// An event's content. One that the disk refuses to give is as good as damaged: it must not hold up
/// the queue.
fn stored(segments: &Segments, content: &Content) -> Option<Stored> {
    let read = read_stored(segments, content);
    read.inspect_err(|error| tracing::error!(%error, "an event cannot be read"))
        .ok()
        .flatten()
}
