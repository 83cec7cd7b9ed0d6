//! The logs of invocations: a ring bounded by bytes, and subscribers that are told when they fall behind.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use regex_lite::Regex;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use tokio::sync::broadcast;
use tombolo_core::{LogLevel, Name};

/// Memory that kept entries may take, about.
const RING_BYTES_MAX: usize = 8 << 20;
/// Entries that a subscriber may fall behind before it misses some.
const SUBSCRIBER_ENTRIES_MAX: usize = 4096;

/// Where a line of the log came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    Stdout,
    Stderr,
    /// `wasi:logging`.
    Log,
    /// The node itself, about an invocation: a trap with its backtrace, a cut log.
    Node,
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// When it was written; RFC 3339 with milliseconds in JSON.
    #[serde(serialize_with = "write_time", deserialize_with = "read_time")]
    pub time: SystemTime,
    pub app: Name,
    pub function: Name,
    pub request_id: String,
    /// 32 hexadecimal digits.
    pub trace_id: String,
    pub stream: LogStream,
    pub level: LogLevel,
    pub message: String,
    /// What the line says besides, for instance the context of `wasi:logging`.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

fn write_time<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*time))
}

fn read_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_rfc3339(&text).map_err(D::Error::custom)
}

impl LogEntry {
    /// The memory it takes, about.
    fn bytes(&self) -> usize {
        let fields: usize = self
            .fields
            .iter()
            .map(|(key, value)| key.len() + value.to_string().len() + 64)
            .sum();
        size_of::<Self>()
            + self.message.len()
            + self.request_id.len()
            + self.trace_id.len()
            + fields
    }
}

/// Which entries are wanted; the default is all of them.
#[derive(Clone, Debug, Default)]
pub struct LogFilter {
    pub app: Option<Name>,
    pub function: Option<Name>,
    pub request_id: Option<String>,
    /// The least serious level.
    pub level: Option<LogLevel>,
    /// What the message has to match.
    pub grep: Option<Regex>,
    pub since: Option<SystemTime>,
}

impl LogFilter {
    /// Whether an entry is wanted.
    pub fn matches(&self, entry: &LogEntry) -> bool {
        self.app.as_ref().is_none_or(|app| *app == entry.app)
            && self
                .function
                .as_ref()
                .is_none_or(|function| *function == entry.function)
            && self
                .request_id
                .as_ref()
                .is_none_or(|id| *id == entry.request_id)
            && self.level.is_none_or(|level| level <= entry.level)
            && self.since.is_none_or(|since| since <= entry.time)
            && self
                .grep
                .as_ref()
                .is_none_or(|grep| grep.is_match(&entry.message))
    }
}

/// The log of a node's invocations; a clone is the same book.
#[derive(Clone, Debug)]
pub struct LogBook(Arc<Book>);

#[derive(Debug)]
struct Book {
    ring: Mutex<Ring>,
    subscribers: broadcast::Sender<Arc<LogEntry>>,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<(Arc<LogEntry>, usize)>,
    bytes: usize,
    evicted: u64,
}

impl Default for LogBook {
    fn default() -> Self {
        let subscribers = broadcast::Sender::new(SUBSCRIBER_ENTRIES_MAX);
        Self(Arc::new(Book {
            ring: Mutex::default(),
            subscribers,
        }))
    }
}

impl LogBook {
    /// Adds an entry; the oldest ones go when the book is full.
    pub fn push(&self, entry: LogEntry) {
        let bytes = entry.bytes();
        let entry = Arc::new(entry);
        let mut ring = self.ring();
        ring.entries.push_back((entry.clone(), bytes));
        ring.bytes += bytes;
        while ring.bytes > RING_BYTES_MAX {
            let Some((_, bytes)) = ring.entries.pop_front() else {
                break;
            };
            ring.bytes -= bytes;
            ring.evicted += 1;
        }
        // Under the ring's lock, so that a new subscriber neither misses an entry nor sees one twice.
        // It fails only when nobody subscribes.
        let _ = self.0.subscribers.send(entry);
    }

    /// The last `limit` entries that match, oldest first.
    pub fn recent(&self, filter: &LogFilter, limit: usize) -> Vec<Arc<LogEntry>> {
        recent(&self.ring(), filter, limit)
    }

    /// The last `limit` entries that match, and every matching one from then on.
    pub fn follow(&self, filter: LogFilter, limit: usize) -> (Vec<Arc<LogEntry>>, LogSubscription) {
        let ring = self.ring();
        let receiver = self.0.subscribers.subscribe();
        (
            recent(&ring, &filter, limit),
            LogSubscription { filter, receiver },
        )
    }

