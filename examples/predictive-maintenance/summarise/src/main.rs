//! Function `summarise`: takes trends in batches and findings one by one, and keeps what they come to.

use std::collections::BTreeMap;

use messages::{Channel, Inspection, Trend, is_name};
use serde::{Deserialize, Serialize};
use summary::machine::Machine;
use wstd::http::{Body, Error, Request, Response, StatusCode};

use crate::wasi::keyvalue::atomics::{Cas, CasError, swap};
use crate::wasi::keyvalue::store::{Bucket, open};

wit_bindgen::generate!({ path: "../wit", world: "summary", generate_all });

/// The header that has the topic of a message.
const TOPIC: &str = "ce-mqtttopic";
const STORE: &str = "summary";
/// How often something is taken anew because something else about the machine was stored meanwhile.
const ATTEMPTS: usize = 8;

/// A CloudEvent of a batch, as much of it as is read.
#[derive(Deserialize)]
struct Event {
    id: String,
    source: String,
    data: serde_json::Value,
}

/// The events of a batch that were not taken; they alone are delivered again.
#[derive(Default, Serialize)]
struct Failed {
    failed: Vec<Identity>,
}

#[derive(Serialize)]
struct Identity {
    source: String,
    id: String,
}

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let (content, topic) = (header("content-type"), header(TOPIC));
    let bytes = request.into_body().contents().await?.to_vec();
    let bucket = open(STORE)?;
    if content.is_some_and(|content| content.starts_with("application/cloudevents-batch+json")) {
        return take(&bucket, serde_json::from_slice(&bytes)?);
    }
    match topic.as_deref().and_then(Channel::of_topic) {
        Some((machine, Channel::Inspection)) => inspect(&bucket, machine, &bytes),
        _ => answer(
            StatusCode::BAD_REQUEST,
            "text/plain",
            "send a batch of trends, or what an inspection of a machine found".into(),
        ),
    }
}

/// Takes a batch: one read and one write for each machine in it.
fn take(bucket: &Bucket, events: Vec<Event>) -> Result<Response<Body>, Error> {
    let mut failed = Failed::default();
    let mut trends: BTreeMap<String, Vec<Trend>> = BTreeMap::new();
    for Event { id, source, data } in events {
        match serde_json::from_value::<Trend>(data) {
            Ok(trend) if is_name(&trend.machine) => {
                trends.entry(trend.machine.clone()).or_default().push(trend);
            }
            _ => failed.failed.push(Identity { source, id }),
        }
    }
    for (machine, trends) in trends {
        change(bucket, &machine, |machine| {
            trends.iter().cloned().for_each(|trend| machine.take(trend));
        })?;
    }
    answer(
        StatusCode::OK,
        "application/json",
        serde_json::to_string(&failed)?,
    )
}

fn inspect(bucket: &Bucket, machine: &str, bytes: &[u8]) -> Result<Response<Body>, Error> {
    let inspection: Inspection = match serde_json::from_slice(bytes) {
        Ok(inspection) => inspection,
        Err(error) => {
            return answer(
                StatusCode::BAD_REQUEST,
                "text/plain",
                format!("not an inspection: {error}"),
            );
        }
    };
    change(bucket, machine, |machine| {
        machine.inspect(inspection.clone())
    })?;
    answer(StatusCode::NO_CONTENT, "text/plain", String::new())
}

/// Changes what is kept of a machine, however many others do too.
fn change(bucket: &Bucket, machine: &str, change: impl Fn(&mut Machine)) -> Result<(), Error> {
    let mut handle = Cas::new(bucket, machine)?;
    for _ in 0..ATTEMPTS {
        let stored = handle.current()?;
        let mut machine: Machine = stored
            .map(|bytes| serde_json::from_slice(&bytes))
            .transpose()?
            .unwrap_or_default();
        change(&mut machine);
        match swap(handle, &serde_json::to_vec(&machine)?) {
            Ok(()) => return Ok(()),
            Err(CasError::CasFailed(newer)) => handle = newer,
            Err(CasError::StoreError(error)) => return Err(error.into()),
        }
    }
    Err(Error::msg("others keep coming first"))
}

fn answer(status: StatusCode, kind: &str, text: String) -> Result<Response<Body>, Error> {
    Ok(Response::builder()
        .status(status)
        .header("content-type", kind)
        .body(text.into())?)
}
