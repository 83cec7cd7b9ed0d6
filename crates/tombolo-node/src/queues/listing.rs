//! The events of a queue as the API lists them: what waits, dead letters, and what was dropped.

use std::time::{Duration, UNIX_EPOCH};

use http::Response;
use serde_json::Value;
use tombolo_api::{Attempt, DeadLetter, DroppedEvent, List, QueuedEvent, Standing};
use tombolo_core::event::{self, Event};
use tombolo_core::{Body, Code, Moment, QueueId};
use tombolo_store::queue::{self, Burial, Due, Reason};
use tombolo_store::{Dropped, Journal, Listed, Peeked, StoreError};

use super::failed;
use crate::control::json;
use crate::refusal::{Refusal, refuse};

/// Events of a page when the query says nothing, and at most.
const PAGE: usize = 20;
const PAGE_MAX: usize = 1000;
/// A page with so many bytes of events ends.
const PAGE_BYTES: u64 = 4 << 20;

/// Some events of a queue, as the query says.
pub(super) fn page(
    journal: &Journal,
    id: &QueueId,
    query: &str,
) -> Result<Response<Body>, Refusal> {
    let (mut from, mut limit) = (0, PAGE);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let unclear = || refuse(Code::BadRequest, format!("`{pair}` cannot be understood"));
        match name {
            "from" => from = value.parse().map_err(|_| unclear())?,
            "limit" => limit = value.parse().map_err(|_| unclear())?,
            _ => return Err(unclear()),
        }
    }
    let listed = journal.list(id, from, limit.min(PAGE_MAX));
    let (mut items, mut bytes) = (Vec::new(), 0);
    for listed in listed.map_err(|error| failed(&error))? {
        bytes += u64::from(listed.bytes);
        if bytes > PAGE_BYTES && !items.is_empty() {
            break;
        }
        // One that is gone meanwhile is left out.
        items.extend(queued(journal, id, &listed)?);
    }
    Ok(json(&List { items }))
}

/// An event with its content, or with what is wrong with that; none if it is gone meanwhile.
pub(super) fn queued(
    journal: &Journal,
    id: &QueueId,
    listed: &Listed,
) -> Result<Option<QueuedEvent>, Refusal> {
    let now = journal.now().map_err(|error| failed(&error))?;
    match journal.peek(id, listed.sequence) {
        Ok(peeked) => Ok(peeked.map(|peeked| read(listed, peeked, now))),
        Err(error @ (StoreError::Closed | StoreError::UnknownQueue(_))) => Err(failed(&error)),
        // It is this one that cannot be read; the others of its page can.
        Err(error) => {
            let problem = format!("its content cannot be read: {error}");
            Ok(Some(of_listed(listed, problem, now)))
        }
    }
}

fn read(listed: &Listed, peeked: Peeked, now: Moment) -> QueuedEvent {
    let Peeked {
        event,
        trace,
        published_wall_ms,
        attempts,
        history,
        dead,
    } = peeked;
    let (event, problem) = match written(&event) {
        Ok(event) => (Some(event), None),
        Err(problem) => (None, Some(problem)),
    };
    QueuedEvent {
        published: moment(published_wall_ms),
        attempts,
        history: history.into_iter().map(attempt).collect(),
        trace: trace.map(|trace| trace.to_string()),
        dead: dead.map(dead_letter),
        event,
        problem,
        ..of_listed(listed, String::new(), now)
    }
}

fn written(event: &Event) -> Result<Value, String> {
    let text = event::json::write(event)
        .map_err(|error| format!("the event cannot be written as JSON: {error}"))?;
    serde_json::from_slice(&text)
        .map_err(|error| format!("the event cannot be read as JSON: {error}"))
}

/// What is known of an event without its content.
fn of_listed(listed: &Listed, problem: String, now: Moment) -> QueuedEvent {
    let age_ms = now.lived_ms.saturating_sub(listed.published_lived_ms);
    let (due, retry_in_ms) = match listed.due {
        Some(Due::Wall(due_ms)) => (Some(moment(due_ms)), None),
        Some(Due::Lived(due_ms)) => (None, Some(due_ms.saturating_sub(now.lived_ms))),
        None => (None, None),
    };
    QueuedEvent {
        sequence: listed.sequence,
        standing: standing(listed.standing),
        priority: listed.priority,
        bytes: listed.bytes,
        published: moment(now.wall_ms.saturating_sub(age_ms)),
        due,
        retry_in_ms,
        attempts: listed.attempts,
        history: Vec::new(),
        trace: None,
        dead: None,
        event: None,
        problem: Some(problem),
    }
}

