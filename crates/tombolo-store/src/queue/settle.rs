//! What becomes of an event that was handed out, of one that nobody answered for, and of one that is too old.

use tombolo_core::Moment;

use super::{Burial, Lease, Operation, Plan, Queue, Reason, RetrySettings, Slot};

/// How a function answered for an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is done with it.
    Done,
    /// It failed, and may be tried again.
    Retry {
        /// How long the function asked to be left alone (`Retry-After`).
        after_ms: Option<u64>,
    },
    /// It was not tried: nobody had a place for it. That is no attempt, and waits as long as before.
    Later {
        /// How long to leave it alone.
        after_ms: Option<u64>,
    },
    /// It will never succeed.
    Dead,
}

/// The lease ended before the answer came: the attempt was counted as failed, and the event may
/// be with somebody else by now.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("the lease ended before the answer came")]
pub struct Stale;

impl<P: Copy> Queue<P> {
    /// Decides what follows from a function's answer. `random` is 64 random bits.
    ///
    /// An answer that comes after its lease ended is accepted as long as no sweep was applied that
    /// says so, and refused from then on, also when the event was not handed out again yet.
    ///
    /// # Errors
    /// When the event is not out with this lease (any more), or was settled in this plan already.
    pub fn settle(
        &self,
        plan: &mut Plan,
        lease: Lease,
        outcome: Outcome,
        now: Moment,
        random: u64,
    ) -> Result<Operation<P>, Stale> {
        let sequence = lease.sequence;
        match self.leased.get(sequence) {
            Some((slot, batch)) if *batch == lease.batch && !plan.has_decided(sequence) => {
                Ok(self.decide(plan, sequence, slot, outcome, now, random))
            }
            _ => Err(Stale),
        }
    }

    /// Decides what time alone changes: leases that ended count as failed attempts (told by
    /// [`Operation::Retried`], or [`Reason::Buried`] when it was the last), events beyond the bound
    /// of age expire, and events beyond bounds that were made smaller are dropped. At most `max`
    /// operations; when there are as many, more are due. [`Queue::next_wakeup`] says when to call.
    pub fn sweep(
        &self,
        plan: &mut Plan,
        now: Moment,
        max: usize,
        mut random: impl FnMut() -> u64,
    ) -> Vec<Operation<P>> {
        let failed = Outcome::Retry { after_ms: None };
        let ended = self
            .lease_ends
            .iter()
            .take_while(|(end, _)| *end <= now.lived_ms);
        let members = ended
            .filter_map(|(_, batch)| Some((batch, self.batches.get(batch)?)))
            .flat_map(|(batch, out)| out.members.iter().map(move |sequence| (*batch, *sequence)));
        let mut operations = Vec::new();
        for (batch, sequence) in members {
            if operations.len() >= max {
                return operations;
            }
            let lease = Lease { sequence, batch };
            operations.extend(self.settle(plan, lease, failed, now, random()));
        }
        for (sequence, slot) in self.free.iter() {
            let age_ms = now.lived_ms.saturating_sub(slot.published_lived_ms);
            if operations.len() >= max || age_ms < self.settings.age_ms {
                break;
            }
            operations.extend(self.remove(plan, sequence, Reason::Expired));
        }
        let room = max.saturating_sub(operations.len());
        operations.extend(self.trim(plan, room));
        operations
    }

    /// Decides that an event that nobody works on leaves. Nothing if it is not there, handed out,
    /// or decided about in this plan.
    pub fn remove(&self, plan: &mut Plan, sequence: u64, reason: Reason) -> Option<Operation<P>> {
        let slot = self.free.get(sequence)?;
        if plan.has_decided(sequence) {
            return None;
        }
        plan.remove(sequence, slot.bytes);
        Some(Operation::Removed { sequence, reason })
    }

    /// Decides that the events that pass the filter leave, at most `max` of those whose sequence is
    /// not below `from`. Those that are handed out stay: their function's answer settles them.
    pub fn purge(
        &self,
        plan: &mut Plan,
        from: u64,
        max: usize,
        mut filter: impl FnMut(&super::Entry<P>) -> bool,
    ) -> Vec<Operation<P>> {
        self.free
            .range_from(from)
            .filter(|(sequence, slot)| filter(&slot.entry(*sequence)))
            .filter_map(|(sequence, _)| self.remove(plan, sequence, Reason::Purged))
            .take(max)
            .collect()
    }

    fn decide(
        &self,
        plan: &mut Plan,
        sequence: u64,
        slot: &Slot<P>,
        outcome: Outcome,
        now: Moment,
        random: u64,
    ) -> Operation<P> {
        let retry = &self.settings.retry;
        let next = slot.attempts.saturating_add(1);
        let age_ms = now.lived_ms.saturating_sub(slot.published_lived_ms);
        let reason = match outcome {
            Outcome::Done => Reason::Done,
            Outcome::Dead => Reason::Buried(Burial::Refused),
            Outcome::Retry { .. } if next >= retry.attempts => Reason::Buried(Burial::Attempts),
            Outcome::Retry { .. } | Outcome::Later { .. }
                if retry.age_ms.is_some_and(|max| age_ms >= max) =>
            {
                Reason::Buried(Burial::Age)
            }
            Outcome::Retry { after_ms } | Outcome::Later { after_ms } => {
                plan.keep(sequence);
                let lives_ms = retry.age_ms.unwrap_or(u64::MAX).min(self.settings.age_ms);
                let asked_ms = after_ms.map_or(0, |ms| ms.min(lives_ms.saturating_sub(age_ms)));
                let wait_ms = wait_ms(retry, next, random).max(asked_ms);
                let tried = matches!(outcome, Outcome::Retry { .. });
                return Operation::Retried {
                    sequence,
                    attempts: if tried { next } else { slot.attempts },
                    due_lived_ms: now.lived_ms.saturating_add(wait_ms),
                };
            }
        };
        plan.remove(sequence, slot.bytes);
        Operation::Removed { sequence, reason }
    }
}

/// The wait behind a failed attempt: exponential backoff with full jitter (Brooker, "Exponential
/// Backoff And Jitter", AWS Architecture Blog, 2015).
fn wait_ms(retry: &RetrySettings, attempts: u16, random: u64) -> u64 {
    let doublings = u32::from(attempts.saturating_sub(1)).min(63);
    let bound_ms = retry
        .backoff_ms
        .saturating_mul(1 << doublings)
        .min(retry.backoff_max_ms);
    match bound_ms.checked_add(1) {
        Some(range) => random % range,
        None => random,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::QueueSettings;

    #[test]
    fn the_backoff_doubles_up_to_its_bound_and_is_jittered_fully() {
        let retry = QueueSettings::default().retry;
        let longest = |attempts: u16| {
            let bound = retry.backoff_ms << (attempts - 1).min(20);
            bound.min(retry.backoff_max_ms)
        };
        for attempts in [1_u16, 2, 3, 9, 10, 64, 65, u16::MAX] {
            let longest = longest(attempts);
            assert_eq!(wait_ms(&retry, attempts, longest), longest);
            assert_eq!(wait_ms(&retry, attempts, longest + 1), 0);
        }
    }
}
