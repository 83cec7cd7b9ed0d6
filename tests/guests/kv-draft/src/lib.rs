//! Does with `wasi:keyvalue` 0.2.0-draft what the path says, in the store `?store=`.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

wit_bindgen::generate!({
    path: "../../../wit/keyvalue-draft",
    world: "wasi:keyvalue/imports",
    generate_all,
});

use wasi::keyvalue::store::{Bucket, Error};
use wasi::keyvalue::{atomics, batch, store};

struct KeyValue;

wasip2::http::proxy::export!(KeyValue);

impl Guest for KeyValue {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        match answer(&request) {
            Ok(Some(bytes)) => reply::send(out, 200, "text/plain", &bytes),
            Ok(None) => reply::text(out, 404, "none"),
            Err(Error::NoSuchStore) => reply::text(out, 500, "no such store"),
            Err(Error::AccessDenied) => reply::text(out, 500, "access denied"),
            Err(Error::Other(reason)) => reply::text(out, 500, &reason),
        }
    }
}

fn answer(request: &IncomingRequest) -> Result<Option<Vec<u8>>, Error> {
    let parameter = |name| reply::query(request, name);
    let bucket = store::open(&parameter("store").unwrap_or_else(|| "default".to_owned()))?;
    let key = parameter("key").unwrap_or_default();
    let done = Ok(Some(b"done".to_vec()));
    match reply::path(request).as_str() {
        "/get" => bucket.get(&key),
        "/set" => bucket.set(&key, &reply::body(request)).and(done),
        "/delete" => bucket.delete(&key).and(done),
        "/exists" => Ok(text(bucket.exists(&key)?)),
        "/keys" => Ok(Some(all_keys(&bucket)?.join(",").into_bytes())),
        "/increment" => {
            let delta = parameter("delta").and_then(|delta| delta.parse().ok());
            Ok(text(atomics::increment(&bucket, &key, delta.unwrap_or(1))?))
        }
        "/set-many" => {
            let pairs: Vec<_> = listed(request)
                .into_iter()
                .map(|key| (key.clone(), format!("value of {key}").into_bytes()))
                .collect();
            batch::set_many(&bucket, &pairs).and(done)
        }
        "/get-many" => Ok(Some(many(&bucket, &listed(request))?.into_bytes())),
        "/delete-many" => batch::delete_many(&bucket, &listed(request)).and(done),
        other => Err(Error::Other(format!("no such path: {other}"))),
    }
}

fn text(value: impl ToString) -> Option<Vec<u8>> {
    Some(value.to_string().into_bytes())
}

/// The keys of `?keys=a,b,c`.
fn listed(request: &IncomingRequest) -> Vec<String> {
    let keys = reply::query(request, "keys").unwrap_or_default();
    keys.split(',').map(str::to_owned).collect()
}

fn all_keys(bucket: &Bucket) -> Result<Vec<String>, Error> {
    let mut keys = Vec::new();
    let mut cursor = None;
    loop {
        let page = bucket.list_keys(cursor)?;
        keys.extend(page.keys);
        if page.cursor.is_none() {
            return Ok(keys);
        }
        cursor = page.cursor;
    }
}

/// The values as a JSON object, null for a key that is not there.
fn many(bucket: &Bucket, keys: &[String]) -> Result<String, Error> {
    let mut object = serde_json::Map::new();
    for (key, pair) in keys.iter().zip(batch::get_many(bucket, keys)?) {
        let value = pair.map(|(_, value)| String::from_utf8_lossy(&value).into_owned());
        object.insert(key.clone(), value.into());
    }
    Ok(serde_json::Value::Object(object).to_string())
}
