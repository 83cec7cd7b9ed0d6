//! `wasi:config/store`, both drafts: the values of the manifest, and granted secrets by their names.

use wasmtime::component::Linker;

use crate::state::{Capabilities, State};

mod rc1 {
    wasmtime::component::bindgen!({
        path: "../../wit/config-rc1",
        world: "imports",
        imports: { default: trappable },
        require_store_data_send: true,
    });
}

mod draft {
    wasmtime::component::bindgen!({
        path: "../../wit/config-draft",
        world: "imports",
        imports: { default: trappable },
        require_store_data_send: true,
    });
}

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    rc1::wasi::config::store::add_to_linker::<_, Capabilities>(linker, |state| state)?;
    draft::wasi::config::store::add_to_linker::<_, Capabilities>(linker, |state| state)
}

impl State {
    pub(super) fn config_value(&self, key: &str) -> Option<String> {
        self.function.config.get(key).cloned()
    }

    fn config_values(&self) -> Vec<(String, String)> {
        self.function
            .config
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }
}

macro_rules! host {
    ($version:ident) => {
        impl $version::wasi::config::store::Host for State {
            fn get(
                &mut self,
                key: String,
            ) -> wasmtime::Result<Result<Option<String>, $version::wasi::config::store::Error>> {
                Ok(Ok(self.config_value(&key)))
            }

            fn get_all(
                &mut self,
            ) -> wasmtime::Result<Result<Vec<(String, String)>, $version::wasi::config::store::Error>> {
                Ok(Ok(self.config_values()))
            }
        }
    };
}

host!(rc1);
host!(draft);
