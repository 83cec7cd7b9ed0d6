//! What all key-value interfaces share: stores by grant, and pages of keys.

use tombolo_core::Name;
use tombolo_store::{KeyValue, StoreError, Write};
use wasmtime::component::Resource;

use crate::state::State;

/// An opened store, behind the `bucket` or `store` resource of an interface.
pub struct Bucket(pub(super) KeyValue);

/// Keys in one page of a listing.
pub(super) const PAGE_KEYS_MAX: usize = 1000;
/// Bytes of keys in a listing that has no pages.
const ALL_KEYS_BYTES_MAX: usize = 4 << 20;

impl State {
    /// The granted store of this name; `None` when the manifest does not grant it.
    pub(super) fn granted_store(&self, name: &str) -> Option<Bucket> {
        let name: Name = name.parse().ok()?;
        self.function.key_values.get(&name).cloned().map(Bucket)
    }

    /// A store as the invocation has it that runs now: an instance may hold what an earlier one opened.
    pub(super) fn scoped(&self, store: &KeyValue) -> KeyValue {
        store.within(self.egress.caller.scope())
    }

    /// The store behind a resource.
    pub(super) fn bucket(&self, bucket: &Resource<Bucket>) -> wasmtime::Result<KeyValue> {
        Ok(self.scoped(&self.table.get(bucket)?.0))
    }
}

/// What a key has.
pub(super) fn get(store: &KeyValue, key: &str) -> Result<Option<Vec<u8>>, String> {
    let value = store.get(key).map_err(text)?;
    Ok(value.map(Vec::from))
}

/// Writes all of these, or none.
pub(super) async fn set(
    store: &KeyValue,
    pairs: impl IntoIterator<Item = (String, Vec<u8>)>,
) -> Result<(), String> {
    let writes = pairs.into_iter().map(|(key, value)| Write::Set {
        key,
        value: value.into(),
    });
    store.write(writes.collect()).await.map_err(text)
}

/// Deletes all of these, or none.
pub(super) async fn delete(
    store: &KeyValue,
    keys: impl IntoIterator<Item = String>,
) -> Result<(), String> {
    let writes = keys.into_iter().map(|key| Write::Delete { key });
    store.write(writes.collect()).await.map_err(text)
}

/// Every key of a store, for interfaces without pages.
pub(super) fn all_keys(store: &KeyValue) -> Result<Vec<String>, String> {
    let mut keys: Vec<String> = Vec::new();
    let mut bytes = 0;
    loop {
        let page = store
            .keys(keys.last().map(String::as_str), PAGE_KEYS_MAX)
            .map_err(text)?;
        let last = page.len() < PAGE_KEYS_MAX;
        bytes += page.iter().map(String::len).sum::<usize>();
        keys.extend(page);
        if bytes > ALL_KEYS_BYTES_MAX {
            return Err(format!(
                "the store has more than {ALL_KEYS_BYTES_MAX} bytes of keys; list them by an interface with pages"
            ));
        }
        if last {
            return Ok(keys);
        }
    }
}

/// The error as a guest sees it, with its cause.
pub(super) fn text(error: StoreError) -> String {
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
