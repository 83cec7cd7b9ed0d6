//! Deciding what the changes of one group do, each knowing what those before it decided, without changing anything yet.

mod settle;

pub(super) use self::settle::SWEEP_MAX;

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use tombolo_core::{Moment, Origin, Published, QueueId};

use super::ahead::Ahead;
use super::changes::Watched;
use crate::StoreError;
use crate::engine::Transaction;
use crate::key_value::Swapped;
use crate::log::{BODY_BYTES_MAX, Place, Segments};
use crate::operation::{Body, Enqueued, Operation};
use crate::queue::{Arrival, Due, Entry, Operation as QueueOperation, Plan, Refusal, WhenFull};
use crate::queues::{Content, Effect, Queues, Slot};
use crate::remembered::Fingerprint;
use crate::stored::{self, Stored};
use crate::transaction::{Change, Committed, Prepared};

/// What the fields of an operation without a queue take in a record, at most.
const OPERATION_BYTES: usize = 32;

/// What the memory of a queue in memory has beside an event, roughly: its place in the state machine
/// (67 to 91 bytes) and in the table of contents.
const BESIDE_BYTES: u32 = 128;

/// Why a change does not happen.
pub(super) enum Refused {
    /// By itself; the others of its group do.
    Alone(StoreError),
    /// With its whole group, which cannot be committed any more.
    Group(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Alone(error)
    }
}

type Decided<T> = Result<T, Refused>;

/// The decisions of one group.
pub(super) struct Decisions<'a> {
    now: Moment,
    queues: &'a Queues,
    segments: &'a Segments,
    ahead: Ahead,
    watched: &'a [Watched],
    random: &'a mut dyn FnMut() -> u64,
    plans: HashMap<usize, Plan>,
    /// Plans as they were before the current change, if it may have to be taken back.
    before: Option<HashMap<usize, Plan>>,
    effects: Vec<Effect>,
    remembered: Vec<(usize, Fingerprint)>,
    remembered_set: HashSet<(usize, Fingerprint)>,
    /// Source and id of what came in this group into queues that may drop it in this group too.
    came: HashMap<(usize, u64), (String, String)>,
    /// Where the body of the record with each of them is.
    remembered_at: Vec<u64>,
}

/// What a group will do once it is written.
#[derive(Default)]
pub(super) struct Outcomes {
    pub(super) effects: Vec<Effect>,
    /// With where the log has them.
    pub(super) remembered: Vec<((usize, Fingerprint), u64)>,
}

impl<'a> Decisions<'a> {
    pub(super) fn new(
        now: Moment,
        queues: &'a Queues,
        segments: &'a Segments,
        ahead: Ahead,
        watched: &'a [Watched],
        random: &'a mut dyn FnMut() -> u64,
    ) -> Self {
        Self {
            now,
            queues,
            segments,
            ahead,
            watched,
            random,
            plans: HashMap::new(),
            before: None,
            effects: Vec::new(),
            remembered: Vec::new(),
            remembered_set: HashSet::new(),
            came: HashMap::new(),
            remembered_at: Vec::new(),
        }
    }

    pub(super) fn outcomes(self) -> Outcomes {
        Outcomes {
            effects: self.effects,
            remembered: self
                .remembered
                .into_iter()
                .zip(self.remembered_at)
                .collect(),
        }
    }

    /// Makes a decision whose parts happen together: when one is refused, so are those before it.
    /// `single` is one that the plan of a queue takes back by itself.
    fn together<T>(
        &mut self,
        single: bool,
        decide: impl FnOnce(&mut Self) -> Decided<T>,
    ) -> Decided<T> {
        let (effects, remembered) = (self.effects.len(), self.remembered.len());
        self.before = (!single).then(HashMap::new);
        let decided = decide(self);
        let before = self.before.take();
        if decided.is_err() {
            self.effects.truncate(effects);
            for taken_back in self.remembered.drain(remembered..) {
                self.remembered_set.remove(&taken_back);
            }
            self.remembered_at.truncate(remembered);
            self.plans.extend(before.into_iter().flatten());
        }
        decided
    }

