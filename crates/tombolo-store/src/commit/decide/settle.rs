//! What becomes of events that were handed out, that are too old, or that an operator wants gone or back.

use std::collections::HashSet;

use tombolo_core::event::Event;
use tombolo_core::{Origin, QueueId, TraceContext};

use super::{Decided, Decisions, Refused, fits, prepared};
use crate::StoreError;
use crate::commit::callback::failed;
use crate::log::Place;
use crate::operation::{Body, Operation, number_of};
use crate::queue::{Burial, Entry, Operation as QueueOperation, Reason};
use crate::queues::{Content, Dropped, Effect, Slot};
use crate::stored::{self, Attempt, Cause, DeadLetter, Stored, add_attempt, encode_history};
use crate::transaction::{Lease, Outcome, Prepared, Settled};

/// Events and bytes after which a sweep leaves the rest to the next one.
pub(in crate::commit) const SWEEP_MAX: usize = 256;
const SWEEP_BYTES_MAX: usize = 4 << 20;

impl Decisions<'_> {
    pub(super) fn settle_all(
        &mut self,
        settlements: Vec<(Lease, Outcome)>,
        lenient: bool,
        body: &mut Body,
    ) -> Decided<Vec<Settled>> {
        let mut settled = Vec::with_capacity(settlements.len());
        // Order keys whose event comes again.
        let mut waiting = HashSet::new();
        for (lease, outcome) in settlements {
            let key = self.order(&lease);
            // Else it would be done before what comes before it. What a transaction did for it
            // cannot be taken back.
            let follows = lenient && key.is_some_and(|key| waiting.contains(&key));
            let outcome = match outcome {
                Outcome::Done if follows => Outcome::Later {
                    cause: Cause::new("an earlier event of its key failed in the same batch"),
                    after_ms: None,
                },
                outcome => outcome,
            };
            let one = self.settle(&lease, outcome, body)?;
            match one {
                Settled::Retried { .. } => waiting.extend(key),
                Settled::Stale if !lenient => return Err(StoreError::Stale.into()),
                _ => {}
            }
            settled.push(one);
        }
        Ok(settled)
    }

    /// The order key of what is out with a lease.
    fn order(&self, lease: &Lease) -> Option<(usize, u64)> {
        let queue = &self.queues.get(lease.slot)?.queue;
        Some((lease.slot, queue.entry(lease.sequence())?.order?))
    }

    fn settle(&mut self, lease: &Lease, outcome: Outcome, body: &mut Body) -> Decided<Settled> {
        let in_queue = outcome.of_queue();
        let cause = outcome.cause();
        let (now, random) = (self.now, (self.random)());
        let (queue, plan) = self.plan(lease.slot);
        let Some(queue) = queue else {
            return Ok(Settled::Stale);
        };
        let Ok(operation) = queue.queue.settle(plan, lease.lease, in_queue, now, random) else {
            return Ok(Settled::Stale);
        };
        self.returned(lease.slot, queue, operation, cause, body)
    }

    /// What a settlement or a sweep decided about one event.
    fn returned(
        &mut self,
        slot: usize,
        queue: &Slot,
        operation: QueueOperation<Place>,
        cause: Option<Cause>,
        body: &mut Body,
    ) -> Decided<Settled> {
        let cause = || cause.unwrap_or_else(|| Cause::new("the lease ended before an answer came"));
        match operation {
            QueueOperation::Retried {
                sequence,
                attempts,
                due_lived_ms,
            } => {
                let before = queue.queue.entry(sequence);
                let history = match before.is_some_and(|entry| entry.attempts == attempts) {
                    // It was not tried.
                    true => self.history(slot, queue, sequence),
                    false => self.longer_history((slot, queue), sequence, attempts, cause()),
                };
                let history = encode_history(&history);
                let content = if queue.is_logged(sequence) {
                    let operation = Operation::Retried {
                        queue: &queue.name,
                        sequence,
                        attempts,
                        due_lived_ms,
                    };
                    Content::Log(body.push_sealed(&operation, &history))
                } else {
                    Content::Memory(history.into())
                };
                self.effects.push(Effect::Queue {
                    slot,
                    operation,
                    content: Some(content),
                });
                Ok(Settled::Retried {
                    attempts,
                    wait_ms: due_lived_ms.saturating_sub(self.now.lived_ms),
                })
            }
            QueueOperation::Removed {
                sequence,
                reason: Reason::Buried(burial),
            } => {
                self.bury(slot, queue, sequence, burial, cause(), body)?;
                self.removed(slot, queue, operation, body)?;
                Ok(Settled::Buried)
            }
            _ => {
                self.removed(slot, queue, operation, body)?;
                Ok(Settled::Done)
            }
        }
    }

    /// An event's content; nothing if that is damaged.
    fn stored(&mut self, slot: usize, queue: &Slot, entry: &Entry<Place>) -> Option<Stored> {
        let which = (slot, entry.sequence);
        self.ahead
            .stored(self.segments, which, || queue.content(entry))
    }

    fn history(&mut self, slot: usize, queue: &Slot, sequence: u64) -> Vec<Attempt> {
        let content = queue.history(sequence);
        self.ahead.history(self.segments, (slot, sequence), content)
    }

    /// The history of an event with one attempt more.
    fn longer_history(
        &mut self,
        (slot, queue): (usize, &Slot),
        sequence: u64,
        attempt: u16,
        cause: Cause,
    ) -> Vec<Attempt> {
        let mut history = self.history(slot, queue, sequence);
        let at = self.now;
        add_attempt(&mut history, Attempt { attempt, at, cause });
        history
    }

    /// Puts an event among the dead letters of its queue. A dead letter that dies again, one that
    /// finds no room and one whose content is damaged are listed as dropped instead.
    fn bury(
        &mut self,
        slot: usize,
        queue: &Slot,
        sequence: u64,
        burial: Burial,
        cause: Cause,
        body: &mut Body,
    ) -> Decided<()> {
        let Some(entry) = queue.queue.entry(sequence) else {
            return Ok(());
        };
        let reason = Reason::Buried(burial);
        let grave = self.queues.find(&queue.id.dead());
        let stored = self.stored(slot, queue, &entry);
        if stored.is_none() {
            self.effects.push(Effect::Lost { slot });
        }
        let (Some(grave), Some(stored)) = (grave.filter(|&grave| grave != slot), stored) else {
            return self.dropped(slot, queue, sequence, reason).map(drop);
        };
        let attempts = entry.attempts.saturating_add(1);
        if let Some(callback) = &queue.queue.settings().callback {
            let event = (&queue.id, sequence);
            let told = failed(callback, event, &stored.event, attempts, &cause, self.now);
            if let Some(told) = told {
                self.tell(&callback.queue, told, cause.trace, body)?;
            }
        }
        let letter = Stored {
            dead: Some(DeadLetter {
                origin: queue.id.clone(),
                burial,
                attempts,
                history: self.longer_history((slot, queue), sequence, attempts, cause),
            }),
            ..stored
        };
        let letter = Prepared {
            queue: queue.id.dead(),
            stored: letter.encode(),
            event: letter.event,
            fingerprint: None,
            due_wall_ms: None,
            priority: entry.priority,
        };
        match self.enqueue(grave, &[letter], body) {
            Err(Refused::Alone(StoreError::QueueFull { .. } | StoreError::Unfit { .. })) => {
                self.dropped(slot, queue, sequence, reason).map(drop)
            }
            other => other.map(drop),
        }
    }

    /// Publishes what somebody asked to be told. That there is no room for it keeps nothing from
    /// being settled.
    fn tell(
        &mut self,
        queue: &QueueId,
        told: Event,
        trace: Option<TraceContext>,
        body: &mut Body,
    ) -> Decided<()> {
        let told = prepared(queue, told, Origin { trace, hops: 0 }, self.now);
        let kept = match self.configured(queue) {
            Ok(slot) => self.enqueue(slot, &[told], body).map(drop),
            Err(error) => Err(error.into()),
        };
        match kept {
            Err(Refused::Alone(error)) => {
                tracing::warn!(%queue, %error, "a callback is not sent");
                Ok(())
            }
            kept => kept,
        }
    }

    /// An event leaves its queue.
    pub(super) fn removed(
        &mut self,
        slot: usize,
        queue: &Slot,
        operation: QueueOperation<Place>,
        body: &mut Body,
    ) -> Decided<()> {
        let QueueOperation::Removed { sequence, reason } = operation else {
            return Ok(());
        };
        let content = match reason {
            Reason::Dropped | Reason::Expired | Reason::Compacted => {
                let dropped = self.dropped(slot, queue, sequence, reason)?;
                stored::encode(&(dropped.source, dropped.id))
            }
            _ => Vec::new(),
        };
        let logged = match queue.queue.entry(sequence) {
            Some(_) => queue.is_logged(sequence),
            // One that came in this group.
            None => queue.is_durable(),
        };
        if logged {
            let removed = Operation::Removed {
                queue: &queue.name,
                sequence,
                reason: number_of(reason),
            };
            body.push(&removed, &[&content]);
        }
        self.effects.push(Effect::Queue {
            slot,
            operation,
            content: None,
        });
        Ok(())
    }

    /// Lists an event as dropped.
    fn dropped(
        &mut self,
        slot: usize,
        queue: &Slot,
        sequence: u64,
        reason: Reason,
    ) -> Decided<Dropped> {
        let entry = queue.queue.entry(sequence);
        let named = entry.and_then(|entry| {
            let content = || queue.content(&entry);
            self.ahead.name(self.segments, (slot, sequence), content)
        });
        let came = || self.came.get(&(slot, sequence)).cloned();
        let (source, id) = named.or_else(came).unwrap_or_default();
        let dropped = Dropped {
            sequence,
            source,
            id,
            reason,
            at: self.now,
        };
        self.effects.push(Effect::Dropped {
            slot,
            dropped: dropped.clone(),
        });
        Ok(dropped)
    }

    /// Deals with leases that ended, with what is too old, and with what is beyond bounds.
    pub(in crate::commit) fn sweep(&mut self, queue: &QueueId, body: &mut Body) -> Decided<u64> {
        self.together(false, |decisions| {
            let (now, slot) = (decisions.now, decisions.known(queue)?);
            let Some(queue) = decisions.queues.get(slot) else {
                return Ok(0);
            };
            let mut count = 0;
            while count < SWEEP_MAX && body.bytes().len() < SWEEP_BYTES_MAX {
                let random = (decisions.random)();
                let (_, plan) = decisions.plan(slot);
                // One at a time, so that the record ends before it is too long: an event that the
                // store made of two long values is longer than one that is published.
                let operation = queue.queue.sweep(plan, now, 1, || random).pop();
                let Some(operation) = operation else { break };
                count += 1;
                decisions.returned(slot, queue, operation, None, body)?;
            }
            Ok(count as u64)
        })
    }

    /// Removes events that nobody works on.
    pub(in crate::commit) fn purge(
        &mut self,
        queue: &QueueId,
        sequences: &[u64],
        body: &mut Body,
    ) -> Decided<u64> {
        self.together(false, |decisions| {
            let slot = decisions.known(queue)?;
            let mut count = 0;
            for &sequence in sequences {
                let (queue, plan) = decisions.plan(slot);
                let Some(queue) = queue else { break };
                let removal = queue.queue.remove(plan, sequence, Reason::Purged);
                if let Some(removal) = removal {
                    decisions.removed(slot, queue, removal, body)?;
                    count += 1;
                }
            }
            fits(body, 0)?;
            Ok(count)
        })
    }

    /// Removes an event whose content is damaged, unless somebody works on it.
    pub(in crate::commit) fn lose(
        &mut self,
        slot: usize,
        sequence: u64,
        body: &mut Body,
    ) -> Decided<()> {
        let (queue, plan) = self.plan(slot);
        let Some(queue) = queue else { return Ok(()) };
        let Some(removal) = queue.queue.remove(plan, sequence, Reason::Dropped) else {
            return Ok(());
        };
        self.effects.push(Effect::Lost { slot });
        self.removed(slot, queue, removal, body)
    }

    /// Publishes dead letters again in the queues that they came from.
    pub(in crate::commit) fn redrive(
        &mut self,
        queue: &QueueId,
        sequences: &[u64],
        body: &mut Body,
    ) -> Decided<u64> {
        self.together(false, |decisions| {
            let slot = decisions.known(queue)?;
            let mut count = 0;
            for &sequence in sequences {
                let Some(queue) = decisions.queues.get(slot) else {
                    break;
                };
                let Some(entry) = queue.queue.entry(sequence) else {
                    continue;
                };
                // Before it is planned: what is damaged, or is no dead letter, stays where it is.
                let Some(stored) = decisions.stored(slot, queue, &entry) else {
                    continue;
                };
                let Some(origin) = stored.dead.as_ref().map(|dead| dead.origin.clone()) else {
                    continue;
                };
                let target = decisions.configured(&origin)?;
                let (_, plan) = decisions.plan(slot);
                let Some(removal) = queue.queue.remove(plan, sequence, Reason::Redriven) else {
                    continue;
                };
                decisions.removed(slot, queue, removal, body)?;
                // Whoever sends it again has broken the loop that it may have died of.
                let led_to = Origin {
                    hops: 0,
                    ..stored.origin
                };
                let living = Stored {
                    dead: None,
                    origin: led_to,
                    ..stored
                };
                let living = Prepared {
                    queue: origin,
                    stored: living.encode(),
                    event: living.event,
                    fingerprint: None,
                    due_wall_ms: None,
                    priority: entry.priority,
                };
                decisions.enqueue(target, &[living], body)?;
                count += 1;
            }
            fits(body, 0)?;
            Ok(count)
        })
    }
}
