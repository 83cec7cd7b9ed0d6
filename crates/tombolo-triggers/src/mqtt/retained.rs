//! Retained messages on disk: written before they are acknowledged, read again when the node starts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use tombolo_store::{KeyValue, StoreError, Write};

use super::config::MqttBounds;
use super::message::{Accept, AcceptFuture, Arrival, Message, Refusal};
use super::stored::{Moment, StoredMessage, decode, delete_all, encode, read_all};

/// What is on disk: the weight and the end of each.
#[derive(Default)]
struct Held {
    messages: HashMap<Arc<str>, (usize, Option<Instant>)>,
    bytes: usize,
}

impl Held {
    fn remove(&mut self, topic: &str) -> bool {
        let removed = self.messages.remove(topic);
        self.bytes -= removed.map_or(0, |(weight, _)| weight);
        removed.is_some()
    }

    fn insert(&mut self, message: &Message) {
        self.remove(&message.topic);
        let weight = message.weight_bytes();
        self.bytes += weight;
        let entry = (weight, message.expires);
        self.messages.insert(message.topic.clone(), entry);
    }

    /// Forgets those whose time is over, and names them.
    fn sweep(&mut self, now: Instant) -> Vec<Arc<str>> {
        let over = |(_, (_, expires)): &(&Arc<str>, &(usize, Option<Instant>))| {
            expires.is_some_and(|expires| expires <= now)
        };
        let gone = self.messages.iter().filter(over);
        let gone: Vec<Arc<str>> = gone.map(|(topic, _)| topic.clone()).collect();
        for topic in &gone {
            self.remove(topic);
        }
        gone
    }
}

/// Has others accept a message, and writes it to the disk if it is to be retained.
pub struct Retaining {
    accept: Arc<dyn Accept>,
    disk: Arc<Disk>,
}

struct Disk {
    memory: KeyValue,
    messages_max: usize,
    bytes_max: usize,
    held: Mutex<Held>,
}

impl Retaining {
    /// Reads what is on disk; returns it beside what keeps it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn open(
        accept: Arc<dyn Accept>,
        memory: KeyValue,
        bounds: &MqttBounds,
    ) -> Result<(Self, Vec<Message>), StoreError> {
        let moment = Moment::new();
        let (mut held, mut messages, mut gone) = (Held::default(), Vec::new(), Vec::new());
        read_all(&memory, |topic, value| {
            let stored: Option<StoredMessage> = value.as_deref().and_then(decode);
            if stored.is_none() {
                tracing::warn!(%topic, "a damaged retained mqtt message is dropped");
            }
            let message = stored.map(|one| one.into_message(&topic, true, moment));
            match message.filter(|message| !message.is_expired(moment.now)) {
                Some(message) => {
                    held.insert(&message);
                    messages.push(message);
                }
                None => gone.push(topic),
            }
        })?;
        if let Err(error) = delete_all(&memory, &gone).await {
            // It is passed over at every start, until it can be deleted.
            tracing::warn!(%error, "retained mqtt messages that are over or damaged cannot be deleted");
        }
        let disk = Disk {
            memory,
            messages_max: bounds.retained_max,
            bytes_max: bounds.retained_bytes_max,
            held: Mutex::new(held),
        };
        let disk = Arc::new(disk);
        Ok((Self { accept, disk }, messages))
    }
}

impl Disk {
    /// What is to be written for a message that was accepted.
    fn writes(&self, message: &Message) -> Vec<Write> {
        let moment = Moment::new();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let key = message.topic.to_string();
        let was = held.remove(&message.topic);
        let mut writes = Vec::new();
        if !message.payload.is_empty() {
            let weight = message.weight_bytes();
            let fits = |held: &Held| {
                held.messages.len() < self.messages_max && held.bytes + weight <= self.bytes_max
            };
            if !fits(&held) {
                let gone = held.sweep(moment.now).into_iter();
                writes.extend(gone.map(|topic| Write::Delete {
                    key: topic.to_string(),
                }));
            }
            if fits(&held) {
                let value = encode(&StoredMessage::of(message, moment));
                held.insert(message);
                writes.push(Write::Set { key, value });
                return writes;
            }
        }
        if was {
            writes.push(Write::Delete { key });
        }
        writes
    }

