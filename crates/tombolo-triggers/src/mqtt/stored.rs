//! How messages and sessions are stored: the records, their keys, and what a change writes.

mod reading;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tombolo_store::{KeyValue, StoreError, Write};

use super::changes::{Change, What};
use super::message::{Message, Properties, Qos};
use super::session::{Delivery, StillToGet};
use super::switch::SessionKey;
use super::topic::Selection;

pub use self::reading::{Reading, StoredState};

/// The form of what is stored; another one is passed over.
const VERSION: u8 = 1;
/// Keys that are read, or deleted, at once.
const PAGE: usize = 1000;

/// One moment by both clocks: times are kept by the wall's, since the other one begins with the process.
#[derive(Clone, Copy)]
pub struct Moment {
    pub now: Instant,
    pub wall_ms: u64,
}

impl Moment {
    pub fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            now: Instant::now(),
            wall_ms: milliseconds(since.unwrap_or_default()),
        }
    }

    fn to_wall_ms(self, at: Instant) -> u64 {
        let left = at.saturating_duration_since(self.now);
        self.wall_ms.saturating_add(milliseconds(left))
    }

    fn left(self, wall_ms: u64) -> Duration {
        Duration::from_millis(wall_ms.saturating_sub(self.wall_ms))
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reads all records of a store in the order of their keys; without a value what is damaged.
pub fn read_all(
    memory: &KeyValue,
    mut found: impl FnMut(String, Option<Bytes>),
) -> Result<(), StoreError> {
    let mut after: Option<String> = None;
    loop {
        let keys = memory.keys(after.as_deref(), PAGE)?;
        let Some(last) = keys.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        for key in keys {
            let value = match memory.get(&key) {
                Err(StoreError::Damaged(_)) => None,
                value => value?,
            };
            found(key, value);
        }
    }
}

pub async fn delete_all(memory: &KeyValue, keys: &[String]) -> Result<(), StoreError> {
    let delete = |key: &String| Write::Delete { key: key.clone() };
    for some in keys.chunks(PAGE) {
        memory.write(some.iter().map(delete).collect()).await?;
    }
    Ok(())
}

/// A message as it is stored. Its topic is told elsewhere.
#[derive(Serialize, Deserialize)]
pub struct StoredMessage {
    qos: u8,
    payload: Vec<u8>,
    content_type: Option<String>,
    text: Option<bool>,
    response_topic: Option<String>,
    correlation: Option<Vec<u8>>,
    user: Vec<(String, String)>,
    expires_wall_ms: Option<u64>,
}

impl StoredMessage {
    pub fn of(message: &Message, moment: Moment) -> Self {
        let properties = &message.properties;
        let user = properties.user.iter();
        Self {
            qos: message.qos as u8,
            payload: message.payload.to_vec(),
            content_type: properties.content_type.as_deref().map(str::to_owned),
            text: properties.text,
            response_topic: properties.response_topic.as_deref().map(str::to_owned),
            correlation: properties.correlation.as_deref().map(<[u8]>::to_vec),
            user: user
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
            expires_wall_ms: message.expires.map(|at| moment.to_wall_ms(at)),
        }
    }

    pub fn into_message(self, topic: &str, retain: bool, moment: Moment) -> Message {
        let left = self.expires_wall_ms.map(|at| moment.left(at));
        let user = self.user.into_iter();
        Message {
            topic: topic.into(),
            payload: self.payload.into(),
            qos: qos(self.qos),
            retain,
            expires: left.and_then(|left| moment.now.checked_add(left)),
            properties: Properties {
                content_type: self.content_type.map(Arc::from),
                text: self.text,
                response_topic: self.response_topic.map(Arc::from),
                correlation: self.correlation.map(Bytes::from),
                user: user
                    .map(|(name, value)| (name.into(), value.into()))
                    .collect(),
            },
        }
    }
}

fn qos(stored: u8) -> Qos {
    match stored {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        _ => Qos::ExactlyOnce,
    }
}

pub fn encode(stored: &impl Serialize) -> Bytes {
    // It fails only for lack of memory, which nobody survives.
    postcard::to_extend(stored, vec![VERSION])
        .unwrap_or_default()
        .into()
}

pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).ok(),
        _ => None,
    }
}

