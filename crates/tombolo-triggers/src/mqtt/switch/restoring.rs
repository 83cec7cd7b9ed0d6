//! Sessions that were on the disk, put back when the node starts.

use tokio::time::Instant;

use super::Switch;
use crate::mqtt::changes::What;
use crate::mqtt::session::{Delivery, Session};
use crate::mqtt::stored::StoredState;

impl Switch {
    /// Keeps sessions from now on, and puts those back that were kept before, as far as the bounds allow.
    pub fn restore(&mut self, stored: Vec<StoredState>, now: Instant) {
        self.changes.keep();
        for mut state in stored {
            let deliveries = std::mem::take(&mut state.deliveries);
            let mut session = self.known(&state, now);
            self.restore_deliveries(&mut session, deliveries);
            self.last_key = self.last_key.max(state.key);
            let is_second = self.keys.contains_key(&session.client);
            if is_second || self.sessions.len() >= self.bounds.sessions_max {
                let client = &session.client;
                tracing::warn!(%client, "there is no room any more for an mqtt session");
                session.note(&mut self.changes, || session.ended());
                continue;
            }
            for (selection, options) in &session.subscriptions {
                self.add_filter(state.key, selection, *options);
            }
            self.figures.subscriptions += session.subscriptions.len();
            self.figures.queued_bytes += session.bytes;
            self.timers
                .extend(session.due().map(|due| (due, state.key)));
            self.keys.insert(session.client.clone(), state.key);
            self.sessions.insert(state.key, session);
        }
        self.changes.seal();
    }

    /// A session without its messages.
    fn known(&mut self, state: &StoredState, now: Instant) -> Session {
        let mut session = Session::new(state.key, state.client.clone(), state.user.clone());
        session.kept = true;
        session.expiry = state.expiry.min(self.bounds.session_expiry_max);
        // A clock that was turned back prolongs nothing.
        let left = state.left.unwrap_or(session.expiry).min(session.expiry);
        session.expires = Some(now + left);
        if state.left != Some(left) {
            session.note_set(&mut self.changes);
        }
        session.received.extend(&state.received);
        for (selection, options, retained) in &state.subscriptions {
            session.scan(selection.filter.clone(), *options, retained);
            session.subscriptions.insert(selection.clone(), *options);
        }
        session
    }

    fn restore_deliveries(
        &mut self,
        session: &mut Session,
        deliveries: Vec<(u64, Option<Delivery>)>,
    ) {
        // As many as there can have been: all that the client had not acknowledged, and a full queue behind them.
        let messages_max =
            self.bounds.queue_messages_max + usize::from(self.bounds.unacknowledged_max.max(1));
        let (mut messages, mut dropped) = (0, 0);
        for (sequence, delivery) in deliveries {
            let weight = delivery
                .as_ref()
                .map_or(0, |delivery| delivery.message.weight_bytes());
            let fits = session.bytes + weight <= self.bounds.queue_bytes_max
                && self.figures.queued_bytes + session.bytes + weight
                    <= self.bounds.queues_bytes_max;
            if delivery.is_none() || (fits && messages < messages_max) {
                messages += usize::from(delivery.is_some());
                session.restore(sequence, delivery);
            } else {
                dropped += 1;
                session.note(&mut self.changes, || What::Forgotten(sequence));
            }
        }
        if dropped > 0 {
            self.figures.dropped_full += dropped;
            let client = &session.client;
            tracing::warn!(%client, dropped, "there is no room any more for messages of an mqtt session");
        }
    }
}