fn standing(standing: queue::Standing) -> Standing {
    match standing {
        queue::Standing::Ready => Standing::Ready,
        queue::Standing::Behind => Standing::Behind,
        queue::Standing::BackingOff => Standing::BackingOff,
        queue::Standing::Scheduled => Standing::Scheduled,
        queue::Standing::Leased => Standing::Leased,
    }
}

fn attempt(attempt: tombolo_store::Attempt) -> Attempt {
    let cause = attempt.cause;
    Attempt {
        attempt: attempt.attempt,
        at: moment(attempt.at.wall_ms),
        code: cause.code.map(|code| code.to_string()),
        detail: cause.detail,
        trace: cause.trace.map(|trace| trace.to_string()),
    }
}

fn dead_letter(dead: tombolo_store::DeadLetter) -> DeadLetter {
    let burial = match dead.burial {
        Burial::Refused => "refused",
        Burial::Attempts => "attempts",
        Burial::Age => "age",
    };
    DeadLetter {
        origin: dead.origin.to_string(),
        burial: burial.into(),
        attempts: dead.attempts,
        history: dead.history.into_iter().map(attempt).collect(),
    }
}

pub(super) fn dropped(dropped: Dropped) -> DroppedEvent {
    let reason = match dropped.reason {
        Reason::Done => "done",
        Reason::Dropped => "dropped",
        Reason::Expired => "expired",
        Reason::Compacted => "compacted",
        Reason::Purged => "purged",
        Reason::Redriven => "redriven",
        Reason::Buried(_) => "dead",
    };
    DroppedEvent {
        sequence: dropped.sequence,
        source: dropped.source,
        id: dropped.id,
        reason: reason.into(),
        at: moment(dropped.at.wall_ms),
    }
}

/// A moment of the wall clock; what lies beyond the year 9999 is taken for its end.
fn moment(wall_ms: u64) -> String {
    const END_MS: u64 = 253_402_300_799_999;
    let time = UNIX_EPOCH + Duration::from_millis(wall_ms.min(END_MS));
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use http_body_util::BodyExt as _;
    use tombolo_core::{Publication, Publish as _};
    use tombolo_store::Store;
    use tombolo_store::queue::QueueSettings;

    use super::*;

    fn event(id: &str) -> Event {
        let data = format!("the reading {id}");
        Event::new(id, "/m/7", "reading").with_data("text/plain", data)
    }

    async fn listed(journal: &Journal, id: &QueueId) -> Vec<QueuedEvent> {
        let page = page(journal, id, "").unwrap();
        let bytes = page.into_body().collect().await.unwrap().to_bytes();
        let list: List<QueuedEvent> = serde_json::from_slice(&bytes).unwrap();
        list.items
    }

    #[tokio::test]
    async fn an_event_that_is_damaged_or_cannot_be_written_is_listed_among_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let journal = store.journal();
        let id = QueueId {
            app: "plant".parse().unwrap(),
            queue: "readings".parse().unwrap(),
        };
        let settings = QueueSettings::default();
        journal.configure(id.clone(), settings).await.unwrap();
        // As an older version of the node might have accepted it.
        let nameless = Event::new("two", "", "reading");
        let events = [event("one"), nameless, event("three"), event("four")];
        let events = events.map(|event| Publication::new(id.clone(), event));
        journal.publish(events.into()).await.unwrap();
        for entry in fs::read_dir(folder.path().join("log")).unwrap() {
            let path = entry.unwrap().path();
            let mut content = fs::read(&path).unwrap();
            let wanted = b"the reading three";
            let at = content.windows(wanted.len()).position(|at| at == wanted);
            if let Some(at) = at {
                content[at] ^= 1;
                fs::write(&path, content).unwrap();
            }
        }
        let events = listed(&journal, &id).await;
        let ids = events.iter().map(|one| {
            let event = one.event.as_ref()?;
            event["id"].as_str()
        });
        assert_eq!(
            ids.collect::<Vec<_>>(),
            [Some("one"), None, None, Some("four")]
        );
        let problem = |place: usize| events[place].problem.clone().unwrap_or_default();
        assert_eq!(problem(0), "");
        assert!(problem(1).contains("`source`"), "{}", problem(1));
        assert!(problem(2).contains("damaged"), "{}", problem(2));
        assert_eq!((events[2].sequence, events[2].attempts), (2, 0));
        let known = journal.list(&id, 2, 1).unwrap();
        let one = queued(&journal, &id, &known[0]).unwrap();
        assert!(one.is_some_and(|one| one.event.is_none()));
    }
}
