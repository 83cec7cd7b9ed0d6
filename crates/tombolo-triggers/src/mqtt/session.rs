//! One client's session: what waits for it, what it has not acknowledged, and what it has sent with QoS 2. No I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::message::{Arrival, Client, Message, Qos};
use super::topic::{Selection, TopicFilter};

/// Retained messages that are looked at in one go, so that a subscription to `#` holds nobody up.
const SCAN_STEP: usize = 256;
/// Retained messages that are put into the queue in one go, so that new ones find room in it.
const SCAN_FOUND: usize = 16;

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
    packet: u16,
    delivery: Option<Delivery>,
}

/// Retained messages that a subscription has still to get.
#[derive(Debug)]
struct Scan {
    filter: TopicFilter,
    after: Option<Arc<str>>,
    options: Options,
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
    /// There is more to look at.
    pub more: bool,
}

#[derive(Debug)]
pub struct Session {
    pub client: Arc<Client>,
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
    scans: VecDeque<Scan>,
    unacknowledged: VecDeque<Unacknowledged>,
    /// How many of the unacknowledged this connection has seen.
    sent: usize,
    window: usize,
    last_packet: u16,
}

impl Session {
    pub fn new(client: Arc<Client>) -> Self {
        Self {
            client,
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
            last_packet: 0,
        }
    }

    /// A connection serves the session from now on; what is unacknowledged is sent once more.
    pub fn attach(&mut self, client: Arc<Client>, expiry: Duration, window: u16) -> Attachment {
        self.client = client;
        self.expiry = expiry;
        self.expires = None;
        self.will = None;
        self.sent = 0;
        self.window = usize::from(window.max(1));
        self.attachment.insert(Attachment::default()).clone()
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
    pub fn push(&mut self, delivery: Delivery) {
        self.bytes += delivery.message.weight_bytes();
        self.queue.push_back(delivery);
        self.wake();
    }

    /// The retained messages that the filter selects shall be sent, a few at a time.
    pub fn scan(&mut self, filter: TopicFilter, options: Options) {
        self.scans.retain(|scan| scan.filter != filter);
        self.scans.push_back(Scan {
            filter,
            after: None,
            options,
        });
        self.wake();
    }

    /// The subscription is gone, and so is what it was still to get of the retained messages.
    pub fn stop_scan(&mut self, filter: &TopicFilter) {
        self.scans.retain(|scan| scan.filter != *filter);
    }

    /// Moves what may be sent now to `out`, about `bytes` of it.
    pub fn take(
        &mut self,
        now: Instant,
        bytes: usize,
        retained: &Retained,
        out: &mut Vec<Outgoing>,
    ) -> Taken {
        let mut taken = Taken::default();
        let mut left = bytes;
        self.send_again(&mut left, out);
        while left > 0 {
            if self.queue.is_empty() && !self.refill(now, retained) {
                break;
            }
            let Some(next) = self.queue.front() else {
                taken.more = !self.scans.is_empty();
                break;
            };
            let expired = next.message.is_expired(now);
            if !expired && next.qos != Qos::AtMostOnce && self.unacknowledged.len() >= self.window {
                break;
            }
            let Some(delivery) = self.queue.pop_front() else {
                break;
            };
            if expired {
                taken.expired += 1;
                self.bytes -= delivery.message.weight_bytes();
                continue;
            }
            left = left.saturating_sub(delivery.message.weight_bytes());
            out.push(self.send(delivery));
        }
        taken.more |= left == 0;
        taken
    }

    fn send(&mut self, delivery: Delivery) -> Outgoing {
        if delivery.qos == Qos::AtMostOnce {
            self.bytes -= delivery.message.weight_bytes();
            return Outgoing::Publish {
                delivery,
                packet: None,
                again: false,
            };
        }
        let packet = self.next_packet();
        self.unacknowledged.push_back(Unacknowledged {
            packet,
            delivery: Some(delivery.clone()),
        });
        self.sent = self.unacknowledged.len();
        Outgoing::Publish {
            delivery,
            packet: Some(packet),
            again: false,
        }
    }

    fn send_again(&mut self, left: &mut usize, out: &mut Vec<Outgoing>) {
        while *left > 0
            && let Some(waiting) = self.unacknowledged.get(self.sent)
        {
            self.sent += 1;
            out.push(match &waiting.delivery {
                Some(delivery) => {
                    *left = left.saturating_sub(delivery.message.weight_bytes());
                    Outgoing::Publish {
                        delivery: delivery.clone(),
                        packet: Some(waiting.packet),
                        again: true,
                    }
                }
                None => Outgoing::Release(waiting.packet),
            });
        }
    }

    /// Looks at some retained messages; false when there are none left to look at.
    fn refill(&mut self, now: Instant, retained: &Retained) -> bool {
        let Some(mut scan) = self.scans.pop_front() else {
            return false;
        };
        let prefix = scan.filter.prefix();
        let start = match &scan.after {
            Some(after) => Bound::Excluded(&**after),
            None => Bound::Included(prefix),
        };
        let (mut last, mut found, mut whole) = (None, 0, true);
        let following = retained.range::<str, _>((start, Bound::Unbounded));
        for (looked_at, (topic, message)) in following.enumerate() {
            if !topic.starts_with(prefix) {
                break;
            }
            if looked_at == SCAN_STEP || found == SCAN_FOUND {
                whole = false;
                break;
            }
            last = Some(topic.clone());
            if scan.filter.matches(topic) && !message.is_expired(now) {
                found += 1;
                self.bytes += message.weight_bytes();
                self.queue.push_back(Delivery {
                    message: message.clone(),
                    qos: message.qos.min(scan.options.qos),
                    retain: true,
                    ids: scan.options.id.into_iter().collect(),
                });
            }
        }
        if !whole {
            scan.after = last;
            self.scans.push_front(scan);
        }
        true
    }

    fn next_packet(&mut self) -> u16 {
        loop {
            self.last_packet = self.last_packet.checked_add(1).unwrap_or(1);
            let packet = self.last_packet;
            // There are never as many as there are identifiers: the window is smaller.
            if !self.unacknowledged.iter().any(|one| one.packet == packet) {
                return packet;
            }
        }
    }

    /// The client has a message and knows it for good (PUBACK, PUBCOMP, or it refused it).
    pub fn forget(&mut self, packet: u16) -> usize {
        let found = self
            .unacknowledged
            .iter()
            .position(|one| one.packet == packet);
        let Some(index) = found else {
            return 0;
        };
        if index < self.sent {
            self.sent -= 1;
        }
        let removed = self.unacknowledged.remove(index);
        self.free(removed.and_then(|one| one.delivery))
    }

    /// The client has a message of QoS 2 (PUBREC). None when there is no such message.
    pub fn received_by_client(&mut self, packet: u16) -> Option<usize> {
        let mut waiting = self.unacknowledged.iter_mut();
        let found = waiting.find(|one| one.packet == packet)?;
        let delivery = found.delivery.take();
        Some(self.free(delivery))
    }

    fn free(&mut self, delivery: Option<Delivery>) -> usize {
        let bytes = delivery.map_or(0, |delivery| delivery.message.weight_bytes());
        self.bytes -= bytes;
        bytes
    }
}
