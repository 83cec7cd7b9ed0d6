//! What an event costs in memory, and how long a million of them take to come back.

use std::process::Command;
use std::time::Duration;

use super::super::*;

const EVENTS: u64 = 1_000_000;
/// Runs the measurement in a process of its own, where nothing else allocates.
const CHILD: &str = "TOMBOLO_TEST_QUEUE_SIZE";

/// As a place in the log is: three numbers of 32 bits.
type Place = (u32, u32, u32);

fn restore(order: impl Fn(u64) -> Option<u64>) -> Queue<Place> {
    let mut queue = Queue::new(QueueSettings::default());
    for sequence in 0..EVENTS {
        queue.apply(Operation::Enqueued(Entry {
            sequence,
            place: (1, sequence as u32, 100),
            bytes: 100,
            attempts: 0,
            due: None,
            priority: PRIORITY_DEFAULT,
            order: order(sequence),
            published_lived_ms: sequence,
        }));
    }
    queue
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.unwrap().split_whitespace().next().unwrap();
    kibibytes.parse::<u64>().unwrap() * 1024
}

/// CPU time of this thread, which the machine's other work does not lengthen.
fn cpu_time() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds = statistics.split_whitespace().next().unwrap();
    Duration::from_nanos(nanoseconds.parse().unwrap())
}

/// A hash, so that keys come in no order.
fn key(sequence: u64) -> Option<u64> {
    Some(sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) | 1)
}

#[test]
#[ignore = "runs in a process of its own, started by the test below"]
fn child() {
    let Ok(case) = std::env::var(CHILD) else {
        return;
    };
    let before = resident_bytes();
    let start = cpu_time();
    let queue = match case.as_str() {
        "keys" => restore(key),
        _ => restore(|_| None),
    };
    let took = cpu_time() - start;
    let bytes = (resident_bytes() - before) as f64 / EVENTS as f64;
    assert_eq!(queue.depth(), EVENTS);
    println!("measured {bytes:.1} bytes an event, restored in {took:?} of CPU time");
}

#[test]
fn an_event_costs_what_the_documentation_says() {
    for (case, bytes_max) in [("plain", 70.0), ("keys", 96.0)] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "queue::tests::size::child",
                "--ignored",
                "--nocapture",
            ])
            .env(CHILD, case)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find(|line| line.contains("measured "));
        let line = line.unwrap_or_else(|| panic!("no measurement in {text}"));
        println!("{case}: {line}");
        let words: Vec<_> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "measured").unwrap();
        let bytes: f64 = words[at + 1].parse().unwrap();
        assert!(bytes <= bytes_max, "{case}: {bytes} bytes an event");
    }
}
