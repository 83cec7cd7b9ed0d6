//! Answers the API's query for logs: what the book has, and on request what is logged from then on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use regex_lite::Regex;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tombolo_api::LogQuery;
use tombolo_api::log::CONTENT_TYPE;
use tombolo_core::{Body, Code, LogLevel, Name};
use tombolo_telemetry::{Followed, LogBook, LogEntry, LogFilter, LogSubscription};

use crate::control::full;
use crate::refusal::{Refusal, refuse};

/// Followers get an empty line when nothing was logged for so long, so that both sides notice a dead connection.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

pub(crate) fn answer(
    book: &LogBook,
    query: &str,
    shutdown: &CancellationToken,
) -> Result<Response<Body>, Refusal> {
    let invalid = |detail: String| refuse(Code::BadRequest, detail);
    let query = LogQuery::from_query(query).map_err(|error| invalid(error.to_string()))?;
    let filter = filter(&query).map_err(invalid)?;
    let tail = query.tail.unwrap_or(usize::MAX);
    let body = if query.follow {
        let (recent, subscription) = book.follow(filter, tail);
        follow(&recent, subscription, shutdown.clone())
    } else {
        full(of_book(&book.recent(&filter, tail)))
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn filter(query: &LogQuery) -> Result<LogFilter, String> {
    let name = |text: &String| text.parse::<Name>().map_err(|error| error.to_string());
    let grep = query.grep.as_ref().map(|grep| Regex::new(grep));
    let since = query
        .since
        .as_ref()
        .map(|since| humantime::parse_rfc3339(since));
    Ok(LogFilter {
        app: query.app.as_ref().map(name).transpose()?,
        function: query.function.as_ref().map(name).transpose()?,
        request_id: None,
        level: query.level,
        grep: grep
            .transpose()
            .map_err(|error| format!("`grep` is no regular expression: {error}"))?,
        since: since
            .transpose()
            .map_err(|error| format!("`since` is no time: {error}"))?,
    })
}

fn follow(
    recent: &[Arc<LogEntry>],
    subscription: LogSubscription,
    shutdown: CancellationToken,
) -> Body {
    let first = Some(of_book(recent)).filter(|lines| !lines.is_empty());
    let stream = stream::unfold((first, subscription), move |(first, mut subscription)| {
        let shutdown = shutdown.clone();
        async move {
            let line = match first {
                Some(lines) => lines,
                None => {
                    shutdown
                        .run_until_cancelled(next_line(&mut subscription))
                        .await??
                }
            };
            Some((Ok::<_, Infallible>(Frame::data(line)), (None, subscription)))
        }
    });
    StreamBody::new(stream)
        .map_err(|never| match never {})
        .boxed_unsync()
}

async fn next_line(subscription: &mut LogSubscription) -> Option<Bytes> {
    match tokio::time::timeout(SIGN_OF_LIFE, subscription.next()).await {
        Ok(Some(Followed::Entry(entry))) => Some(of_book(&[entry])),
        Ok(Some(Followed::Missed(count))) => Some(lines([&missed(count)])),
        Ok(None) => None,
        Err(_) => Some(Bytes::from_static(b"\n")),
    }
}

/// What stands for entries that a slow reader did not get.
fn missed(count: u64) -> tombolo_api::LogEntry {
    tombolo_api::LogEntry {
        time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        app: None,
        function: None,
        request_id: None,
        trace_id: None,
        stream: "node".into(),
        level: LogLevel::Warn,
        message: format!(
            "{count} entries were logged faster than they were read, and are left out here"
        ),
        fields: None,
    }
}

/// The entries of the book, which in JSON are those of the API.
fn of_book(entries: &[Arc<LogEntry>]) -> Bytes {
    lines(entries.iter().map(Arc::as_ref))
}

/// One JSON object a line.
fn lines<'a, T: Serialize + 'a>(entries: impl IntoIterator<Item = &'a T>) -> Bytes {
    let mut text = BytesMut::new();
    for entry in entries {
        let before = text.len();
        if serde_json::to_writer((&mut text).writer(), entry).is_ok() {
            text.put_u8(b'\n');
        } else {
            text.truncate(before);
        }
    }
    text.freeze()
}

#[cfg(test)]
mod tests {
    use tombolo_telemetry::LogStream;

    use super::*;

    #[test]
    fn an_entry_of_the_book_is_an_entry_of_the_api() {
        let entry = Arc::new(LogEntry {
            time: SystemTime::UNIX_EPOCH,
            app: "demo".parse().unwrap(),
            function: "hello".parse().unwrap(),
            request_id: "r1".into(),
            trace_id: "00".into(),
            stream: LogStream::Log,
            level: LogLevel::Warn,
            message: "two\nlines".into(),
            fields: serde_json::from_str(r#"{"context":"signal"}"#).unwrap(),
        });
        let lines = of_book(&[entry]);
        assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 1);
        let read: tombolo_api::LogEntry = serde_json::from_slice(&lines).unwrap();
        assert_eq!(read.time, "1970-01-01T00:00:00.000Z");
        assert_eq!(read.level, LogLevel::Warn);
        assert_eq!(read.message, "two\nlines");
        assert_eq!(read.fields.unwrap()["context"], "signal");
    }
}
