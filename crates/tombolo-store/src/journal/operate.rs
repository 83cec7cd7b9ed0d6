//! What operators do with queues: figures, listing, looking at events, purging, redriving dead letters.

use tombolo_core::event::Event;
use tombolo_core::{QueueId, TraceContext};

use super::Journal;
use crate::StoreError;
use crate::commit::{Action, Answer};
use crate::queue::{Due, Figures, Standing};
use crate::queues::{Dropped, read_history, read_stored};
use crate::remembered::Figures as Remembered;
use crate::store::Open;
use crate::stored::{Attempt, DeadLetter, Stored};

/// Events that are purged or redriven in one transaction, and their bytes.
const CHUNK: usize = 100;
const CHUNK_BYTES: u64 = 8 << 20;
/// Events that are looked at between two looks at the queue.
const LISTED: usize = 1000;

/// A queue in numbers.
#[derive(Clone, Debug)]
pub struct QueueFigures {
    /// The queue.
    pub queue: QueueId,
    /// Whether an app uses it.
    pub configured: bool,
    /// Events that damage of the disk has taken, at least, as far as the log still tells.
    pub lost: u64,
    /// What is remembered of the ids that it accepted.
    pub remembered: Remembered,
    /// Its state, and what happened since the store was opened.
    pub figures: Figures,
}

/// An event as it is listed.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Its number in the queue.
    pub sequence: u64,
    /// Its bytes.
    pub bytes: u32,
    /// Attempts that failed.
    pub attempts: u16,
    /// From 0, the highest, to 9.
    pub priority: u8,
    /// Where it stands.
    pub standing: Standing,
    /// Until when it waits, if it does.
    pub due: Option<Due>,
    /// When it was published, in the life of the store.
    pub published_lived_ms: u64,
}

/// An event with all that is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Peeked {
    /// The event.
    pub event: Event,
    /// The trace and the span that published it.
    pub trace: Option<TraceContext>,
    /// When it was published, by the wall clock.
    pub published_wall_ms: u64,
    /// Attempts that failed in this queue.
    pub attempts: u16,
    /// The newest of them, the last one last.
    pub history: Vec<Attempt>,
    /// What is told of it if it is a dead letter.
    pub dead: Option<DeadLetter>,
}

/// Which events of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of them.
    All,
    /// The one of this number.
    One(u64),
    /// Those that a filter lets through.
    Matching(EventFilter),
}

/// What an event has to be like. Texts are equal, or begin with what stands before a final `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Its source.
    pub source: Option<String>,
    /// Its type.
    pub kind: Option<String>,
    /// Its subject.
    pub subject: Option<String>,
    /// Published before this, by the wall clock.
    pub published_before_wall_ms: Option<u64>,
}

impl EventFilter {
    fn matches(&self, stored: &Stored) -> bool {
        let event = &stored.event;
        let texts = [
            (&self.source, Some(event.source.as_str())),
            (&self.kind, Some(event.kind.as_str())),
            (&self.subject, event.subject.as_deref()),
        ];
        let before = self.published_before_wall_ms;
        before.is_none_or(|before| stored.published_wall_ms < before)
            && texts.into_iter().all(|(wanted, found)| {
                wanted
                    .as_ref()
                    .is_none_or(|wanted| match wanted.strip_suffix('*') {
                        Some(start) => found.is_some_and(|found| found.starts_with(start)),
                        None => found == Some(wanted.as_str()),
                    })
            })
    }
}

/// The sequence of a selected event, and its bytes.
type Chosen = (u64, u32);

/// Sequences of events in groups for one transaction each.
fn chunks(selected: &[Chosen]) -> Vec<Vec<u64>> {
    let mut chunks: Vec<Vec<u64>> = Vec::new();
    let mut bytes = 0;
    for (sequence, length) in selected {
        bytes += u64::from(*length);
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK && bytes <= CHUNK_BYTES => chunk.push(*sequence),
            _ => {
                bytes = u64::from(*length);
                chunks.push(vec![*sequence]);
            }
        }
    }
    chunks
}

