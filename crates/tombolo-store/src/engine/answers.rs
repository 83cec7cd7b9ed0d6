//! Answers that are given again: stored by function and key, for a day, and no more of each function than its bounds allow.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::{Pairs, PairsTable, failed, get, put};
use crate::StoreError;

/// By function and key: when they were stored, and the answer.
const ANSWERS: Pairs = TableDefinition::new("answers");
/// When they were stored, with their keys; and their lengths.
const BY_AGE: Pairs = TableDefinition::new("answers_by_age");
/// The function, when they were stored, and the rest of their keys; and their lengths.
const BY_FUNCTION: Pairs = TableDefinition::new("answers_by_function");
/// How long an answer is given again, in the life of the store.
const AGE_MS: u64 = 24 * 60 * 60 * 1000;
/// Answers that are too old are removed whenever one is stored, at most so many: a day's worth of
/// them must not hold up a commit.
const EXPIRED_MAX: usize = 16;

/// How many answers of a function are kept; beyond it its oldest goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnswerBounds {
    pub(crate) answers: u64,
    pub(crate) bytes: u64,
}

impl Default for AnswerBounds {
    fn default() -> Self {
        Self {
            answers: 100_000,
            bytes: 64 << 20,
        }
    }
}

/// The answers of a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) answers: u64,
    pub(crate) bytes: u64,
    /// Answers that made room for newer ones before their time, since the store was opened.
    pub(crate) evicted: u64,
}

/// By the beginning of the keys of a function's answers.
type HeldByFunction = HashMap<Vec<u8>, Held>;

/// The answers of all functions, in numbers.
pub(super) struct KeptAnswers {
    bounds: AnswerBounds,
    held: Mutex<HeldByFunction>,
}

impl KeptAnswers {
    pub(super) fn new(bounds: AnswerBounds) -> Self {
        Self {
            bounds,
            held: Mutex::default(),
        }
    }

    /// Counts what a data file has.
    pub(super) fn count(&self, database: &Database) -> Result<(), StoreError> {
        // Makes the tables where they are not there yet, and takes that back.
        let transaction = database.begin_write().map_err(failed)?;
        let answers = Answers::open(&transaction)?;
        let mut held = HeldByFunction::new();
        for entry in answers.by_function.iter().map_err(failed)? {
            let (key, length) = entry.map_err(failed)?;
            let function = function_of(key.value()).to_vec();
            let held = held.entry(function).or_default();
            held.answers += 1;
            held.bytes += number(length.value());
        }
        drop(answers);
        transaction.abort().map_err(failed)?;
        *self.lock() = held;
        Ok(())
    }

    pub(super) fn held(&self) -> Vec<(Vec<u8>, Held)> {
        let held = self.lock();
        held.iter()
            .map(|(key, held)| (key.clone(), *held))
            .collect()
    }

