//! Who is connected, who subscribed to what, and what is retained: the broker without its connections. No I/O.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::config::MqttBounds;
use super::filters::Filters;
use super::message::{Arrival, Client, Message, Qos};
use super::session::{Attachment, Delivery, Options, Outgoing, Retained, Session};
use super::topic::Selection;

/// Names a session for as long as it lives.
pub type SessionKey = u64;

/// Who is behind a filter.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Target {
    Session(SessionKey),
    Group(Arc<str>),
}

#[derive(Debug)]
enum Subscribers {
    One(Options),
    /// The members of a group take turns.
    Shared {
        members: Vec<(SessionKey, Options)>,
        turn: Cell<usize>,
    },
}

/// A client that wants to connect.
#[derive(Debug)]
pub struct Hello {
    pub client: Arc<Client>,
    /// It wants nothing of an earlier session.
    pub clean: bool,
    pub expiry: Duration,
    /// How many unacknowledged messages it takes.
    pub window: u16,
}

/// What becomes of a client that wants to connect.
#[derive(Debug)]
pub enum Welcome {
    /// Another connection serves the session; it was told to end. Ask again after this.
    Wait(CancellationToken),
    /// The session belongs to another user.
    OtherUser,
    /// There are as many sessions as allowed.
    Busy,
    Attached {
        key: SessionKey,
        present: bool,
        attachment: Attachment,
        /// The will of the session that ended here.
        will: Option<Arrival>,
    },
}

/// When retained messages are sent for a subscription (MQTT 5, 3.8.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetainedWanted {
    Always,
    WhenNew,
    Never,
}

/// What the broker counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MqttFigures {
    /// Clients that are connected now.
    pub connections: usize,
    /// Connections that were closed at once, because there were as many as allowed.
    pub connections_refused: u64,
    /// Sessions, with a connection or without.
    pub sessions: usize,
    pub subscriptions: usize,
    pub retained: usize,
    pub retained_bytes: usize,
    /// Messages that wait for their clients or for their acknowledgement, in bytes.
    pub queued_bytes: usize,
    /// Messages that clients and functions published and that were accepted.
    pub accepted: u64,
    /// Messages that were not accepted.
    pub refused: u64,
    /// Messages that clients may not publish.
    pub forbidden: u64,
    /// Copies sent to clients.
    pub delivered: u64,
    /// Copies that found no room in a client's queue.
    pub dropped_full: u64,
    /// Copies whose time was over before their client took them.
    pub dropped_expired: u64,
    /// Copies that are longer than their client takes.
    pub dropped_long: u64,
    /// Messages that were not retained, because there was no room.
    pub unretained: u64,
}

#[derive(Debug)]
pub struct Switch {
    bounds: MqttBounds,
    sessions: HashMap<SessionKey, Session>,
    keys: HashMap<Arc<str>, SessionKey>,
    last_key: SessionKey,
    filters: Filters<Target, Subscribers>,
    retained: Retained,
    retained_swept: Option<Instant>,
    /// When sessions without a connection, or their wills, are due.
    timers: BTreeSet<(Instant, SessionKey)>,
    /// Kept between messages, so that a message costs no allocation here.
    found: Vec<(SessionKey, Options)>,
    pub figures: MqttFigures,
}

impl Switch {
    pub fn new(bounds: MqttBounds) -> Self {
        Self {
            bounds,
            sessions: HashMap::new(),
            keys: HashMap::new(),
            last_key: 0,
            filters: Filters::default(),
            retained: Retained::new(),
            retained_swept: None,
            timers: BTreeSet::new(),
            found: Vec::new(),
            figures: MqttFigures::default(),
        }
    }

    pub fn figures(&self) -> MqttFigures {
        MqttFigures {
            sessions: self.sessions.len(),
            retained: self.retained.len(),
            ..self.figures
        }
    }

    /// Finds or makes the session of a client that connects.
    pub fn connect(&mut self, hello: &Hello) -> Welcome {
        let mut will = None;
        if let Some(&key) = self.keys.get(&hello.client.id)
            && let Some(session) = self.sessions.get(&key)
        {
            if session.client.user != hello.client.user {
                return Welcome::OtherUser;
            }
            if let Some(attachment) = &session.attachment {
                attachment.kick.cancel();
                return Welcome::Wait(attachment.ended.clone());
            }
            if !hello.clean {
                return self.attach(key, hello, true, None);
            }
            will = self.end(key);
        }
        if self.sessions.len() >= self.bounds.sessions_max {
            return Welcome::Busy;
        }
        self.last_key += 1;
        let key = self.last_key;
        self.keys.insert(hello.client.id.clone(), key);
        self.sessions
            .insert(key, Session::new(hello.client.clone()));
        self.attach(key, hello, false, will)
    }

    fn attach(
        &mut self,
        key: SessionKey,
        hello: &Hello,
        present: bool,
        will: Option<Arrival>,
    ) -> Welcome {
        let expiry = hello.expiry.min(self.bounds.session_expiry_max);
        let window = hello.window.min(self.bounds.unacknowledged_max);
        match self.sessions.get_mut(&key) {
            None => Welcome::Busy,
            Some(session) => {
                for due in session.due() {
                    self.timers.remove(&(due, key));
                }
                Welcome::Attached {
                    key,
                    present,
                    attachment: session.attach(hello.client.clone(), expiry, window),
                    will,
                }
            }
        }
    }