impl Journal {
    /// All queues that there are, those included that no app uses and that have events.
    ///
    /// # Errors
    /// When the store is closed.
    pub fn queues(&self) -> Result<Vec<QueueFigures>, StoreError> {
        let open = self.shared.open()?;
        let now = open.life.now();
        let queues = open.queues();
        let queues = queues.all().map(|(_, slot)| QueueFigures {
            queue: slot.id.clone(),
            configured: slot.configured,
            lost: slot.lost,
            remembered: slot.remembered,
            figures: slot.queue.figures(now),
        });
        let mut queues: Vec<_> = queues.collect();
        queues.retain(|queue| queue.configured || queue.figures.depth > 0 || queue.lost > 0);
        queues.sort_by(|one, other| one.queue.cmp(&other.queue));
        Ok(queues)
    }

    /// One queue in numbers.
    ///
    /// # Errors
    /// [`StoreError::UnknownQueue`], or when the store is closed.
    pub fn figures(&self, queue: &QueueId) -> Result<QueueFigures, StoreError> {
        self.with(queue, |open, slot| QueueFigures {
            queue: slot.id.clone(),
            configured: slot.configured,
            lost: slot.lost,
            remembered: slot.remembered,
            figures: slot.queue.figures(open.life.now()),
        })
    }

    fn with<T>(
        &self,
        queue: &QueueId,
        look: impl FnOnce(&Open, &crate::queues::Slot) -> T,
    ) -> Result<T, StoreError> {
        let open = self.shared.open()?;
        let queues = open.queues();
        let slot = queues.find(queue).and_then(|slot| queues.get(slot));
        let slot = slot.ok_or_else(|| StoreError::UnknownQueue(queue.clone()))?;
        Ok(look(&open, slot))
    }

    /// Up to `max` events by sequence, from the first that is not below `from`; at most 1000.
    ///
    /// # Errors
    /// As [`Journal::figures`].
    pub fn list(&self, queue: &QueueId, from: u64, max: usize) -> Result<Vec<Listed>, StoreError> {
        let listed = self.with(queue, |_, slot| slot.queue.list(from, max.min(LISTED)))?;
        let listed = listed.into_iter().map(|listed| Listed {
            sequence: listed.entry.sequence,
            bytes: listed.entry.bytes,
            attempts: listed.entry.attempts,
            priority: listed.entry.priority,
            standing: listed.standing,
            due: listed.entry.due,
            published_lived_ms: listed.entry.published_lived_ms,
        });
        Ok(listed.collect())
    }

    /// The event of a number, if it is there. It is not handed out by this.
    ///
    /// # Errors
    /// As [`Journal::figures`]; [`StoreError::Damaged`] when its content is.
    pub fn peek(&self, queue: &QueueId, sequence: u64) -> Result<Option<Peeked>, StoreError> {
        let open = self.shared.open()?;
        let mut tried = None;
        loop {
            let found = self.with(queue, |_, slot| {
                let entry = slot.queue.entry(sequence)?;
                let history = slot.history(sequence).cloned();
                Some((entry.attempts, slot.content(&entry), history))
            })?;
            let Some((attempts, content, history)) = found else {
                return Ok(None);
            };
            if let Some(stored) = read_stored(&open.segments, &content)? {
                return Ok(Some(Peeked {
                    event: stored.event,
                    trace: stored.origin.trace,
                    published_wall_ms: stored.published_wall_ms,
                    attempts,
                    history: read_history(&open.segments, history.as_ref())?,
                    dead: stored.dead,
                }));
            }
            // The segment with it may have been dropped meanwhile: then it was written again elsewhere.
            let place = content.place();
            if tried == Some(place) {
                return Err(StoreError::Damaged("an event".into()));
            }
            tried = Some(place);
        }
    }

    /// The last 1000 events that the queue dropped, unread or unanswered.
    ///
    /// # Errors
    /// As [`Journal::figures`].
    pub fn drops(&self, queue: &QueueId) -> Result<Vec<Dropped>, StoreError> {
        self.with(queue, |_, slot| slot.drops.iter().cloned().collect())
    }

