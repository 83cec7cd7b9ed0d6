//! One group: its settings are made, what it needs is read, it is decided, written and applied, and its callers are answered.

use std::sync::Arc;

use tombolo_core::QueueId;

use super::ahead::Ahead;
use super::changes::Watched;
use super::decide::{Decisions, Outcomes, Refused};
use super::upkeep::Writing;
use super::{Action, Answer, Answered, Caller, answer_all};
use crate::StoreError;
use crate::engine::Transaction;
use crate::log::Group;
use crate::operation::Body;
use crate::queue::{Durability, QueueSettings};

impl Writing {
    /// Commits a batch and answers it. An action that is refused by itself does not touch the
    /// others; when the group cannot be written, all have failed and nothing has changed.
    pub(super) fn commit(&mut self, bytes: usize, actions: Vec<Action>, callers: Vec<Caller>) {
        let mut written = false;
        let begun = self.begin(bytes as u64);
        let (actions, callers) = match begun {
            // What makes room is done even then.
            Err(StoreError::Full) => refuse_growth(actions, callers),
            _ => (actions, callers),
        };
        let begun = match begun {
            Err(StoreError::Full) if !actions.is_empty() => self.begin_shrinking(),
            begun => begun,
        };
        let keys = actions.iter().any(Action::touches_keys);
        let committed = begun.and_then(|group| {
            if !keys {
                return self.write(group, actions, None, &mut written);
            }
            let open = Arc::clone(&self.open);
            let transacted = open
                .engine
                .transact(|engine| self.write(group, actions, Some(engine), &mut written));
            let (done, dirty_bytes) = transacted?;
            self.dirty_bytes += dirty_bytes;
            Ok(done)
        });
        match committed {
            Ok((results, outcomes)) => {
                self.apply(outcomes);
                answer_all(callers.into_iter().zip(results));
                self.look_after();
            }
            Err(error) => {
                if written {
                    // It is in the log and nobody sees it: the next start will bring it to light.
                    self.log.stop(&error);
                }
                tracing::error!(%error, requests = callers.len(), "commit failed");
                let failed = |caller| (caller, Err(error.clone()));
                answer_all(callers.into_iter().map(failed));
            }
        }
    }

    /// Decides a group and writes it.
    fn write(
        &mut self,
        mut group: Group,
        actions: Vec<Action>,
        mut engine: Option<&mut Transaction<'_>>,
        written: &mut bool,
    ) -> Result<(Vec<Answered>, Outcomes), StoreError> {
        let now = self.open.life.now();
        // Settings first: nothing of a queue may change while decisions about it are open.
        let actions: Vec<_> = actions.into_iter().map(|one| self.set(one)).collect();
        let open = Arc::clone(&self.open);
        let ahead = Ahead::look(&open, &mut self.ids, now, actions.iter().flatten());
        let mut results = Vec::with_capacity(actions.len());
        let outcomes = {
            let queues = open.queues();
            let random = &mut || self.random.next();
            let watched = &self.watched;
            let mut decisions =
                Decisions::new(now, &queues, &open.segments, ahead, watched, random);
            for action in actions {
                let action = match action {
                    Ok(action) => action,
                    Err(set) => {
                        results.push(set.map(|()| Answer::Count(0)));
                        continue;
                    }
                };
                let mut body = Body::at(group.next_body_position());
                let engine = engine.as_deref_mut();
                match decide(&mut decisions, action, &mut body, engine) {
                    Ok(answer) => {
                        if !body.bytes().is_empty() {
                            group.push(now, body.bytes())?;
                        }
                        results.push(Ok(answer));
                    }
                    Err(Refused::Alone(error)) => results.push(Err(error)),
                    Err(Refused::Group(error)) => return Err(error),
                }
            }
            decisions.outcomes()
        };
        if !group.is_empty() {
            self.log.commit(group)?;
            *written = true;
        }
        Ok((results, outcomes))
    }

    /// Does an action if it is about settings, and says how that went; gives back every other.
    fn set(&mut self, action: Action) -> Result<Action, Result<(), StoreError>> {
        match action {
            Action::Configure(queue, settings) => Err(self.configure(&queue, *settings)),
            Action::Retire(queue) => {
                self.open.queues().retire(&queue);
                Err(Ok(()))
            }
            Action::Watch(changes) => {
                self.watched = changes.into_iter().map(Watched::new).collect();
                Err(Ok(()))
            }
            action => Ok(action),
        }
    }

    fn configure(&mut self, queue: &QueueId, settings: QueueSettings) -> Result<(), StoreError> {
        let durable = settings.durability == Durability::Fsync;
        let retention_ms = settings.age_ms;
        let slot = self.open.queues().configure(queue, settings);
        // Reads files: nobody waits for a queue meanwhile.
        self.ids.retain(slot, queue, retention_ms, durable)?;
        if let Some(configured) = self.open.queues().get_mut(slot) {
            configured.remembered = self.ids.figures(slot);
        }
        Ok(())
    }

    /// Lets everybody see what is written.
    pub(super) fn apply(&mut self, outcomes: Outcomes) {
        let lived_ms = self.open.life.now().lived_ms;
        for ((slot, id), position) in outcomes.remembered {
            self.ids.remember(slot, id, lived_ms, position);
        }
        let mut queues = self.open.queues();
        let mut touched: Vec<usize> = Vec::new();
        for effect in outcomes.effects {
            if touched.last() != Some(&effect.slot()) {
                touched.push(effect.slot());
            }
            queues.apply(effect);
        }
        touched.sort_unstable();
        touched.dedup();
        for slot in touched {
            let remembered = self.ids.figures(slot);
            if let Some(slot) = queues.get_mut(slot) {
                slot.remembered = remembered;
                slot.wake();
            }
        }
    }
}

/// Answers those that need room, which there is not.
fn refuse_growth(actions: Vec<Action>, callers: Vec<Caller>) -> (Vec<Action>, Vec<Caller>) {
    let (shrinking, growing): (Vec<_>, Vec<_>) = actions
        .into_iter()
        .zip(callers)
        .partition(|(action, _)| action.shrinks());
    let full = |(_, caller)| (caller, Err(StoreError::Full));
    answer_all(growing.into_iter().map(full));
    shrinking.into_iter().unzip()
}

fn decide(
    decisions: &mut Decisions<'_>,
    action: Action,
    body: &mut Body,
    engine: Option<&mut Transaction<'_>>,
) -> Result<Answer, Refused> {
    match (action, engine) {
        (Action::Change(change), engine) => decisions
            .change(*change, body, engine)
            .map(Answer::Committed),
        (Action::Increment { key, delta, origin }, Some(engine)) => decisions
            .increment(key, delta, origin, body, engine)
            .map(Answer::Number),
        (
            Action::Swap {
                key,
                expected,
                value,
                origin,
            },
            Some(engine),
        ) => decisions
            .swap(key, expected.as_ref(), (value, origin), body, engine)
            .map(Answer::Swapped),
        (Action::Sweep(queue), _) => decisions.sweep(&queue, body).map(Answer::Count),
        (Action::Purge(queue, sequences), _) => {
            decisions.purge(&queue, &sequences, body).map(Answer::Count)
        }
        (Action::Redrive(queue, sequences), _) => decisions
            .redrive(&queue, &sequences, body)
            .map(Answer::Count),
        // These were done before, or have an engine because they touch keys.
        _ => Ok(Answer::Count(0)),
    }
}
