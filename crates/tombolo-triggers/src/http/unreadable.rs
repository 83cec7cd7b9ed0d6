//! A head that hyper cannot parse: it answers with a bare status of its own, which becomes a problem here.

use tombolo_core::{Blame, Code, Failure};

use super::front::Front;
use super::refusal::refuse;

/// The longest head that hyper writes by itself.
const BARE_HEAD_BYTES_MAX: usize = 256;

/// What hyper refused, when `head` is the whole answer that it gives to a head it cannot parse: one
/// of three statuses, no header that says anything, and no body. No answer of ours is like that,
/// since each names its request.
pub fn refused_by_parser(head: &[u8]) -> Option<Failure> {
    if head.len() > BARE_HEAD_BYTES_MAX {
        return None;
    }
    let mut lines = std::str::from_utf8(head)
        .ok()?
        .strip_suffix("\r\n\r\n")?
        .split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    let is_bare = lines.all(|line| {
        let name = line.split(':').next().unwrap_or_default();
        ["connection", "content-length", "date"].contains(&name)
    });
    let (code, detail) = match status {
        "400" => (
            Code::BadRequest,
            "the head of the request is not valid HTTP/1.1",
        ),
        "414" => (
            Code::HeadersTooLong,
            "the target of the request is too long",
        ),
        "431" => (Code::HeadersTooLong, "the head of the request is too long"),
        _ => return None,
    };
    is_bare.then(|| Failure::new(code, Blame::Caller, detail))
}

/// A refusal as HTTP/1.1 writes it, after which the connection closes. It is counted as an answer.
pub fn closing_refusal(front: &Front, failure: &Failure, took: std::time::Duration) -> Vec<u8> {
    front.telemetry.http().start();
    front
        .telemetry
        .http()
        .finish(failure.code.http_status(), took);
    let request_id = format!("{:016x}", front.telemetry.root().span_id);
    let response = refuse(failure, &request_id, front.verbose);
    let mut text = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    for (name, value) in response.headers() {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    let length = response.body().len();
    let end = format!(
        "x-request-id: {request_id}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    text.extend_from_slice(end.as_bytes());
    text.extend_from_slice(response.body());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bare_refusal_is_taken_for_one() {
        let code = |head: &str| refused_by_parser(head.as_bytes()).map(|failure| failure.code);
        let bare =
            "connection: close\r\ncontent-length: 0\r\ndate: Mon, 01 Jan 2024 00:00:00 GMT\r\n\r\n";
        assert_eq!(
            code(&format!("HTTP/1.1 400 Bad Request\r\n{bare}")),
            Some(Code::BadRequest)
        );
        assert_eq!(
            code(&format!("HTTP/1.1 431 Too Large\r\n{bare}")),
            Some(Code::HeadersTooLong)
        );
        assert_eq!(code(&format!("HTTP/1.1 404 Not Found\r\n{bare}")), None);
        assert_eq!(
            code(&format!(
                "HTTP/1.1 400 Bad Request\r\nx-request-id: 1\r\n{bare}"
            )),
            None
        );
        assert_eq!(code("HTTP/1.1 400 Bad Request\r\n"), None);
    }
}
