//! One client's session: what waits for it, what it has not acknowledged, and what it has sent with QoS 2. No I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::changes::{Changes, What};
use super::message::{Arrival, Client, Message, Qos};
use super::scan::{Refilled, Room, Scan};
use super::switch::SessionKey;
use super::topic::{Selection, TopicFilter};

/// Packet identifiers: 1 to this.
const PACKETS: u64 = u16::MAX as u64;

/// How a client wants to have what it subscribed to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    pub qos: Qos,
    pub no_local: bool,
    pub retain_as_published: bool,
    /// The subscription identifier of MQTT 5.
    pub id: Option<u32>,
}

/// A message on its way to one client.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub message: Arc<Message>,
    pub qos: Qos,
    pub retain: bool,
    pub ids: Vec<u32>,
    /// Its place among the messages of its session that want an acknowledgement; 0 when it wants none.
    pub sequence: u64,
    /// It must not leave before this change is on the disk; 0 when it may at once.
    pub change: u64,
    /// It may have been sent before the node was started again.
    pub again: bool,
}

impl Delivery {
    pub fn new(message: Arc<Message>, qos: Qos, retain: bool, ids: Vec<u32>) -> Self {
        Self {
            message,
            qos,
            retain,
            ids,
            sequence: 0,
            change: 0,
            again: false,
        }
    }

    fn weight_bytes(&self) -> usize {
        self.message.weight_bytes()
    }
}

/// What the connection has to send.
#[derive(Debug)]
pub enum Outgoing {
    Publish {
        delivery: Delivery,
        packet: Option<u16>,
        again: bool,
    },
    Release(u16),
}

/// A delivery that was sent and not acknowledged; without its message once the client has it and
/// only the release of its packet identifier is missing.
#[derive(Debug)]
struct Unacknowledged {
    sequence: u64,
    delivery: Option<Delivery>,
}

/// The packet identifier of a message: the same after a restart, with nothing written when it is sent.
fn packet(sequence: u64) -> u16 {
    // Below 65,535.
    (sequence % PACKETS) as u16 + 1
}

/// What a subscription has still to get of the retained messages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum StillToGet {
    Nothing,
    Everything,
    /// Those whose topics come after this one.
    After(String),
}

/// What ties a session to the connection that serves it.
#[derive(Clone, Debug, Default)]
pub struct Attachment {
    /// Something waits for the client.
    pub wake: Arc<Notify>,
    /// The connection shall end: another one takes the session over.
    pub kick: CancellationToken,
    /// The connection has ended, and the session is free.
    pub ended: CancellationToken,
}

/// Retained messages by topic.
pub type Retained = BTreeMap<Arc<str>, Arc<Message>>;

/// What `take` did beside filling its list.
#[derive(Debug, Default)]
pub struct Taken {
    pub expired: u64,
    /// Retained messages that are too long for any queue.
    pub full: u64,
    /// Retained messages wait until there is room for them.
    pub starved: bool,
    /// There is more to look at.
    pub more: bool,
}

#[derive(Debug)]
pub struct Session {
    pub key: SessionKey,
    pub client: Arc<str>,
    pub user: Option<Arc<str>>,
    /// It outlives the process, so all that changes is written.
    pub kept: bool,
    pub attachment: Option<Attachment>,
    /// How long the session outlives its connection.
    pub expiry: Duration,
    pub expires: Option<Instant>,
    /// The will of a connection that is gone, and when it is due.
    pub will: Option<(Instant, Arrival)>,
    pub subscriptions: BTreeMap<Selection, Options>,
    /// Packet identifiers of messages with QoS 2 that the client has not released.
    pub received: BTreeSet<u16>,
    /// Bytes of what waits or is unacknowledged.
    pub bytes: usize,
    queue: VecDeque<Delivery>,
    pub(super) scans: VecDeque<Scan>,
    /// In the order of their sequence, which all of them have before those that wait.
    unacknowledged: VecDeque<Unacknowledged>,
    /// How many of the unacknowledged this connection has seen.
    sent: usize,
    window: usize,
    last_sequence: u64,
}

impl Session {
    pub fn new(key: SessionKey, client: Arc<str>, user: Option<Arc<str>>) -> Self {
        Self {
            key,
            client,
            user,
            kept: false,
            attachment: None,
            expiry: Duration::ZERO,
            expires: None,
            will: None,
            subscriptions: BTreeMap::new(),
            received: BTreeSet::new(),
            bytes: 0,
            queue: VecDeque::new(),
            scans: VecDeque::new(),
            unacknowledged: VecDeque::new(),
            sent: 0,
            window: 0,
            last_sequence: 0,
        }
    }