    async fn keep(&self, message: &Message) -> Result<(), Refusal> {
        let writes = self.writes(message);
        if writes.is_empty() {
            return Ok(());
        }
        self.memory.write(writes).await.map_err(|error| {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            // The disk may still have what was to be deleted: the next try has to say so again.
            let topic = message.topic.clone();
            held.messages.entry(topic).or_insert((0, None));
            tracing::warn!(topic = %message.topic, %error, "a retained mqtt message cannot be written");
            match error {
                StoreError::Full => Refusal::Full,
                _ => Refusal::Failed,
            }
        })
    }
}

impl Accept for Retaining {
    fn accept(&self, arrival: Arrival) -> AcceptFuture {
        if !arrival.message.retain {
            return self.accept.accept(arrival);
        }
        let (message, disk) = (arrival.message.clone(), self.disk.clone());
        let accepting = self.accept.accept(arrival);
        Box::pin(async move {
            accepting.await?;
            disk.keep(&message).await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tombolo_store::Store;

    use super::*;
    use crate::mqtt::message::{Properties, Qos};

    fn message(topic: &str, payload: &str) -> Message {
        Message {
            topic: topic.into(),
            payload: payload.to_owned().into(),
            qos: Qos::AtLeastOnce,
            retain: true,
            expires: None,
            properties: Properties {
                content_type: Some("text/plain".into()),
                correlation: Some("c".into()),
                user: vec![("site".into(), "harbour".into())],
                ..Properties::default()
            },
        }
    }

    async fn open(store: &Store, retained_max: usize) -> (Retaining, Vec<Message>) {
        let name = |text: &str| text.parse().unwrap();
        let memory = store.key_value(&name("tombolo"), &name("retained"));
        let accept = |_: Arrival| async { Ok(()) };
        let bounds = MqttBounds {
            retained_max,
            ..MqttBounds::default()
        };
        let opened = Retaining::open(Arc::new(accept), memory, &bounds).await;
        opened.unwrap()
    }

    async fn retain(retaining: &Retaining, message: Message) {
        let arrival = Arrival {
            client: None,
            message: Arc::new(message),
        };
        retaining.accept(arrival).await.unwrap();
    }

    #[tokio::test]
    async fn what_is_retained_is_there_again_until_it_is_replaced_cleared_or_expired() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (retaining, before) = open(&store, 10).await;
        assert!(before.is_empty());
        retain(&retaining, message("a", "old")).await;
        retain(&retaining, message("a", "new")).await;
        retain(&retaining, message("b", "x")).await;
        retain(&retaining, message("b", "")).await;
        let mut brief = message("c", "brief");
        brief.expires = Some(Instant::now());
        retain(&retaining, brief).await;
        let mut lasting = message("d", "lasting");
        lasting.expires = Some(Instant::now() + Duration::from_secs(3600));
        retain(&retaining, lasting).await;
        let mut passing = message("e", "passing");
        passing.retain = false;
        retain(&retaining, passing).await;
        let (_, after) = open(&store, 10).await;
        assert_eq!(after.len(), 2, "{after:?}");
        assert_eq!(after[0], message("a", "new"));
        assert!(after[1].expires.is_some_and(|at| at > Instant::now()));
        store.close().await;
    }

    #[tokio::test]
    async fn the_disk_holds_no_more_than_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (retaining, _) = open(&store, 2).await;
        let mut brief = message("a", "brief");
        brief.expires = Some(Instant::now());
        retain(&retaining, brief).await;
        for topic in ["b", "c", "d"] {
            retain(&retaining, message(topic, "x")).await;
        }
        let (_, after) = open(&store, 2).await;
        let topics: Vec<&str> = after.iter().map(|message| &*message.topic).collect();
        assert_eq!(topics, ["b", "c"]);
        store.close().await;
    }
}
