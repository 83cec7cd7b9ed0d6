//! Whose a key is: the same text in another caller's request is another key.

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue};
use tombolo_core::{Blame, Call, CallContext, Code, Failure};

/// The key of a request.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The key of an event.
const EVENT_KEY: HeaderName = HeaderName::from_static("ce-idempotencykey");
/// The longest key.
const KEY_BYTES_MAX: usize = 255;
/// What callers say who they are by.
const CREDENTIALS: [HeaderName; 4] = [
    AUTHORIZATION,
    PROXY_AUTHORIZATION,
    COOKIE,
    HeaderName::from_static("x-api-key"),
];

/// The key of a call, together with who calls; none when it has none. Methods that change nothing need none.
///
/// It is a digest, so that credentials are not on the disk; and nobody can guess them from it who does not know
/// the key's text.
pub(super) fn of(call: &Call) -> Result<Option<String>, Failure> {
    if call.request.method().is_safe() {
        return Ok(None);
    }
    let headers = call.request.headers();
    let found = match call.context.event {
        true => headers.get(EVENT_KEY),
        false => headers.get(KEY).or_else(|| headers.get(EVENT_KEY)),
    };
    let Some(found) = found else {
        return Ok(None);
    };
    match found.to_str() {
        Ok(key) if (1..=KEY_BYTES_MAX).contains(&key.len()) => {
            Ok(Some(scoped(key, headers, &call.context)))
        }
        _ => Err(Failure::new(
            Code::BadRequest,
            Blame::Caller,
            format!("an idempotency key has 1 to {KEY_BYTES_MAX} printable characters of ASCII"),
        )),
    }
}

/// A key among those of its caller. Events, functions and clients have keys of their own, so that none of them can
/// take another's.
fn scoped(key: &str, headers: &HeaderMap, context: &CallContext) -> String {
    let origin = match (context.event, context.nested) {
        (true, _) => "event",
        (false, false) => "client",
        (false, true) => "function",
    };
    let mut digest = blake3::Hasher::new();
    let mut add = |part: &[u8]| {
        digest.update(&(part.len() as u64).to_le_bytes());
        digest.update(part);
    };
    add(origin.as_bytes());
    add(key.as_bytes());
    for name in &CREDENTIALS {
        let values: Vec<_> = headers.get_all(name).iter().collect();
        add(&(values.len() as u64).to_le_bytes());
        values
            .into_iter()
            .map(HeaderValue::as_bytes)
            .for_each(&mut add);
    }
    digest.finalize().to_hex().to_string()
}
