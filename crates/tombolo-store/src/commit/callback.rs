//! What is told of an asynchronous invocation that will have no answer any more.

use tombolo_core::event::Event;
use tombolo_core::publish::CALLBACK;
use tombolo_core::{Moment, QueueId};

use crate::queue::Callback;
use crate::stored::Cause;

/// The type of the events.
pub const INVOCATION_FAILED: &str = "tombolo.invocation.failed";

/// What is told of an event that becomes a dead letter after so many attempts; nothing if nobody
/// asked for it.
pub(super) fn failed(
    callback: &Callback,
    (queue, sequence): (&QueueId, u64),
    event: &Event,
    attempts: u16,
    cause: &Cause,
    now: Moment,
) -> Option<Event> {
    let url = event.attribute(CALLBACK)?;
    let data = serde_json::json!({
        "source": event.source,
        "id": event.id,
        "attempts": attempts,
        "error": { "code": cause.code.map(|code| code.to_string()), "detail": cause.detail },
    });
    // The queue and the event's number in it: nothing else has this name.
    let id = format!("{queue}/{sequence}");
    let source = format!("/{}", callback.function);
    let mut told =
        Event::new(id, source, INVOCATION_FAILED).with_data("application/json", data.to_string());
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(now.wall_ms);
    told.time = Some(humantime::format_rfc3339_millis(time).to_string());
    told.subject = Some(event.id.clone());
    told.extensions.insert(CALLBACK.to_owned(), url.to_owned());
    Some(told)
}
