//! `spin:key-value` and `spin:variables` 3.0.0, for components of Spin SDK 6 and 7.

use tombolo_store::KeyValue;
use wasmtime::component::{Accessor, FutureReader, Linker, Resource, StreamReader};

use super::keyvalue::{Bucket, all_keys, delete, get, set, text};
use crate::state::{Capabilities, State};

mod key_value_bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/spin3-key-value",
        world: "imports",
        imports: { default: async | store | trappable },
        with: { "spin:key-value/key-value.store": crate::capabilities::keyvalue::Bucket },
        require_store_data_send: true,
    });
}

mod variables_bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/spin3-variables",
        world: "imports",
        imports: { default: async | store | trappable },
        require_store_data_send: true,
    });
}

use key_value_bindings::spin::key_value::key_value::{self, Error};
use variables_bindings::spin::variables::variables;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    key_value::add_to_linker::<_, Capabilities>(linker, |state| state)?;
    variables::add_to_linker::<_, Capabilities>(linker, |state| state)
}

type Answer<T> = wasmtime::Result<Result<T, Error>>;

fn other(error: tombolo_store::StoreError) -> Error {
    Error::Other(text(error))
}

/// The store behind a resource, so that nothing is borrowed while it works.
fn opened(
    accessor: &Accessor<impl Send, Capabilities>,
    store: &Resource<Bucket>,
) -> wasmtime::Result<KeyValue> {
    accessor.with(|mut access| access.get().bucket(store))
}

impl key_value::Host for State {}

impl key_value::HostStore for State {}

impl<T: Send + 'static> key_value::HostStoreWithStore<T> for Capabilities {
    async fn open(accessor: &Accessor<T, Self>, label: String) -> Answer<Resource<Bucket>> {
        accessor.with(|mut access| match access.get().granted_store(&label) {
            Some(bucket) => Ok(Ok(access.get().table.push(bucket)?)),
            None => Ok(Err(Error::AccessDenied)),
        })
    }

    async fn get(
        accessor: &Accessor<T, Self>,
        store: Resource<Bucket>,
        key: String,
    ) -> Answer<Option<Vec<u8>>> {
        Ok(get(&opened(accessor, &store)?, &key).map_err(Error::Other))
    }

    async fn set(
        accessor: &Accessor<T, Self>,
        store: Resource<Bucket>,
        key: String,
        value: Vec<u8>,
    ) -> Answer<()> {
        let store = opened(accessor, &store)?;
        Ok(set(&store, [(key, value)]).await.map_err(Error::Other))
    }

    async fn delete(
        accessor: &Accessor<T, Self>,
        store: Resource<Bucket>,
        key: String,
    ) -> Answer<()> {
        let store = opened(accessor, &store)?;
        Ok(delete(&store, [key]).await.map_err(Error::Other))
    }

    async fn exists(
        accessor: &Accessor<T, Self>,
        store: Resource<Bucket>,
        key: String,
    ) -> Answer<bool> {
        Ok(opened(accessor, &store)?.exists(&key).map_err(other))
    }

    async fn get_keys(
        accessor: &Accessor<T, Self>,
        store: Resource<Bucket>,
    ) -> wasmtime::Result<(StreamReader<String>, FutureReader<Result<(), Error>>)> {
        let listed = all_keys(&opened(accessor, &store)?).map_err(Error::Other);
        let (keys, result) = match listed {
            Ok(keys) => (keys, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        accessor.with(|mut access| {
            let keys = StreamReader::new(&mut access, keys)?;
            let result = FutureReader::new(&mut access, async { wasmtime::error::Ok(result) })?;
            Ok((keys, result))
        })
    }

    async fn drop(accessor: &Accessor<T, Self>, store: Resource<Bucket>) -> wasmtime::Result<()> {
        accessor.with(|mut access| access.get().table.delete(store).map(drop))?;
        Ok(())
    }
}

impl variables::Host for State {}

impl<T: Send + 'static> variables::HostWithStore<T> for Capabilities {
    async fn get(
        accessor: &Accessor<T, Self>,
        name: String,
    ) -> wasmtime::Result<Result<String, variables::Error>> {
        let value = accessor.with(|mut access| access.get().config_value(&name));
        Ok(value.ok_or(variables::Error::Undefined(name)))
    }
}
