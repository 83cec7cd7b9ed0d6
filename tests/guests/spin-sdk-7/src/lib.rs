//! Key-value stores and variables as components of Spin SDK 7 use them, on WASI 0.3.

use spin_sdk::http::body::IncomingBodyExt;
use spin_sdk::http::{IntoResponse, Request, StatusCode};
use spin_sdk::key_value::Store;
use spin_sdk::{http_service, variables};

#[http_service]
async fn answer(request: Request) -> anyhow::Result<impl IntoResponse> {
    let uri = request.uri().clone();
    let parameter = |name: &str| {
        let query = uri.query().unwrap_or_default();
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let found = pairs.find(|(key, _)| *key == name);
        found.map_or(String::new(), |(_, value)| value.to_owned())
    };
    let key = parameter("key");
    if uri.path() == "/variable" {
        return Ok(match variables::get(&key).await {
            Ok(value) => (StatusCode::OK, value),
            Err(error) => (StatusCode::NOT_FOUND, error.to_string()),
        });
    }
    let store = match Store::open(parameter("store")).await {
        Ok(store) => store,
        Err(error) => {
            let text = error.to_string();
            return Ok((StatusCode::INTERNAL_SERVER_ERROR, text));
        }
    };
    Ok(match uri.path() {
        "/get" => match store.get(&key).await? {
            Some(value) => (StatusCode::OK, String::from_utf8(value)?),
            None => (StatusCode::NOT_FOUND, "none".to_owned()),
        },
        "/set" => {
            let value = request.into_body().bytes().await?;
            store.set(&key, &value).await?;
            (StatusCode::OK, "done".to_owned())
        }
        "/delete" => {
            store.delete(&key).await?;
            (StatusCode::OK, "done".to_owned())
        }
        "/exists" => {
            let exists = store.exists(&key).await?;
            (StatusCode::OK, exists.to_string())
        }
        "/keys" => {
            let keys = store.get_keys().await.collect().await?;
            (StatusCode::OK, keys.join(","))
        }
        _ => (StatusCode::NOT_FOUND, "no such path".to_owned()),
    })
}
