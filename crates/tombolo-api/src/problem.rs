//! The problem+json (RFC 9457) that a node answers when it refuses.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tombolo_core::Code;

/// A refusal, as it is on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// `urn:tombolo:error:TB0123`
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// What happened, in one sentence.
    pub detail: String,
    /// `TB0123`
    pub code: String,
    /// caller, guest, host or dependency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blame: Option<String>,
    /// The limit that was hit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The frames of the guest, in dev.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<String>,
}

/// The content type of a problem.
pub const CONTENT_TYPE: &str = "application/problem+json";

impl Problem {
    /// A problem of the API itself.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:tombolo:error:{code}"),
            title: code.title().into(),
            status: code.http_status().as_u16(),
            detail: detail.into(),
            code: code.to_string(),
            blame: None,
            limit: None,
            request_id: None,
            backtrace: None,
        }
    }

    /// The code, or `Failed` when this binary does not know it (the node is newer).
    pub fn code(&self) -> Code {
        self.code.parse().unwrap_or(Code::Failed)
    }

    /// The response that carries the problem.
    pub fn into_response(self) -> http::Response<bytes::Bytes> {
        let mut response =
            http::Response::new(serde_json::to_vec(&self).unwrap_or_default().into());
        *response.status_mut() = http::StatusCode::from_u16(self.status)
            .unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static(CONTENT_TYPE),
        );
        response
    }
}
