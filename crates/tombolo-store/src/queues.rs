//! The queues in memory: the state of each, where the contents are, and what of the log is still needed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use tombolo_core::{Moment, QueueId};

use crate::log::{Place, Segments};
use crate::queue::{Durability, Entry, Operation, Queue, QueueSettings, Reason, WhenFull};
use crate::stored::{Attempt, Stored, decode_history};
use crate::{StoreError, remembered};

/// Events that one look for what lives in a segment passes by.
const LOOKED_AT: usize = 1 << 14;
/// Dropped events that a queue lists: the last.
pub const DROPS_MAX: usize = 1000;

/// An event that a queue dropped, unread or unanswered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Its number in the queue.
    pub sequence: u64,
    /// Its source, and
    pub source: String,
    /// its id; both are empty when its content was damaged.
    pub id: String,
    /// Why it was dropped.
    pub reason: Reason,
    /// When.
    pub at: Moment,
}

/// Where content is.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Log(Place),
    Memory(Bytes),
}

impl Content {
    /// None for what is in memory.
    pub(crate) fn place(&self) -> Option<Place> {
        match self {
            Self::Log(place) => Some(*place),
            Self::Memory(_) => None,
        }
    }
}

/// A change of the queues, decided and written, to be applied.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Of a queue. With the content that came with it: the event of an `Enqueued`, the history of a
    /// `Retried`.
    Queue {
        slot: usize,
        operation: Operation<Place>,
        content: Option<Content>,
    },
    /// A history was written again.
    HistoryMoved {
        slot: usize,
        sequence: u64,
        place: Place,
    },
    /// An event is to be listed as dropped.
    Dropped { slot: usize, dropped: Dropped },
    /// An event's content was damaged.
    Lost { slot: usize },
}

impl Effect {
    pub(crate) fn slot(&self) -> usize {
        let (Self::Queue { slot, .. }
        | Self::HistoryMoved { slot, .. }
        | Self::Dropped { slot, .. }
        | Self::Lost { slot }) = self;
        *slot
    }
}

/// One queue and what belongs to it.
pub(crate) struct Slot {
    pub(crate) id: QueueId,
    /// The id as the log writes it.
    pub(crate) name: Arc<str>,
    pub(crate) queue: Queue<Place>,
    /// Whether the node uses it; one that it does not use was found in the log.
    pub(crate) configured: bool,
    /// Whether it was configured itself, and not as the grave of another.
    has_own_settings: bool,
    /// Contents of events that are not in the log.
    memory: HashMap<u64, Bytes>,
    /// Histories of events that were tried.
    histories: HashMap<u64, Content>,
    pub(crate) drops: VecDeque<Dropped>,
    /// Events that damage of the log has taken, at least.
    pub(crate) lost: u64,
    /// What is remembered of the ids that it accepted.
    pub(crate) remembered: remembered::Figures,
    ready: watch::Sender<()>,
}

impl Slot {
    fn new(id: QueueId) -> Self {
        Self {
            name: id.to_string().into(),
            queue: Queue::new(QueueSettings {
                // Nobody may be refused the grave of a queue that was not configured.
                full: if id.queue.is_dead() {
                    WhenFull::DropOldest
                } else {
                    WhenFull::Refuse
                },
                // How long and how much it keeps is not known before it is configured.
                age_ms: u64::MAX,
                bytes: u64::MAX,
                events: u64::MAX,
                ..QueueSettings::default()
            }),
            id,
            configured: false,
            has_own_settings: false,
            memory: HashMap::new(),
            histories: HashMap::new(),
            drops: VecDeque::new(),
            lost: 0,
            remembered: remembered::Figures::default(),
            ready: watch::Sender::new(()),
        }
    }

    /// Whether a new event goes to the log.
    pub(crate) fn is_durable(&self) -> bool {
        self.queue.settings().durability == Durability::Fsync
    }

    /// Whether the log knows an event, so that it has to be told what becomes of it.
    pub(crate) fn is_logged(&self, sequence: u64) -> bool {
        !self.memory.contains_key(&sequence)
    }

    /// Where an event's content is.
    pub(crate) fn content(&self, entry: &Entry<Place>) -> Content {
        match self.memory.get(&entry.sequence) {
            Some(bytes) => Content::Memory(bytes.clone()),
            None => Content::Log(entry.place),
        }
    }

    /// Where an event's history is, if it has one.
    pub(crate) fn history(&self, sequence: u64) -> Option<&Content> {
        self.histories.get(&sequence)
    }

