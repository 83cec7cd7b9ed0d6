//! Sessions put together from their records, one after the other.

use std::sync::Arc;
use std::time::Duration;

use super::{Moment, StoredQueued, StoredSession, StoredSubscription, decode, qos};
use crate::mqtt::session::{Delivery, Options, StillToGet};
use crate::mqtt::switch::SessionKey;
use crate::mqtt::topic::Selection;

/// A session as it was on the disk.
#[derive(Debug)]
pub struct StoredState {
    pub key: SessionKey,
    pub client: Arc<str>,
    pub user: Option<Arc<str>>,
    pub expiry: Duration,
    /// None if its client was connected.
    pub left: Option<Duration>,
    pub subscriptions: Vec<(Selection, Options, StillToGet)>,
    /// By sequence; without a message where only the release of its identifier is missing.
    pub deliveries: Vec<(u64, Option<Delivery>)>,
    pub received: Vec<u16>,
}

/// Puts sessions together from their records.
pub struct Reading {
    moment: Moment,
    pub sessions: Vec<StoredState>,
    /// What belongs to no session, is damaged, or has outlived its time.
    pub gone: Vec<String>,
    /// The session whose records come now.
    current: Option<SessionKey>,
}

impl Reading {
    pub fn new(moment: Moment) -> Self {
        Self {
            moment,
            sessions: Vec::new(),
            gone: Vec::new(),
            current: None,
        }
    }

    /// The next record in the order of the keys, with its value if that could be read.
    pub fn record(&mut self, key: String, value: Option<&[u8]>) {
        let number = key
            .get(..16)
            .and_then(|number| SessionKey::from_str_radix(number, 16).ok());
        let rest = key.get(16..).unwrap_or_default();
        let kept = match number {
            Some(number) if rest.is_empty() => self.session(number, value),
            Some(number) if self.current == Some(number) => self.part(rest, value),
            _ => false,
        };
        if !kept {
            self.gone.push(key);
        }
    }

    fn session(&mut self, key: SessionKey, value: Option<&[u8]>) -> bool {
        self.current = None;
        let Some(stored) = value.and_then(decode::<StoredSession>) else {
            tracing::warn!(session = key, "a damaged mqtt session is dropped");
            return false;
        };
        let left = stored.expires_wall_ms.map(|at| self.moment.left(at));
        if left.is_some_and(|left| left.is_zero()) {
            return false;
        }
        self.current = Some(key);
        self.sessions.push(StoredState {
            key,
            client: stored.client.into(),
            user: stored.user.map(Arc::from),
            expiry: Duration::from_millis(stored.expiry_ms),
            left,
            subscriptions: Vec::new(),
            deliveries: Vec::new(),
            received: Vec::new(),
        });
        true
    }

    fn part(&mut self, rest: &str, value: Option<&[u8]>) -> bool {
        let moment = self.moment;
        let Some(session) = self.sessions.last_mut() else {
            return false;
        };
        let read = value.and_then(|value| session.part(rest, value, moment));
        if read.is_none() {
            let client = &session.client;
            tracing::warn!(%client, record = rest, "a damaged record of an mqtt session is dropped");
        }
        read.is_some()
    }
}

impl StoredState {
    /// None when it cannot be understood.
    fn part(&mut self, rest: &str, value: &[u8], moment: Moment) -> Option<()> {
        let (kind, number) = rest.split_at_checked(1)?;
        match kind {
            "s" => {
                let stored: StoredSubscription = decode(value)?;
                let options = Options {
                    qos: qos(stored.qos),
                    no_local: stored.no_local,
                    retain_as_published: stored.retain_as_published,
                    id: stored.id,
                };
                let selection = stored.selection.parse().ok()?;
                self.subscriptions
                    .push((selection, options, stored.retained));
            }
            "m" => {
                let sequence = u64::from_str_radix(number, 16).ok()?;
                let delivery = decode::<StoredQueued>(value)?.map(|stored| {
                    let message =
                        stored
                            .message
                            .into_message(&stored.topic, stored.retained, moment);
                    Delivery {
                        sequence,
                        again: true,
                        ..Delivery::new(
                            Arc::new(message),
                            qos(stored.qos),
                            stored.retain,
                            stored.ids,
                        )
                    }
                });
                self.deliveries.push((sequence, delivery));
            }
            "r" => self.received.push(u16::from_str_radix(number, 16).ok()?),
            _ => return None,
        }
        Some(())
    }
}
