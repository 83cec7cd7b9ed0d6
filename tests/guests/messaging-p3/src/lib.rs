//! A `wasi:http` 0.3 service that waits `?ms=` and then sends its path as a message to the topic `readings`.

use wasip3::clocks::monotonic_clock;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{wit_future, wit_stream};

wit_bindgen::generate!({
    path: "../../../wit/messaging",
    world: "wasi:messaging/imports",
    generate_all,
});

use wasi::messaging::producer;
use wasi::messaging::types::{Client, Error, Message};

struct Service;

wasip3::http::service::export!(Service);

impl wasip3::exports::http::handler::Guest for Service {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let whole = request.get_path_with_query().unwrap_or_default();
        let (path, query) = whole.split_once('?').unwrap_or((&whole, ""));
        let milliseconds = query.strip_prefix("ms=").and_then(|ms| ms.parse().ok());
        monotonic_clock::wait_for(milliseconds.unwrap_or(0) * 1_000_000).await;
        let sent = send(path);
        let (_, body) = wit_stream::new();
        let (_, trailers) = wit_future::new(|| Ok(None));
        let (response, _sent) = Response::new(Fields::new(), Some(body), trailers);
        let status = if sent.is_ok() { 200 } else { 500 };
        response.set_status_code(status).ok();
        Ok(response)
    }
}

fn send(text: &str) -> Result<(), Error> {
    let client = Client::connect("default")?;
    producer::send(&client, "readings", Message::new(text.as_bytes()))
}
