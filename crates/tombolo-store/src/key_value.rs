//! A key-value store of one app: direct reads, durable writes.

use std::sync::Arc;

use bytes::Bytes;
use tombolo_core::Name;

use crate::StoreError;
use crate::commit::{Action, Answer};
use crate::effects::Scope;
use crate::store::Shared;
use crate::transaction::Change;

/// The longest key.
pub const KEY_BYTES_MAX: usize = 1 << 10;
/// The longest value.
pub const VALUE_BYTES_MAX: usize = 4 << 20;
/// The most bytes of keys and values in one atomic write.
pub const WRITE_BYTES_MAX: usize = 16 << 20;
/// The most bytes of values that one read of several keys returns.
pub const READ_BYTES_MAX: usize = 16 << 20;
/// The most keys that one call of [`KeyValue::keys`] returns.
pub const KEYS_MAX: usize = 1000;

/// A named key-value store of one app. Cheap to clone.
#[derive(Clone)]
pub struct KeyValue {
    shared: Arc<Shared>,
    /// `app NUL store NUL`. Names have no NUL, so no two stores share a prefix and none is a
    /// prefix of another.
    prefix: Arc<[u8]>,
    scope: Scope,
    /// What its app may have does not bound it.
    unbounded: bool,
}

/// One change of an atomic write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets a key to a value.
    Set {
        /// At most [`KEY_BYTES_MAX`].
        key: String,
        /// At most [`VALUE_BYTES_MAX`].
        value: Bytes,
    },
    /// Deletes a key; one that is not there is no error.
    Delete {
        /// At most [`KEY_BYTES_MAX`].
        key: String,
    },
}

/// The outcome of a compare-and-swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swapped {
    /// The value was the expected one and has been replaced.
    Done,
    /// The value was this one and was left.
    Changed(Option<Bytes>),
}

impl KeyValue {
    pub(crate) fn new(shared: Arc<Shared>, app: &Name, store: &Name) -> Self {
        Self {
            shared,
            prefix: prefix(app, store).into(),
            scope: Scope::default(),
            unbounded: false,
        }
    }

    /// The same store, for the host itself, which bounds what it writes: [`Store::bound_keys`] does not.
    ///
    /// [`Store::bound_keys`]: crate::Store::bound_keys
    #[must_use]
    pub fn unbounded(self) -> Self {
        Self {
            unbounded: true,
            ..self
        }
    }

    pub(crate) fn is_unbounded(&self) -> bool {
        self.unbounded
    }

