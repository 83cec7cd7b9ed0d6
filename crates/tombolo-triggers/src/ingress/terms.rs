//! When the events of a request are to be delivered, and before which others: what the query of its URL says.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use tombolo_core::publish::{PRIORITY_DEFAULT, PRIORITY_LOWEST};
use tombolo_core::{Blame, Code, Failure};
use tombolo_manifest::parse_duration;

/// The terms of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub due_wall_ms: Option<u64>,
    pub priority: u8,
    pub callback: Option<String>,
}

impl Terms {
    /// Reads a query. Parameters that it does not know belong to the sender.
    pub fn of(query: Option<&str>, now: SystemTime) -> Result<Self, Failure> {
        let mut terms = Self {
            due_wall_ms: None,
            priority: PRIORITY_DEFAULT,
            callback: None,
        };
        for pair in query.unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8_lossy();
            let known = match name {
                "delay" => delayed(&value, now).map(|due| terms.due_wall_ms = Some(due)),
                "due" => due(&value).map(|due| terms.due_wall_ms = Some(due)),
                "callback" => {
                    terms.callback = Some(value.clone().into_owned());
                    Some(())
                }
                "priority" => priority(&value).map(|priority| terms.priority = priority),
                _ => Some(()),
            };
            known.ok_or_else(|| {
                let detail = format!(
                    "the parameter `{name}` is not `{value}`; `delay=5s`, `due=2030-01-01T00:00:00Z` and `priority=0` to `{PRIORITY_LOWEST}` are examples"
                );
                Failure::new(Code::BadRequest, Blame::Caller, detail)
            })?;
        }
        Ok(terms)
    }
}

fn delayed(text: &str, now: SystemTime) -> Option<u64> {
    let delay = parse_duration(text).ok()?;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.saturating_add(delay).as_millis()).ok()
}

fn due(text: &str) -> Option<u64> {
    let due: Timestamp = text.parse().ok()?;
    // What was due before 1970 is due.
    Some(u64::try_from(due.as_millisecond()).unwrap_or(0))
}

fn priority(text: &str) -> Option<u8> {
    text.parse()
        .ok()
        .filter(|number| *number <= PRIORITY_LOWEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn terms(query: &str) -> Result<(Option<u64>, u8), u16> {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let terms = Terms::of(Some(query), now);
        terms
            .map(|terms| (terms.due_wall_ms, terms.priority))
            .map_err(|failure| failure.code.number())
    }

    #[test]
    fn a_query_says_when_and_how_soon() {
        assert_eq!(terms(""), Ok((None, 4)));
        assert_eq!(terms("delay=5s&priority=0"), Ok((Some(1_005_000), 0)));
        assert_eq!(terms("delay=1m%2030s"), Ok((Some(1_090_000), 4)));
        assert_eq!(
            terms("due=2026-01-01T01:00:00%2B01:00"),
            Ok((Some(1_767_225_600_000), 4))
        );
        assert_eq!(terms("due=1969-01-01T00:00:00Z"), Ok((Some(0), 4)));
        assert_eq!(terms("access_token=mF_9.B5f-4.1JqM&p"), Ok((None, 4)));
        for bad in [
            "delay=5",
            "delay=",
            "due=tomorrow",
            "priority=10",
            "priority=-1",
            "priority",
        ] {
            assert_eq!(terms(bad), Err(407), "{bad}");
        }
    }
}
