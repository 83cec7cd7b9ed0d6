//! Taking: which events are handed out, read from the disk, and what becomes of those that cannot be read.

use std::collections::HashSet;
use std::time::Duration;

use tombolo_core::event::Event;
use tombolo_core::{Origin, QueueId};

use super::Journal;
use crate::StoreError;
use crate::commit::Action;
use crate::log::Place;
use crate::queue::{Batch as TakenBatch, Plan, TakeBounds, Taken as TakenEvent};
use crate::queues::{Content, read_stored};
use crate::store::Open;
use crate::stored::{Cause, DeadLetter, Stored};
use crate::transaction::{Lease, Outcome};

/// How often an event that is due by the clock of the wall is looked at, in milliseconds.
const WALL_LOOK_MS: u64 = 10_000;

/// What [`Journal::take`] gives.
#[derive(Debug)]
pub enum Taken {
    /// Events for one invocation.
    Batch(Batch),
    /// Nothing may be handed out now.
    Nothing {
        /// When time alone may change that.
        after: Option<Duration>,
    },
}

/// Events for one invocation, in the order in which they are to be worked on.
#[derive(Debug)]
pub struct Batch {
    /// At least one.
    pub deliveries: Vec<Delivery>,
    /// In so many milliseconds those that are not settled count as failed.
    pub lease_ms: u64,
}

/// An event that is handed out.
#[derive(Debug)]
pub struct Delivery {
    /// With which it is settled.
    pub lease: Lease,
    /// The event.
    pub event: Event,
    /// Which attempt this is, from 1.
    pub attempt: u16,
    /// Its number in the queue.
    pub sequence: u64,
    /// When it was published, by the wall clock.
    pub published_wall_ms: u64,
    /// The trace and the span that published it, and how many functions led to it.
    pub origin: Origin,
    /// What is told of it if it is a dead letter.
    pub dead: Option<DeadLetter>,
}

impl Journal {
    /// Hands out one batch of a queue. Before, deals with what time did to the queue: leases that
    /// ended, events that are too old. Reads the events on the caller's thread.
    ///
    /// # Errors
    /// [`StoreError::UnknownQueue`], or when the store is closed or failed.
    pub async fn take(&self, queue: &QueueId, bounds: TakeBounds) -> Result<Taken, StoreError> {
        let mut swept = false;
        loop {
            let open = self.shared.open()?;
            if self.is_to_be_swept(&open, queue)? {
                if swept {
                    // There is much to sweep: whoever takes may want to stop in between.
                    let after = Some(Duration::from_millis(1));
                    return Ok(Taken::Nothing { after });
                }
                drop(open);
                let sweep = Action::Sweep(queue.clone());
                self.shared.writer().ask(sweep, 0).await?;
                swept = true;
                continue;
            }
            let now = open.life.now();
            let (slot, batch, wakeup) = {
                let mut queues = open.queues();
                let index = queues.find(queue);
                let slot = index.and_then(|index| Some((index, queues.get_mut(index)?)));
                let (index, slot) = slot
                    .filter(|(_, slot)| slot.configured)
                    .ok_or_else(|| StoreError::UnknownQueue(queue.clone()))?;
                let batch = slot.queue.take(now, bounds);
                (index, batch, slot.queue.next_wakeup(now))
            };
            let Some(batch) = batch else {
                let lived = wakeup.lived_ms.map(|at| at.saturating_sub(now.lived_ms));
                let wall = wakeup.wall_ms.map(|at| at.saturating_sub(now.wall_ms));
                // The wall clock may jump, or the machine sleep, while the caller waits.
                let wall = wall.map(|ms| ms.min(WALL_LOOK_MS));
                let after = lived.into_iter().chain(wall).min();
                return Ok(Taken::Nothing {
                    // At least a millisecond, so that nobody spins.
                    after: after.map(|ms| Duration::from_millis(ms.max(1))),
                });
            };
            let batch = self.deliver(&open, queue, slot, batch).await?;
            if !batch.deliveries.is_empty() {
                return Ok(Taken::Batch(batch));
            }
        }
    }

