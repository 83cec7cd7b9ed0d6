//! What the API answers about queues, and what operators do with them.

mod listing;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tombolo_api::path::QueueEndpoint;
use tombolo_api::{List, Queue, QueueCounters, RememberedIds, Selected};
use tombolo_core::header::{REQUEST_ID, TRACEPARENT};
use tombolo_core::{Blame, Body, BodyError, Code, FunctionId, QueueId, TraceContext, event};
use tombolo_runtime::Runtime;
use tombolo_store::{AnswerFigures, EventFilter, Journal, QueueFigures, Selection, StoreError};
use tombolo_telemetry::{AnswerReading, QueueReading};
use tombolo_triggers::ingress::Ingress;

use self::listing::{dropped, page, queued};
use crate::control::{Control, json};
use crate::deploy::Apps;
use crate::refusal::{Refusal, refuse};

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
        remembered,
        figures,
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
        remembered: RememberedIds {
            ids: remembered.ids,
            forgotten_early: remembered.forgotten_early,
            damages: remembered.damages,
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
            remembered: found.remembered.ids,
            forgotten_early: found.remembered.forgotten_early,
            remembered_damages: found.remembered.damages,
        }
    };
    queues.map(reading).collect()
}

/// What metrics tell of the stored answers of every function; nothing once the store is closed.
pub(crate) fn answers(journal: &Journal) -> Vec<AnswerReading> {
    let answers = journal.answers().unwrap_or_default().into_iter();
    let reading = |found: AnswerFigures| AnswerReading {
        function: found.function,
        answers: found.answers,
        bytes: found.bytes,
        evicted: found.evicted,
    };
    answers.map(reading).collect()
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
