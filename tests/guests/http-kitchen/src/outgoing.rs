//! Requests that the guest sends itself.

use wasip2::clocks::monotonic_clock;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingRequest, IncomingResponse,
    Method, OutgoingBody, OutgoingRequest, ResponseOutparam, Scheme,
};
use wasip2::io::poll;

use crate::pump::Pump;

/// Requests `?url=` and answers with `STATUS BODY`, or with 200 and `error NAME`.
pub fn fetch(request: &IncomingRequest, out: ResponseOutparam) {
    let url = reply::query(request, "url").expect("the query has a url");
    match get(&url) {
        Ok((status, body)) => {
            let text = format!("{status} {}", String::from_utf8_lossy(&body));
            reply::text(out, 200, &text);
        }
        Err(error) => reply::text(out, 200, &named(&error)),
    }
}

/// Answers, and requests `?url=` when `?ms=` have passed since.
pub fn later(request: &IncomingRequest, out: ResponseOutparam) {
    let url = reply::query(request, "url").expect("the query has a url");
    let milliseconds = reply::number(request, "ms", 10);
    reply::text(out, 200, "later");
    monotonic_clock::subscribe_duration(milliseconds * 1_000_000).block();
    // Nobody is left to be told how it went.
    get(&url).ok();
}

/// Streams the request's body to `?path=` of the function `?function=`, and its answer back.
pub fn call(request: IncomingRequest, out: ResponseOutparam) {
    let function = reply::query(&request, "function").expect("the query has a function");
    let path = reply::query(&request, "path").unwrap_or_else(|| "/".to_owned());
    let authority = format!("{function}.fn.tombolo.internal");
    forward(request, Fields::new(), &authority, &path, out);
}

/// Calls the function `?function=` with the path and query of this very request.
pub fn call_itself(request: IncomingRequest, out: ResponseOutparam) {
    let function = reply::query(&request, "function").expect("the query has a function");
    let path = request.path_with_query().unwrap_or_default();
    let authority = format!("{function}.fn.tombolo.internal");
    forward(request, Fields::new(), &authority, &path, out);
}

/// Publishes the request's body to the queue `?queue=`, with its `content-type`, its `ce-*` headers and the rest
/// of its query, and answers what the queue does.
pub fn publish(request: IncomingRequest, out: ResponseOutparam) {
    let queue = reply::query(&request, "queue").expect("the query has a queue");
    let authority = format!("{queue}.queue.tombolo.internal");
    let whole = request.path_with_query().unwrap_or_default();
    let (_, query) = whole.split_once('?').unwrap_or_default();
    let rest = query.split('&').filter(|pair| !pair.starts_with("queue="));
    let path = format!("/?{}", rest.collect::<Vec<_>>().join("&"));
    let headers = Fields::new();
    for (name, value) in request.headers().entries() {
        if name == "content-type" || name.starts_with("ce-") {
            headers
                .append(&name, &value)
                .expect("the header is allowed");
        }
    }
    forward(request, headers, &authority, &path, out);
}

/// Publishes the request's body to the MQTT topic `?topic=`, with the rest of its query, and answers what the
/// broker does.
pub fn publish_topic(request: IncomingRequest, out: ResponseOutparam) {
    let topic = reply::query(&request, "topic").expect("the query has a topic");
    let whole = request.path_with_query().unwrap_or_default();
    let (_, query) = whole.split_once('?').unwrap_or_default();
    let rest = query.split('&').filter(|pair| !pair.starts_with("topic="));
    let path = format!("/{topic}?{}", rest.collect::<Vec<_>>().join("&"));
    forward(request, Fields::new(), "mqtt.tombolo.internal", &path, out);
}

fn forward(
    request: IncomingRequest,
    headers: Fields,
    authority: &str,
    path: &str,
    out: ResponseOutparam,
) {
    let outgoing = prepare(headers, &Method::Post, &Scheme::Http, authority, path);
    let outgoing_body = outgoing.body().expect("the body is taken once");
    let incoming_body = request.consume().expect("the body is taken once");
    let response = match outgoing_handler::handle(outgoing, None) {
        Ok(response) => response,
        Err(error) => return reply::text(out, 502, &named(&error)),
    };
    let mut there = Pump::new(
        incoming_body.stream().expect("the stream is taken once"),
        outgoing_body.write().expect("the stream is taken once"),
    );
    let mut outgoing_body = Some(outgoing_body);
    let response = match wait(&response, &mut there, &mut outgoing_body) {
        Ok(response) => response,
        Err(error) => return reply::text(out, 502, &named(&error)),
    };
    let back_body = response.consume().expect("the body is taken once");
    let reply_body = reply::start(out, response.status(), &[]);
    let mut back = Pump::new(
        back_body.stream().expect("the stream is taken once"),
        reply_body.write().expect("the stream is taken once"),
    );
    while !back.run() {
        pump(&mut there, &mut outgoing_body);
        let waits: Vec<_> = [there.waits_for(), back.waits_for()]
            .into_iter()
            .flatten()
            .collect();
        poll::poll(&waits.iter().collect::<Vec<_>>());
    }
    drop(back_body);
    OutgoingBody::finish(reply_body, None).ok();
}

fn pump(there: &mut Pump, body: &mut Option<OutgoingBody>) {
    if there.run()
        && let Some(body) = body.take()
    {
        OutgoingBody::finish(body, None).ok();
    }
}

/// Waits for the head of the response while the body is still on its way.
fn wait(
    response: &FutureIncomingResponse,
    there: &mut Pump,
    body: &mut Option<OutgoingBody>,
) -> Result<IncomingResponse, ErrorCode> {
    let answered = response.subscribe();
    loop {
        pump(there, body);
        if let Some(result) = response.get() {
            return result.expect("the response is taken once");
        }
        let waiting = there.waits_for();
        let mut waits = vec![&answered];
        waits.extend(waiting.as_ref());
        poll::poll(&waits);
    }
}

fn get(url: &str) -> Result<(u16, Vec<u8>), ErrorCode> {
    let (scheme, rest) = url.split_once("://").expect("the url has a scheme");
    let scheme = if scheme == "https" {
        Scheme::Https
    } else {
        Scheme::Http
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let request = prepare(Fields::new(), &Method::Get, &scheme, authority, path);
    let body = request.body().expect("the body is taken once");
    let response = outgoing_handler::handle(request, None)?;
    OutgoingBody::finish(body, None)?;
    response.subscribe().block();
    let response = response
        .get()
        .expect("the response is there")
        .expect("the response is taken once")?;
    let body: IncomingBody = response.consume().expect("the body is taken once");
    Ok((response.status(), reply::read(&body)))
}

fn prepare(
    headers: Fields,
    method: &Method,
    scheme: &Scheme,
    authority: &str,
    path: &str,
) -> OutgoingRequest {
    let request = OutgoingRequest::new(headers);
    request.set_method(method).expect("the method is valid");
    request
        .set_scheme(Some(scheme))
        .expect("the scheme is valid");
    request
        .set_authority(Some(authority))
        .expect("the authority is valid");
    request
        .set_path_with_query(Some(path))
        .expect("the path is valid");
    request
}

fn named(error: &ErrorCode) -> String {
    format!("error {error:?}")
}
