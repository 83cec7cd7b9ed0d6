//! `tombolo queue`: looks into queues of the node of the folder, sends events, redrives and purges them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use serde::Serialize;
use serde_json::Value;
use tombolo_api::{Attempt, Client, ClientError, Queue, QueuedEvent, Selection, Standing, Terms};
use tombolo_core::event::{Bounds, Event, json};
use tombolo_core::{Code, Name, QueueId, QueueName};

use super::{invoke, logs};
use crate::app;
use crate::arguments::Global;
use crate::arguments::queue::{Peek, QueueCommand, Select, Send};
use crate::error::Error;
use crate::output::{Output, Row, pairs};

/// Does what the command says.
pub async fn run(command: &QueueCommand, global: &Global, output: &Output) -> Result<(), Error> {
    match command {
        QueueCommand::List(list) => {
            let queues = app::client(global, &list.files)?.queues().await?.items;
            output.list(&rows(queues))
        }
        QueueCommand::Peek(arguments) => {
            let client = app::client(global, &arguments.files)?;
            peek(&client, arguments, output).await
        }
        QueueCommand::Send(arguments) => {
            let events = events(arguments)?;
            let client = app::client(global, &arguments.files)?;
            send(&client, &events, arguments, output).await
        }
        QueueCommand::Redrive(arguments) => {
            let client = app::client(global, &arguments.files)?;
            select(&client, Action::Redrive, arguments, output).await
        }
        QueueCommand::Purge(arguments) => {
            let client = app::client(global, &arguments.files)?;
            select(&client, Action::Purge, arguments, output).await
        }
    }
}

/// The queue that a text names: `app/queue`, or a queue of the only app that has one of this name.
async fn queue_id(client: &Client, text: &str) -> Result<QueueId, Error> {
    let (app, queue) = match text.split_once('/') {
        Some((app, queue)) => (Some(app), queue),
        None => (None, text),
    };
    let unclear = |error: &(dyn std::error::Error + 'static)| {
        Error::usage(format!("`{text}` is no name of a queue")).why(error)
    };
    let queue: QueueName = queue.parse().map_err(|error| unclear(&error))?;
    if let Some(app) = app {
        let app = app.parse().map_err(|error| unclear(&error))?;
        return Ok(QueueId { app, queue });
    }
    let mut apps = apps_with(&client.queues().await?.items, &queue).into_iter();
    match (apps.next(), apps.next()) {
        (Some(app), None) => Ok(QueueId { app, queue }),
        (Some(one), Some(other)) => Err(Error::usage(format!(
            "several apps have a queue `{text}`"
        ))
        .help(format!(
            "name the app too: `{one}/{queue}` or `{other}/{queue}`"
        ))),
        (None, _) => Err(
            Error::new(Code::QueueMissing, format!("there is no queue `{text}`"))
                .help("`tombolo queue list` lists what there is"),
        ),
    }
}

/// The apps that have the queue, or the one whose dead letters it holds.
fn apps_with(queues: &[Queue], wanted: &QueueName) -> BTreeSet<Name> {
    let living = wanted.living();
    let has = |queue: &&Queue| queue.name == *wanted || Some(&queue.name) == living.as_ref();
    let found = queues.iter().filter(has);
    found.map(|queue| queue.app.clone()).collect()
}

/// The error of a request about a queue.
fn failed(error: ClientError) -> Error {
    let code = error.code();
    let report = Error::from(error);
    match code {
        Code::QueueMissing => report.help("`tombolo queue list` lists what there is"),
        Code::NotFound => report.help("`tombolo queue peek QUEUE` lists its events"),
        _ => report,
    }
}

