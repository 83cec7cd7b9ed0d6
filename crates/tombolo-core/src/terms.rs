//! When published events are to be delivered, and before which others: what the query of a URL says of it.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use percent_encoding::percent_decode_str;

use crate::publish::{PRIORITY_DEFAULT, PRIORITY_LOWEST};
use crate::{Blame, Code, Failure};

/// The terms of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Not before this time of the wall clock, in milliseconds since 1970.
    pub due_wall_ms: Option<u64>,
    /// 0 goes first.
    pub priority: u8,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            due_wall_ms: None,
            priority: PRIORITY_DEFAULT,
        }
    }
}

/// Why a query says nothing that can be kept.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum TermsError {
    #[error(
        "the parameter `{name}` is not `{value}`; `delay=5s`, `due=2030-01-01T00:00:00Z` and `priority=0` to \
         `{PRIORITY_LOWEST}` are examples"
    )]
    Value {
        /// The parameter.
        name: String,
        /// What it says.
        value: String,
    },
    #[error("`delay` or `due` is given once")]
    Twice,
}

impl From<TermsError> for Failure {
    fn from(error: TermsError) -> Self {
        Self::new(Code::BadRequest, Blame::Caller, error.to_string())
    }
}

impl Terms {
    /// Reads `delay=5s` or `due=2030-01-01T00:00:00Z`, and `priority=0` to `9`. Beside the terms it returns the name
    /// of the first parameter that is none of these, if there is one.
    ///
    /// # Errors
    /// A value is not of its kind, or there are two times.
    pub fn of_query(
        query: Option<&str>,
        now: SystemTime,
    ) -> Result<(Self, Option<&str>), TermsError> {
        let (mut terms, mut unknown) = (Self::default(), None);
        let pairs = query.unwrap_or_default().split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8_lossy();
            let known = match name {
                "delay" | "due" if terms.due_wall_ms.is_some() => return Err(TermsError::Twice),
                "delay" => delayed(&value, now).map(|due| terms.due_wall_ms = Some(due)),
                "due" => due(&value).map(|due| terms.due_wall_ms = Some(due)),
                "priority" => priority(&value).map(|priority| terms.priority = priority),
                other => {
                    unknown = unknown.or(Some(other));
                    Some(())
                }
            };
            known.ok_or_else(|| TermsError::Value {
                name: name.to_owned(),
                value: value.into_owned(),
            })?;
        }
        Ok((terms, unknown))
    }
}

fn delayed(text: &str, now: SystemTime) -> Option<u64> {
    let delay = humantime::parse_duration(text).ok()?;
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

    type Read = (Option<u64>, u8, Option<String>);

    fn terms(query: &str) -> Result<Read, TermsError> {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let (terms, unknown) = Terms::of_query(Some(query), now)?;
        let unknown = unknown.map(str::to_owned);
        Ok((terms.due_wall_ms, terms.priority, unknown))
    }

    #[test]
    fn a_query_says_when_and_how_soon() {
        assert_eq!(terms(""), Ok((None, 4, None)));
        assert_eq!(terms("delay=5s&priority=0"), Ok((Some(1_005_000), 0, None)));
        assert_eq!(terms("delay=1m%2030s"), Ok((Some(1_090_000), 4, None)));
        assert_eq!(
            terms("due=2026-01-01T01:00:00%2B01:00"),
            Ok((Some(1_767_225_600_000), 4, None))
        );
        assert_eq!(terms("due=1969-01-01T00:00:00Z"), Ok((Some(0), 4, None)));
        assert_eq!(
            terms("token=mF_9.B5f-4.1JqM&p"),
            Ok((None, 4, Some("token".into())))
        );
        for bad in [
            "delay=5",
            "delay=",
            "due=tomorrow",
            "priority=10",
            "priority=-1",
            "priority",
        ] {
            assert!(matches!(terms(bad), Err(TermsError::Value { .. })), "{bad}");
        }
        let twice = terms("delay=1s&due=2030-01-01T00:00:00Z");
        assert_eq!(twice, Err(TermsError::Twice));
    }

    proptest::proptest! {
        #[test]
        fn any_query_is_read_or_refused(query in ".*") {
            let _ = Terms::of_query(Some(&query), SystemTime::now());
        }
    }
}
