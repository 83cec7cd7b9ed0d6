//! Key-value stores and variables as components of Spin SDK 5 use them.

use spin_sdk::http::{IntoResponse, Request, Response};
use spin_sdk::key_value::Store;
use spin_sdk::{http_component, variables};

#[http_component]
fn answer(request: Request) -> anyhow::Result<impl IntoResponse> {
    let parameter = |name: &str| {
        let mut pairs = request
            .query()
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        let found = pairs.find(|(key, _)| *key == name);
        found.map_or(String::new(), |(_, value)| value.to_owned())
    };
    let key = parameter("key");
    if request.path() == "/variable" {
        let (status, text) = match variables::get(&key) {
            Ok(value) => (200, value),
            Err(error) => (404, error.to_string()),
        };
        return Ok(Response::new(status, text));
    }
    let store = match Store::open(&parameter("store")) {
        Ok(store) => store,
        Err(error) => return Ok(Response::new(500, error.to_string())),
    };
    let (status, bytes) = match request.path() {
        "/get" => match store.get(&key)? {
            Some(value) => (200, value),
            None => (404, b"none".to_vec()),
        },
        "/set" => {
            store.set(&key, request.body())?;
            (200, b"done".to_vec())
        }
        "/delete" => {
            store.delete(&key)?;
            (200, b"done".to_vec())
        }
        "/exists" => (200, store.exists(&key)?.to_string().into_bytes()),
        "/keys" => (200, store.get_keys()?.join(",").into_bytes()),
        _ => (404, b"no such path".to_vec()),
    };
    Ok(Response::new(status, bytes))
}
