//! What an MQTT client sends, as a packet of either version.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| tombolo_triggers::mqtt::read_any(bytes));
