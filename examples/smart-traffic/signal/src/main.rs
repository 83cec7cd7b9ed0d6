//! Function `signal`: the wasi shell around one intersection; loads it, hands it a batch, stores it, tells the city.

use serde::Serialize;
use signal::aggregate::Aggregate;
use signal::batch::{Batch, Refused};
use signal::detectors::Detectors;
use signal::intersection::Intersection;
use wstd::http::{Body, Client, Error, Method, Request, Response, StatusCode};
use wstd::time::Duration;

use crate::wasi::keyvalue::atomics::{Cas, CasError, swap};
use crate::wasi::keyvalue::store::{Bucket, open};

wit_bindgen::generate!({ path: "../wit", world: "signal", generate_all });

const STORE: &str = "signals";
const CITY: &str = "http://city.fn.tombolo.internal/aggregates";
/// The city is worth waiting for no longer than this: the answer to the controller is due within its second.
const CITY_TIMEOUT_MS: u64 = 300;
/// How often a batch is taken anew because another one of the same device was stored meanwhile.
const ATTEMPTS: usize = 8;
const BODY_BYTES_MAX: u64 = 64 * 1024;

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let (head, body) = request.into_parts();
    let mut path = head.uri.path().split('/').skip(1);
    let (Some("signals"), Some(device), rest, None) =
        (path.next(), path.next(), path.next(), path.next())
    else {
        return refuse(StatusCode::NOT_FOUND, "no such path");
    };
    if device.is_empty()
        || device.len() > 64
        || !device
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        return refuse(
            StatusCode::NOT_FOUND,
            "a device's name is letters, digits and hyphens",
        );
    }
    match (head.method, rest) {
        (Method::POST, None) => take(device, body).await,
        (Method::PUT, Some("detectors")) => configure(device, body).await,
        (Method::GET, None) => show(device),
        _ => refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            "POST a batch, PUT …/detectors, or GET the state",
        ),
    }
}

/// Takes one batch; the decisions hold once the new state is stored.
async fn take(device: &str, body: Body) -> Result<Response<Body>, Error> {
    let Some(bytes) = bounded(body).await? else {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "a batch is at most 64 KiB");
    };
    let batch: Batch = match serde_json::from_slice(&bytes) {
        Ok(batch) => batch,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &format!("not a batch: {error}")),
    };
    let bucket = open(STORE)?;
    let mut handle = Cas::new(&bucket, device)?;
    for _ in 0..ATTEMPTS {
        let mut intersection = load(&handle)?;
        let answer = match intersection.take(&batch) {
            Ok(answer) => answer,
            Err(refused) => return refuse(status_of(&refused), &refused.to_string()),
        };
        if answer.repeated {
            return json(StatusCode::OK, &answer);
        }
        deliver(device, &mut intersection).await;
        match swap(handle, &serde_json::to_vec(&intersection)?) {
            Ok(()) => return json(StatusCode::OK, &answer),
            Err(CasError::CasFailed(newer)) => handle = newer,
            Err(CasError::StoreError(error)) => return Err(error.into()),
        }
    }
    refuse(
        StatusCode::SERVICE_UNAVAILABLE,
        "other batches of this device keep coming first",
    )
}

/// Stores the detector table and begins the device anew.
async fn configure(device: &str, body: Body) -> Result<Response<Body>, Error> {
    let Some(bytes) = bounded(body).await? else {
        return refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            "a detector table is at most 64 KiB",
        );
    };
    let detectors = match Detectors::parse(&String::from_utf8_lossy(&bytes), device) {
        Ok(detectors) => detectors,
        Err(wrong) => return refuse(StatusCode::BAD_REQUEST, &wrong),
    };
    let bucket = open(STORE)?;
    let mut intersection = load(&Cas::new(&bucket, device)?)?;
    intersection.configure(detectors);
    bucket.set(device, &serde_json::to_vec(&intersection)?)?;
    json(StatusCode::OK, &intersection)
}

fn show(device: &str) -> Result<Response<Body>, Error> {
    match stored(&open(STORE)?, device)? {
        Some(intersection) => json(StatusCode::OK, &intersection),
        None => refuse(StatusCode::NOT_FOUND, "no such device"),
    }
}

fn stored(bucket: &Bucket, device: &str) -> Result<Option<Intersection>, Error> {
    Ok(bucket
        .get(device)?
        .map(|bytes| serde_json::from_slice(&bytes))
        .transpose()?)
}

fn load(handle: &Cas) -> Result<Intersection, Error> {
    Ok(handle
        .current()?
        .map(|bytes| serde_json::from_slice(&bytes))
        .transpose()?
        .unwrap_or_default())
}

/// What the city is sent: all that waits, oldest first. It drops what it has by `number`, so sending twice is harmless.
#[derive(Serialize)]
struct Delivery<'a> {
    device: &'a str,
    aggregates: Vec<&'a Aggregate>,
}

/// Sends what waits for the city. When it does not answer, the aggregates stay and go with the next batch.
async fn deliver(device: &str, intersection: &mut Intersection) {
    let Some(last) = intersection
        .outbox()
        .back()
        .map(|aggregate| aggregate.number)
    else {
        return;
    };
    match send(&Delivery {
        device,
        aggregates: intersection.outbox().iter().collect(),
    })
    .await
    {
        Ok(status) if status.is_success() => intersection.acknowledge(last),
        Ok(status) => eprintln!(
            "the city answered {status}; {} aggregates wait",
            intersection.outbox().len()
        ),
        Err(error) => eprintln!(
            "the city did not answer: {error}; {} aggregates wait",
            intersection.outbox().len()
        ),
    }
}

async fn send(delivery: &Delivery<'_>) -> Result<StatusCode, Error> {
    let request = Request::post(CITY)
        .header("content-type", "application/json")
        .body(Body::from_json(delivery)?)?;
    let mut client = Client::new();
    client.set_first_byte_timeout(Duration::from_millis(CITY_TIMEOUT_MS));
    Ok(client.send(request).await?.status())
}

/// The body, or nothing when it is over the bound.
async fn bounded(mut body: Body) -> Result<Option<Vec<u8>>, Error> {
    if body
        .content_length()
        .is_some_and(|bytes| bytes > BODY_BYTES_MAX)
    {
        return Ok(None);
    }
    let bytes = body.contents().await?;
    Ok((bytes.len() as u64 <= BODY_BYTES_MAX).then(|| bytes.to_vec()))
}

fn status_of(refused: &Refused) -> StatusCode {
    match refused {
        Refused::TooManyEvents | Refused::OutsideItsSecond => StatusCode::BAD_REQUEST,
        Refused::OutOfOrder { .. } | Refused::TimeRanBack | Refused::NoDetectors => {
            StatusCode::CONFLICT
        }
    }
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Result<Response<Body>, Error> {
    Ok(Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Body::from_json(value)?)?)
}

#[derive(Serialize)]
struct Problem<'a> {
    status: u16,
    detail: &'a str,
}

fn refuse(status: StatusCode, detail: &str) -> Result<Response<Body>, Error> {
    let problem = Body::from_json(&Problem {
        status: status.as_u16(),
        detail,
    })?;
    Ok(Response::builder()
        .status(status)
        .header("content-type", "application/problem+json")
        .body(problem)?)
}