    /// Changes when something in the queue does.
    pub(crate) fn ready(&self) -> watch::Receiver<()> {
        self.ready.subscribe()
    }

    /// Wakes those who wait for the queue.
    pub(crate) fn wake(&self) {
        self.ready.send_replace(());
    }

    fn drop_listed(&mut self, dropped: Dropped) {
        if self.drops.len() == DROPS_MAX {
            self.drops.pop_front();
        }
        self.drops.push_back(dropped);
    }
}

/// What of a segment is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Live {
    contents: u64,
    bytes: u64,
}

/// All queues.
#[derive(Default)]
pub(crate) struct Queues {
    slots: Vec<Slot>,
    by_id: HashMap<QueueId, usize>,
    /// By the first position of the segment. Counted once the log is open.
    live: BTreeMap<u64, Live>,
    segments: Option<Segments>,
}

impl Queues {
    pub(crate) fn find(&self, id: &QueueId) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn get(&self, slot: usize) -> Option<&Slot> {
        self.slots.get(slot)
    }

    pub(crate) fn get_mut(&mut self, slot: usize) -> Option<&mut Slot> {
        self.slots.get_mut(slot)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.slots.iter().enumerate()
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut()
    }

    /// The queue of that name, made if there is none. Its index never changes.
    pub(crate) fn make(&mut self, id: &QueueId) -> usize {
        if let Some(slot) = self.find(id) {
            return slot;
        }
        let slot = self.slots.len();
        self.slots.push(Slot::new(id.clone()));
        self.by_id.insert(id.clone(), slot);
        slot
    }

    /// Makes a queue one that is used, and the queue of its dead letters with it. That one keeps as
    /// much for as long, unless it is configured itself.
    pub(crate) fn configure(&mut self, id: &QueueId, settings: QueueSettings) -> usize {
        let index = self.make(id);
        let grave = self.make(&id.dead());
        if let Some(grave) = self.slots.get_mut(grave) {
            grave.configured = true;
            if !grave.has_own_settings {
                grave.queue.configure(QueueSettings {
                    age_ms: settings.age_ms,
                    bytes: settings.bytes,
                    events: settings.events,
                    ..grave.queue.settings().clone()
                });
            }
        }
        if let Some(slot) = self.slots.get_mut(index) {
            slot.queue.configure(settings);
            slot.configured = true;
            slot.has_own_settings = true;
            slot.wake();
        }
        index
    }

    /// Makes a queue one that is not used; what is in it stays.
    pub(crate) fn retire(&mut self, id: &QueueId) {
        if let Some(slot) = self.find(id).and_then(|slot| self.slots.get_mut(slot)) {
            slot.configured = false;
            slot.wake();
        }
    }

