//! Who subscribed to what, and who gets a message.

use std::cell::Cell;
use std::sync::Arc;

use tokio::time::Instant;

use super::{RetainedWanted, SessionKey, Switch};
use crate::mqtt::changes::What;
use crate::mqtt::message::{Message, Qos};
use crate::mqtt::session::{Delivery, Options, StillToGet};
use crate::mqtt::topic::Selection;

/// Who is behind a filter.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    Session(SessionKey),
    Group(Arc<str>),
}

#[derive(Debug)]
pub enum Subscribers {
    One(Options),
    /// The members of a group take turns.
    Shared {
        members: Vec<(SessionKey, Options)>,
        turn: Cell<usize>,
    },
}

impl Switch {
    /// Adds or replaces a subscription; false when there are as many as allowed.
    pub fn subscribe(
        &mut self,
        key: SessionKey,
        selection: Selection,
        options: Options,
        wanted: RetainedWanted,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&key) else {
            return false;
        };
        let known = session.subscriptions.contains_key(&selection);
        if !known && session.subscriptions.len() >= self.bounds.subscriptions_max {
            return false;
        }
        let retained = match wanted {
            RetainedWanted::Always => true,
            RetainedWanted::WhenNew => !known,
            RetainedWanted::Never => false,
        };
        if retained && selection.group.is_none() {
            session.scan(selection.filter.clone(), options, &StillToGet::Everything);
        }
        session.subscriptions.insert(selection.clone(), options);
        session.note_subscription(&selection, &mut self.changes);
        self.figures.subscriptions += usize::from(!known);
        self.add_filter(key, &selection, options);
        true
    }

    pub(super) fn add_filter(&mut self, key: SessionKey, selection: &Selection, options: Options) {
        match &selection.group {
            None => {
                let target = Target::Session(key);
                let one = self
                    .filters
                    .entry(&selection.filter, target, || Subscribers::One(options));
                *one = Subscribers::One(options);
            }
            Some(group) => {
                let empty = || Subscribers::Shared {
                    members: Vec::new(),
                    turn: Cell::new(0),
                };
                let target = Target::Group(group.clone());
                let shared = self.filters.entry(&selection.filter, target, empty);
                if let Subscribers::Shared { members, .. } = shared {
                    members.retain(|(member, _)| *member != key);
                    members.push((key, options));
                }
            }
        }
    }

    /// Removes a subscription; false when there is none.
    pub fn unsubscribe(&mut self, key: SessionKey, selection: &Selection) -> bool {
        let Some(session) = self.sessions.get_mut(&key) else {
            return false;
        };
        if selection.group.is_none() {
            session.stop_scan(&selection.filter);
        }
        let known = session.subscriptions.remove(selection).is_some();
        if known {
            session.note(&mut self.changes, || What::Unsubscribed(selection.clone()));
            self.remove_filter(key, selection);
        }
        known
    }

    pub(super) fn remove_filter(&mut self, key: SessionKey, selection: &Selection) {
        self.figures.subscriptions -= 1;
        let filter = &selection.filter;
        let Some(group) = &selection.group else {
            self.filters.remove(filter, &Target::Session(key));
            return;
        };
        let target = Target::Group(group.clone());
        if let Some(Subscribers::Shared { members, .. }) = self.filters.get_mut(filter, &target) {
            members.retain(|(member, _)| *member != key);
            if members.is_empty() {
                self.filters.remove(filter, &target);
            }
        }
    }

    /// Whether the message would have to be written for a session that is kept.
    pub fn reaches_kept(&self, message: &Message, from: Option<SessionKey>) -> bool {
        let is_kept = |key: &SessionKey, options: &Options| {
            message.qos.min(options.qos) != Qos::AtMostOnce
                && self.sessions.get(key).is_some_and(|session| session.kept)
        };
        let mut reaches = false;
        self.filters.select(&message.topic, |target, subscribers| {
            reaches |= match (target, subscribers) {
                (Target::Session(key), Subscribers::One(options)) => {
                    !(options.no_local && from == Some(*key)) && is_kept(key, options)
                }
                (_, Subscribers::Shared { members, .. }) => {
                    members.iter().any(|(key, options)| is_kept(key, options))
                }
                (Target::Group(_), Subscribers::One(_)) => false,
            };
        });
        reaches
    }

    /// Hands an accepted message to everybody who subscribed to it, and retains it if it says so.
    pub fn route(&mut self, message: &Arc<Message>, from: Option<SessionKey>, now: Instant) {
        self.figures.accepted += 1;
        if message.retain {
            self.retain(message, now);
        }
        let mut found = std::mem::take(&mut self.found);
        self.filters.select(&message.topic, |target, subscribers| {
            match (target, subscribers) {
                (Target::Session(key), Subscribers::One(options)) => {
                    if !(options.no_local && from == Some(*key)) {
                        found.push((*key, *options));
                    }
                }
                (_, Subscribers::Shared { members, turn }) => {
                    found.extend(self.whose_turn(members, turn));
                }
                (Target::Group(_), Subscribers::One(_)) => {}
            }
        });
        // Filters of one client that overlap make one delivery with the highest QoS.
        found.sort_unstable_by_key(|(key, _)| *key);
        for subscriptions in found.chunk_by(|a, b| a.0 == b.0) {
            self.deliver(message, subscriptions);
        }
        found.clear();
        self.found = found;
    }

    /// The next member of a group, those with a connection first.
    fn whose_turn(
        &self,
        members: &[(SessionKey, Options)],
        turn: &Cell<usize>,
    ) -> Option<(SessionKey, Options)> {
        let start = turn.get() % members.len().max(1);
        turn.set(start + 1);
        let (before, from) = members.split_at_checked(start)?;
        let in_turn = || from.iter().chain(before);
        let connected = |(key, _): &&(SessionKey, Options)| {
            let session = self.sessions.get(key);
            session.is_some_and(|session| session.attachment.is_some())
        };
        in_turn()
            .find(connected)
            .or_else(|| in_turn().next())
            .copied()
    }

    fn deliver(&mut self, message: &Arc<Message>, subscriptions: &[(SessionKey, Options)]) {
        let all = || subscriptions.iter().map(|(_, options)| options);
        let Some(&(key, _)) = subscriptions.first() else {
            return;
        };
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let wanted = all().map(|options| options.qos).max().unwrap_or_default();
        let qos = message.qos.min(wanted);
        if qos == Qos::AtMostOnce && session.attachment.is_none() {
            return;
        }
        let weight = message.weight_bytes();
        if session.queued() >= self.bounds.queue_messages_max
            || session.bytes + weight > self.bounds.queue_bytes_max
            || self.figures.queued_bytes + weight > self.bounds.queues_bytes_max
        {
            self.figures.dropped_full += 1;
            return;
        }
        self.figures.queued_bytes += weight;
        let retain = message.retain && all().any(|options| options.retain_as_published);
        let ids = all().filter_map(|options| options.id).collect();
        session.push(
            Delivery::new(message.clone(), qos, retain, ids),
            &mut self.changes,
        );
        session.wake();
    }
}
