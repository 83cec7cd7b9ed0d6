//! `fermyon:spin` 2.0.0 key-value and variables, for components of Spin SDKs up to 5.

use wasmtime::component::{Linker, Resource};

use super::keyvalue::{Bucket, all_keys, delete, get, set, text};
use crate::state::{Capabilities, State};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/spin2",
        world: "imports",
        imports: {
            "fermyon:spin/key-value.[method]store.set": async | trappable,
            "fermyon:spin/key-value.[method]store.delete": async | trappable,
            default: trappable,
        },
        with: { "fermyon:spin/key-value.store": crate::capabilities::keyvalue::Bucket },
        require_store_data_send: true,
    });
}

use bindings::fermyon::spin::key_value::{self, Error};
use bindings::fermyon::spin::variables;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    key_value::add_to_linker::<_, Capabilities>(linker, |state| state)?;
    variables::add_to_linker::<_, Capabilities>(linker, |state| state)
}

type Answer<T> = wasmtime::Result<Result<T, Error>>;

fn other(error: tombolo_store::StoreError) -> Error {
    Error::Other(text(error))
}

impl key_value::Host for State {}

impl key_value::HostStore for State {
    fn open(&mut self, label: String) -> Answer<Resource<Bucket>> {
        match self.granted_store(&label) {
            Some(bucket) => Ok(Ok(self.table.push(bucket)?)),
            None => Ok(Err(Error::AccessDenied)),
        }
    }

    fn get(&mut self, store: Resource<Bucket>, key: String) -> Answer<Option<Vec<u8>>> {
        Ok(get(&self.bucket(&store)?, &key).map_err(Error::Other))
    }

    async fn set(&mut self, store: Resource<Bucket>, key: String, value: Vec<u8>) -> Answer<()> {
        let store = self.bucket(&store)?;
        Ok(set(&store, [(key, value)]).await.map_err(Error::Other))
    }

    async fn delete(&mut self, store: Resource<Bucket>, key: String) -> Answer<()> {
        let store = self.bucket(&store)?;
        Ok(delete(&store, [key]).await.map_err(Error::Other))
    }

    fn exists(&mut self, store: Resource<Bucket>, key: String) -> Answer<bool> {
        Ok(self.bucket(&store)?.exists(&key).map_err(other))
    }

    fn get_keys(&mut self, store: Resource<Bucket>) -> Answer<Vec<String>> {
        Ok(all_keys(&self.bucket(&store)?).map_err(Error::Other))
    }

    fn drop(&mut self, store: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(store)?;
        Ok(())
    }
}

impl variables::Host for State {
    fn get(&mut self, name: String) -> wasmtime::Result<Result<String, variables::Error>> {
        Ok(self
            .config_value(&name)
            .ok_or(variables::Error::Undefined(name)))
    }
}
