//! What is told of an asynchronous invocation to whoever asked to be called back: its answer. (Of one that becomes a dead letter the store tells, which knows of all of them.)

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tombolo_core::FunctionId;
use tombolo_core::event::Event;
use tombolo_core::publish::CALLBACK;

use super::answer::Answer;

/// The type of an event that tells the answer of a function.
const ANSWERED: &str = "tombolo.invocation.answered";
/// How much of a body is told; what is longer is cut.
const BODY_BYTES_MAX: usize = 512 << 10;
/// How much of the headers is told; those beyond are left out.
const HEADERS_BYTES_MAX: usize = 64 << 10;

/// One delivery of an event that asks for a callback.
pub(super) struct Asking<'e> {
    pub(super) event: &'e Event,
    pub(super) function: &'e FunctionId,
    /// The queue and the event's number in it: nothing else has this name.
    pub(super) id: String,
    pub(super) attempt: u16,
}

impl Asking<'_> {
    /// The function has answered; nothing if nobody asked for it.
    pub(super) fn answered(&self, answer: &Answer) -> Option<Event> {
        let url = self.event.attribute(CALLBACK)?;
        let mut data = Map::new();
        data.insert("status".into(), answer.status.as_u16().into());
        data.insert("headers".into(), headers(answer));
        let body = answer.body.get(..BODY_BYTES_MAX).unwrap_or(&answer.body);
        let (name, text) = match std::str::from_utf8(body) {
            Ok(text) => ("body", text.to_owned()),
            Err(_) => ("body_base64", STANDARD.encode(body)),
        };
        data.insert(name.into(), text.into());
        let is_cut = answer.cut || body.len() < answer.body.len();
        data.insert("cut".into(), is_cut.into());
        data.insert("source".into(), self.event.source.as_str().into());
        data.insert("id".into(), self.event.id.as_str().into());
        data.insert("attempts".into(), self.attempt.into());
        let source = format!("/{}", self.function);
        let mut event = Event::new(self.id.as_str(), source, ANSWERED)
            .with_data("application/json", Value::Object(data).to_string());
        event.subject = Some(self.event.id.clone());
        event.time = Some(format!("{:.3}", Timestamp::now()));
        event.extensions.insert(CALLBACK.to_owned(), url.to_owned());
        Some(event)
    }
}

fn headers(answer: &Answer) -> Value {
    let mut told: Map<String, Value> = Map::new();
    let mut bytes = 0;
    for (name, value) in &answer.headers {
        bytes += name.as_str().len() + value.len();
        if bytes > HEADERS_BYTES_MAX {
            break;
        }
        let values = told.entry(name.as_str()).or_insert_with(|| json!([]));
        if let Some(values) = values.as_array_mut() {
            values.push(String::from_utf8_lossy(value.as_bytes()).into());
        }
    }
    Value::Object(told)
}