    /// The slot and the plan of a queue.
    fn plan(&mut self, slot: usize) -> (Option<&'a Slot>, &mut Plan) {
        let plan = self.plans.entry(slot).or_default();
        if let Some(before) = &mut self.before {
            before.entry(slot).or_insert_with(|| plan.clone());
        }
        (self.queues.get(slot), plan)
    }

    /// A transaction. The engine's is there when it has to do with keys.
    pub(super) fn change(
        &mut self,
        change: Change,
        body: &mut Body,
        engine: Option<&mut Transaction<'_>>,
    ) -> Decided<Committed> {
        let published = change.publications.iter();
        let queues: HashSet<&QueueId> = published.map(|one| &one.queue).collect();
        let watched = if change.writes.is_empty() {
            0
        } else {
            self.watched.len()
        };
        let parts = queues.len() + watched;
        let single = match change.settlements.len() {
            0 => parts <= 1,
            count => parts == 0 && (change.lenient || count == 1),
        };
        self.together(single, |decisions| {
            decisions.change_parts(change, body, engine)
        })
    }

    fn change_parts(
        &mut self,
        change: Change,
        body: &mut Body,
        engine: Option<&mut Transaction<'_>>,
    ) -> Decided<Committed> {
        let settled = self.settle_all(change.settlements, change.lenient, body)?;
        let mut publications = change.publications;
        let told = publications.len();
        if let Some(engine) = engine {
            for (key, value) in &change.expects {
                if engine.get(key)? != *value {
                    return Err(conflict(key).into());
                }
            }
            if !change.unbounded {
                engine.check_room(&change.writes)?;
            }
            self.watch_all(
                &change.writes,
                change.origin,
                engine,
                body,
                &mut publications,
            )?;
            let mut published = self.publish(publications, body)?;
            published.truncate(told);
            let writes = change.writes.iter().map(|(key, value)| {
                key.len() + value.as_ref().map_or(0, Bytes::len) + OPERATION_BYTES
            });
            let answers = change.answers.iter();
            let answers = answers.map(|(key, answer)| key.len() + answer.len() + OPERATION_BYTES);
            fits(body, writes.chain(answers).sum())?;
            write_all(&change.writes, engine, body)?;
            for (key, answer) in &change.answers {
                engine
                    .answer(key, answer, self.now.lived_ms)
                    .map_err(Refused::Group)?;
                let key_bytes = length(key);
                body.push(&Operation::Answered { key_bytes }, &[key, answer]);
            }
            return Ok(Committed { published, settled });
        }
        let mut published = self.publish(publications, body)?;
        published.truncate(told);
        fits(body, 0)?;
        Ok(Committed { published, settled })
    }

    /// Adds to a number.
    pub(super) fn increment(
        &mut self,
        key: Vec<u8>,
        delta: i64,
        origin: Origin,
        body: &mut Body,
        engine: &mut Transaction<'_>,
    ) -> Decided<i64> {
        let sum = super::add(engine.get(&key)?.as_deref(), delta)?;
        let write = (key, Some(Bytes::from(sum.to_string())));
        self.change_writes(vec![write], origin, body, engine)?;
        Ok(sum)
    }

    /// Replaces a value if it is the expected one.
    pub(super) fn swap(
        &mut self,
        key: Vec<u8>,
        expected: Option<&Bytes>,
        (value, origin): (Bytes, Origin),
        body: &mut Body,
        engine: &mut Transaction<'_>,
    ) -> Decided<Swapped> {
        let found = engine.get(&key)?;
        if found.as_ref() != expected {
            return Ok(Swapped::Changed(found));
        }
        self.change_writes(vec![(key, Some(value))], origin, body, engine)?;
        Ok(Swapped::Done)
    }

