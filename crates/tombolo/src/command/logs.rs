//! `tombolo logs`: what functions and the node log, filtered, and as it comes.

use std::time::{Duration, SystemTime};

use tombolo_api::{Client, ClientError, LogEntry, LogQuery};
use tombolo_core::{Code, LogLevel};

use crate::app;
use crate::arguments::{Format, Global, Logs};
use crate::error::Error;
use crate::output::{self, Output};

/// Prints the entries that the arguments select.
pub async fn run(arguments: Logs, global: &Global, output: &Output) -> Result<(), Error> {
    let client = app::client(global, &arguments.files)?;
    let (app, function) = match arguments.function {
        Some(text) => match text.split_once('/') {
            Some((app, function)) => (Some(app.to_owned()), Some(function.to_owned())),
            None => (None, Some(text)),
        },
        None => (None, None),
    };
    if let Some(function) = &function {
        must_exist(&client, app.as_deref(), function).await?;
    }
    let pattern = arguments.grep.clone();
    let query = LogQuery {
        app,
        function,
        level: arguments.level,
        grep: arguments.grep,
        since: arguments
            .since
            .as_deref()
            .map(|text| moment(text, SystemTime::now()))
            .transpose()?,
        tail: arguments.tail,
        follow: arguments.follow,
    };
    let asked = client.logs(&query).await;
    let mut stream = asked.map_err(|error| match (&error, pattern) {
        (ClientError::Refused(problem), Some(pattern)) if problem.code() == Code::BadRequest => {
            Error::usage(format!("`--grep {pattern}` is no regular expression"))
                .why(&error)
                .help("`\\` before a character takes it as it is, as in `--grep 'f\\(x\\)'`")
        }
        _ => error.into(),
    })?;
    while let Some(entry) = stream.next().await.map_err(ended)? {
        output::write(&format_entry(&entry, output.format)?)?;
    }
    Ok(())
}

/// The error of a stream that broke off.
fn ended(error: ClientError) -> Error {
    match error {
        ClientError::Connection(_) => {
            Error::new(Code::Unreachable, "the node has ended, and its log with it")
                .help("`tombolo up` starts it again; the log begins anew")
        }
        error => error.into(),
    }
}

/// Refuses a function that the node does not have: its log would stay empty without a word.
async fn must_exist(client: &Client, app: Option<&str>, function: &str) -> Result<(), Error> {
    let all = client.functions().await?.items;
    let found = all.iter().any(|known| {
        known.name.as_str() == function && app.is_none_or(|app| known.app.as_str() == app)
    });
    if found {
        return Ok(());
    }
    Err(
        Error::new(Code::NotFound, format!("there is no function `{function}`"))
            .help("`tombolo get functions` lists what there is"),
    )
}

/// The moment that a text names, in RFC 3339 with milliseconds: a moment itself, or a duration back from now.
pub fn moment(text: &str, now: SystemTime) -> Result<String, Error> {
    let moment = match tombolo_manifest::parse_duration(text) {
        Ok(ago) => now.checked_sub(ago),
        Err(_) => humantime::parse_rfc3339_weak(text).ok(),
    };
    let moment = moment.filter(|moment| {
        // What humantime can write: from 1970 to the year 9999.
        let since = moment.duration_since(SystemTime::UNIX_EPOCH);
        since.is_ok_and(|since| since < Duration::from_secs(253_402_300_800))
    });
    let moment = moment.ok_or_else(|| {
        Error::usage(format!("`{text}` is no moment"))
            .help("give one such as `5m` or `2026-01-31T12:00:00Z`")
    })?;
    Ok(humantime::format_rfc3339_millis(moment).to_string())
}

/// An entry with the end of its line.
pub fn format_entry(entry: &LogEntry, format: Format) -> Result<String, Error> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::new(Code::Failed, format!("an entry cannot be printed: {error}"))
    };
    match format {
        Format::Json => {
            let json = serde_json::to_string(entry).map_err(|error| failed(&error))?;
            Ok(json + "\n")
        }
        Format::Yaml => {
            let yaml = serde_yaml_ng::to_string(entry).map_err(|error| failed(&error))?;
            Ok(format!("---\n{yaml}"))
        }
        Format::Name => Ok(format!("{}\n", one_line(&entry.message))),
        // Rust begins the message of a panic with an empty line.
        Format::Table | Format::Wide if is_blank(entry) => Ok(String::new()),
        Format::Table | Format::Wide => Ok(line(entry, format == Format::Wide)),
    }
}

fn is_blank(entry: &LogEntry) -> bool {
    entry.message.trim().is_empty() && entry.fields.iter().flatten().next().is_none()
}

fn line(entry: &LogEntry, wide: bool) -> String {
    let origin = match (&entry.app, &entry.function) {
        (Some(app), Some(function)) => format!("{app}/{function}"),
        (Some(app), None) => app.clone(),
        (None, _) => "node".into(),
    };
    let level = match entry.level {
        LogLevel::Critical => "CRIT",
        level => level.as_str(),
    };
    let mut lines = entry
        .message
        .trim_end_matches('\n')
        .split('\n')
        .map(one_line);
    let first = lines.next().unwrap_or_default();
    let mut line = format!(
        "{} {:5} {origin} {}: {}",
        entry.time,
        level.to_ascii_uppercase(),
        entry.stream,
        first
    );
    for (key, value) in entry.fields.iter().flatten() {
        line += &format!(" {key}={value}");
    }
    if wide {
        for (key, value) in [("request", &entry.request_id), ("trace", &entry.trace_id)] {
            line += &value
                .as_ref()
                .map(|value| format!(" {key}={value}"))
                .unwrap_or_default();
        }
    }
    // Indented, so that nothing a function prints looks like the beginning of an entry.
    for more in lines {
        line += &format!("\n    {more}");
    }
    line + "\n"
}

/// The text without characters that would command a terminal, on one line.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.trim_end_matches('\n').chars() {
        match c {
            '\t' => line.push(c),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> LogEntry {
        serde_json::from_str(
            r#"{"time":"2026-01-31T12:00:00.000Z","app":"a","function":"f","request_id":"r1","stream":"log",
                "level":"warn","message":"two\nlines \u001b[2J","fields":{"phase":4}}"#,
        )
        .unwrap()
    }

    #[test]
    fn an_entry_can_neither_command_the_terminal_nor_pretend_to_be_two() {
        assert_eq!(
            format_entry(&entry(), Format::Wide).unwrap(),
            "2026-01-31T12:00:00.000Z WARN  a/f log: two phase=4 request=r1\n    lines \\u{1b}[2J\n"
        );
        let blank = LogEntry {
            message: "\n".into(),
            fields: None,
            ..entry()
        };
        assert_eq!(format_entry(&blank, Format::Table).unwrap(), "");
        let json = format_entry(&entry(), Format::Json).unwrap();
        assert_eq!(serde_json::from_str::<LogEntry>(&json).unwrap(), entry());
    }

    #[test]
    fn a_moment_is_given_as_time_or_as_age() {
        let now = humantime::parse_rfc3339("2026-01-31T12:00:00Z").unwrap();
        assert_eq!(moment("5m", now).unwrap(), "2026-01-31T11:55:00.000Z");
        assert_eq!(
            moment("2026-01-30T00:00:00Z", now).unwrap(),
            "2026-01-30T00:00:00.000Z"
        );
        for bad in ["", "yesterday", "900000y", "1960-01-01T00:00:00Z"] {
            assert!(moment(bad, now).is_err(), "{bad}");
        }
    }
}
