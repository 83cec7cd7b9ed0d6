//! What an answer means for the events that it answers: the table of the delivery contract. Pure.
//!
//! | answer | meaning |
//! | --- | --- |
//! | 2xx | acknowledged; events in it are replies |
//! | no place for the invocation | tried again; it was no attempt |
//! | 404, 408, 409, 429, 5xx, no answer, an answer that breaks off | tried again, after `Retry-After` if it says so |
//! | everything else | dead letters at once |
//!
//! A 2xx whose content cannot be understood where it matters (a reply that is no valid event, a
//! list of failed events that are none of the batch) is the function's fault and may be gone with
//! its next version: it counts as a failed attempt, not as an acknowledgement of who knows what.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};
use tombolo_core::event::{Bounds, Event, http as binding};
use tombolo_core::{BodyError, Code, Failure, Limit};

use super::answer::{Answer, BODY_BYTES_MAX};
use super::retry_after;
use crate::idempotent::may_change;

/// How much of a refusing answer's text is told as the cause.
const EXCERPT_CHARS_MAX: usize = 256;

/// What becomes of the events of a delivery.
#[derive(Debug)]
pub(super) enum Verdict {
    /// They are done, and these are the replies.
    Done(Vec<Event>),
    /// Those at these places of the batch are to be tried again, the others are done.
    Partly(BTreeSet<usize>, Fault),
    /// They are to be tried again.
    Retry(Fault),
    /// They were not tried, and are to be.
    Later(Fault),
    /// They are dead letters.
    Dead(Fault),
}

impl Verdict {
    /// The verdict in a word, and what is wrong if something is.
    pub(super) fn words(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::Done(_) => ("done", None),
            Self::Partly(_, fault) => ("partly done", Some(&fault.detail)),
            Self::Retry(fault) => ("failed", Some(&fault.detail)),
            Self::Later(fault) => ("not tried", Some(&fault.detail)),
            Self::Dead(fault) => ("dead letter", Some(&fault.detail)),
        }
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The error, when it is one of ours and not an answer of the function.
    pub(super) code: Option<Code>,
    /// What happened, in a sentence.
    pub(super) detail: String,
    /// How long the function asks to be left alone.
    pub(super) after: Option<Duration>,
    /// The function has not begun: there was no place for it, or no code yet.
    pub(super) untried: bool,
}

/// What was delivered, as far as the answer's meaning depends on it.
#[derive(Clone, Copy)]
pub(super) enum Asked<'e> {
    /// One event, and whether replies go anywhere.
    Single { reply: bool },
    /// A batch.
    Batch(&'e [Event]),
}

impl Fault {
    pub(super) fn new(code: Option<Code>, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            after: None,
            untried: false,
        }
    }
}

impl Verdict {
    /// What an invocation without an answer means.
    pub(super) fn of_fault(fault: Fault) -> Self {
        match (fault.untried, fault.code) {
            (true, _) => Self::Later(fault),
            // The event's own idempotency key: it is the same at the next attempt.
            (false, Some(Code::KeyReused | Code::BadRequest)) => Self::Dead(fault),
            (false, _) => Self::Retry(fault),
        }
    }

    /// What is wrong, if something is.
    pub(super) fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Done(_) => None,
            Self::Partly(_, fault)
            | Self::Retry(fault)
            | Self::Later(fault)
            | Self::Dead(fault) => Some(fault),
        }
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self {
            code: Some(failure.code),
            detail: failure.detail,
            after: failure.retry_after,
            // A conflict is that of an idempotency key that is being worked on.
            untried: failure.limit == Some(Limit::Concurrency)
                || matches!(failure.code, Code::Compiling | Code::Conflict),
        }
    }
}

impl From<BodyError> for Fault {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Failure(failure) => failure.into(),
            error => Self::new(
                Some(Code::AnswerInvalid),
                format!("the answer broke off: {error}"),
            ),
        }
    }
}