    fn change_writes(
        &mut self,
        writes: Vec<(Vec<u8>, Option<Bytes>)>,
        origin: Origin,
        body: &mut Body,
        engine: &mut Transaction<'_>,
    ) -> Decided<()> {
        let change = Change {
            writes,
            origin,
            ..Change::default()
        };
        self.change(change, body, Some(engine)).map(drop)
    }

    /// Adds the events of watched changes to what is published.
    fn watch_all(
        &self,
        writes: &[(Vec<u8>, Option<Bytes>)],
        origin: Origin,
        engine: &Transaction<'_>,
        body: &Body,
        publications: &mut Vec<Prepared>,
    ) -> Decided<()> {
        if self.watched.is_empty() {
            return Ok(());
        }
        let mut written: HashMap<&[u8], Option<&Bytes>> = HashMap::new();
        for (index, (key, value)) in writes.iter().enumerate() {
            let watched: Vec<_> = self.watched.iter().filter(|w| w.covers(key)).collect();
            if watched.is_empty() {
                continue;
            }
            let before = match written.get(key.as_slice()) {
                Some(before) => before.cloned(),
                None => engine.get(key)?,
            };
            written.insert(key, value.as_ref());
            if before.is_none() && value.is_none() {
                continue;
            }
            let id = format!("{:x}-{index}", body.position());
            for watched in watched {
                let event = watched.event(&id, key, before.as_ref(), value.as_ref(), self.now);
                publications.push(prepared(&watched.queue, event, origin, self.now));
            }
        }
        Ok(())
    }

    /// Publishes all events or none.
    fn publish(&mut self, events: Vec<Prepared>, body: &mut Body) -> Decided<Vec<Published>> {
        let mut published = vec![Published::Duplicate; events.len()];
        let mut by_slot: Vec<(usize, Vec<(usize, Prepared)>)> = Vec::new();
        for (index, event) in events.into_iter().enumerate() {
            let slot = self.configured(&event.queue)?;
            if let Some(fingerprint) = event.fingerprint {
                let known = self.remembered_set.contains(&(slot, fingerprint))
                    || self.ahead.recalls(slot, fingerprint);
                if known {
                    continue;
                }
                self.remembered_set.insert((slot, fingerprint));
                self.remembered.push((slot, fingerprint));
                self.remembered_at.push(body.position());
            }
            match by_slot.iter_mut().find(|(other, _)| *other == slot) {
                Some((_, events)) => events.push((index, event)),
                None => by_slot.push((slot, vec![(index, event)])),
            }
        }
        for (slot, events) in by_slot {
            let (indices, events): (Vec<_>, Vec<_>) = events.into_iter().unzip();
            let first = self.enqueue(slot, &events, body)?;
            for (sequence, index) in (first..).zip(indices) {
                if let Some(place) = published.get_mut(index) {
                    *place = Published::Accepted(sequence);
                }
            }
        }
        Ok(published)
    }

    fn configured(&self, queue: &QueueId) -> Result<usize, StoreError> {
        let slot = self.queues.find(queue);
        slot.filter(|&slot| self.queues.get(slot).is_some_and(|slot| slot.configured))
            .ok_or_else(|| StoreError::UnknownQueue(queue.clone()))
    }