async fn peek(client: &Client, arguments: &Peek, output: &Output) -> Result<(), Error> {
    let id = queue_id(client, &arguments.queue).await?;
    if let Some(sequence) = arguments.sequence {
        let event = client.queue_event(&id, sequence).await.map_err(failed)?;
        return output.one(&event, || sequence.to_string(), || event_text(&event));
    }
    let (mut from, mut events) = (arguments.from, Vec::new());
    let limit = usize::from(arguments.limit);
    while events.len() < limit {
        let left = u16::try_from(limit - events.len()).unwrap_or(arguments.limit);
        let page = client.queue_events(&id, from, left).await.map_err(failed)?;
        // A page ends early when its events are long; only an empty one is the last.
        let Some(last) = page.items.last() else {
            break;
        };
        from = last.sequence.saturating_add(1);
        events.extend(page.items.into_iter().map(EventRow));
    }
    output.list(&events)
}

/// The events that the arguments describe.
fn events(arguments: &Send) -> Result<Vec<Event>, Error> {
    if let Some(file) = &arguments.event {
        let text = invoke::read_file(file)?;
        let bounds = Bounds::default();
        let parsed = match text.trim_ascii_start().first() {
            Some(b'[') => json::parse_batch(&text, &bounds),
            _ => json::parse(&text, &bounds).map(|event| vec![event]),
        };
        return parsed.map_err(|error| invoke::no_event(file, &error));
    }
    let data = arguments.data.as_deref().map(invoke::read_data);
    let mut event = invoke::event("queue", "queue", data.transpose()?);
    event.kind = arguments.kind.clone().unwrap_or(event.kind);
    event.source = arguments.source.clone().unwrap_or(event.source);
    event.id = arguments.id.clone().unwrap_or(event.id);
    event.subject.clone_from(&arguments.subject);
    let checked = event.check_within(&Bounds::default());
    checked.map_err(|error| invoke::unsent(&error))?;
    Ok(vec![event])
}

async fn send(
    client: &Client,
    events: &[Event],
    arguments: &Send,
    output: &Output,
) -> Result<(), Error> {
    let id = queue_id(client, &arguments.queue).await?;
    let body = json::write_batch(events).map_err(|error| invoke::unsent(&error))?;
    let ids: Vec<&str> = events.iter().map(|event| event.id.as_str()).collect();
    if arguments.dry_run {
        client.queue(&id).await.map_err(failed)?;
        let written: Value = serde_json::from_slice(&body)
            .map_err(|error| Error::new(Code::Failed, "the events cannot be shown").why(&error))?;
        output.progress(format!("would send to {id}"));
        return output.one(&written, || ids.join("\n"), || format!("{written:#}\n"));
    }
    let delay = arguments.delay.map(|delay| delay.as_millis());
    let terms = Terms {
        delay_ms: delay.map(|delay| u64::try_from(delay).unwrap_or(u64::MAX)),
        priority: arguments.priority,
    };
    let mut headers = HeaderMap::new();
    let batch = HeaderValue::from_static(json::BATCH_MEDIA_TYPE);
    headers.insert(header::CONTENT_TYPE, batch);
    let receipt = client.send_events_on(&id, &terms, headers, Bytes::from(body));
    let receipt = receipt.await.map_err(failed)?;
    invoke::print_receipt(&receipt, ids.join("\n"), output)
}

/// What is done with the events of a selection.
#[derive(Clone, Copy)]
enum Action {
    Redrive,
    Purge,
}

impl Action {
    /// The verb, and what it has been done to when it is done.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Redrive => ("redrive", "redriven"),
            Self::Purge => ("purge", "purged"),
        }
    }

    async fn take(
        self,
        client: &Client,
        id: &QueueId,
        selection: &Selection,
    ) -> Result<u64, Error> {
        let selected = match self {
            Self::Redrive => client.redrive(id, selection).await,
            Self::Purge => client.purge(id, selection).await,
        };
        Ok(selected.map_err(failed)?.events)
    }
}

/// What was done, for programs.
#[derive(Serialize)]
struct Done {
    queue: String,
    action: &'static str,
    events: u64,
    dry_run: bool,
}

