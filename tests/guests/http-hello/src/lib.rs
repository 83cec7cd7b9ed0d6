//! Answers every request with `hello, world`: the smallest `wasi:http` 0.2 function.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

struct Hello;

wasip2::http::proxy::export!(Hello);

impl Guest for Hello {
    fn handle(_request: IncomingRequest, out: ResponseOutparam) {
        let response = OutgoingResponse::new(Fields::new());
        let body = response.body().expect("the body is taken once");
        ResponseOutparam::set(out, Ok(response));
        let stream = body.write().expect("the stream is taken once");
        // The buffer of a new body has room: asking first is what the contract of `write` wants.
        if stream.check_write().is_ok() {
            stream.write(b"hello, world").ok();
        }
        drop(stream);
        OutgoingBody::finish(body, None).ok();
    }
}