/// What an answer means, by the clock's time.
pub(super) fn judge(answer: &Answer, asked: Asked<'_>, now: SystemTime) -> Verdict {
    let after = retry_after::parse(&answer.headers, now);
    let fault = |detail| Fault {
        code: None,
        detail,
        after,
        untried: false,
    };
    match answer.status {
        status if status.is_success() => match asked {
            Asked::Single { reply } => replies(answer, reply),
            Asked::Batch(events) => batch(answer, events, after),
        },
        status if may_change(status) => Verdict::Retry(fault(told(answer))),
        _ => Verdict::Dead(fault(told(answer))),
    }
}

/// The events that an acknowledgement carries, when they go anywhere.
fn replies(answer: &Answer, wanted: bool) -> Verdict {
    if !wanted || !binding::is_event(&answer.headers) {
        return Verdict::Done(Vec::new());
    }
    if answer.cut {
        return Verdict::Retry(too_long("the reply event"));
    }
    match binding::parse(&answer.headers, answer.body.clone(), &Bounds::default()) {
        Ok(events) => Verdict::Done(events),
        Err(error) => Verdict::Retry(Fault::new(
            Some(Code::EventInvalid),
            format!("the function replied with an event that is not valid: {error}"),
        )),
    }
}

/// An event that the answer to a batch lists.
#[derive(Deserialize)]
struct Failed {
    source: String,
    id: String,
}

/// A 2xx acknowledges the whole batch, but for the events that its body lists.
fn batch(answer: &Answer, events: &[Event], after: Option<Duration>) -> Verdict {
    let body: Option<Map<String, Value>> = serde_json::from_slice(&answer.body).ok();
    let failed = body.and_then(|mut body| body.remove("failed"));
    let Some(failed) = failed.filter(|failed| !failed.is_null()) else {
        let begins_as_json = answer.body.trim_ascii_start().starts_with(b"{");
        return match answer.cut && begins_as_json {
            true => Verdict::Retry(too_long("the answer to the batch")),
            false => Verdict::Done(Vec::new()),
        };
    };
    let unclear = |detail: String| Verdict::Retry(Fault::new(Some(Code::AnswerInvalid), detail));
    let Ok(failed) = serde_json::from_value::<Vec<Failed>>(failed) else {
        return unclear("`failed` of the answer is no list of objects with source and id".into());
    };
    let places: HashMap<(&str, &str), usize> = (0..)
        .zip(events)
        .map(|(place, event)| ((event.source.as_str(), event.id.as_str()), place))
        .collect();
    let mut found = BTreeSet::new();
    for Failed { source, id } in &failed {
        match places.get(&(source.as_str(), id.as_str())) {
            Some(place) => found.insert(*place),
            None => {
                return unclear(format!(
                    "the answer lists the event `{id}` of `{source}` as failed, which is not in the batch"
                ));
            }
        };
    }
    if found.is_empty() {
        return Verdict::Done(Vec::new());
    }
    let fault = Fault {
        code: None,
        detail: "the function listed the event as failed".into(),
        after,
        untried: false,
    };
    Verdict::Partly(found, fault)
}

fn too_long(what: &str) -> Fault {
    let detail = format!("{what} is longer than {BODY_BYTES_MAX} bytes");
    Fault::new(Some(Code::ResponseTooLong), detail)
}

/// What a function said that refused: the status, and the begin of its text.
fn told(answer: &Answer) -> String {
    let status = describe(answer.status);
    let text = std::str::from_utf8(&answer.body).unwrap_or_default();
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let excerpt: String = text
        .trim()
        .chars()
        .take(EXCERPT_CHARS_MAX)
        .map(printable)
        .collect();
    match excerpt.is_empty() {
        true => format!("the function answered {status}"),
        false => format!("the function answered {status}: {excerpt}"),
    }
}

