//! What an invocation does, collected to be committed with the acknowledgement of its events: what it reads becomes an expectation, what it writes and publishes waits.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tombolo_core::{Origin, Publication, Publish, PublishError, PublishFuture, Published, QueueId};

use crate::journal::publish_error;
use crate::key_value::{KeyValue, Swapped, Write};
use crate::transaction::{Answer, Expectation, Transaction};
use crate::{KEYS_MAX, StoreError};

/// Keys that are read or written, and events that are published, by one invocation.
pub const EFFECTS_MAX: usize = 10_000;
/// Bytes of their keys, values and events.
pub const EFFECTS_BYTES_MAX: usize = 8 << 20;

/// For whom a store is used: what its changes come of, and whether they wait for a commit.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// What the events of watched changes come of.
    pub origin: Origin,
    /// Where reads are noted and changes collected; without it they happen at once.
    pub effects: Option<Effects>,
}

/// The effects of one invocation. It sees its own; nobody else does until they are committed. A key is read from the
/// store once, and has to be unchanged when they are. Clones collect into the same.
#[derive(Clone, Default)]
pub struct Effects {
    collected: Arc<Mutex<Collected>>,
}

#[derive(Default)]
struct Collected {
    /// By the key with the prefix of its store.
    keys: BTreeMap<Vec<u8>, Touched>,
    publications: Vec<Publication>,
    /// Queue, source and id of each.
    published: HashSet<(QueueId, String, String)>,
    answers: Vec<Answer>,
    bytes: usize,
    /// The invocation is over: what it still does is not taken.
    is_sealed: bool,
}

/// A key that the invocation has read or written.
#[derive(Clone)]
struct Touched {
    store: KeyValue,
    key: String,
    read: Option<Option<Bytes>>,
    written: Option<Option<Bytes>>,
}

impl Touched {
    fn bytes(&self) -> usize {
        let length = |value: &Option<Option<Bytes>>| match value {
            Some(Some(value)) => value.len(),
            _ => 0,
        };
        self.key.len() + length(&self.read) + length(&self.written)
    }
}

impl fmt::Debug for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let collected = self.collected();
        f.debug_struct("Effects")
            .field("keys", &collected.keys.len())
            .field("publications", &collected.publications.len())
            .finish_non_exhaustive()
    }
}

impl Effects {
    fn collected(&self) -> MutexGuard<'_, Collected> {
        self.collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the collecting, and gives what there is. What the invocation does from now on is refused.
    pub fn seal(&self) -> Transaction {
        let sealed = Collected {
            is_sealed: true,
            ..Collected::default()
        };
        let Collected {
            keys,
            publications,
            answers,
            ..
        } = std::mem::replace(&mut *self.collected(), sealed);
        let mut transaction = Transaction {
            publications,
            answers,
            ..Transaction::default()
        };
        for touched in keys.into_values() {
            let Touched {
                store,
                key,
                read,
                written,
            } = touched;
            if let Some(written) = written {
                let key = key.clone();
                let write = match written {
                    Some(value) => Write::Set { key, value },
                    None => Write::Delete { key },
                };
                transaction.writes.push((store.clone(), write));
            }
            if let Some(value) = read {
                transaction.expects.push(Expectation { store, key, value });
            }
        }
        transaction
    }

    /// Stores an answer with the rest.
    ///
    /// # Errors
    /// [`StoreError::TransactionTooLong`], [`StoreError::Ended`].
    pub fn answer(&self, answer: Answer) -> Result<(), StoreError> {
        let mut collected = self.collected();
        collected.make_room(1, answer.key.len() + answer.answer.len())?;
        collected.answers.push(answer);
        Ok(())
    }

    /// The value of a key, as the invocation sees it.
    pub(crate) fn get(&self, store: &KeyValue, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.collected().get(store, key)
    }

    /// Takes all of the writes or none.
    pub(crate) fn write(&self, store: &KeyValue, writes: Vec<Write>) -> Result<(), StoreError> {
        self.collected().write(store, writes)
    }

    pub(crate) fn increment(
        &self,
        store: &KeyValue,
        key: &str,
        delta: i64,
    ) -> Result<i64, StoreError> {
        let mut collected = self.collected();
        let sum = crate::commit::add(collected.get(store, key)?.as_deref(), delta)?;
        collected.set(store, key, sum.to_string().into())?;
        Ok(sum)
    }

    pub(crate) fn swap(
        &self,
        store: &KeyValue,
        key: &str,
        expected: Option<&Bytes>,
        value: Bytes,
    ) -> Result<Swapped, StoreError> {
        let mut collected = self.collected();
        let found = collected.get(store, key)?;
        if found.as_ref() != expected {
            return Ok(Swapped::Changed(found));
        }
        collected.set(store, key, value)?;
        Ok(Swapped::Done)
    }

