//! What an MQTT client sends, as a packet of either version, and what a broker elsewhere sends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tombolo_triggers::mqtt::{read_any, read_any_of_broker};

fuzz_target!(|bytes: &[u8]| {
    read_any(bytes);
    read_any_of_broker(bytes);
});
