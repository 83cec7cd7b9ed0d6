//! Does whatever a `wasi:http` 0.2 function may do, well or badly, one way for each path.

mod outgoing;
mod pump;
mod surroundings;

use std::sync::atomic::{AtomicU32, Ordering};

use wasip2::clocks::monotonic_clock;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, ResponseOutparam,
    Scheme,
};

struct Kitchen;

wasip2::http::proxy::export!(Kitchen);

impl Guest for Kitchen {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        match reply::path(&request).as_str() {
            "/" => reply::text(out, 200, "kitchen"),
            "/echo" => echo(request, out),
            "/headers" => headers(&request, out),
            "/trailers" => trailers(out),
            "/trap" => deliberately_broken(),
            "/spin" => spin(),
            "/sleep" => sleep(&request, out),
            "/allocate" => allocate(&request, out),
            "/leak" => leak(out),
            "/stream-long" => stream_long(out),
            "/break" => break_off(out),
            "/none" => drop(out),
            "/error" => {
                let code = ErrorCode::InternalError(Some("said by the guest".to_owned()));
                ResponseOutparam::set(out, Err(code));
            }
            "/fetch" => outgoing::fetch(&request, out),
            "/later" => outgoing::later(&request, out),
            "/call" => outgoing::call(request, out),
            "/loop" => outgoing::call_itself(request, out),
            "/publish" => outgoing::publish(request, out),
            "/publish-topic" => outgoing::publish_topic(request, out),
            "/log" => surroundings::log(out),
            "/big-log" => surroundings::big_log(&request, out),
            "/env" => surroundings::env(out),
            "/config" => surroundings::config(&request, out),
            "/host-call" => surroundings::host_call(&request, out),
            _ => reply::text(out, 404, "no such path"),
        }
    }
}

/// Panics, which a backtrace shows under this name.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn deliberately_broken() -> ! {
    panic!("broken on purpose")
}

#[inline(never)]
fn spin() {
    let mut turns = 0_u64;
    loop {
        turns = std::hint::black_box(turns).wrapping_add(1);
    }
}

fn sleep(request: &IncomingRequest, out: ResponseOutparam) {
    let milliseconds = reply::number(request, "ms", 10);
    monotonic_clock::subscribe_duration(milliseconds * 1_000_000).block();
    reply::text(out, 200, "slept");
}

/// Grows memory by `?mib=` and touches every page of it.
fn allocate(request: &IncomingRequest, out: ResponseOutparam) {
    let mib = reply::number(request, "mib", 1);
    let bytes = usize::try_from(mib * 1024 * 1024).expect("fits in 32 bits");
    let mut memory = vec![0_u8; bytes];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(&memory);
    reply::text(out, 200, &format!("allocated {mib} MiB"));
}

/// Counts in a global: what a fresh instance answers is always 1.
fn leak(out: ResponseOutparam) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    reply::text(out, 200, &count.to_string());
}

/// Streams the request's body and its trailers back.
fn echo(request: IncomingRequest, out: ResponseOutparam) {
    let incoming = request.consume().expect("the body is taken once");
    let outgoing = reply::start(out, 200, &[("content-type", "application/octet-stream")]);
    {
        let from = incoming.stream().expect("the stream is taken once");
        let to = outgoing.write().expect("the stream is taken once");
        while to.blocking_splice(&from, 64 * 1024).is_ok() {}
    }
    let trailers = IncomingBody::finish(incoming);
    trailers.subscribe().block();
    let trailers = match trailers.get() {
        Some(Ok(Ok(trailers))) => trailers,
        _ => None,
    };
    // Fields that came in may not be changed, nor sent: they are copied.
    let trailers = trailers
        .map(|fields| Fields::from_list(&fields.entries()).expect("what came in may go out"));
    OutgoingBody::finish(outgoing, trailers).ok();
}

/// Describes the request as JSON: method, scheme, authority, path and headers.
fn headers(request: &IncomingRequest, out: ResponseOutparam) {
    let mut headers = serde_json::Map::new();
    for (name, value) in request.headers().entries() {
        let value = String::from_utf8_lossy(&value).into_owned();
        let values = headers.entry(name).or_insert_with(|| serde_json::json!([]));
        if let Some(values) = values.as_array_mut() {
            values.push(value.into());
        }
    }
    let method = match request.method() {
        Method::Other(other) => other,
        known => format!("{known:?}")
            .trim_start_matches("Method::")
            .to_uppercase(),
    };
    let scheme = match request.scheme() {
        Some(Scheme::Http) => "http".to_owned(),
        Some(Scheme::Https) => "https".to_owned(),
        Some(Scheme::Other(other)) => other,
        None => String::new(),
    };
    let described = serde_json::json!({
        "method": method,
        "scheme": scheme,
        "authority": request.authority(),
        "path": request.path_with_query(),
        "headers": headers,
    });
    let bytes = described.to_string().into_bytes();
    reply::send(out, 200, "application/json", &bytes);
}

fn trailers(out: ResponseOutparam) {
    let body = reply::start(out, 200, &[("trailer", "x-checksum")]);
    {
        let stream = body.write().expect("the stream is taken once");
        reply::write(&stream, b"a body with trailers");
    }
    let trailers = Fields::new();
    trailers
        .append("x-checksum", b"1234")
        .expect("the header is allowed");
    OutgoingBody::finish(body, Some(trailers)).ok();
}

/// Writes for as long as anyone reads.
fn stream_long(out: ResponseOutparam) {
    let body = reply::start(out, 200, &[]);
    let stream = body.write().expect("the stream is taken once");
    while reply::write(&stream, &[b'x'; 4096]) {}
}

/// Sends the head and some of the body, and traps.
fn break_off(out: ResponseOutparam) {
    let body = reply::start(out, 200, &[]);
    let stream = body.write().expect("the stream is taken once");
    reply::write(&stream, b"the first half");
    deliberately_broken()
}