fn describe(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: map,
            body: Bytes::copy_from_slice(body.as_bytes()),
            cut: false,
            held: http::Extensions::new(),
        }
    }

    fn judged(answer: &Answer, asked: Asked<'_>) -> Verdict {
        judge(answer, asked, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn every_status_has_its_meaning() {
        let retried = [404, 408, 409, 429];
        for status in 100..=999 {
            let answer = answer(status, &[], "");
            for asked in [Asked::Single { reply: true }, Asked::Batch(&[])] {
                let verdict = judged(&answer, asked);
                let right = match verdict {
                    Verdict::Done(replies) => (200..300).contains(&status) && replies.is_empty(),
                    Verdict::Retry(_) => retried.contains(&status) || (500..600).contains(&status),
                    Verdict::Dead(_) => {
                        !retried.contains(&status)
                            && !(200..300).contains(&status)
                            && !(500..600).contains(&status)
                    }
                    Verdict::Partly(..) | Verdict::Later(_) => false,
                };
                assert!(right, "{status}");
            }
        }
    }

    #[test]
    fn a_refusal_is_told_with_its_text_and_its_retry_after() {
        let answer = answer(503, &[("retry-after", "7")], " sensor\noffline ");
        let Verdict::Retry(fault) = judged(&answer, Asked::Single { reply: false }) else {
            panic!("not retried")
        };
        assert_eq!(
            fault.detail,
            "the function answered 503 Service Unavailable: sensor offline"
        );
        assert_eq!(fault.after, Some(Duration::from_secs(7)));
        assert_eq!(fault.code, None);
    }

    #[test]
    fn replies_are_read_where_they_go_somewhere() {
        let event = [
            ("ce-specversion", "1.0"),
            ("ce-id", "r1"),
            ("ce-source", "/plan"),
            ("ce-type", "plan.made"),
        ];
        let good = answer(200, &event, "{}");
        let Verdict::Done(replies) = judged(&good, Asked::Single { reply: true }) else {
            panic!("not done")
        };
        assert_eq!(replies[0].id, "r1");
        for asked in [Asked::Single { reply: false }, Asked::Batch(&[])] {
            let verdict = judged(&good, asked);
            assert!(matches!(verdict, Verdict::Done(replies) if replies.is_empty()));
        }
        let bad = answer(200, &event[..3], "{}");
        let verdict = judged(&bad, Asked::Single { reply: true });
        assert!(
            matches!(&verdict, Verdict::Retry(fault) if fault.detail.contains("`type`")),
            "{verdict:?}"
        );
    }

    #[test]
    fn a_batch_is_done_but_for_what_is_listed() {
        let events = [Event::new("1", "/a", "t"), Event::new("2", "/a", "t")];
        let asked = Asked::Batch(&events);
        for body in [
            "",
            "fine",
            "[1]",
            "{}",
            r#"{"failed":null}"#,
            r#"{"failed":[]}"#,
        ] {
            let verdict = judged(&answer(200, &[], body), asked);
            assert!(matches!(verdict, Verdict::Done(_)), "{body}");
        }
        let listed = answer(
            200,
            &[],
            r#"{"failed":[{"source":"/a","id":"2","why":"?"}]}"#,
        );
        let verdict = judged(&listed, asked);
        assert!(matches!(verdict, Verdict::Partly(places, _) if places == BTreeSet::from([1])));
        for body in [
            r#"{"failed":[{"source":"/b","id":"2"}]}"#,
            r#"{"failed":[{"id":"2"}]}"#,
            r#"{"failed":true}"#,
        ] {
            let verdict = judged(&answer(200, &[], body), asked);
            assert!(matches!(verdict, Verdict::Retry(_)), "{body}");
        }
    }

    #[test]
    fn what_is_too_long_to_be_understood_is_no_acknowledgement() {
        let cut = |body| Answer {
            cut: true,
            ..answer(200, &[], body)
        };
        let verdict = judged(&cut("{\"failed\":["), Asked::Batch(&[]));
        assert!(matches!(verdict, Verdict::Retry(_)));
        let verdict = judged(&cut("a long text"), Asked::Single { reply: true });
        assert!(matches!(verdict, Verdict::Done(_)));
    }
}
