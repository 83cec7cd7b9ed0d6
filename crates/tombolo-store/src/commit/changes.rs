//! Changes of key-value stores as events.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use tombolo_core::event::Event;
use tombolo_core::{Moment, QueueId};

use crate::transaction::Changes;

/// The type of the events.
pub const CHANGED: &str = "tombolo.keyvalue.changed";

/// A store whose changes become events.
#[derive(Debug)]
pub(super) struct Watched {
    /// The prefix that keys of the store have in the engine.
    store: Vec<u8>,
    prefix: String,
    source: String,
    pub(super) queue: QueueId,
}

#[derive(Serialize)]
struct Changed<'a> {
    key: &'a str,
    operation: &'a str,
    old: Option<String>,
    new: Option<String>,
}

impl Watched {
    pub(super) fn new(changes: Changes) -> Self {
        Self {
            store: crate::key_value::prefix(&changes.app, &changes.store),
            source: format!("/{}/keyvalue/{}", changes.app, changes.store),
            prefix: changes.prefix,
            queue: changes.queue,
        }
    }

    /// Whether the change of a key (with its store's prefix) is to be told.
    pub(super) fn covers(&self, key: &[u8]) -> bool {
        key.strip_prefix(self.store.as_slice())
            .is_some_and(|key| key.starts_with(self.prefix.as_bytes()))
    }

    pub(super) fn event(
        &self,
        id: &str,
        key: &[u8],
        old: Option<&Bytes>,
        new: Option<&Bytes>,
        now: Moment,
    ) -> Event {
        let key = key.strip_prefix(self.store.as_slice()).unwrap_or(key);
        let key = String::from_utf8_lossy(key);
        let encode = |value: &Bytes| STANDARD.encode(value);
        let data = serde_json::json!(Changed {
            key: &key,
            operation: if new.is_some() { "put" } else { "delete" },
            old: old.map(encode),
            new: new.map(encode),
        });
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(now.wall_ms);
        let mut event = Event::new(id, self.source.clone(), CHANGED)
            .with_data("application/json", data.to_string());
        event.time = Some(humantime::format_rfc3339_millis(time).to_string());
        // Not every key may be a subject; the data has all of them.
        event.subject = Some(key.into_owned());
        if event.check().is_err() {
            event.subject = None;
        }
        event
    }
}
