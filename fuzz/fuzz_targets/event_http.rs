//! CloudEvents in the headers and the body of a request: `name: value` lines, an empty line, the body.
#![no_main]

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use tombolo_core::event::{Bounds, http as binding};

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, behind) = (&rest[..end], &rest[end + 1..]);
        rest = behind;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line.get(colon + 1..).unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let bounds = Bounds::default();
    let _ = binding::mode(&headers);
    let Ok(events) = binding::parse(&headers, Bytes::copy_from_slice(rest), &bounds) else {
        return;
    };
    for event in events {
        let request = event.clone().into_request("queue", 1);
        let (head, body) = request
            .expect("what was read can be delivered")
            .into_parts();
        let again =
            binding::parse(&head.headers, body, &bounds).expect("and be read by a function");
        assert_eq!([event], *again);
    }
});