async fn select(
    client: &Client,
    action: Action,
    arguments: &Select,
    output: &Output,
) -> Result<(), Error> {
    let selection = selection(arguments, SystemTime::now())?;
    let id = queue_id(client, &arguments.queue).await?;
    let (verb, past) = action.words();
    if selection.all && !selection.dry_run {
        let count = Selection {
            dry_run: true,
            ..selection.clone()
        };
        let events = action.take(client, &id, &count).await?;
        if events > 0 && !output.confirm(&format!("{verb} all of {id} ({events})?")) {
            let what = format!("nobody has confirmed to {verb} all of `{id}` ({events})");
            return Err(Error::usage(what).help(format!(
                "`--yes` confirms, `--dry-run` tells what there is to {verb}"
            )));
        }
    }
    let done = Done {
        queue: id.to_string(),
        action: verb,
        events: action.take(client, &id, &selection).await?,
        dry_run: selection.dry_run,
    };
    output.one(
        &done,
        || id.to_string(),
        || match done.dry_run {
            true => format!("would {verb} {} of {id}\n", done.events),
            false => format!("{past} {} of {id}\n", done.events),
        },
    )
}

fn selection(arguments: &Select, now: SystemTime) -> Result<Selection, Error> {
    let before = arguments.before.as_deref();
    Ok(Selection {
        all: arguments.all,
        sequence: arguments.sequence,
        source: arguments.source.clone(),
        kind: arguments.kind.clone(),
        subject: arguments.subject.clone(),
        before: before.map(|text| logs::moment(text, now)).transpose()?,
        dry_run: arguments.dry_run,
    })
}

/// A queue, and how many dead letters it has now.
#[derive(Serialize)]
struct QueueRow {
    #[serde(flatten)]
    queue: Queue,
    dead_letters: u64,
}

fn rows(queues: Vec<Queue>) -> Vec<QueueRow> {
    let dead = |of: &Queue| {
        let grave = of.name.dead();
        let mut dead = queues.iter().filter(|one| one.app == of.app);
        let dead = dead.find(|one| one.name == grave);
        dead.map_or(0, |dead| dead.depth)
    };
    let dead: Vec<u64> = queues.iter().map(dead).collect();
    let rows = queues.into_iter().zip(dead);
    rows.map(|(queue, dead_letters)| QueueRow {
        queue,
        dead_letters,
    })
    .collect()
}

impl Row for QueueRow {
    const COLUMNS: &'static [&'static str] = &[
        "APP", "QUEUE", "FUNCTION", "DEPTH", "OLDEST", "READY", "LEASED", "DELAYED", "RETRYING",
        "DEAD",
    ];
    const WIDE: &'static [&'static str] = &[
        "BYTES",
        "PUBLISHED",
        "ATTEMPTS",
        "RETRIED",
        "DELIVERED",
        "BURIED",
        "DROPPED",
        "EXPIRED",
        "COMPACTED",
        "PURGED",
        "REDRIVEN",
        "LOST",
        "REMEMBERED",
        "FORGOTTEN",
        "DAMAGES",
    ];

    fn name(&self) -> String {
        format!("{}/{}", self.queue.app, self.queue.name)
    }

    fn cells(&self) -> Vec<String> {
        let queue = &self.queue;
        let function = match (&queue.function, queue.used) {
            (Some(function), _) => function.to_string(),
            (None, true) => dash(),
            (None, false) => "(unused)".into(),
        };
        let mut cells = vec![
            queue.app.to_string(),
            queue.name.to_string(),
            function,
            queue.depth.to_string(),
            queue.oldest_age_ms.map_or_else(dash, age),
        ];
        let counters = &queue.counters;
        let counts = [
            queue.ready,
            queue.leased,
            queue.scheduled,
            queue.backing_off,
            self.dead_letters,
            queue.bytes,
            counters.published,
            counters.attempts,
            counters.retried,
            counters.delivered,
            counters.dead,
            counters.dropped,
            counters.expired,
            counters.compacted,
            counters.purged,
            counters.redriven,
            counters.lost,
            queue.remembered.ids,
            queue.remembered.forgotten_early,
            queue.remembered.damages,
        ];
        cells.extend(counts.map(|count| count.to_string()));
        cells
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct EventRow(QueuedEvent);

impl Row for EventRow {
    const COLUMNS: &'static [&'static str] = &[
        "SEQUENCE",
        "STANDING",
        "ATTEMPTS",
        "PUBLISHED",
        "TYPE",
        "SOURCE",
        "ID",
    ];
    const WIDE: &'static [&'static str] = &["SUBJECT", "PRIORITY", "BYTES", "NEXT", "LAST FAILURE"];

    fn name(&self) -> String {
        self.0.sequence.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let queued = &self.0;
        let attribute = |name| {
            let event = queued.event.as_ref();
            let value = event.and_then(|event| event.get(name)?.as_str());
            value.map_or_else(dash, str::to_owned)
        };
        let problem = queued.problem.as_deref().map(one_line);
        let failure = || history(queued).last().map(cause);
        vec![
            queued.sequence.to_string(),
            standing(queued.standing).into(),
            attempts(queued).to_string(),
            queued.published.clone(),
            attribute("type"),
            attribute("source"),
            attribute("id"),
            attribute("subject"),
            queued.priority.to_string(),
            queued.bytes.to_string(),
            next(queued),
            problem.or_else(failure).unwrap_or_else(dash),
        ]
    }
}

