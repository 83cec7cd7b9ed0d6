//! What the API answers about queues, and what operators do with them.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tombolo_api::path::QueueEndpoint;
use tombolo_api::{
    Attempt, DeadLetter, DroppedEvent, List, Queue, QueueCounters, QueuedEvent, Selected, Standing,
};
use tombolo_core::header::{REQUEST_ID, TRACEPARENT};
use tombolo_core::{Blame, Body, BodyError, Code, FunctionId, QueueId, TraceContext, event};
use tombolo_runtime::Runtime;
use tombolo_store::queue::{self, Burial, Due, Reason};
use tombolo_store::{
    Dropped, EventFilter, Journal, Listed, Peeked, QueueFigures, Selection, StoreError,
};
use tombolo_telemetry::QueueReading;
use tombolo_triggers::ingress::Ingress;

use crate::control::{Control, json};
use crate::deploy::Apps;
use crate::refusal::{Refusal, refuse};

/// Events of a page when the query says nothing, and at most.
const PAGE: usize = 20;
const PAGE_MAX: usize = 1000;
/// A page with so many bytes of events ends.
const PAGE_BYTES: u64 = 4 << 20;
/// The longest selection.
const SELECTION_BYTES_MAX: usize = 64 << 10;

/// Every queue.
pub(crate) fn all(control: &Control) -> Result<Response<Body>, Refusal> {
    let queues = control.journal.queues().map_err(|error| failed(&error))?;
    let items = queues
        .iter()
        .map(|one| describe(&control.apps, one))
        .collect();
    Ok(json(&List { items }))
}

/// What is asked of one queue; the method was checked.
pub(crate) async fn answer(
    control: &Control,
    id: &QueueId,
    what: QueueEndpoint<'_>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let journal = &control.journal;
    match what {
        QueueEndpoint::Figures => {
            let figures = journal.figures(id).map_err(|error| failed(&error))?;
            Ok(json(&describe(&control.apps, &figures)))
        }
        QueueEndpoint::Events if request.method() == http::Method::GET => {
            page(journal, id, request.uri().query().unwrap_or_default())
        }
        QueueEndpoint::Events => Ok(receive(control, id, request).await),
        QueueEndpoint::Event(sequence) => {
            let missing = || {
                let detail = format!("there is no event {sequence} in the queue `{id}`");
                refuse(Code::NotFound, detail)
            };
            let sequence = sequence.parse().map_err(|_| missing())?;
            let listed = journal
                .list(id, sequence, 1)
                .map_err(|error| failed(&error))?;
            let listed = listed.into_iter().find(|one| one.sequence == sequence);
            let found = listed
                .map(|listed| queued(journal, id, &listed))
                .transpose()?;
            Ok(json(&found.flatten().ok_or_else(missing)?))
        }
        QueueEndpoint::Drops => {
            let drops = journal.drops(id).map_err(|error| failed(&error))?;
            let items = drops.into_iter().map(dropped).collect();
            Ok(json(&List { items }))
        }
        QueueEndpoint::Redrive => {
            let (selection, dry_run) = selection(request).await?;
            let events = journal.redrive(id, &selection, dry_run).await;
            let events = events.map_err(|error| failed(&error))?;
            Ok(json(&Selected { events }))
        }
        QueueEndpoint::Purge => {
            let (selection, dry_run) = selection(request).await?;
            let events = journal.purge(id, &selection, dry_run).await;
            let events = events.map_err(|error| failed(&error))?;
            Ok(json(&Selected { events }))
        }
    }
}