    /// A page of keys: those of the store, as the invocation has changed them. Which keys there are is not
    /// remembered: others may add some until the commit.
    pub(crate) fn keys(
        &self,
        store: &KeyValue,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let limit = limit.min(KEYS_MAX);
        let collected = self.collected();
        collected.check_open()?;
        let (mut found, mut after) = (Vec::new(), after.map(str::to_owned));
        while found.len() < limit {
            let page = store.stored_keys(after.as_deref(), limit)?;
            let end = page.last().filter(|_| page.len() == limit).cloned();
            let mut keys: BTreeSet<String> = page.into_iter().collect();
            collected.change_keys(store, after.as_deref(), end.as_deref(), &mut keys)?;
            found.extend(keys);
            match end {
                Some(end) => after = Some(end),
                None => break,
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    fn publish_all(&self, publications: Vec<Publication>) -> Result<Vec<Published>, StoreError> {
        let mut collected = self.collected();
        let bytes = publications.iter().map(|one| one.event.size_bytes()).sum();
        collected.make_room(publications.len(), bytes)?;
        let published = publications.into_iter().map(|publication| {
            let Publication { queue, event, .. } = &publication;
            let name = (queue.clone(), event.source.clone(), event.id.clone());
            if !collected.published.insert(name) {
                return Published::Duplicate;
            }
            collected.publications.push(publication);
            Published::Accepted(collected.publications.len() as u64)
        });
        Ok(published.collect())
    }
}

impl Publish for Effects {
    /// Accepted means collected: the events are in their queues once the invocation is acknowledged, numbered anew.
    fn publish(&self, publications: Vec<Publication>) -> PublishFuture {
        let published = self.publish_all(publications);
        let published = published.map_err(|error| match error {
            StoreError::TransactionTooLong => PublishError::TransactionTooLong(error.to_string()),
            error => publish_error(error),
        });
        Box::pin(std::future::ready(published))
    }
}

impl Collected {
    fn check_open(&self) -> Result<(), StoreError> {
        match self.is_sealed {
            true => Err(StoreError::Ended),
            false => Ok(()),
        }
    }

    /// Takes room for so many effects and bytes more.
    fn make_room(&mut self, effects: usize, bytes: usize) -> Result<(), StoreError> {
        self.check_open()?;
        let effects = effects + self.keys.len() + self.publications.len() + self.answers.len();
        let bytes = bytes.saturating_add(self.bytes);
        if effects > EFFECTS_MAX || bytes > EFFECTS_BYTES_MAX {
            return Err(StoreError::TransactionTooLong);
        }
        self.bytes = bytes;
        Ok(())
    }

    fn get(&mut self, store: &KeyValue, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.check_open()?;
        let full = store.key(key)?;
        if let Some(touched) = self.keys.get(&full)
            && let Some(seen) = touched.written.as_ref().or(touched.read.as_ref())
        {
            return Ok(seen.clone());
        }
        let value = store.stored(key)?;
        self.touch(store, key, full, |touched| {
            touched.read = Some(value.clone());
        })?;
        Ok(value)
    }

    fn set(&mut self, store: &KeyValue, key: &str, value: Bytes) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.write(store, vec![Write::Set { key, value }])
    }

    fn write(&mut self, store: &KeyValue, writes: Vec<Write>) -> Result<(), StoreError> {
        self.check_open()?;
        let checked: Vec<_> = writes
            .iter()
            .map(|write| store.write_of(write.clone()))
            .collect::<Result<_, _>>()?;
        // All of them have to find room before the first is taken.
        let bytes = checked
            .iter()
            .map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len));
        let before = self.bytes;
        self.make_room(writes.len(), bytes.sum())?;
        self.bytes = before;
        for (write, (full, value)) in writes.into_iter().zip(checked) {
            let (Write::Set { key, .. } | Write::Delete { key }) = write;
            self.touch(store, &key, full, |touched| touched.written = Some(value))?;
        }
        Ok(())
    }

    /// Changes what is known of a key, within the bounds.
    fn touch(
        &mut self,
        store: &KeyValue,
        key: &str,
        full: Vec<u8>,
        change: impl FnOnce(&mut Touched),
    ) -> Result<(), StoreError> {
        let known = self.keys.get(&full);
        let (is_new, before) = known.map_or((1, 0), |known| (0, known.bytes()));
        let mut touched = known.cloned().unwrap_or_else(|| Touched {
            store: store.within(Scope::default()),
            key: key.to_owned(),
            read: None,
            written: None,
        });
        change(&mut touched);
        self.bytes -= before;
        let room = self.make_room(is_new, touched.bytes());
        if room.is_err() {
            self.bytes += before;
            return room;
        }
        self.keys.insert(full, touched);
        Ok(())
    }

    /// Adds the keys of a store between `after` and `end` that the invocation has set, and takes away those that it
    /// has deleted.
    fn change_keys(
        &self,
        store: &KeyValue,
        after: Option<&str>,
        end: Option<&str>,
        keys: &mut BTreeSet<String>,
    ) -> Result<(), StoreError> {
        let begin = store.key("")?;
        let from = match after {
            Some(after) => Bound::Excluded(store.key(after)?),
            None => Bound::Included(begin.clone()),
        };
        let changed = self.keys.range((from, Bound::Unbounded));
        let changed = changed
            .take_while(|(full, touched)| {
                full.starts_with(&begin) && end.is_none_or(|end| touched.key.as_str() <= end)
            })
            .filter_map(|(_, touched)| Some((&touched.key, touched.written.as_ref()?)));
        for (key, written) in changed {
            match written {
                Some(_) => keys.insert(key.clone()),
                None => keys.remove(key),
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
