//! Short texts of foreign hands: names, topics and filters, queries, trace contexts, durations and sizes.
#![no_main]

use std::time::UNIX_EPOCH;

use libfuzzer_sys::fuzz_target;
use tombolo_core::{Name, QueueName, Terms, TraceContext};
use tombolo_triggers::mqtt::{TopicFilter, check_name};

fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse::<Name>() {
        assert_eq!(name.as_str(), text);
    }
    if let Ok(name) = text.parse::<QueueName>() {
        assert_eq!(name.to_string(), text);
    }
    if let Ok(trace) = text.parse::<TraceContext>() {
        assert!(trace.to_string().parse::<TraceContext>().is_ok());
    }
    let _ = Terms::of_query(Some(text), UNIX_EPOCH);
    let _ = tombolo_manifest::parse_duration(text);
    let _ = tombolo_manifest::parse_size(text);
    // Two lines: a filter, and a topic that it is held against.
    let (filter, topic) = text.split_once('\n').unwrap_or((text, text));
    if let Ok(filter) = filter.parse::<TopicFilter>() {
        assert!(filter.covers(&filter));
        if check_name(topic).is_ok() {
            let exact = topic
                .parse::<TopicFilter>()
                .expect("a topic's name is a filter");
            assert!(exact.matches(topic));
            assert!(!filter.covers(&exact) || filter.matches(topic));
        }
    }
});