/// Takes events for a queue.
pub(crate) async fn receive(
    control: &Control,
    id: &QueueId,
    request: Request<Incoming>,
) -> Response<Body> {
    let request = request.map(|body| {
        body.map_err(|error| BodyError::Cut(error.into()))
            .boxed_unsync()
    });
    let parent = text(request.headers(), TRACEPARENT.as_str());
    let trace: Option<TraceContext> = parent.and_then(|parent| parent.parse().ok());
    let request_id = text(request.headers(), REQUEST_ID.as_str()).map(str::to_owned);
    let request_id = request_id.unwrap_or_else(|| {
        let trace = trace.unwrap_or_else(|| control.telemetry.root());
        format!("{:032x}", trace.trace_id)
    });
    let ingress = &control.apps.ingress;
    ingress.handle(id, request, trace, &request_id).await
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// The ingress of the API and of routes to queues.
pub(crate) fn ingress(journal: &Journal, runtime: Runtime) -> Ingress {
    let publish = Arc::new(journal.clone());
    let callbacks = move |function: &FunctionId, url: &str| runtime.check_callback(function, url);
    Ingress::new(publish, Arc::new(callbacks), event::Bounds::default())
}

fn failed(error: &StoreError) -> Refusal {
    let mut refusal = refuse(error.code(), error.to_string());
    if error.code() == Code::HostError {
        refusal.blame = Some(format!("{:?}", Blame::Host).to_ascii_lowercase());
    }
    refusal
}

fn describe(apps: &Apps, found: &QueueFigures) -> Queue {
    let QueueFigures {
        queue,
        configured,
        lost,
        figures,
        ..
    } = found;
    let counters = &figures.counters;
    Queue {
        app: queue.app.clone(),
        name: queue.queue.clone(),
        used: *configured,
        function: apps.consumer(queue),
        depth: figures.depth,
        bytes: figures.bytes,
        oldest_age_ms: figures.oldest_age_ms,
        ready: figures.ready,
        leased: figures.leased,
        scheduled: figures.scheduled,
        backing_off: figures.backing_off,
        counters: QueueCounters {
            published: counters.published,
            attempts: counters.attempts,
            retried: counters.retried,
            delivered: counters.done,
            dead: counters.dead,
            dropped: counters.dropped,
            expired: counters.expired,
            compacted: counters.compacted,
            purged: counters.purged,
            redriven: counters.redriven,
            lost: *lost,
        },
    }
}

/// What is damaged of what queues remember.
pub(crate) fn damages(journal: &Journal) -> Result<Vec<String>, Refusal> {
    let queues = journal.queues().map_err(|error| failed(&error))?;
    let damaged = queues.iter().filter(|one| one.remembered.damages > 0);
    let tell = |one: &QueueFigures| {
        let (files, queue) = (one.remembered.damages, &one.queue);
        format!(
            "{files} files of ids that the queue `{queue}` remembers are damaged; duplicates of what they held are \
             accepted again"
        )
    };
    Ok(damaged.map(tell).collect())
}

/// What metrics tell of every queue; nothing once the store is closed.
pub(crate) fn readings(journal: &Journal) -> Vec<QueueReading> {
    let queues = journal.queues().unwrap_or_default().into_iter();
    let reading = |found: QueueFigures| {
        let (figures, counters) = (found.figures, found.figures.counters);
        QueueReading {
            queue: found.queue,
            depth: figures.depth,
            bytes: figures.bytes,
            oldest_age: Duration::from_millis(figures.oldest_age_ms.unwrap_or(0)),
            leased: figures.leased,
            published: counters.published,
            attempts: counters.attempts,
            retried: counters.retried,
            delivered: counters.done,
            dead: counters.dead,
            dropped: vec![
                ("dropped", counters.dropped),
                ("compacted", counters.compacted),
                ("expired", counters.expired),
                ("purged", counters.purged),
                ("lost", found.lost),
            ],
        }
    };
    queues.map(reading).collect()
}

/// Some events of a queue, as the query says.
fn page(journal: &Journal, id: &QueueId, query: &str) -> Result<Response<Body>, Refusal> {
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

/// An event with its content; none if it is gone meanwhile.
fn queued(
    journal: &Journal,
    id: &QueueId,
    listed: &Listed,
) -> Result<Option<QueuedEvent>, Refusal> {
    let peeked = journal.peek(id, listed.sequence);
    let Some(peeked) = peeked.map_err(|error| failed(&error))? else {
        return Ok(None);
    };
    let Peeked {
        event,
        trace,
        published_wall_ms,
        attempts,
        history,
        dead,
    } = peeked;
    let written = event::json::write(&event).ok();
    let written = written.and_then(|text| serde_json::from_slice(&text).ok());
    let unreadable = || refuse(Code::EventInvalid, "the event cannot be written as JSON");
    let now = journal.now().map_err(|error| failed(&error))?;
    let (due, retry_in_ms) = match listed.due {
        Some(Due::Wall(due_ms)) => (Some(moment(due_ms)), None),
        Some(Due::Lived(due_ms)) => (None, Some(due_ms.saturating_sub(now.lived_ms))),
        None => (None, None),
    };
    Ok(Some(QueuedEvent {
        sequence: listed.sequence,
        standing: standing(listed.standing),
        priority: listed.priority,
        bytes: listed.bytes,
        published: moment(published_wall_ms),
        due,
        retry_in_ms,
        attempts,
        history: history.into_iter().map(attempt).collect(),
        trace: trace.map(|trace| trace.to_string()),
        dead: dead.map(dead_letter),
        event: written.ok_or_else(unreadable)?,
    }))
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

fn dropped(dropped: Dropped) -> DroppedEvent {
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

/// What a request selects, and whether it only asks how much that is.
async fn selection(request: Request<Incoming>) -> Result<(Selection, bool), Refusal> {
    let unclear = |detail: String| refuse(Code::BadRequest, detail);
    let body = Limited::new(request.into_body(), SELECTION_BYTES_MAX);
    let body = body
        .collect()
        .await
        .map_err(|error| unclear(error.to_string()))?;
    let asked: tombolo_api::Selection = serde_json::from_slice(&body.to_bytes())
        .map_err(|error| unclear(format!("the selection cannot be understood: {error}")))?;
    let before = asked.before.as_deref().map(|text| {
        let time = humantime::parse_rfc3339(text).ok();
        let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let ms = since.and_then(|since| u64::try_from(since.as_millis()).ok());
        ms.ok_or_else(|| unclear(format!("`{text}` is no moment like 2026-01-31T12:00:00Z")))
    });
    let filter = EventFilter {
        source: asked.source,
        kind: asked.kind,
        subject: asked.subject,
        published_before_wall_ms: before.transpose()?,
    };
    let selection = match (asked.all, asked.sequence, filter == EventFilter::default()) {
        (true, None, true) => Selection::All,
        (false, Some(sequence), true) => Selection::One(sequence),
        (false, None, false) => Selection::Matching(filter),
        _ => {
            let detail =
                "select `all`, one `sequence`, or by `source`, `type`, `subject` and `before`";
            return Err(unclear(detail.into()));
        }
    };
    Ok((selection, asked.dry_run))
}
