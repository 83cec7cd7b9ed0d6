//! Handles events as its environment says: what it notes, counts and publishes, and how it answers.
//!
//! | variable | what it does |
//! | --- | --- |
//! | `NOTES=STORE` | writes the headers and the body of the request to the key `TRIGGER/ID/ATTEMPT` |
//! | `COUNT=STORE` | adds 1 to the key `count`, and what it is then as a key of its own |
//! | `PUBLISH=QUEUE` | publishes an event to a queue, with the request's body |
//! | `ANSWER=…` | a status (200 when absent), `reply`, `trap`, `spin`, `hang` or `endless` |
//! | `RETRY_AFTER=SECONDS` | the header of the answer |

use wasip2::clocks::monotonic_clock;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingRequest, ResponseOutparam, Scheme,
};

wit_bindgen::generate!({
    path: "../../../wit/keyvalue-draft2",
    world: "wasi:keyvalue/imports",
    generate_all,
});

use wasi::keyvalue::{atomics, store};

struct Events;

wasip2::http::proxy::export!(Events);

impl Guest for Events {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let body = reply::body(&request);
        if let Some(store) = setting("NOTES") {
            note(&store, &request, &body);
        }
        if let Some(store) = setting("COUNT") {
            count(&store);
        }
        if let Some(queue) = setting("PUBLISH") {
            let status = publish(&queue, &body);
            assert_eq!(status, 202, "the queue accepts the event");
        }
        answer(&request, out);
    }
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn header(request: &IncomingRequest, name: &str) -> String {
    let values = request.headers().get(name);
    let value = values.first().map(Vec::as_slice).unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

fn note(store: &str, request: &IncomingRequest, body: &[u8]) {
    let mut noted = serde_json::Map::new();
    for (name, value) in request.headers().entries() {
        noted.insert(name, String::from_utf8_lossy(&value).into());
    }
    noted.insert("body".into(), String::from_utf8_lossy(body).into());
    let [trigger, id, attempt] =
        ["x-tombolo-trigger", "ce-id", "x-tombolo-attempt"].map(|name| header(request, name));
    let key = format!("{trigger}/{id}/{attempt}");
    let value = serde_json::Value::Object(noted).to_string();
    let bucket = store::open(store).expect("the store is granted");
    bucket
        .set(&key, value.as_bytes())
        .expect("the note is kept");
}

fn count(store: &str) {
    let bucket = store::open(store).expect("the store is granted");
    let count = atomics::increment(&bucket, "count", 1).expect("the count is a number");
    bucket
        .set(&format!("at-{count}"), b"")
        .expect("the key is kept");
}

fn publish(queue: &str, body: &[u8]) -> u16 {
    let request = OutgoingRequest::new(Fields::new());
    let authority = format!("{queue}.queue.tombolo.internal");
    request
        .set_method(&Method::Post)
        .expect("the method is valid");
    request
        .set_scheme(Some(&Scheme::Http))
        .expect("the scheme is valid");
    request
        .set_authority(Some(&authority))
        .expect("the authority is valid");
    request
        .set_path_with_query(Some("/"))
        .expect("the path is valid");
    let outgoing = request.body().expect("the body is taken once");
    let response = outgoing_handler::handle(request, None).expect("the request is sent");
    let stream = outgoing.write().expect("the stream is taken once");
    reply::write(&stream, body);
    drop(stream);
    OutgoingBody::finish(outgoing, None).expect("the body is whole");
    response.subscribe().block();
    let response = response.get().expect("the response is there");
    let response = response.expect("it is taken once");
    response.expect("the queue answers").status()
}

fn answer(request: &IncomingRequest, out: ResponseOutparam) {
    match setting("ANSWER").as_deref().unwrap_or("200") {
        "trap" => panic!("broken on purpose"),
        "spin" => spin(),
        "hang" => wait(),
        "endless" => {
            let body = reply::start(out, 200, &[]);
            let stream = body.write().expect("the stream is taken once");
            reply::write(&stream, b"the beginning");
            wait();
        }
        "reply" => {
            let id = format!("{}+", header(request, "ce-id"));
            let headers = [
                ("ce-specversion", "1.0"),
                ("ce-id", id.as_str()),
                ("ce-source", "/events"),
                ("ce-type", "reply"),
            ];
            drop(reply::start(out, 200, &headers));
        }
        status => {
            let status = status.parse().expect("the answer is a status");
            let after = setting("RETRY_AFTER");
            let headers: Vec<_> = after
                .iter()
                .map(|after| ("retry-after", after.as_str()))
                .collect();
            let body = reply::start(out, status, &headers);
            let stream = body.write().expect("the stream is taken once");
            reply::write(&stream, b"as it was told");
            drop(stream);
            OutgoingBody::finish(body, None).ok();
        }
    }
}

fn spin() {
    let mut turns = 0_u64;
    loop {
        turns = std::hint::black_box(turns).wrapping_add(1);
    }
}

/// Longer than any limit.
fn wait() {
    monotonic_clock::subscribe_duration(3_600_000_000_000).block();
}
