//! Messages of one client on their way to the journal: accepted side by side, answered in order.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use tokio::task::coop::{Unconstrained, unconstrained};

use super::encode::{Goodbye, Verdict};
use super::message::{AcceptFuture, Message, Qos};
use super::wire::Publish;

/// Topic aliases that a client may use.
pub const ALIASES_MAX: u16 = 32;
/// Bytes that are on their way at once; with more, the client is read from no further.
const ARRIVING_BYTES_MAX: usize = 2 << 20;

/// A message, its packet identifier, and what was decided about it.
pub struct Arrived {
    pub message: Arc<Message>,
    pub packet: Option<u16>,
    pub verdict: Verdict,
}

enum Decision {
    Made(Verdict),
    /// Outside of Tokio's budget: a future that had used it up would be polled again only after those behind it,
    /// and the journal takes messages in the order in which their futures reach it.
    Pending(Unconstrained<AcceptFuture>),
}

struct Arriving {
    message: Arc<Message>,
    packet: Option<u16>,
    decision: Decision,
}

impl Future for Arriving {
    type Output = Arrived;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Arrived> {
        let verdict = match &mut self.decision {
            Decision::Made(verdict) => *verdict,
            Decision::Pending(accept) => match ready!(Pin::new(accept).poll(cx)) {
                Ok(()) => Verdict::Accepted,
                Err(refusal) => Verdict::Refused(refusal),
            },
        };
        Poll::Ready(Arrived {
            message: self.message.clone(),
            packet: self.packet,
            verdict,
        })
    }
}

/// The messages of a connection that are on their way.
pub struct Inbound {
    arriving: FuturesOrdered<Arriving>,
    bytes: usize,
    messages_max: usize,
    /// Those with QoS 2, which a client must not send twice without coming back in between.
    exactly_once: BTreeSet<u16>,
    aliases: HashMap<u16, Arc<str>>,
}

impl Inbound {
    pub fn new(messages_max: u16) -> Self {
        Self {
            arriving: FuturesOrdered::new(),
            bytes: 0,
            messages_max: usize::from(messages_max.max(1)),
            exactly_once: BTreeSet::new(),
            aliases: HashMap::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.arriving.is_empty()
    }

    pub fn has_room(&self) -> bool {
        self.arriving.len() < self.messages_max && self.bytes < ARRIVING_BYTES_MAX
    }

    pub fn len(&self) -> usize {
        self.arriving.len()
    }

    /// Messages of QoS 2 that are on their way.
    pub fn exactly_once(&self) -> usize {
        self.exactly_once.len()
    }

    /// Whether this message of QoS 2 is on its way already.
    pub fn holds(&self, packet: u16) -> bool {
        self.exactly_once.contains(&packet)
    }

    /// Puts the topic in which an alias stands for, and remembers new aliases.
    pub fn resolve(&mut self, publish: &mut Publish) -> Result<(), Goodbye> {
        let Some(alias) = publish.alias else {
            return Ok(());
        };
        if alias == 0 || alias > ALIASES_MAX {
            return Err(Goodbye::Alias);
        }
        if publish.message.topic.is_empty() {
            let topic = self.aliases.get(&alias).ok_or(Goodbye::Protocol)?;
            publish.message.topic = topic.clone();
        } else {
            self.aliases.insert(alias, publish.message.topic.clone());
        }
        Ok(())
    }

    /// A message that the journal decides about.
    pub fn push(&mut self, message: Arc<Message>, packet: Option<u16>, accept: AcceptFuture) {
        self.add(message, packet, Decision::Pending(unconstrained(accept)));
    }

    /// A message about which everything is said.
    pub fn push_decided(&mut self, message: Arc<Message>, packet: Option<u16>, verdict: Verdict) {
        self.add(message, packet, Decision::Made(verdict));
    }

    fn add(&mut self, message: Arc<Message>, packet: Option<u16>, decision: Decision) {
        self.bytes += message.weight_bytes();
        if message.qos == Qos::ExactlyOnce {
            self.exactly_once.extend(packet);
        }
        self.arriving.push_back(Arriving {
            message,
            packet,
            decision,
        });
    }

    /// The next message in the client's order, once its verdict is there. Cancel safe.
    pub async fn next(&mut self) -> Option<Arrived> {
        let arrived = self.arriving.next().await?;
        self.bytes -= arrived.message.weight_bytes();
        if let Some(packet) = arrived.packet {
            self.exactly_once.remove(&packet);
        }
        Some(arrived)
    }
}