    /// The same store, for somebody else.
    #[must_use]
    pub fn within(&self, scope: Scope) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            prefix: Arc::clone(&self.prefix),
            scope,
            unbounded: self.unbounded,
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// When the key is too long, the store is closed or damaged, or the engine fails.
    pub fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        match &self.scope.effects {
            Some(effects) => effects.get(self, key),
            None => self.stored(key),
        }
    }

    /// The value that is in the store, whatever waits for a commit.
    pub(crate) fn stored(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let key = self.key(key)?;
        self.shared.open()?.engine.snapshot()?.get(&key)
    }

    /// The values of several keys, in their order, all of the same moment (with effects: if they can be committed).
    ///
    /// # Errors
    /// As [`KeyValue::get`]; and when the values are longer than [`READ_BYTES_MAX`] together.
    pub fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let snapshot = self.shared.open()?.engine.snapshot()?;
        let mut left = READ_BYTES_MAX;
        keys.iter()
            .map(|key| {
                let value = match &self.scope.effects {
                    Some(effects) => effects.get(self, key)?,
                    None => snapshot.get(&self.key(key)?)?,
                };
                let bytes = value.as_ref().map_or(0, Bytes::len);
                left = left.checked_sub(bytes).ok_or(StoreError::ReadTooLong)?;
                Ok(value)
            })
            .collect()
    }

    /// Whether a key has a value.
    ///
    /// # Errors
    /// As [`KeyValue::get`].
    pub fn exists(&self, key: &str) -> Result<bool, StoreError> {
        if let Some(effects) = &self.scope.effects {
            return Ok(effects.get(self, key)?.is_some());
        }
        let key = self.key(key)?;
        self.shared.open()?.engine.snapshot()?.contains(&key)
    }

    /// Keys in ascending order of their bytes, beginning behind `after`; at most `limit` and at
    /// most [`KEYS_MAX`]. An empty answer means that there are no more.
    ///
    /// # Errors
    /// As [`KeyValue::get`].
    pub fn keys(&self, after: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError> {
        match &self.scope.effects {
            Some(effects) => effects.keys(self, after, limit),
            None => self.stored_keys(after, limit),
        }
    }

    /// The keys that are in the store, whatever waits for a commit.
    pub(crate) fn stored_keys(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let after = after.map(|after| self.key(after)).transpose()?;
        let snapshot = self.shared.open()?.engine.snapshot()?;
        snapshot.keys(&self.prefix, after.as_deref(), limit.min(KEYS_MAX))
    }

    /// Applies all of the writes, in their order, or none. Resolves when they are on disk, or with effects when
    /// they are collected.
    ///
    /// Dropping the future does not take the writes back.
    ///
    /// # Errors
    /// When a key, a value or all of them together are too long, the store is closed, the disk is
    /// full or the engine fails; then nothing was written.
    pub async fn write(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        if let Some(effects) = &self.scope.effects {
            return effects.write(self, writes);
        }
        let writes = writes.into_iter().map(|write| self.write_of(write));
        let writes: Vec<_> = writes.collect::<Result<_, _>>()?;
        let bytes = bytes_of(&writes)?;
        if writes.is_empty() {
            return Ok(());
        }
        let change = Change {
            writes,
            origin: self.scope.origin,
            unbounded: self.unbounded,
            ..Change::default()
        };
        self.shared
            .writer()
            .ask(Action::Change(Box::new(change)), bytes)
            .await
            .map(drop)
    }

    /// A write with its key as the engine has it.
    pub(crate) fn write_of(&self, write: Write) -> Result<(Vec<u8>, Option<Bytes>), StoreError> {
        Ok(match write {
            Write::Set { key, value } => (self.key(&key)?, Some(checked(value)?)),
            Write::Delete { key } => (self.key(&key)?, None),
        })
    }

    /// Adds to a number and returns the sum, in one step. Numbers are decimal ASCII text (`-12`),
    /// as other clients of the store would read and write them; a key without a value counts as 0.
    ///
    /// # Errors
    /// [`StoreError::NotANumber`] when the value is no such text, or the sum leaves 64 bits; else
    /// as [`KeyValue::write`].
    pub async fn increment(&self, key: &str, delta: i64) -> Result<i64, StoreError> {
        if let Some(effects) = &self.scope.effects {
            return effects.increment(self, key, delta);
        }
        let key = self.key(key)?;
        let bytes = key.len();
        let origin = self.scope.origin;
        let increment = Action::Increment { key, delta, origin };
        match self.shared.writer().ask(increment, bytes).await? {
            Answer::Number(sum) => Ok(sum),
            _ => Err(StoreError::Closed),
        }
    }

    /// Replaces a value if it is the expected one (`None`: if there is none), in one step.
    ///
    /// # Errors
    /// As [`KeyValue::write`].
    pub async fn swap(
        &self,
        key: &str,
        expected: Option<Bytes>,
        value: Bytes,
    ) -> Result<Swapped, StoreError> {
        if let Some(effects) = &self.scope.effects {
            return effects.swap(self, key, expected.as_ref(), value);
        }
        let key = self.key(key)?;
        let value = checked(value)?;
        let bytes = key.len() + value.len();
        let action = Action::Swap {
            key,
            expected,
            value,
            origin: self.scope.origin,
        };
        match self.shared.writer().ask(action, bytes).await? {
            Answer::Swapped(swapped) => Ok(swapped),
            _ => Err(StoreError::Closed),
        }
    }

    pub(crate) fn key(&self, key: &str) -> Result<Vec<u8>, StoreError> {
        if key.len() > KEY_BYTES_MAX {
            return Err(StoreError::KeyTooLong { bytes: key.len() });
        }
        Ok([&*self.prefix, key.as_bytes()].concat())
    }
}

/// What stands before the keys of a store.
pub(crate) fn prefix(app: &Name, store: &Name) -> Vec<u8> {
    format!("{app}\0{store}\0").into_bytes()
}

/// Bytes of keys and values together, if they are not too many.
pub(crate) fn bytes_of(writes: &[(Vec<u8>, Option<Bytes>)]) -> Result<usize, StoreError> {
    let values = writes
        .iter()
        .map(|(_, value)| value.as_ref().map_or(0, Bytes::len));
    let bytes = writes.iter().map(|(key, _)| key.len()).sum::<usize>() + values.sum::<usize>();
    if bytes > WRITE_BYTES_MAX {
        return Err(StoreError::WriteTooLong { bytes });
    }
    Ok(bytes)
}

fn checked(value: Bytes) -> Result<Bytes, StoreError> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(StoreError::ValueTooLong { bytes: value.len() });
    }
    Ok(value)
}