    /// Applies what is written.
    pub(crate) fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Queue {
                slot,
                operation,
                content,
            } => self.apply_operation(slot, operation, content),
            Effect::HistoryMoved {
                slot,
                sequence,
                place,
            } => self.set_history(slot, sequence, Some(Content::Log(place))),
            Effect::Dropped { slot, dropped } => {
                if let Some(slot) = self.slots.get_mut(slot) {
                    slot.drop_listed(dropped);
                }
            }
            Effect::Lost { slot } => {
                if let Some(slot) = self.slots.get_mut(slot) {
                    slot.lost += 1;
                }
            }
        }
    }

    fn apply_operation(
        &mut self,
        index: usize,
        operation: Operation<Place>,
        content: Option<Content>,
    ) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let before = slot.queue.apply(operation);
        match operation {
            Operation::Enqueued(entry) => {
                if let Some(Content::Memory(bytes)) = content {
                    slot.memory.insert(entry.sequence, bytes);
                } else {
                    self.count(entry.place, true);
                    if let Some(before) = before {
                        self.count(before.place, false);
                    }
                }
            }
            Operation::Removed { sequence, .. } => {
                let in_memory = slot.memory.remove(&sequence).is_some();
                if let Some(before) = before.filter(|_| !in_memory) {
                    self.count(before.place, false);
                }
                self.set_history(index, sequence, None);
            }
            Operation::Retried { sequence, .. } => {
                // In replay the event may be one that the log no longer has.
                if slot.queue.entry(sequence).is_some() {
                    self.set_history(index, sequence, content);
                }
            }
        }
    }

    fn set_history(&mut self, slot: usize, sequence: u64, content: Option<Content>) {
        let Some(slot) = self.slots.get_mut(slot) else {
            return;
        };
        let place = match &content {
            Some(Content::Log(place)) => Some(*place),
            _ => None,
        };
        let before = match content {
            Some(content) => slot.histories.insert(sequence, content),
            None => slot.histories.remove(&sequence),
        };
        if let Some(place) = place {
            self.count(place, true);
        }
        if let Some(Content::Log(before)) = before {
            self.count(before, false);
        }
    }

    fn count(&mut self, place: Place, more: bool) {
        let Some(segments) = &self.segments else {
            return;
        };
        let live = self.live.entry(segments.segment_of(place)).or_default();
        let bytes = u64::from(place.bytes);
        if more {
            live.contents += 1;
            live.bytes += bytes;
        } else {
            live.contents = live.contents.saturating_sub(1);
            live.bytes = live.bytes.saturating_sub(bytes);
        }
    }

    /// Ends recovery: from now on what lives in each segment is counted.
    pub(crate) fn count_live(&mut self, segments: Segments) {
        self.segments = Some(segments);
        let mut places = Vec::new();
        for index in 0..self.slots.len() {
            let mut from = 0;
            while let Some(slot) = self.slots.get(index) {
                let listed = slot.queue.list(from, 4096);
                let Some(last) = listed.last() else { break };
                from = last.entry.sequence + 1;
                places.extend(listed.iter().map(|listed| listed.entry.place));
                places.drain(..).for_each(|place| self.count(place, true));
            }
            let histories = self.slots.get(index).map(|slot| slot.histories.values());
            places.extend(
                histories
                    .into_iter()
                    .flatten()
                    .filter_map(|history| match history {
                        Content::Log(place) => Some(*place),
                        Content::Memory(_) => None,
                    }),
            );
            places.drain(..).for_each(|place| self.count(place, true));
        }
    }

    /// Events whose contents are in a range of the log, about so many bytes of them, looking at
    /// no more than [`LOOKED_AT`] events from a slot and a sequence on; and where to go on.
    #[expect(
        clippy::type_complexity,
        reason = "a list and a cursor, for one caller"
    )]
    pub(crate) fn between(
        &self,
        range: Range<u64>,
        (mut slot, mut from): (usize, u64),
        bytes: u64,
    ) -> (Vec<(usize, Entry<Place>)>, Option<(usize, u64)>) {
        let (mut found, mut found_bytes, mut looked_at) = (Vec::new(), 0, 0);
        while let Some(one) = self.slots.get(slot) {
            let listed = one.queue.list(from, 1024);
            if listed.is_empty() {
                (slot, from) = (slot + 1, 0);
            }
            for listed in listed {
                if found_bytes >= bytes || looked_at >= LOOKED_AT {
                    return (found, Some((slot, from)));
                }
                let entry = listed.entry;
                (looked_at, from) = (looked_at + 1, entry.sequence + 1);
                if one.is_logged(entry.sequence) && range.contains(&entry.place.position()) {
                    found_bytes += u64::from(entry.place.bytes);
                    found.push((slot, entry));
                }
            }
        }
        (found, None)
    }

    /// Contents that live in the segment that begins there.
    pub(crate) fn live_in(&self, first: u64) -> u64 {
        self.live.get(&first).map_or(0, |live| live.contents)
    }

    /// Their bytes.
    pub(crate) fn live_bytes_in(&self, first: u64) -> u64 {
        self.live.get(&first).map_or(0, |live| live.bytes)
    }

    /// Bytes of all contents that live in the log.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live.values().map(|live| live.bytes).sum()
    }

    /// Forgets a segment that was dropped.
    pub(crate) fn segment_dropped(&mut self, first: u64) {
        self.live.remove(&first);
    }
}

/// The stored event at a place; `None` when it is damaged.
pub(crate) fn read_stored(
    segments: &Segments,
    content: &Content,
) -> Result<Option<Stored>, StoreError> {
    Ok(read(segments, content)?.and_then(|bytes| Stored::decode(&bytes)))
}

/// The history at a place; empty when it is damaged.
pub(crate) fn read_history(
    segments: &Segments,
    content: Option<&Content>,
) -> Result<Vec<Attempt>, StoreError> {
    let Some(content) = content else {
        return Ok(Vec::new());
    };
    let bytes = read(segments, content)?;
    Ok(bytes.map_or_else(Vec::new, |bytes| decode_history(&bytes)))
}

fn read(segments: &Segments, content: &Content) -> Result<Option<Bytes>, StoreError> {
    match content {
        Content::Log(place) => Ok(segments.read(*place)?.map(Bytes::from)),
        Content::Memory(bytes) => Ok(Some(bytes.clone())),
    }
}
