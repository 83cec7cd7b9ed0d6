//! CloudEvents in JSON, one and several: whatever is read is written again as the same event.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tombolo_core::event::{Bounds, json};

fuzz_target!(|bytes: &[u8]| {
    let bounds = Bounds::default();
    if let Ok(event) = json::parse(bytes, &bounds) {
        let written = json::write(&event).expect("what was read can be written");
        let again = json::parse(&written, &bounds).expect("what was written can be read");
        assert_eq!(event, again);
    }
    if let Ok(events) = json::parse_batch(bytes, &bounds) {
        let written = json::write_batch(&events).expect("what was read can be written");
        let again = json::parse_batch(&written, &bounds).expect("what was written can be read");
        assert_eq!(events, again);
    }
});