/// The attempts of an event; those of a dead letter were made in the queue that it came from.
fn attempts(queued: &QueuedEvent) -> u16 {
    let buried = queued.dead.as_ref().map_or(0, |dead| dead.attempts);
    queued.attempts.max(buried)
}

fn history(queued: &QueuedEvent) -> &[Attempt] {
    let buried = queued.dead.as_ref();
    buried.map_or(&queued.history, |dead| &dead.history)
}

/// A table has one line for an event, and nothing in it commands a terminal.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

fn cause(attempt: &Attempt) -> String {
    let detail = one_line(&attempt.detail);
    match &attempt.code {
        Some(code) => format!("{code}: {detail}"),
        None => detail,
    }
}

/// When an event that waits may be delivered.
fn next(queued: &QueuedEvent) -> String {
    match (&queued.due, queued.retry_in_ms) {
        (Some(due), _) => due.clone(),
        (None, Some(ms)) => format!("in {}", age(ms)),
        (None, None) => dash(),
    }
}

/// Everything about an event.
fn event_text(queued: &QueuedEvent) -> String {
    let mut tried = String::new();
    for attempt in history(queued) {
        let _ = writeln!(
            tried,
            "{} {} {}",
            attempt.attempt,
            attempt.at,
            cause(attempt)
        );
    }
    let dead = queued.dead.as_ref().map_or_else(dash, |dead| {
        let why = match dead.burial.as_str() {
            "refused" => "the answer was final",
            "attempts" => "its last attempt failed",
            "age" => "it was too old for another attempt",
            other => other,
        };
        format!("of {}: {why}", dead.origin)
    });
    let event = match (&queued.event, &queued.problem) {
        (Some(event), _) => format!("{event:#}"),
        (None, Some(problem)) => one_line(problem),
        (None, None) => dash(),
    };
    let lines = [
        ("Sequence", queued.sequence.to_string()),
        ("Standing", standing(queued.standing).into()),
        ("Priority", queued.priority.to_string()),
        ("Published", queued.published.clone()),
        ("Next", next(queued)),
        ("Trace", queued.trace.clone().unwrap_or_else(dash)),
        ("Dead letter", dead),
        ("Attempts", attempts(queued).to_string()),
        ("History", or_dash(tried.trim_end())),
        ("Event", event),
    ];
    pairs(&lines)
}

fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Ready => "ready",
        Standing::Behind => "behind",
        Standing::BackingOff => "backing-off",
        Standing::Scheduled => "scheduled",
        Standing::Leased => "leased",
    }
}

