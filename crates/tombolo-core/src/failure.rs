//! Why an invocation gave no answer, as data: code, blame, cause, and the problem+json (RFC 9457) that callers see.

use std::time::Duration;

use serde::Serialize;

use crate::{Code, Limit};

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Blame {
    /// The caller asked for what cannot be.
    Caller,
    /// The function: it trapped, overran its budget or answered badly.
    Guest,
    /// The node: a bound was reached, or a bug.
    Host,
    /// Something the function or the node depends on.
    Dependency,
}

/// An invocation that gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{detail}")]
pub struct Failure {
    /// What kind of failure it is; decides the HTTP status.
    pub code: Code,
    /// Whose fault it is.
    pub blame: Blame,
    /// One sentence that says what happened, for the caller.
    pub detail: String,
    /// The limit that was hit, when one was.
    pub limit: Option<Limit>,
    /// The frames of the guest, innermost first; for logs, and for callers in dev only.
    pub backtrace: Option<String>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure with a code, a culprit and a sentence.
    pub fn new(code: Code, blame: Blame, detail: impl Into<String>) -> Self {
        Self {
            code,
            blame,
            detail: detail.into(),
            limit: None,
            backtrace: None,
            retry_after: None,
        }
    }

    /// Names the limit that was hit.
    #[must_use]
    pub fn limit(mut self, limit: Limit) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The body of type `application/problem+json`; `verbose` adds the guest's backtrace.
    pub fn problem_json(&self, request_id: &str, verbose: bool) -> Vec<u8> {
        let problem = Problem {
            kind: format!("urn:tombolo:error:{}", self.code),
            title: self.code.title(),
            status: self.code.http_status().as_u16(),
            detail: &self.detail,
            code: self.code.to_string(),
            blame: self.blame,
            limit: self.limit.map(Limit::key),
            request_id,
            backtrace: self.backtrace.as_deref().filter(|_| verbose),
        };
        serde_json::to_vec(&problem).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: String,
    blame: Blame,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'static str>,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    backtrace: Option<&'a str>,
}
