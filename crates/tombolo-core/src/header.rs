//! The HTTP headers that Tombolo itself sets, and the rule that clients cannot.

use http::{HeaderMap, HeaderName};

/// Everything below this prefix is the host's to set; a client's is removed.
pub const PREFIX: &str = "x-tombolo-";
/// The address of the client, as the listener saw it.
pub const CLIENT_IP: HeaderName = HeaderName::from_static("x-tombolo-client-ip");
/// The country of the client, where the node has a table of addresses.
pub const COUNTRY: HeaderName = HeaderName::from_static("x-tombolo-country");
/// The tier of the node that runs the function.
pub const TIER: HeaderName = HeaderName::from_static("x-tombolo-tier");
/// The name of the node that runs the function.
pub const NODE: HeaderName = HeaderName::from_static("x-tombolo-node");
/// The kind of trigger that sent an event.
pub const TRIGGER: HeaderName = HeaderName::from_static("x-tombolo-trigger");
/// Which delivery of an event this is, from 1.
pub const ATTEMPT: HeaderName = HeaderName::from_static("x-tombolo-attempt");
/// The request id, made here when the client sent none.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// W3C trace context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// W3C trace context, vendor part; passed on as it came.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Removes every header that only the host may set.
pub fn strip_reserved(headers: &mut HeaderMap) {
    let reserved: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(PREFIX))
        .cloned()
        .collect();
    for name in reserved {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_headers_are_removed_with_all_their_values() {
        let mut headers = HeaderMap::new();
        headers.append("x-tombolo-node", "a".parse().unwrap());
        headers.append("x-tombolo-node", "b".parse().unwrap());
        headers.append("X-Tombolo-Made-Up", "c".parse().unwrap());
        headers.append("x-other", "d".parse().unwrap());
        strip_reserved(&mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers["x-other"], "d");
    }
}