#[derive(Serialize, Deserialize)]
struct StoredSession {
    client: String,
    user: Option<String>,
    expiry_ms: u64,
    /// None while its client is connected.
    expires_wall_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct StoredSubscription {
    selection: String,
    qos: u8,
    no_local: bool,
    retain_as_published: bool,
    id: Option<u32>,
    retained: StillToGet,
}

#[derive(Serialize, Deserialize)]
struct StoredDelivery {
    topic: String,
    qos: u8,
    retain: bool,
    retained: bool,
    ids: Vec<u32>,
    message: StoredMessage,
}

/// A message that waits, or none where the client has it and only the release of its identifier is missing.
type StoredQueued = Option<StoredDelivery>;

/// The key of a session; all of its other records have longer ones that begin with it.
fn session_key(session: SessionKey) -> String {
    format!("{session:016x}")
}

/// Filters are longer than keys may be.
fn subscription_key(session: SessionKey, selection: &Selection) -> String {
    let hash = blake3::hash(selection.to_string().as_bytes());
    format!("{session:016x}s{}", hash.to_hex())
}

fn delivery_key(session: SessionKey, sequence: u64) -> String {
    format!("{session:016x}m{sequence:016x}")
}

fn received_key(session: SessionKey, packet: u16) -> String {
    format!("{session:016x}r{packet:04x}")
}

impl Change {
    /// What is written for it.
    pub fn writes(&self, moment: Moment, writes: &mut Vec<Write>) {
        let session = self.session;
        let set = |key, value| Write::Set { key, value };
        let delete = |key| Write::Delete { key };
        writes.push(match &self.what {
            What::Set {
                client,
                user,
                expiry,
                expires,
            } => {
                let stored = StoredSession {
                    client: client.to_string(),
                    user: user.as_deref().map(str::to_owned),
                    expiry_ms: milliseconds(*expiry),
                    expires_wall_ms: expires.map(|at| moment.to_wall_ms(at)),
                };
                set(session_key(session), encode(&stored))
            }
            What::Ended {
                selections,
                sequences,
                received,
            } => {
                let selections = selections.iter().map(|one| subscription_key(session, one));
                let sequences = sequences.iter().map(|one| delivery_key(session, *one));
                let received = received.iter().map(|one| received_key(session, *one));
                // The session itself first: what is left without one is dropped when the node starts.
                writes.push(delete(session_key(session)));
                writes.extend(selections.chain(sequences).chain(received).map(delete));
                return;
            }
            What::Subscribed {
                selection,
                options,
                retained,
            } => {
                let stored = StoredSubscription {
                    selection: selection.to_string(),
                    qos: options.qos as u8,
                    no_local: options.no_local,
                    retain_as_published: options.retain_as_published,
                    id: options.id,
                    retained: retained.clone(),
                };
                set(subscription_key(session, selection), encode(&stored))
            }
            What::Unsubscribed(selection) => delete(subscription_key(session, selection)),
            What::Queued(delivery) => set(
                delivery_key(session, delivery.sequence),
                encode(&Some(stored_delivery(delivery, moment))),
            ),
            What::Releasing(sequence) => set(
                delivery_key(session, *sequence),
                encode(&StoredQueued::None),
            ),
            What::Forgotten(sequence) => delete(delivery_key(session, *sequence)),
            What::Received(packet) => set(received_key(session, *packet), encode(&())),
            What::Released(packet) => delete(received_key(session, *packet)),
        });
    }
}

fn stored_delivery(delivery: &Delivery, moment: Moment) -> StoredDelivery {
    StoredDelivery {
        topic: delivery.message.topic.to_string(),
        qos: delivery.qos as u8,
        retain: delivery.retain,
        retained: delivery.message.retain,
        ids: delivery.ids.clone(),
        message: StoredMessage::of(&delivery.message, moment),
    }
}

#[cfg(test)]
mod tests;