    /// The connection is gone. Returns the will when it is due at once.
    pub fn detach(
        &mut self,
        key: SessionKey,
        now: Instant,
        expiry: Option<Duration>,
        will: Option<(Duration, Arrival)>,
    ) -> Option<Arrival> {
        let session = self.sessions.get_mut(&key)?;
        let attachment = session.attachment.take();
        // A session that was to end with its connection is not prolonged (MQTT 5, 3.14.2.2.2).
        if let Some(expiry) = expiry
            && !session.expiry.is_zero()
        {
            session.expiry = expiry.min(self.bounds.session_expiry_max);
        }
        let keep = session.expiry;
        let mut due = None;
        if keep.is_zero() {
            due = will.map(|(_, arrival)| arrival);
            self.end(key);
        } else {
            session.expires = Some(now + keep);
            self.timers.insert((now + keep, key));
            match will {
                Some((delay, arrival)) if !delay.is_zero() => {
                    let at = now + delay.min(keep);
                    session.will = Some((at, arrival));
                    self.timers.insert((at, key));
                }
                will => due = will.map(|(_, arrival)| arrival),
            }
        }
        if let Some(attachment) = attachment {
            attachment.ended.cancel();
        }
        due
    }

    /// Ends sessions whose time is over; returns the wills that are due.
    pub fn tick(&mut self, now: Instant) -> Vec<Arrival> {
        let mut wills = Vec::new();
        while let Some(&(due, key)) = self.timers.first()
            && due <= now
        {
            self.timers.pop_first();
            let Some(session) = self.sessions.get_mut(&key) else {
                continue;
            };
            if session.will.as_ref().is_some_and(|(at, _)| *at <= now) {
                wills.extend(session.will.take().map(|(_, arrival)| arrival));
            }
            if session.expires.is_some_and(|at| at <= now) {
                wills.extend(self.end(key));
            }
        }
        wills
    }

    /// Removes a session and all that belongs to it; returns a will that was not yet due.
    fn end(&mut self, key: SessionKey) -> Option<Arrival> {
        let mut session = self.sessions.remove(&key)?;
        self.keys.remove(&session.client.id);
        self.figures.queued_bytes -= session.bytes;
        for due in session.due() {
            self.timers.remove(&(due, key));
        }
        for selection in std::mem::take(&mut session.subscriptions).into_keys() {
            self.remove_filter(key, &selection);
        }
        session.will.map(|(_, arrival)| arrival)
    }

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
            session.scan(selection.filter.clone(), options);
        }
        self.figures.subscriptions += usize::from(!known);
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
        session.subscriptions.insert(selection, options);
        true
    }

    /// Removes a subscription; false when there is none.
    pub fn unsubscribe(&mut self, key: SessionKey, selection: &Selection) -> bool {
        let Some(session) = self.sessions.get_mut(&key) else {
            return false;
        };
        session.stop_scan(&selection.filter);
        let known = session.subscriptions.remove(selection).is_some();
        if known {
            self.remove_filter(key, selection);
        }
        known
    }

    fn remove_filter(&mut self, key: SessionKey, selection: &Selection) {
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
        session.push(Delivery {
            message: message.clone(),
            qos,
            retain: message.retain && all().any(|options| options.retain_as_published),
            ids: all().filter_map(|options| options.id).collect(),
        });
    }

    /// Retains a message in place of the one before, or forgets that one, as far as there is room.
    pub fn retain(&mut self, message: &Arc<Message>, now: Instant) {
        if let Some(old) = self.retained.remove(&message.topic) {
            self.figures.retained_bytes -= old.weight_bytes();
        }
        if message.payload.is_empty() {
            return;
        }
        if !self.has_room_to_retain(message) {
            self.sweep(now);
        }
        if self.has_room_to_retain(message) {
            self.figures.retained_bytes += message.weight_bytes();
            self.retained.insert(message.topic.clone(), message.clone());
        } else {
            self.figures.unretained += 1;
        }
    }

    fn has_room_to_retain(&self, message: &Message) -> bool {
        self.retained.len() < self.bounds.retained_max
            && self.figures.retained_bytes + message.weight_bytes()
                <= self.bounds.retained_bytes_max
    }

    /// Forgets retained messages whose time is over; once in a while, because it looks at all.
    fn sweep(&mut self, now: Instant) {
        let lately = self
            .retained_swept
            .is_some_and(|at| now < at + Duration::from_secs(10));
        if lately {
            return;
        }
        self.retained_swept = Some(now);
        let freed = &mut self.figures.retained_bytes;
        self.retained.retain(|_, message| {
            let stays = !message.is_expired(now);
            if !stays {
                *freed -= message.weight_bytes();
            }
            stays
        });
    }

    /// What the client may be sent now, about `bytes` of it; true when there is more.
    pub fn take(
        &mut self,
        key: SessionKey,
        now: Instant,
        bytes: usize,
        out: &mut Vec<Outgoing>,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&key) else {
            return false;
        };
        let before = session.bytes;
        let taken = session.take(now, bytes, &self.retained, out);
        // What came of the retained messages was added, what was sent or expired was freed.
        self.figures.queued_bytes = self.figures.queued_bytes + session.bytes - before;
        self.figures.dropped_expired += taken.expired;
        let published = |one: &&Outgoing| matches!(one, Outgoing::Publish { .. });
        self.figures.delivered += out.iter().filter(published).count() as u64;
        taken.more
    }

    /// The client has a message for good; more may be sent.
    pub fn forget(&mut self, key: SessionKey, packet: u16) {
        if let Some(session) = self.sessions.get_mut(&key) {
            self.figures.queued_bytes -= session.forget(packet);
        }
    }

    /// The client has a message of QoS 2; false when there is no such message.
    pub fn received_by_client(&mut self, key: SessionKey, packet: u16) -> bool {
        let freed = self
            .sessions
            .get_mut(&key)
            .and_then(|s| s.received_by_client(packet));
        self.figures.queued_bytes -= freed.unwrap_or(0);
        freed.is_some()
    }

    /// The session of a connection.
    pub fn session(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.sessions.get_mut(&key)
    }
}

#[cfg(test)]
mod history;