    /// Lets events into a queue, all or none; the sequence of the first.
    fn enqueue(&mut self, slot: usize, events: &[Prepared], body: &mut Body) -> Decided<u64> {
        let now = self.now;
        let (queue, plan) = self.plan(slot);
        let Some(queue) = queue else {
            return Err(StoreError::Closed.into());
        };
        let arrivals = arrivals(queue, events.iter(), now);
        let admitted = queue.queue.admit(plan, now, &arrivals);
        let admission = admitted.map_err(|refusal| refused(&queue.id, refusal))?;
        for removal in admission.removals {
            self.removed(slot, queue, removal, body)?;
        }
        for ((sequence, arrival), event) in (admission.first_sequence..).zip(arrivals).zip(events) {
            let entry = Entry {
                sequence,
                place: Place::new(0, arrival.bytes),
                bytes: arrival.bytes,
                attempts: 0,
                due: arrival.due_wall_ms.map(Due::Wall),
                priority: event.priority,
                order: arrival.order,
                published_lived_ms: now.lived_ms,
            };
            let (entry, content) = if queue.is_durable() {
                let operation = Operation::Enqueued {
                    queue: &queue.name,
                    event: Enqueued::of(&entry),
                    fingerprint: event.fingerprint,
                };
                let place = body.push_sealed(&operation, &event.stored);
                (Entry { place, ..entry }, Content::Log(place))
            } else {
                (
                    entry,
                    Content::Memory(Bytes::copy_from_slice(&event.stored)),
                )
            };
            self.effects.push(Effect::Queue {
                slot,
                operation: QueueOperation::Enqueued(entry),
                content: Some(content),
            });
            if queue.queue.settings().full != WhenFull::Refuse {
                let name = (event.event.source.clone(), event.event.id.clone());
                self.came.insert((slot, sequence), name);
            }
        }
        Ok(admission.first_sequence)
    }

    fn known(&self, queue: &QueueId) -> Result<usize, StoreError> {
        let slot = self.queues.find(queue);
        slot.ok_or_else(|| StoreError::UnknownQueue(queue.clone()))
    }
}

/// Events as they come to a queue.
pub(super) fn arrivals<'e>(
    queue: &Slot,
    events: impl Iterator<Item = &'e Prepared>,
    now: Moment,
) -> Vec<Arrival> {
    let order_by = queue.queue.settings().order_by.as_deref();
    let beside = match queue.is_durable() {
        true => crate::log::SEAL_BYTES as u32,
        false => BESIDE_BYTES,
    };
    let arrival = |event: &Prepared| Arrival {
        bytes: length(&event.stored).saturating_add(beside),
        order: stored::order(order_by, &event.event),
        due_wall_ms: event.due_wall_ms.filter(|due| *due > now.wall_ms),
    };
    events.map(arrival).collect()
}

/// An event as it is published now, by the store itself.
fn prepared(
    queue: &QueueId,
    event: tombolo_core::event::Event,
    origin: Origin,
    now: Moment,
) -> Prepared {
    let stored = Stored {
        event,
        origin,
        published_wall_ms: now.wall_ms,
        dead: None,
    };
    Prepared {
        queue: queue.clone(),
        stored: stored.encode(),
        event: stored.event,
        fingerprint: None,
        due_wall_ms: None,
        priority: tombolo_core::publish::PRIORITY_DEFAULT,
    }
}

/// Whether so many bytes more are still one record. (Nothing has changed the keys before this.)
fn fits(body: &Body, more: usize) -> Decided<()> {
    let bytes = body.bytes().len() + more;
    if bytes > BODY_BYTES_MAX {
        return Err(StoreError::EventsTooLong { bytes }.into());
    }
    Ok(())
}

fn write_all(
    writes: &[(Vec<u8>, Option<Bytes>)],
    engine: &mut Transaction<'_>,
    body: &mut Body,
) -> Decided<()> {
    for (key, value) in writes {
        match value {
            Some(value) => {
                engine.put(key, value).map_err(Refused::Group)?;
                let key_bytes = length(key);
                body.push(&Operation::Put { key_bytes }, &[key, value]);
            }
            None => {
                engine.delete(key).map_err(Refused::Group)?;
                body.push(&Operation::Delete, &[key]);
            }
        }
    }
    Ok(())
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn conflict(key: &[u8]) -> StoreError {
    let behind = key.rsplit(|byte| *byte == 0).next().unwrap_or_default();
    StoreError::Conflict {
        key: String::from_utf8_lossy(behind).into_owned(),
    }
}

fn refused(queue: &QueueId, refusal: Refusal) -> StoreError {
    let queue = queue.clone();
    match refusal {
        Refusal::Full => StoreError::QueueFull { queue },
        source => StoreError::Unfit { queue, source },
    }
}