    /// A connection serves the session from now on; what is unacknowledged is sent once more.
    pub fn attach(
        &mut self,
        client: &Client,
        expiry: Duration,
        window: u16,
        changes: &mut Changes,
    ) -> Attachment {
        let kept = changes.are_kept() && !expiry.is_zero();
        if self.kept && !kept {
            // It lives no longer than this connection.
            changes.push(self.key, self.ended());
        }
        self.kept = kept;
        self.user.clone_from(&client.user);
        self.expiry = expiry;
        self.expires = None;
        self.will = None;
        self.sent = 0;
        self.window = usize::from(window.max(1));
        self.note_set(changes);
        self.attachment.insert(Attachment::default()).clone()
    }

    /// Has written what is changed, if the session is kept.
    pub fn note(&self, changes: &mut Changes, what: impl FnOnce() -> What) {
        if self.kept {
            changes.push(self.key, what());
        }
    }

    pub fn note_set(&self, changes: &mut Changes) {
        self.note(changes, || What::Set {
            client: self.client.clone(),
            user: self.user.clone(),
            expiry: self.expiry,
            expires: self.expires,
        });
    }

    pub fn note_subscription(&self, selection: &Selection, changes: &mut Changes) {
        if let Some(options) = self.subscriptions.get(selection) {
            self.note(changes, || What::Subscribed {
                selection: selection.clone(),
                options: *options,
                retained: self.still_to_get(selection),
            });
        }
    }

    /// What ends with the session.
    pub fn ended(&self) -> What {
        let waiting = self.queue.iter().map(|delivery| delivery.sequence);
        let unacknowledged = self.unacknowledged.iter().map(|one| one.sequence);
        let sequences = unacknowledged.chain(waiting);
        What::Ended {
            selections: self.subscriptions.keys().cloned().collect(),
            sequences: sequences.filter(|sequence| *sequence > 0).collect(),
            received: self.received.iter().copied().collect(),
        }
    }

    /// When something is to be done about a session without a connection.
    pub fn due(&self) -> impl Iterator<Item = Instant> + use<> {
        let will = self.will.as_ref().map(|(due, _)| *due);
        self.expires.into_iter().chain(will)
    }

    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    pub fn wake(&self) {
        if let Some(attachment) = &self.attachment {
            attachment.wake.notify_one();
        }
    }

    /// Puts a delivery at the end of the queue.
    pub fn push(&mut self, mut delivery: Delivery, changes: &mut Changes) {
        self.bytes += delivery.weight_bytes();
        if delivery.qos != Qos::AtMostOnce {
            self.last_sequence += 1;
            delivery.sequence = self.last_sequence;
            if self.kept {
                delivery.change = changes.number();
                changes.push(self.key, What::Queued(delivery.clone()));
            }
        }
        self.queue.push_back(delivery);
    }

    /// Puts back what was on the disk, in the order of its sequence: a message, or none where only the release of
    /// its identifier is missing. What stands before such a one was sent before it.
    pub fn restore(&mut self, sequence: u64, delivery: Option<Delivery>) {
        self.last_sequence = sequence;
        self.bytes += delivery.as_ref().map_or(0, Delivery::weight_bytes);
        match delivery {
            Some(delivery) => self.queue.push_back(delivery),
            None => {
                let sent = self.queue.drain(..).map(|delivery| Unacknowledged {
                    sequence: delivery.sequence,
                    delivery: Some(delivery),
                });
                self.unacknowledged.extend(sent);
                self.unacknowledged.push_back(Unacknowledged {
                    sequence,
                    delivery: None,
                });
            }
        }
    }

