//! Who is connected and what waits for whom: the broker without its connections. No I/O.

mod restoring;
mod retaining;
mod routing;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::routing::{Subscribers, Target};
use super::changes::{Changes, What};
use super::config::MqttBounds;
use super::figures::MqttFigures;
use super::filters::Filters;
use super::message::{Arrival, Client};
use super::scan::Room;
use super::session::{Attachment, Options, Outgoing, Retained, Session};

/// Names a session for as long as it lives; one that is kept, beyond restarts.
pub type SessionKey = u64;

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
    /// There are as many sessions as allowed, or the disk cannot keep up with them.
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
    /// Sessions whose retained messages wait for room, which others may make.
    starved: BTreeSet<SessionKey>,
    /// Kept between messages, so that a message costs no allocation here.
    found: Vec<(SessionKey, Options)>,
    /// What is to be written of the sessions that are kept.
    pub changes: Changes,
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
            starved: BTreeSet::new(),
            found: Vec::new(),
            changes: Changes::default(),
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
        if self.changes.is_full() && !hello.expiry.is_zero() {
            return Welcome::Busy;
        }
        let mut will = None;
        if let Some(&key) = self.keys.get(&hello.client.id)
            && let Some(session) = self.sessions.get(&key)
        {
            if session.user != hello.client.user {
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
        let Client { id, user, .. } = &*hello.client;
        self.sessions
            .insert(key, Session::new(key, id.clone(), user.clone()));
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
                    attachment: session.attach(&hello.client, expiry, window, &mut self.changes),
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
            session.note_set(&mut self.changes);
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
        self.changes.seal();
        due
    }

    /// Ends sessions whose time is over; returns the wills that are due.
    pub fn tick(&mut self, now: Instant) -> Vec<Arrival> {
        for key in std::mem::take(&mut self.starved) {
            if let Some(session) = self.sessions.get(&key) {
                session.wake();
            }
        }
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
        self.changes.seal();
        wills
    }

    /// Removes a session and all that belongs to it; returns a will that was not yet due.
    fn end(&mut self, key: SessionKey) -> Option<Arrival> {
        let mut session = self.sessions.remove(&key)?;
        session.note(&mut self.changes, || session.ended());
        self.keys.remove(&session.client);
        self.figures.queued_bytes -= session.bytes;
        for due in session.due() {
            self.timers.remove(&(due, key));
        }
        for selection in std::mem::take(&mut session.subscriptions).into_keys() {
            self.remove_filter(key, &selection);
        }
        session.will.map(|(_, arrival)| arrival)
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
        let others = self.figures.queued_bytes - before;
        let room = Room {
            messages_max: self.bounds.queue_messages_max,
            own_bytes_max: self.bounds.queue_bytes_max,
            bytes_max: self.bounds.queues_bytes_max.saturating_sub(others),
        };
        let what = (&self.retained, room);
        let taken = session.take(now, bytes, what, &mut self.changes, out);
        if taken.starved {
            self.starved.insert(key);
        }
        self.changes.seal();
        // What came of the retained messages was added, what was sent or expired was freed.
        self.figures.queued_bytes = self.figures.queued_bytes + session.bytes - before;
        self.figures.dropped_expired += taken.expired;
        self.figures.dropped_full += taken.full;
        let published = |one: &&Outgoing| matches!(one, Outgoing::Publish { .. });
        self.figures.delivered += out.iter().filter(published).count() as u64;
        taken.more
    }

    /// The client has a message for good; more may be sent.
    pub fn forget(&mut self, key: SessionKey, packet: u16) {
        if let Some(session) = self.sessions.get_mut(&key) {
            self.figures.queued_bytes -= session.forget(packet, &mut self.changes);
            self.changes.seal();
        }
    }

    /// The client has a message of QoS 2; false when there is no such message.
    pub fn received_by_client(&mut self, key: SessionKey, packet: u16) -> bool {
        let freed = self
            .sessions
            .get_mut(&key)
            .and_then(|session| session.received_by_client(packet, &mut self.changes));
        self.figures.queued_bytes -= freed.unwrap_or(0);
        freed.is_some()
    }

    /// The client sent a message of QoS 2, which was accepted.
    pub fn receive(&mut self, key: SessionKey, packet: u16) {
        if let Some(session) = self.sessions.get_mut(&key)
            && session.received.insert(packet)
        {
            session.note(&mut self.changes, || What::Received(packet));
        }
    }

    /// Whether the client sent such a message and does not know yet that it was accepted.
    pub fn has_received(&self, key: SessionKey, packet: u16) -> bool {
        let session = self.sessions.get(&key);
        session.is_some_and(|session| session.received.contains(&packet))
    }

    /// Messages of QoS 2 that the client has not released.
    pub fn unreleased(&self, key: SessionKey) -> usize {
        self.sessions
            .get(&key)
            .map_or(0, |session| session.received.len())
    }

    /// The client knows that its message was accepted; false when there is no such message.
    pub fn release(&mut self, key: SessionKey, packet: u16) -> bool {
        let Some(session) = self.sessions.get_mut(&key) else {
            return false;
        };
        let known = session.received.remove(&packet);
        if known {
            session.note(&mut self.changes, || What::Released(packet));
        }
        known
    }

    /// What an answer waits for that speaks of what was just done, under the same lock: the number of the change,
    /// 0 for none.
    pub fn seal(&mut self) -> u64 {
        self.changes.seal()
    }
}

#[cfg(test)]
mod cuts;
#[cfg(test)]
mod history;