    /// Takes in what a transaction has changed.
    pub(super) fn change(&self, changed: HeldByFunction) {
        if !changed.is_empty() {
            self.lock().extend(changed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HeldByFunction> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stored answer that is not too old.
pub(super) fn find(
    database: &Database,
    key: &[u8],
    lived_ms: u64,
) -> Result<Option<Bytes>, StoreError> {
    let transaction = database.begin_read().map_err(failed)?;
    let table = transaction.open_table(ANSWERS).map_err(failed)?;
    let Some(found) = get(&table, key)? else {
        return Ok(None);
    };
    let Some(stored) = found.first_chunk() else {
        return Err(StoreError::Damaged("a stored answer".into()));
    };
    let is_fresh = !is_too_old(u64::from_be_bytes(*stored), lived_ms);
    Ok(is_fresh.then(|| found.slice(stored.len()..)))
}

/// The tables of answers in a transaction.
pub(super) struct Answers<'transaction> {
    by_key: PairsTable<'transaction>,
    by_age: PairsTable<'transaction>,
    by_function: PairsTable<'transaction>,
    /// Of the functions whose answers the transaction has changed.
    held: HeldByFunction,
}

impl<'transaction> Answers<'transaction> {
    /// Opens the tables, and makes them where there are none.
    pub(super) fn open(transaction: &'transaction WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            by_key: transaction.open_table(ANSWERS).map_err(failed)?,
            by_age: transaction.open_table(BY_AGE).map_err(failed)?,
            by_function: transaction.open_table(BY_FUNCTION).map_err(failed)?,
            held: HeldByFunction::new(),
        })
    }

    /// What it has changed.
    pub(super) fn changed(self) -> HeldByFunction {
        self.held
    }

    /// Stores an answer, and drops those that are too old, or too many of its function.
    pub(super) fn store(
        &mut self,
        kept: &KeptAnswers,
        key: &[u8],
        answer: &[u8],
        lived_ms: u64,
    ) -> Result<(), StoreError> {
        self.remove(kept, key)?;
        put(&mut self.by_key, key, &[&lived_ms.to_be_bytes(), answer])?;
        self.list(key, lived_ms, answer.len() as u64)?;
        let held = self.held(kept, key);
        held.answers += 1;
        held.bytes += answer.len() as u64;
        for _ in 0..EXPIRED_MAX {
            let Some(key) = self.expired(lived_ms)? else {
                break;
            };
            self.remove(kept, &key)?;
        }
        let bounds = kept.bounds;
        loop {
            let held = self.held(kept, key);
            if held.answers <= bounds.answers && held.bytes <= bounds.bytes {
                return Ok(());
            }
            let Some((oldest, stored_ms)) = self.oldest(function_of(key))? else {
                return Ok(());
            };
            self.remove(kept, &oldest)?;
            // Also where it lists an answer that an older version has replaced since.
            let listed = listed_as(&oldest, stored_ms);
            drop(self.by_function.remove(listed.as_slice()).map_err(failed)?);
            if !is_too_old(stored_ms, lived_ms) {
                self.held(kept, key).evicted += 1;
            }
        }
    }

    /// The numbers of the function of a key, as the transaction leaves them.
    fn held(&mut self, kept: &KeptAnswers, key: &[u8]) -> &mut Held {
        let function = function_of(key);
        if !self.held.contains_key(function) {
            let before = kept.lock().get(function).copied().unwrap_or_default();
            self.held.insert(function.to_vec(), before);
        }
        self.held.entry(function.to_vec()).or_default()
    }

    fn list(&mut self, key: &[u8], stored_ms: u64, length: u64) -> Result<(), StoreError> {
        let length = length.to_le_bytes();
        let age = [&stored_ms.to_be_bytes(), key].concat();
        let inserted = self.by_age.insert(age.as_slice(), length.as_slice());
        inserted.map(drop).map_err(failed)?;
        let listed = listed_as(key, stored_ms);
        let inserted = self
            .by_function
            .insert(listed.as_slice(), length.as_slice());
        inserted.map(drop).map_err(failed)
    }

    /// Removes the answer of a key, if there is one.
    fn remove(&mut self, kept: &KeptAnswers, key: &[u8]) -> Result<(), StoreError> {
        let removed = self.by_key.remove(key).map_err(failed)?;
        let stored = removed.and_then(|old| old.value().first_chunk().copied());
        let Some(stored_ms) = stored.map(u64::from_be_bytes) else {
            return Ok(());
        };
        let age = [&stored_ms.to_be_bytes(), key].concat();
        let length = self.by_age.remove(age.as_slice()).map_err(failed)?;
        let length = length.map_or(0, |length| number(length.value()));
        let listed = listed_as(key, stored_ms);
        drop(self.by_function.remove(listed.as_slice()).map_err(failed)?);
        let held = self.held(kept, key);
        held.answers = held.answers.saturating_sub(1);
        held.bytes = held.bytes.saturating_sub(length);
        Ok(())
    }

    /// The key of the oldest answer of all, if it is too old.
    fn expired(&self, lived_ms: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some((age, _)) = self.by_age.first().map_err(failed)? else {
            return Ok(None);
        };
        let (stored_ms, key) = split_age(age.value())?;
        Ok(is_too_old(stored_ms, lived_ms).then(|| key.to_vec()))
    }

    /// The key of a function's oldest answer, and when it was stored.
    fn oldest(&self, function: &[u8]) -> Result<Option<(Vec<u8>, u64)>, StoreError> {
        let mut listed = self.by_function.range(function..).map_err(failed)?;
        let Some(first) = listed.next() else {
            return Ok(None);
        };
        let (listed, _) = first.map_err(failed)?;
        let Some(rest) = listed.value().strip_prefix(function) else {
            return Ok(None);
        };
        let (stored_ms, rest) = split_age(rest)?;
        Ok(Some(([function, rest].concat(), stored_ms)))
    }
}

/// The beginning of the keys of a function's answers, up to the second NUL.
fn function_of(key: &[u8]) -> &[u8] {
    let mut ends = (1..).zip(key).filter(|(_, byte)| **byte == 0);
    let end = ends.nth(1).map_or(key.len(), |(end, _)| end);
    key.get(..end).unwrap_or(key)
}

/// The key of an answer in [`BY_FUNCTION`].
fn listed_as(key: &[u8], stored_ms: u64) -> Vec<u8> {
    let function = function_of(key);
    let rest = key.get(function.len()..).unwrap_or_default();
    [function, &stored_ms.to_be_bytes(), rest].concat()
}

fn split_age(age: &[u8]) -> Result<(u64, &[u8]), StoreError> {
    let Some((stored, rest)) = age.split_first_chunk() else {
        return Err(StoreError::Damaged("the age of an answer".into()));
    };
    Ok((u64::from_be_bytes(*stored), rest))
}

fn is_too_old(stored_ms: u64, lived_ms: u64) -> bool {
    lived_ms.saturating_sub(stored_ms) >= AGE_MS
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::simulated::SimulatedDisk;
    use crate::engine::Engine;

    const BOUNDS: AnswerBounds = AnswerBounds {
        answers: 3,
        bytes: 1000,
    };

    fn open(disk: &SimulatedDisk, new: bool) -> Engine {
        use crate::disk::Disk as _;
        disk.create_folder(Path::new("/store")).unwrap();
        Engine::open(disk, Path::new("/store"), new, BOUNDS).unwrap()
    }

    fn store(engine: &Engine, key: &str, answer: &[u8], lived_ms: u64) {
        let stored = engine.transact(|open| open.answer(key.as_bytes(), answer, lived_ms));
        stored.unwrap();
    }

    fn is_kept(engine: &Engine, key: &str, lived_ms: u64) -> bool {
        engine.answer(key.as_bytes(), lived_ms).unwrap().is_some()
    }

    fn held(engine: &Engine, function: &str) -> (u64, u64, u64) {
        let all: HeldByFunction = engine.answers().into_iter().collect();
        let held = all[function.as_bytes()];
        (held.answers, held.bytes, held.evicted)
    }

    #[test]
    fn a_function_pushes_out_its_own_oldest_answers_and_no_others() {
        let disk = SimulatedDisk::new();
        let engine = open(&disk, true);
        store(&engine, "shop\0pay\0first", b"paid", 1);
        for each in 0..10 {
            store(&engine, &format!("shop\0ping\0{each}"), b"pong", 2 + each);
        }
        assert!(is_kept(&engine, "shop\0pay\0first", 20));
        assert!(is_kept(&engine, "shop\0ping\x009", 20));
        assert!(!is_kept(&engine, "shop\0ping\x006", 20));
        assert_eq!(held(&engine, "shop\0ping\0"), (3, 12, 7));
        assert_eq!(held(&engine, "shop\0pay\0"), (1, 4, 0));
        // By bytes too: one that is longer than the bound does not stay either.
        store(&engine, "shop\0ping\0long", &[7; 995], 30);
        assert_eq!(held(&engine, "shop\0ping\0"), (2, 999, 9));
        store(&engine, "shop\0ping\0long", b"again", 31);
        assert_eq!(held(&engine, "shop\0ping\0"), (2, 9, 9));
    }

    #[test]
    fn answers_that_are_too_old_go_with_those_of_any_function_and_are_not_evicted() {
        let disk = SimulatedDisk::new();
        let engine = open(&disk, true);
        for each in 0..3 {
            store(&engine, &format!("a\0old\0{each}"), b"1", each);
        }
        store(&engine, "b\0new\x001", b"1", AGE_MS + 10);
        assert_eq!(held(&engine, "a\0old\0"), (0, 0, 0));
        assert_eq!(held(&engine, "b\0new\0"), (1, 1, 0));
    }

    #[test]
    fn answers_of_before_are_counted_and_bounded_too() {
        let disk = SimulatedDisk::new();
        let engine = open(&disk, true);
        for each in 0..3 {
            store(&engine, &format!("a\0f\0{each}"), b"1", each);
        }
        // What is stored is on the disk with the next commit that is to be.
        let transaction = engine.database.begin_write().unwrap();
        transaction.commit().unwrap();
        drop(engine);
        let engine = open(&disk, false);
        assert_eq!(held(&engine, "a\0f\0"), (3, 3, 0));
        store(&engine, "a\0f\0more", b"1", 9);
        assert_eq!(held(&engine, "a\0f\0"), (3, 3, 1));
        assert!(!is_kept(&engine, "a\0f\x000", 9));
    }
}