    /// Moves what may be sent now to `out`, about `bytes` of it.
    pub fn take(
        &mut self,
        now: Instant,
        bytes: usize,
        (retained, room): (&Retained, Room),
        changes: &mut Changes,
        out: &mut Vec<Outgoing>,
    ) -> Taken {
        let mut taken = Taken::default();
        let mut left = bytes;
        self.send_again(&mut left, out);
        while left > 0 {
            if self.queue.is_empty() {
                match self.refill(now, (retained, room), changes, &mut taken) {
                    Refilled::Nothing => break,
                    Refilled::Some => {}
                    Refilled::Full => {
                        taken.starved = true;
                        break;
                    }
                }
            }
            let Some(next) = self.queue.front() else {
                taken.more = !self.scans.is_empty();
                break;
            };
            let expired = next.message.is_expired(now);
            let is_known = next.again && next.qos == Qos::ExactlyOnce;
            let sends = !expired || is_known;
            if sends && next.qos != Qos::AtMostOnce && !self.has_window(next.sequence) {
                break;
            }
            let Some(delivery) = self.queue.pop_front() else {
                break;
            };
            if !expired {
                left = left.saturating_sub(delivery.weight_bytes());
                out.push(self.send(delivery));
                continue;
            }
            taken.expired += 1;
            self.bytes -= delivery.weight_bytes();
            if is_known {
                // The client may hold its identifier, and would take another message under it for this one.
                self.note(changes, || What::Releasing(delivery.sequence));
                out.push(Outgoing::Release(packet(delivery.sequence)));
                self.sent_now(delivery.sequence, None);
            } else if delivery.sequence > 0 {
                self.note(changes, || What::Forgotten(delivery.sequence));
            }
        }
        taken.more |= left == 0;
        taken
    }

    /// Whether one more message may be unacknowledged, and none has the identifier of this one.
    fn has_window(&self, sequence: u64) -> bool {
        let oldest = self.unacknowledged.front().map(|one| one.sequence);
        self.unacknowledged.len() < self.window
            && oldest.is_none_or(|oldest| sequence - oldest < PACKETS)
    }

    fn send(&mut self, delivery: Delivery) -> Outgoing {
        if delivery.qos == Qos::AtMostOnce {
            self.bytes -= delivery.weight_bytes();
            return Outgoing::Publish {
                delivery,
                packet: None,
                again: false,
            };
        }
        self.sent_now(delivery.sequence, Some(delivery.clone()));
        Outgoing::Publish {
            packet: Some(packet(delivery.sequence)),
            again: delivery.again,
            delivery,
        }
    }

    fn sent_now(&mut self, sequence: u64, delivery: Option<Delivery>) {
        self.unacknowledged
            .push_back(Unacknowledged { sequence, delivery });
        self.sent = self.unacknowledged.len();
    }

    /// Sends what an earlier connection was sent; there may be more of it than this client takes at once.
    fn send_again(&mut self, left: &mut usize, out: &mut Vec<Outgoing>) {
        while *left > 0
            && self.sent < self.window
            && let Some(waiting) = self.unacknowledged.get(self.sent)
        {
            self.sent += 1;
            let packet = packet(waiting.sequence);
            out.push(match &waiting.delivery {
                Some(delivery) => {
                    *left = left.saturating_sub(delivery.weight_bytes());
                    Outgoing::Publish {
                        delivery: delivery.clone(),
                        packet: Some(packet),
                        again: true,
                    }
                }
                None => Outgoing::Release(packet),
            });
        }
    }

    fn position(&self, wanted: u16) -> Option<usize> {
        let mut waiting = self.unacknowledged.iter();
        waiting.position(|one| packet(one.sequence) == wanted)
    }

    /// The client has a message and knows it for good (PUBACK, PUBCOMP, or it refused it).
    pub fn forget(&mut self, packet: u16, changes: &mut Changes) -> usize {
        let Some(index) = self.position(packet) else {
            return 0;
        };
        if index < self.sent {
            self.sent -= 1;
        }
        let Some(removed) = self.unacknowledged.remove(index) else {
            return 0;
        };
        self.note(changes, || What::Forgotten(removed.sequence));
        self.free(removed.delivery)
    }

    /// The client has a message of QoS 2 (PUBREC). None when there is no such message.
    pub fn received_by_client(&mut self, packet: u16, changes: &mut Changes) -> Option<usize> {
        let index = self.position(packet)?;
        let found = self.unacknowledged.get_mut(index)?;
        let (sequence, delivery) = (found.sequence, found.delivery.take());
        if delivery.is_some() {
            self.note(changes, || What::Releasing(sequence));
        }
        Some(self.free(delivery))
    }

    fn free(&mut self, delivery: Option<Delivery>) -> usize {
        let bytes = delivery.map_or(0, |delivery| delivery.weight_bytes());
        self.bytes -= bytes;
        bytes
    }

    /// The subscription is gone, and so is what it was still to get of the retained messages.
    pub fn stop_scan(&mut self, filter: &TopicFilter) {
        self.scans.retain(|scan| scan.filter != *filter);
    }
}

#[cfg(test)]
mod tests;
