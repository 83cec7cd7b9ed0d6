//! `wasi:keyvalue` 0.2.0-draft2: store, atomics with compare-and-swap, batch.

use bytes::Bytes;
use tombolo_store::{KeyValue, Swapped};
use wasmtime::component::{Linker, Resource};

use super::keyvalue::{Bucket, PAGE_KEYS_MAX, delete, get, set, text};
use crate::state::{Capabilities, State};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/keyvalue-draft2",
        world: "imports",
        imports: {
            "wasi:keyvalue/store.[method]bucket.set": async | trappable,
            "wasi:keyvalue/store.[method]bucket.delete": async | trappable,
            "wasi:keyvalue/atomics.increment": async | trappable,
            "wasi:keyvalue/atomics.swap": async | trappable,
            "wasi:keyvalue/batch.set-many": async | trappable,
            "wasi:keyvalue/batch.delete-many": async | trappable,
            default: trappable,
        },
        with: {
            "wasi:keyvalue/store.bucket": crate::capabilities::keyvalue::Bucket,
            "wasi:keyvalue/atomics.cas": crate::capabilities::keyvalue_draft2::Cas,
        },
        require_store_data_send: true,
    });
}

use bindings::wasi::keyvalue::{atomics, batch, store};

/// A value as it was when the guest looked, to be swapped only if it still is.
pub struct Cas {
    store: KeyValue,
    key: String,
    seen: Option<Bytes>,
}

/// Bytes that all such values of an instance may have: they are the host's memory.
const SEEN_BYTES_MAX: usize = 16 << 20;

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
    fn keep(&mut self, cas: Cas) -> Answer<Resource<Cas>> {
        let bytes = self.seen_bytes + cas.seen_bytes();
        if bytes > SEEN_BYTES_MAX {
            let detail = format!("the values of all `cas` have more than {SEEN_BYTES_MAX} bytes");
            return Ok(Err(store::Error::Other(detail)));
        }
        let kept = self.table.push(cas)?;
        self.seen_bytes = bytes;
        Ok(Ok(kept))
    }

    fn forget(&mut self, cas: Resource<Cas>) -> wasmtime::Result<Cas> {
        let cas = self.table.delete(cas)?;
        self.seen_bytes -= cas.seen_bytes();
        Ok(cas)
    }
}

impl Cas {
    fn seen_bytes(&self) -> usize {
        self.seen.as_ref().map_or(0, Bytes::len)
    }
}

impl store::Host for State {
    fn open(&mut self, identifier: String) -> Answer<Resource<Bucket>> {
        match self.granted_store(&identifier) {
            Some(bucket) => Ok(Ok(self.table.push(bucket)?)),
            None => Ok(Err(store::Error::AccessDenied)),
        }
    }
}

impl store::HostBucket for State {
    fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<Option<Vec<u8>>> {
        Ok(get(&self.bucket(&bucket)?, &key).map_err(store::Error::Other))
    }

    async fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Answer<()> {
        let store = self.bucket(&bucket)?;
        Ok(set(&store, [(key, value)])
            .await
            .map_err(store::Error::Other))
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<()> {
        let store = self.bucket(&bucket)?;
        Ok(delete(&store, [key]).await.map_err(store::Error::Other))
    }

    fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<bool> {
        Ok(self.bucket(&bucket)?.exists(&key).map_err(other))
    }

    fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<String>,
    ) -> Answer<store::KeyResponse> {
        let keys = self
            .bucket(&bucket)?
            .keys(cursor.as_deref(), PAGE_KEYS_MAX)
            .map_err(other);
        Ok(keys.map(|keys| {
            let cursor = keys.last().filter(|_| keys.len() == PAGE_KEYS_MAX).cloned();
            store::KeyResponse { keys, cursor }
        }))
    }

    fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for State {
    async fn increment(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        delta: i64,
    ) -> Answer<i64> {
        Ok(self
            .bucket(&bucket)?
            .increment(&key, delta)
            .await
            .map_err(other))
    }

    async fn swap(
        &mut self,
        cas: Resource<Cas>,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), atomics::CasError>> {
        let Cas { store, key, seen } = self.forget(cas)?;
        match self.scoped(&store).swap(&key, seen, value.into()).await {
            Ok(Swapped::Done) => Ok(Ok(())),
            Ok(Swapped::Changed(seen)) => Ok(Err(match self.keep(Cas { store, key, seen })? {
                Ok(newer) => atomics::CasError::CasFailed(newer),
                Err(error) => atomics::CasError::StoreError(error),
            })),
            Err(error) => Ok(Err(atomics::CasError::StoreError(other(error)))),
        }
    }
}

impl atomics::HostCas for State {
    fn new(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<Resource<Cas>> {
        let store = self.bucket(&bucket)?;
        match store.get(&key) {
            Ok(seen) => self.keep(Cas { store, key, seen }),
            Err(error) => Ok(Err(other(error))),
        }
    }

    fn current(&mut self, cas: Resource<Cas>) -> Answer<Option<Vec<u8>>> {
        Ok(Ok(self.table.get(&cas)?.seen.clone().map(Vec::from)))
    }

    fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.forget(cas).map(|_| ())
    }
}

impl batch::Host for State {
    fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Answer<Vec<(String, Option<Vec<u8>>)>> {
        let values = self.bucket(&bucket)?.get_many(&keys).map_err(other);
        Ok(values.map(|values| {
            let values = values.into_iter().map(|value| value.map(Vec::from));
            keys.into_iter().zip(values).collect()
        }))
    }

    async fn set_many(
        &mut self,
        bucket: Resource<Bucket>,
        pairs: Vec<(String, Vec<u8>)>,
    ) -> Answer<()> {
        let store = self.bucket(&bucket)?;
        Ok(set(&store, pairs).await.map_err(store::Error::Other))
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Answer<()> {
        let store = self.bucket(&bucket)?;
        Ok(delete(&store, keys).await.map_err(store::Error::Other))
    }
}
