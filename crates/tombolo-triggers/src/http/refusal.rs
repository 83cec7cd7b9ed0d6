//! Refusals: a failure as an answer of type problem+json.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use tombolo_core::{Code, Failure};

/// The answer to a request that failed before it had one.
pub fn refuse(failure: &Failure, request_id: &str, verbose: bool) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(failure.problem_json(request_id, verbose)));
    *response.status_mut() = failure.code.http_status();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(after) = failure.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
    }
    if failure.code == Code::MethodNotAllowed {
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    if failure.code == Code::TokenWrong {
        // RFC 9110, section 11.6.1.
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// `Retry-After` knows whole seconds only; 0 would invite the client back at once.
fn whole_seconds(after: Duration) -> u64 {
    (after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (60_000, 60)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
    }
}
