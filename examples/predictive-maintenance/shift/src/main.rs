//! Function `shift`: ends a shift when the schedule ticks and prints the report; serves it as a page and for programs.

use std::collections::BTreeMap;

use shift::{page, text};
use summary::machine::Machine;
use summary::report::{Report, Shifts};
use wstd::http::{Body, Error, Method, Request, Response, StatusCode};

use crate::wasi::keyvalue::store::{Bucket, open};

wit_bindgen::generate!({ path: "../wit", world: "summary", generate_all });

const MACHINES: &str = "summary";
const SHIFTS: &str = "shifts";
const LAST: &str = "last";

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let tick = request
        .headers()
        .get("ce-id")
        .and_then(|id| id.to_str().ok());
    let cron = request
        .headers()
        .get("x-tombolo-trigger")
        .is_some_and(|it| it == "cron");
    if cron {
        let report = end(tick.unwrap_or_default())?;
        let text = text::render(&report);
        print!("{text}");
        return answer("text/plain; charset=utf-8", text);
    }
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/report") => {
            answer("text/html; charset=utf-8", page::render(&load(&shifts()?)?))
        }
        (&Method::GET, "/report.json") => answer(
            "application/json",
            serde_json::to_string(&load(&shifts()?)?)?,
        ),
        _ => Ok(Response::builder()
            .status(StatusCode::NOT_FOUND)
            .body("GET /report or /report.json\n".to_owned().into())?),
    }
}

/// Ends the shift. Nobody else writes this store, and ticks come one at a time.
fn end(tick: &str) -> Result<Report, Error> {
    let mut shifts = shifts()?;
    let (machines, _) = machines()?;
    shifts.end(tick, &machines);
    open(SHIFTS)?.set(LAST, &serde_json::to_vec(&shifts)?)?;
    load(&shifts)
}

fn load(shifts: &Shifts) -> Result<Report, Error> {
    let (machines, bytes) = machines()?;
    Ok(Report::new(machines, shifts.seen(), bytes))
}

fn shifts() -> Result<Shifts, Error> {
    let stored = open(SHIFTS)?.get(LAST)?;
    Ok(stored
        .map(|bytes| serde_json::from_slice(&bytes))
        .transpose()?
        .unwrap_or_default())
}

/// Every machine, and the length of all that is kept of them.
fn machines() -> Result<(BTreeMap<String, Machine>, u64), Error> {
    let bucket = open(MACHINES)?;
    let mut machines = BTreeMap::new();
    let mut bytes = 0;
    for name in names(&bucket)? {
        if let Some(value) = bucket.get(&name)? {
            bytes += value.len() as u64;
            machines.insert(name, serde_json::from_slice(&value)?);
        }
    }
    Ok((machines, bytes))
}

fn names(bucket: &Bucket) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    let mut cursor = None;
    loop {
        let found = bucket.list_keys(cursor.as_deref())?;
        names.extend(found.keys);
        match found.cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(names),
        }
    }
}

fn answer(kind: &str, text: String) -> Result<Response<Body>, Error> {
    Ok(Response::builder()
        .header("content-type", kind)
        .body(text.into())?)
}