    /// Removes events that are not handed out, and says how many; a dry run only counts.
    ///
    /// # Errors
    /// As [`Journal::figures`], or when the disk is full or the store failed. Events that were
    /// purged before stay so.
    pub async fn purge(
        &self,
        queue: &QueueId,
        selection: &Selection,
        dry_run: bool,
    ) -> Result<u64, StoreError> {
        let purge = |chunk| Action::Purge(queue.clone(), chunk);
        self.each_chunk(queue, selection, dry_run, purge).await
    }

    /// Publishes dead letters again in the queues that they came from, and says how many; a dry run
    /// only counts. `queue` is theirs or the one that they came from. They are not taken for
    /// duplicates. Each hundred of them is one transaction.
    ///
    /// # Errors
    /// As [`Journal::figures`]; [`StoreError::QueueFull`] when one of the queues has no room. Those
    /// that were redriven before stay so.
    pub async fn redrive(
        &self,
        queue: &QueueId,
        selection: &Selection,
        dry_run: bool,
    ) -> Result<u64, StoreError> {
        let queue = queue.dead();
        let redrive = |chunk| Action::Redrive(queue.clone(), chunk);
        self.each_chunk(&queue, selection, dry_run, redrive).await
    }

    async fn each_chunk(
        &self,
        queue: &QueueId,
        selection: &Selection,
        dry_run: bool,
        action: impl Fn(Vec<u64>) -> Action,
    ) -> Result<u64, StoreError> {
        // What comes meanwhile is not meant.
        let end = self.with(queue, |_, slot| slot.queue.next_sequence())?;
        let (mut from, mut count) = (0, 0);
        loop {
            let (mut selected, next) = self.select(queue, selection, from)?;
            selected.retain(|(sequence, _)| *sequence < end);
            for chunk in chunks(&selected) {
                if dry_run {
                    count += chunk.len() as u64;
                } else if let Answer::Count(done) =
                    self.shared.writer().ask(action(chunk), 0).await?
                {
                    count += done;
                }
            }
            match next.filter(|next| *next < end) {
                Some(next) => from = next,
                None => return Ok(count),
            }
        }
    }

    /// The selected events among the next of a queue, and where to go on.
    fn select(
        &self,
        queue: &QueueId,
        selection: &Selection,
        from: u64,
    ) -> Result<(Vec<Chosen>, Option<u64>), StoreError> {
        let (from, max) = match selection {
            Selection::One(sequence) => (*sequence, 1),
            Selection::All | Selection::Matching(_) => (from, LISTED),
        };
        let listed = self.with(queue, |_, slot| {
            let listed = slot.queue.list(from, max).into_iter();
            let listed = listed.map(|one| (one.entry, one.standing, slot.content(&one.entry)));
            listed.collect::<Vec<_>>()
        })?;
        let open = self.shared.open()?;
        let next = listed.last().map(|(entry, ..)| entry.sequence + 1);
        let mut selected = Vec::with_capacity(listed.len());
        for (entry, standing, content) in listed {
            let matches = match selection {
                Selection::Matching(filter) => read_stored(&open.segments, &content)?
                    .is_some_and(|stored| filter.matches(&stored)),
                Selection::All => true,
                Selection::One(sequence) => entry.sequence == *sequence,
            };
            if matches && standing != Standing::Leased {
                selected.push((entry.sequence, entry.bytes));
            }
        }
        let more = !matches!(selection, Selection::One(_));
        Ok((selected, next.filter(|_| more)))
    }

    /// Deals with what time did to all queues, those included from which nobody takes. To be called
    /// about once a minute.
    ///
    /// # Errors
    /// When the disk is full, or the store closed or failed.
    pub async fn sweep(&self) -> Result<(), StoreError> {
        let queues: Vec<QueueId> = {
            let open = self.shared.open()?;
            let queues = open.queues();
            queues.all().map(|(_, slot)| slot.id.clone()).collect()
        };
        for queue in queues {
            loop {
                let open = self.shared.open()?;
                if !self.is_to_be_swept(&open, &queue)? {
                    break;
                }
                drop(open);
                let sweep = Action::Sweep(queue.clone());
                self.shared.writer().ask(sweep, 0).await?;
            }
        }
        Ok(())
    }
}
