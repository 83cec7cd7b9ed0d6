//! Sends with `wasi:messaging` 0.2.0-draft what it is sent: to the topic `?topic=`, with the rest of the query as metadata, by the client `?client=`.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

wit_bindgen::generate!({
    path: "../../../wit/messaging",
    world: "wasi:messaging/imports",
    generate_all,
});

use wasi::messaging::producer;
use wasi::messaging::types::{Client, Error, Message};

struct Messaging;

wasip2::http::proxy::export!(Messaging);

impl Guest for Messaging {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let done = match reply::path(&request).as_str() {
            "/send" => send(&request),
            "/change" => change(&request),
            "/hoard" => hoard(&request),
            "/" => pass_on(&request),
            _ => return reply::text(out, 404, "no such path"),
        };
        match done {
            Ok(text) => reply::text(out, 200, text),
            Err(Error::Timeout) => reply::text(out, 500, "timeout"),
            Err(Error::Connection(why)) => reply::text(out, 500, &format!("connection: {why}")),
            Err(Error::PermissionDenied(why)) => reply::text(out, 500, &format!("denied: {why}")),
            Err(Error::Other(why)) => reply::text(out, 500, &format!("other: {why}")),
        }
    }
}

fn send(request: &IncomingRequest) -> Result<&'static str, Error> {
    let client = reply::query(request, "client").unwrap_or_default();
    let client = Client::connect(&client)?;
    let message = Message::new(&reply::body(request));
    for value in request.headers().get("content-type") {
        message.set_content_type(&String::from_utf8_lossy(&value));
    }
    let whole = request.path_with_query().unwrap_or_default();
    let (_, query) = whole.split_once('?').unwrap_or_default();
    let mut topic = "";
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match key {
            "topic" => topic = value,
            "client" => {}
            key => message.add_metadata(key, value),
        }
    }
    producer::send(&client, topic, message)?;
    client.disconnect()?;
    Ok("sent")
}

/// Sends the data of an event on to the MQTT topic that the environment names.
fn pass_on(request: &IncomingRequest) -> Result<&'static str, Error> {
    let topic = std::env::var("TOPIC").map_err(|error| Error::Other(error.to_string()))?;
    let message = Message::new(&reply::body(request));
    producer::send(&Client::connect("mqtt")?, &topic, message)?;
    Ok("passed on")
}

/// Changes a message in every way, tells whether it then is what it was made, and sends it.
fn change(request: &IncomingRequest) -> Result<&'static str, Error> {
    let message = Message::new(b"first");
    assert_eq!(message.topic(), None);
    assert_eq!(message.content_type(), None);
    assert_eq!(message.metadata(), None);
    let pairs = [("type", "draft"), ("colour", "red"), ("size", "large")];
    message.set_metadata(&pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));
    message.add_metadata("type", "final");
    message.remove_metadata("size");
    let mut metadata = message.metadata().unwrap_or_default();
    metadata.sort();
    let expected = [("colour", "red"), ("type", "final")];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(metadata, expected);
    message.set_content_type("text/plain");
    assert_eq!(message.content_type().as_deref(), Some("text/plain"));
    message.set_data(b"second");
    assert_eq!(message.data(), b"second");
    let topic = reply::query(request, "topic").unwrap_or_default();
    producer::send(&Client::connect("")?, &topic, message)?;
    Ok("sent")
}

/// Makes messages of 512 KiB, `?mib=` MiB in all, and sends none of them.
fn hoard(request: &IncomingRequest) -> Result<&'static str, Error> {
    let data = vec![b'x'; 512 * 1024];
    let count = reply::number(request, "mib", 1) * 2;
    let messages: Vec<_> = (0..count).map(|_| Message::new(&data)).collect();
    drop(messages);
    Ok("hoarded")
}
