//! `wasi:keyvalue` 0.2.0-draft: store, increment, batch.

use tombolo_store::KeyValue;
use wasmtime::component::{Linker, Resource};

use super::keyvalue::{Bucket, PAGE_KEYS_MAX, delete, get, set, text};
use crate::state::{Capabilities, State};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/keyvalue-draft",
        world: "imports",
        imports: {
            "wasi:keyvalue/store.[method]bucket.set": async | trappable,
            "wasi:keyvalue/store.[method]bucket.delete": async | trappable,
            "wasi:keyvalue/atomics.increment": async | trappable,
            "wasi:keyvalue/batch.set-many": async | trappable,
            "wasi:keyvalue/batch.delete-many": async | trappable,
            default: trappable,
        },
        with: { "wasi:keyvalue/store.bucket": crate::capabilities::keyvalue_draft::Listed },
        require_store_data_send: true,
    });
}

use bindings::wasi::keyvalue::{atomics, batch, store};

/// An opened store and where its listing stands: this draft's cursor is a number, which cannot name a key.
pub struct Listed {
    store: KeyValue,
    /// The last key of each page that was given out; the cursor is a position in it.
    pages: Vec<String>,
}

/// Pages that one opened store remembers.
const PAGES_MAX: usize = 1000;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    store::add_to_linker::<_, Capabilities>(linker, |state| state)?;
    atomics::add_to_linker::<_, Capabilities>(linker, |state| state)?;
    batch::add_to_linker::<_, Capabilities>(linker, |state| state)
}

type Answer<T> = wasmtime::Result<Result<T, store::Error>>;

fn other(error: tombolo_store::StoreError) -> store::Error {
    store::Error::Other(text(error))
}

impl State {
    fn listed(&self, bucket: &Resource<Listed>) -> wasmtime::Result<KeyValue> {
        Ok(self.scoped(&self.table.get(bucket)?.store))
    }
}

impl store::Host for State {
    fn open(&mut self, identifier: String) -> Answer<Resource<Listed>> {
        match self.granted_store(&identifier) {
            Some(Bucket(store)) => Ok(Ok(self.table.push(Listed {
                store,
                pages: Vec::new(),
            })?)),
            None => Ok(Err(store::Error::AccessDenied)),
        }
    }
}

impl store::HostBucket for State {
    fn get(&mut self, bucket: Resource<Listed>, key: String) -> Answer<Option<Vec<u8>>> {
        Ok(get(&self.listed(&bucket)?, &key).map_err(store::Error::Other))
    }

    async fn set(&mut self, bucket: Resource<Listed>, key: String, value: Vec<u8>) -> Answer<()> {
        let store = self.listed(&bucket)?;
        Ok(set(&store, [(key, value)])
            .await
            .map_err(store::Error::Other))
    }

    async fn delete(&mut self, bucket: Resource<Listed>, key: String) -> Answer<()> {
        let store = self.listed(&bucket)?;
        Ok(delete(&store, [key]).await.map_err(store::Error::Other))
    }

    fn exists(&mut self, bucket: Resource<Listed>, key: String) -> Answer<bool> {
        Ok(self.listed(&bucket)?.exists(&key).map_err(other))
    }

    fn list_keys(
        &mut self,
        bucket: Resource<Listed>,
        cursor: Option<u64>,
    ) -> Answer<store::KeyResponse> {
        let store = self.listed(&bucket)?;
        let listed = self.table.get_mut(&bucket)?;
        let unknown =
            || store::Error::Other("the cursor is not one that this bucket gave out".into());
        let after = match cursor {
            None => None,
            Some(position) => {
                let page = usize::try_from(position)
                    .ok()
                    .and_then(|position| listed.pages.get(position));
                match page {
                    Some(key) => Some(key.clone()),
                    None => return Ok(Err(unknown())),
                }
            }
        };
        let keys = match store.keys(after.as_deref(), PAGE_KEYS_MAX) {
            Ok(keys) => keys,
            Err(error) => return Ok(Err(other(error))),
        };
        let mut cursor = None;
        if let Some(last) = keys.last().filter(|_| keys.len() == PAGE_KEYS_MAX) {
            if listed.pages.len() == PAGES_MAX {
                return Ok(Err(store::Error::Other(format!(
                    "a listing has at most {PAGES_MAX} pages"
                ))));
            }
            cursor = u64::try_from(listed.pages.len()).ok();
            listed.pages.push(last.clone());
        }
        Ok(Ok(store::KeyResponse { keys, cursor }))
    }

    fn drop(&mut self, bucket: Resource<Listed>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for State {
    async fn increment(
        &mut self,
        bucket: Resource<Listed>,
        key: String,
        delta: u64,
    ) -> Answer<u64> {
        let Ok(delta) = i64::try_from(delta) else {
            return Ok(Err(store::Error::Other(
                "a delta is at most 2^63 - 1".into(),
            )));
        };
        let sum = self
            .listed(&bucket)?
            .increment(&key, delta)
            .await
            .map_err(other);
        Ok(sum.and_then(|sum| {
            u64::try_from(sum)
                .map_err(|_| store::Error::Other(format!("the number {sum} is negative")))
        }))
    }
}

impl batch::Host for State {
    fn get_many(
        &mut self,
        bucket: Resource<Listed>,
        keys: Vec<String>,
    ) -> Answer<Vec<Option<(String, Vec<u8>)>>> {
        let values = self.listed(&bucket)?.get_many(&keys).map_err(other);
        Ok(values.map(|values| {
            let pair = |(key, value): (String, Option<bytes::Bytes>)| {
                value.map(|value| (key, Vec::from(value)))
            };
            keys.into_iter().zip(values).map(pair).collect()
        }))
    }

    async fn set_many(
        &mut self,
        bucket: Resource<Listed>,
        pairs: Vec<(String, Vec<u8>)>,
    ) -> Answer<()> {
        let store = self.listed(&bucket)?;
        Ok(set(&store, pairs).await.map_err(store::Error::Other))
    }

    async fn delete_many(&mut self, bucket: Resource<Listed>, keys: Vec<String>) -> Answer<()> {
        let store = self.listed(&bucket)?;
        Ok(delete(&store, keys).await.map_err(store::Error::Other))
    }
}