    /// Every matching entry from now on.
    pub fn subscribe(&self, filter: LogFilter) -> LogSubscription {
        LogSubscription {
            filter,
            receiver: self.0.subscribers.subscribe(),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.ring().bytes as u64
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.ring().evicted
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn recent(ring: &Ring, filter: &LogFilter, limit: usize) -> Vec<Arc<LogEntry>> {
    let matching = ring.entries.iter().rev().map(|(entry, _)| entry);
    let mut entries: Vec<_> = matching
        .filter(|entry| filter.matches(entry))
        .take(limit)
        .cloned()
        .collect();
    entries.reverse();
    entries
}

/// What a subscriber gets.
#[derive(Clone, Debug)]
pub enum Followed {
    Entry(Arc<LogEntry>),
    /// So many entries, of any kind, went by before the subscriber looked.
    Missed(u64),
}

/// A bounded stream of entries.
#[derive(Debug)]
pub struct LogSubscription {
    filter: LogFilter,
    receiver: broadcast::Receiver<Arc<LogEntry>>,
}

impl LogSubscription {
    /// The next matching entry, or how many were missed; `None` when the book is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Followed> {
        loop {
            match self.receiver.recv().await {
                Ok(entry) if self.filter.matches(&entry) => return Some(Followed::Entry(entry)),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(count)) => {
                    return Some(Followed::Missed(count));
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(message: &str, level: LogLevel) -> LogEntry {
        LogEntry {
            time: SystemTime::UNIX_EPOCH,
            app: "demo".parse().unwrap(),
            function: "hello".parse().unwrap(),
            request_id: "r1".into(),
            trace_id: "0af7651916cd43dd8448eb211c80319c".into(),
            stream: LogStream::Stdout,
            level,
            message: message.into(),
            fields: serde_json::Map::new(),
        }
    }

    #[test]
    fn the_ring_keeps_the_newest_entries_within_its_bytes() {
        let book = LogBook::default();
        let message = "x".repeat(64 << 10);
        for number in 0..300 {
            book.push(entry(&format!("{number} {message}"), LogLevel::Info));
        }
        assert!(book.bytes() <= RING_BYTES_MAX as u64);
        assert!(book.evicted() > 0);
        let kept = book.recent(&LogFilter::default(), usize::MAX);
        assert_eq!(kept.len() as u64 + book.evicted(), 300);
        assert!(kept.last().unwrap().message.starts_with("299 "));
    }

    #[test]
    fn an_entry_larger_than_the_ring_is_not_kept() {
        let book = LogBook::default();
        book.push(entry(&"x".repeat(RING_BYTES_MAX + 1), LogLevel::Info));
        assert_eq!(
            (book.bytes(), book.recent(&LogFilter::default(), 9).len()),
            (0, 0)
        );
    }

    #[test]
    fn filters_choose_by_level_text_function_and_time() {
        let book = LogBook::default();
        book.push(entry("red light", LogLevel::Warn));
        book.push(entry("green light", LogLevel::Info));
        book.push(entry("red alarm", LogLevel::Error));
        let count = |filter: LogFilter| book.recent(&filter, 10).len();
        let all = LogFilter::default;
        assert_eq!(
            count(LogFilter {
                level: Some(LogLevel::Warn),
                ..all()
            }),
            2
        );
        assert_eq!(
            count(LogFilter {
                grep: Some(Regex::new("^red").unwrap()),
                ..all()
            }),
            2
        );
        assert_eq!(
            count(LogFilter {
                function: Some("other".parse().unwrap()),
                ..all()
            }),
            0
        );
        assert_eq!(
            count(LogFilter {
                since: Some(SystemTime::now()),
                ..all()
            }),
            0
        );
        assert_eq!(book.recent(&all(), 1)[0].message, "red alarm");
    }

    #[tokio::test]
    async fn a_follower_gets_what_was_and_what_comes_once_and_is_told_what_it_missed() {
        let book = LogBook::default();
        book.push(entry("before", LogLevel::Info));
        let (recent, mut following) = book.follow(LogFilter::default(), 10);
        assert_eq!(recent[0].message, "before");
        book.push(entry("after", LogLevel::Info));
        let next = following.next().await.unwrap();
        assert!(matches!(next, Followed::Entry(entry) if entry.message == "after"));
        for _ in 0..SUBSCRIBER_ENTRIES_MAX + 3 {
            book.push(entry("flood", LogLevel::Info));
        }
        assert!(matches!(
            following.next().await.unwrap(),
            Followed::Missed(3)
        ));
    }

    #[test]
    fn entries_round_trip_as_json_with_readable_time() {
        let mut entry = entry("hello", LogLevel::Critical);
        entry.fields.insert("context".into(), "signal".into());
        let json = serde_json::to_value(&entry).unwrap();
        assert_eq!(json["time"], "1970-01-01T00:00:00.000Z");
        assert_eq!(json["stream"], "stdout");
        assert_eq!(json["level"], "critical");
        assert_eq!(serde_json::from_value::<LogEntry>(json).unwrap(), entry);
    }
}
