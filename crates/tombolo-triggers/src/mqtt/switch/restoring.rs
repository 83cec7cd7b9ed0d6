//! Sessions that were on the disk, put back when the node starts.

use tokio::time::Instant;

use super::Switch;
use crate::mqtt::acl::Permissions;
use crate::mqtt::changes::{Changes, What};
use crate::mqtt::message::Qos;
use crate::mqtt::session::{Delivery, Session};
use crate::mqtt::stored::StoredState;

impl Switch {
    /// Keeps sessions from now on, and puts those back that were kept before, as far as the bounds and what is
    /// permitted now allow. A session with no permissions is one that nobody can take up any more.
    pub fn restore(
        &mut self,
        stored: Vec<StoredState>,
        permissions: impl Fn(&StoredState) -> Option<Permissions>,
        now: Instant,
    ) {
        self.changes.keep();
        for mut state in stored {
            self.last_key = self.last_key.max(state.key);
            let Some(permissions) = permissions(&state) else {
                let client = &state.client;
                tracing::warn!(%client, "an mqtt session is dropped: its user may not connect any more");
                self.changes.push(state.key, state.ended());
                continue;
            };
            let deliveries = state.permitted(&permissions, &mut self.changes);
            let mut session = self.known(&state, now);
            self.restore_deliveries(&mut session, deliveries);
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

impl StoredState {
    /// What ends with a session that is not put back.
    fn ended(&self) -> What {
        let selections = self.subscriptions.iter();
        What::Ended {
            selections: selections.map(|(one, ..)| one.clone()).collect(),
            sequences: self.deliveries.iter().map(|(one, _)| *one).collect(),
            received: self.received.clone(),
        }
    }

    /// Drops the subscriptions that the client may not have any more. Returns what waits for it, but for the
    /// messages that it may not have any more.
    fn permitted(
        &mut self,
        permissions: &Permissions,
        changes: &mut Changes,
    ) -> Vec<(u64, Option<Delivery>)> {
        let key = self.key;
        let before = self.subscriptions.len() + self.deliveries.len();
        self.subscriptions.retain(|(selection, ..)| {
            let stays = permissions.may_subscribe(&selection.filter);
            if !stays {
                changes.push(key, What::Unsubscribed(selection.clone()));
            }
            stays
        });
        let mut released = 0;
        let deliveries = std::mem::take(&mut self.deliveries).into_iter();
        let deliveries = deliveries.filter_map(|(sequence, delivery)| match delivery {
            Some(one) if !permissions.may_get(&one.message.topic) => {
                if one.qos != Qos::ExactlyOnce {
                    changes.push(key, What::Forgotten(sequence));
                    return None;
                }
                // The client may hold its identifier, and would take another message under it for this one.
                released += 1;
                changes.push(key, What::Releasing(sequence));
                Some((sequence, None))
            }
            delivery => Some((sequence, delivery)),
        });
        let deliveries: Vec<_> = deliveries.collect();
        let dropped = before - self.subscriptions.len() - deliveries.len() + released;
        if dropped > 0 {
            let client = &self.client;
            tracing::warn!(%client, dropped, "subscriptions or messages of an mqtt session are not permitted any more");
        }
        deliveries
    }
}
