//! Messages as the broker holds them: one copy, shared by everybody whom they go to.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

/// How surely a message is delivered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Qos {
    #[default]
    AtMostOnce,
    AtLeastOnce,
    ExactlyOnce,
}

/// What a publisher said about a message beyond its topic (MQTT 5, 3.3.2.3).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Properties {
    pub content_type: Option<Arc<str>>,
    /// The payload is UTF-8 text by the publisher's word, which was checked.
    pub text: Option<bool>,
    pub response_topic: Option<Arc<str>>,
    pub correlation: Option<Bytes>,
    /// User properties, in the publisher's order.
    pub user: Vec<(Arc<str>, Arc<str>)>,
}

/// A published message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    pub topic: Arc<str>,
    pub payload: Bytes,
    pub qos: Qos,
    pub retain: bool,
    /// After this nobody wants it any more.
    pub expires: Option<Instant>,
    pub properties: Properties,
}

/// What a message costs beyond the bytes that its publisher sent.
const OVERHEAD_BYTES: usize = 256;

impl Message {
    /// What the message is reckoned with in every bound.
    pub fn weight_bytes(&self) -> usize {
        let properties = &self.properties;
        let user = properties.user.iter();
        OVERHEAD_BYTES
            + self.topic.len()
            + self.payload.len()
            + properties
                .content_type
                .as_ref()
                .map_or(0, |text| text.len())
            + properties
                .response_topic
                .as_ref()
                .map_or(0, |text| text.len())
            + properties.correlation.as_ref().map_or(0, Bytes::len)
            + user.map(|(k, v)| k.len() + v.len() + 64).sum::<usize>()
    }

    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// A connected client, as it identified itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Client {
    pub id: Arc<str>,
    /// The user whose password it knew, or the first DNS name of its certificate.
    pub user: Option<Arc<str>>,
    pub address: SocketAddr,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.id)
    }
}

/// A message on its way in.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Who published it; nobody when a function did.
    pub client: Option<Arc<Client>>,
    pub message: Arc<Message>,
}

/// Why a message is not taken. Its publisher is told (MQTT 5), or gets no acknowledgement and its
/// connection is closed (MQTT 3.1.1, which knows no other way), and keeps the message.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum Refusal {
    /// There is no room now.
    #[error("there is no room for the message")]
    Full,
    /// It will never be taken.
    #[error("the message is not valid")]
    Invalid,
    #[error("the message could not be stored")]
    Failed,
}

/// The future of an acceptance.
pub type AcceptFuture = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>>;

/// Who decides about each message before its publisher gets an acknowledgement: the journal.
///
/// `accept` is called in the order in which a client published, and its future is polled at once
/// and beside those of the messages that follow. The acknowledgement and the delivery to
/// subscribers wait for it. A future is never dropped before its end, except when the broker's own
/// `run` is dropped: a client that went away does not undo what it published.
pub trait Accept: Send + Sync + 'static {
    /// Takes a message; once the future says `Ok`, the message may be acknowledged.
    fn accept(&self, arrival: Arrival) -> AcceptFuture;
}

impl<F, A> Accept for F
where
    F: Fn(Arrival) -> A + Send + Sync + 'static,
    A: Future<Output = Result<(), Refusal>> + Send + 'static,
{
    fn accept(&self, arrival: Arrival) -> AcceptFuture {
        Box::pin(self(arrival))
    }
}