    pub(super) fn is_to_be_swept(&self, open: &Open, queue: &QueueId) -> Result<bool, StoreError> {
        let queues = open.queues();
        let slot = queues.find(queue).and_then(|slot| queues.get(slot));
        let slot = slot.ok_or_else(|| StoreError::UnknownQueue(queue.clone()))?;
        let mut plan = Plan::default();
        Ok(!slot
            .queue
            .sweep(&mut plan, open.life.now(), 1, || 0)
            .is_empty())
    }

    /// Reads what was taken. What is damaged is settled as lost.
    async fn deliver(
        &self,
        open: &Open,
        queue: &QueueId,
        slot: usize,
        batch: TakenBatch<Place>,
    ) -> Result<Batch, StoreError> {
        let mut deliveries = Vec::with_capacity(batch.events.len());
        let mut lost = Vec::new();
        // Order keys of events that come again: what follows them must not pass them.
        let mut waiting = HashSet::new();
        for taken in batch.events {
            let order = order_of(open, slot, &taken);
            let lease = Lease {
                queue: queue.clone(),
                slot,
                lease: taken.lease,
            };
            if order.is_some_and(|order| waiting.contains(&order)) {
                let cause = Cause::new("the content of an earlier event of its key cannot be read");
                let after_ms = None;
                lost.push((lease, Outcome::Later { cause, after_ms }));
                continue;
            }
            let outcome = match read_taken(open, slot, &taken) {
                Ok(Some(stored)) => {
                    deliveries.push(Delivery {
                        lease,
                        event: stored.event,
                        attempt: taken.attempt,
                        sequence: taken.lease.sequence,
                        published_wall_ms: stored.published_wall_ms,
                        origin: stored.origin,
                        dead: stored.dead,
                    });
                    continue;
                }
                Ok(None) => Outcome::Dead {
                    cause: Cause::new("its content was damaged on the disk"),
                },
                // Perhaps the disk can read it later.
                Err(error) => {
                    waiting.extend(order);
                    Outcome::Retry {
                        cause: Cause::new(format!("its content cannot be read: {error}")),
                        after_ms: None,
                    }
                }
            };
            tracing::error!(%queue, sequence = lease.sequence(), ?outcome, "an event is not delivered");
            lost.push((lease, outcome));
        }
        if !lost.is_empty() {
            self.settle(lost).await?;
        }
        // Reading has taken time of the lease.
        let now = open.life.now();
        Ok(Batch {
            deliveries,
            lease_ms: batch.ends_lived_ms.saturating_sub(now.lived_ms),
        })
    }
}

/// The order key of what was taken.
fn order_of(open: &Open, slot: usize, taken: &TakenEvent<Place>) -> Option<u64> {
    let queues = open.queues();
    queues.get(slot)?.queue.entry(taken.lease.sequence)?.order
}

/// The event that was taken. The segment with it may have been dropped meanwhile: then it was
/// written again elsewhere.
fn read_taken(
    open: &Open,
    slot: usize,
    taken: &TakenEvent<Place>,
) -> Result<Option<Stored>, StoreError> {
    let mut tried = None;
    loop {
        let content = {
            let queues = open.queues();
            let slot = queues.get(slot);
            let entry = slot.and_then(|slot| Some((slot, slot.queue.entry(taken.lease.sequence)?)));
            entry.map(|(slot, entry)| slot.content(&entry))
        };
        let content = content.unwrap_or(Content::Log(taken.place));
        let place = content.place();
        if tried == Some(place) {
            return Ok(None);
        }
        if let Some(stored) = read_stored(&open.segments, &content)? {
            return Ok(Some(stored));
        }
        tried = Some(place);
    }
}
