//! How a session gets the retained messages that a new subscription selects: a few at a time, and on after a restart.

use std::ops::Bound;
use std::sync::Arc;

use tokio::time::Instant;

use super::changes::Changes;
use super::session::{Delivery, Options, Retained, Session, StillToGet, Taken};
use super::topic::{Selection, TopicFilter};

/// Retained messages that are looked at in one go, so that a subscription to `#` holds nobody up.
const STEP: usize = 256;
/// Retained messages that are put into the queue in one go, so that new ones find room in it.
const FOUND: usize = 16;

/// What a session may hold.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub messages_max: usize,
    /// For this session alone.
    pub own_bytes_max: usize,
    /// As far as the other sessions leave room.
    pub bytes_max: usize,
}

/// What came of looking at retained messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refilled {
    /// There are none left to look at.
    Nothing,
    Some,
    /// There is no room for the next one.
    Full,
}

/// Retained messages that a subscription has still to get.
#[derive(Debug)]
pub struct Scan {
    pub filter: TopicFilter,
    after: Option<Arc<str>>,
    options: Options,
}

impl Session {
    /// The retained messages that the filter selects shall be sent, a few at a time.
    pub fn scan(&mut self, filter: TopicFilter, options: Options, retained: &StillToGet) {
        let after = match retained {
            StillToGet::Nothing => return,
            StillToGet::Everything => None,
            StillToGet::After(topic) => Some(topic.as_str().into()),
        };
        self.stop_scan(&filter);
        self.scans.push_back(Scan {
            filter,
            after,
            options,
        });
        self.wake();
    }

    /// What a subscription has still to get; shared ones get nothing that was retained.
    pub fn still_to_get(&self, selection: &Selection) -> StillToGet {
        let own = |scan: &&Scan| selection.group.is_none() && scan.filter == selection.filter;
        match self.scans.iter().find(own).map(|scan| &scan.after) {
            None => StillToGet::Nothing,
            Some(None) => StillToGet::Everything,
            Some(Some(topic)) => StillToGet::After(topic.to_string()),
        }
    }

    /// Looks at some retained messages; what has no room is looked at again later.
    pub fn refill(
        &mut self,
        now: Instant,
        (retained, room): (&Retained, Room),
        changes: &mut Changes,
        taken: &mut Taken,
    ) -> Refilled {
        let Some(mut scan) = self.scans.pop_front() else {
            return Refilled::Nothing;
        };
        let prefix = scan.filter.prefix();
        let start = match &scan.after {
            Some(after) => Bound::Excluded(&**after),
            None => Bound::Included(prefix),
        };
        let (mut last, mut found, mut whole, mut full) = (None, 0, true, false);
        let following = retained.range::<str, _>((start, Bound::Unbounded));
        for (looked_at, (topic, message)) in following.enumerate() {
            if !topic.starts_with(prefix) {
                break;
            }
            if looked_at == STEP || found == FOUND {
                whole = false;
                break;
            }
            if scan.filter.matches(topic) && !message.is_expired(now) {
                let weight = message.weight_bytes();
                // One that is too long for any queue would hold up those behind it for ever.
                let fits_ever = weight <= room.own_bytes_max;
                let bytes_max = room.bytes_max.min(room.own_bytes_max);
                if fits_ever
                    && (self.queued() >= room.messages_max || self.bytes + weight > bytes_max)
                {
                    (whole, full) = (false, true);
                    break;
                }
                if fits_ever {
                    found += 1;
                    let qos = message.qos.min(scan.options.qos);
                    let ids = scan.options.id.into_iter().collect();
                    self.push(Delivery::new(message.clone(), qos, true, ids), changes);
                } else {
                    taken.full += 1;
                }
            }
            last = Some(topic.clone());
        }
        let selection = Selection {
            group: None,
            filter: scan.filter.clone(),
        };
        if !whole {
            scan.after = last.or(scan.after);
            self.scans.push_front(scan);
        }
        if whole || found > 0 {
            // With the messages that were found, so that none of them comes twice.
            self.note_subscription(&selection, changes);
        }
        if full && found == 0 {
            Refilled::Full
        } else {
            Refilled::Some
        }
    }
}
