//! The end of a delivery: the verdict becomes durable, together with the replies and with what a transactional function did.

use tombolo_core::event::Event;
use tombolo_core::{Code, Origin, Publication, TraceContext};
use tombolo_store::{Cause, Lease, Outcome, Settled, StoreError, Transaction};

use super::exchange::Taken;
use super::lane::Lane;
use super::told::Told;
use super::verdict::{Fault, Verdict};

impl Lane {
    /// Makes a verdict durable, with the `effects` of the invocation where it acknowledges something; they are dropped
    /// where it does not. Gives what is wrong when somebody else has changed what the function read: then nothing has
    /// happened. An event for which the verdict cannot be made durable stays leased until its lease ends, and is
    /// delivered again.
    pub(super) async fn settle(
        &self,
        taken: &Taken,
        verdict: Verdict,
        effects: Transaction,
        trace: TraceContext,
    ) -> Option<Fault> {
        let effects = match verdict {
            Verdict::Done(_) | Verdict::Partly(..) => effects,
            _ => Transaction::default(),
        };
        let origin = Origin {
            trace: Some(trace),
            hops: taken.hops.saturating_add(1),
        };
        let mut told = Told::of(self, &verdict);
        let (settlements, replies) = outcomes(&taken.leases, verdict, trace);
        let mut transaction = Transaction {
            settlements,
            origin,
            ..effects
        };
        if let Some(queue) = &self.consumer.reply {
            let reply = |event| Publication::new(queue.clone(), event).origin(origin);
            transaction
                .publications
                .extend(replies.into_iter().map(reply));
        }
        if changes_nothing(&transaction) {
            self.tell(self.shared.journal.settle(transaction.settlements).await);
            self.show(told, taken);
            return None;
        }
        match self.shared.journal.commit(transaction).await {
            Err(error @ StoreError::Conflict { .. }) => {
                let detail = format!("what the function read was changed meanwhile: {error}");
                return Some(Fault::new(Some(Code::TransactionConflict), detail));
            }
            Err(error) if is_of_the_function(&error) => {
                let why = std::error::Error::source(&error);
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                let detail = format!("what the function did cannot be committed: {error}{why}");
                let fault = Fault::new(Some(error.code()), detail);
                let verdict = Verdict::Retry(fault);
                told = Told::of(self, &verdict);
                let (settlements, _) = outcomes(&taken.leases, verdict, trace);
                self.tell(self.shared.journal.settle(settlements).await);
            }
            committed => self.tell(committed.map(|committed| committed.settled)),
        }
        self.show(told, taken);
        None
    }

    /// Shows what became of a delivery, where somebody watches.
    fn show(&self, told: Option<Told>, taken: &Taken) {
        if let Some(told) = told {
            told.tell(self, taken);
        }
    }

    fn tell(&self, settled: Result<Vec<Settled>, StoreError>) {
        let (queue, function) = (&self.consumer.queue, &self.consumer.function);
        match settled {
            Ok(settled) => {
                let count = |what| settled.iter().filter(|one| **one == what).count();
                let (dead, late) = (count(Settled::Buried), count(Settled::Stale));
                if dead > 0 {
                    tracing::warn!(%queue, %function, events = dead, "events became dead letters");
                }
                if late > 0 {
                    tracing::warn!(%queue, %function, events = late, "a function answered after the lease had ended");
                }
                tracing::debug!(%queue, %function, events = settled.len(), "delivered");
            }
            Err(StoreError::Stale) => {
                tracing::warn!(%queue, %function, "a function answered after the lease had ended");
            }
            Err(error) => {
                tracing::warn!(%queue, %function, %error, "an answer cannot be kept; its events are delivered again");
            }
        }
    }
}

/// Whether a transaction only settles. Then a lease that has ended does not keep the others from being settled.
fn changes_nothing(transaction: &Transaction) -> bool {
    transaction.writes.is_empty()
        && transaction.publications.is_empty()
        && transaction.answers.is_empty()
}

/// Whether an error comes of what the function did, and not of the store.
fn is_of_the_function(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::UnknownQueue(_)
            | StoreError::QueueFull { .. }
            | StoreError::Unfit { .. }
            | StoreError::EventTooLong { .. }
            | StoreError::EventsTooLong { .. }
            | StoreError::WriteTooLong { .. }
            | StoreError::KeysFull { .. }
    )
}

/// What becomes of each event, and the replies.
fn outcomes(
    leases: &[Lease],
    verdict: Verdict,
    trace: TraceContext,
) -> (Vec<(Lease, Outcome)>, Vec<Event>) {
    let all = |outcome: &Outcome| {
        let settle = |lease: &Lease| (lease.clone(), outcome.clone());
        leases.iter().map(settle).collect()
    };
    let settlements = match verdict {
        Verdict::Done(replies) => return (all(&Outcome::Done), replies),
        Verdict::Retry(fault) => all(&retry(fault, trace)),
        Verdict::Later(fault) => {
            let after_ms = after_ms(&fault);
            let cause = cause(fault, trace);
            all(&Outcome::Later { cause, after_ms })
        }
        Verdict::Dead(fault) => {
            let cause = cause(fault, trace);
            all(&Outcome::Dead { cause })
        }
        Verdict::Partly(failed, fault) => {
            let failure = retry(fault, trace);
            let outcome = |place| match failed.contains(&place) {
                true => failure.clone(),
                false => Outcome::Done,
            };
            let places = leases.iter().enumerate();
            places
                .map(|(place, lease)| (lease.clone(), outcome(place)))
                .collect()
        }
    };
    (settlements, Vec::new())
}

fn retry(fault: Fault, trace: TraceContext) -> Outcome {
    let after_ms = after_ms(&fault);
    let cause = cause(fault, trace);
    Outcome::Retry { cause, after_ms }
}

fn after_ms(fault: &Fault) -> Option<u64> {
    let after = fault.after?;
    Some(u64::try_from(after.as_millis()).unwrap_or(u64::MAX))
}

fn cause(fault: Fault, trace: TraceContext) -> Cause {
    Cause {
        code: fault.code,
        detail: fault.detail,
        trace: Some(trace),
    }
}