/// A duration in whole seconds, or in milliseconds below one.
fn age(ms: u64) -> String {
    let duration = match ms {
        ..1000 => Duration::from_millis(ms),
        _ => Duration::from_secs(ms / 1000),
    };
    humantime::format_duration(duration).to_string()
}

fn or_dash(text: &str) -> String {
    match text {
        "" => dash(),
        text => text.into(),
    }
}

fn dash() -> String {
    "-".into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn queue(app: &str, name: &str, depth: u64) -> Queue {
        let queue = json!({
            "app": app, "name": name, "used": true, "function": "analyse", "depth": depth, "bytes": 10,
            "oldest_age_ms": 61_500, "ready": 1, "leased": 0, "scheduled": 2, "backing_off": 3,
            "counters": {"published": 9, "delivered": 4},
        });
        serde_json::from_value(queue).unwrap()
    }

    fn queued(more: Value) -> QueuedEvent {
        let mut queued = json!({
            "sequence": 7, "standing": "ready", "priority": 4, "bytes": 99, "attempts": 0, "history": [],
            "published": "2026-01-31T12:00:00.000Z",
            "event": {"specversion": "1.0", "id": "1", "source": "/m/7", "type": "reading"},
        });
        let fields = queued.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        serde_json::from_value(queued).unwrap()
    }

    #[test]
    fn a_queue_is_found_by_its_name_and_by_its_dead_letters() {
        let queues = [
            queue("a", "readings", 0),
            queue("a", "readings.dead", 0),
            queue("b", "plans", 0),
            queue("c", "plans", 0),
        ];
        let found = |name: &str| apps_with(&queues, &name.parse().unwrap()).len();
        assert_eq!(found("readings"), 1);
        assert_eq!(found("readings.dead"), 1);
        assert_eq!(found("plans.dead"), 2);
        assert_eq!(found("nothing"), 0);
    }

    #[test]
    fn a_queue_is_listed_with_its_dead_letters() {
        let rows = rows(vec![
            queue("a", "readings", 3),
            queue("a", "readings.dead", 2),
            queue("b", "readings", 1),
        ]);
        let dead: Vec<u64> = rows.iter().map(|row| row.dead_letters).collect();
        assert_eq!(dead, [2, 2, 0]);
        let cells = rows[0].cells();
        assert_eq!(cells.len(), QueueRow::COLUMNS.len() + QueueRow::WIDE.len());
        let shown = [
            "a", "readings", "analyse", "3", "1m 1s", "1", "0", "2", "3", "2",
        ];
        assert_eq!(cells[..10], shown);
    }

    #[test]
    fn a_dead_letter_tells_what_was_tried() {
        let attempt = json!({"attempt": 1, "at": "2026-01-31T12:00:01.000Z", "code": "TB0301", "detail": "it\ntrapped"});
        let dead = json!({"dead": {
            "origin": "a/readings", "burial": "attempts", "attempts": 5, "history": [attempt],
        }});
        let queued = queued(dead);
        let text = event_text(&queued);
        for part in [
            "of a/readings: its last attempt failed",
            "Attempts:    5",
            "1 2026-01-31T12:00:01.000Z TB0301: it trapped",
            "\"source\": \"/m/7\"",
        ] {
            assert!(text.contains(part), "no {part}: {text}");
        }
        let cells = EventRow(queued).cells();
        assert_eq!(cells.len(), EventRow::COLUMNS.len() + EventRow::WIDE.len());
        assert_eq!(cells[..3], ["7", "ready", "5"]);
        assert_eq!(cells[11], "TB0301: it trapped");
    }

    #[test]
    fn an_event_that_waits_tells_for_when() {
        let due = "2026-02-01T00:00:00.000Z";
        assert_eq!(next(&queued(json!({"due": due}))), due);
        assert_eq!(next(&queued(json!({"retry_in_ms": 1500}))), "in 1s");
        assert_eq!(next(&queued(json!({"retry_in_ms": 20}))), "in 20ms");
        assert_eq!(next(&queued(json!({}))), "-");
    }
}
