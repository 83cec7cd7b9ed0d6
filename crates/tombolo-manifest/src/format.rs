//! The formats of texts: every `format` that the schemas name, and the check behind it.

use std::net::SocketAddr;

use serde_json::Value;
use tombolo_core::Name;

use crate::broker::PasswordText;
use crate::check::{bounds, nearest};
use crate::grant::{DirectoryGrant, SocketGrant};
use crate::http_grant::{HostPattern, HttpGrant};
use crate::queue::AttributeName;
use crate::route::Route;
use crate::schedule::{Schedule, Zone};
use crate::text::{parse_duration, parse_function_id, parse_size};
use crate::topic::TopicFilter;

/// Why a text is refused, and what would be accepted.
pub(crate) struct Refused {
    pub message: String,
    pub help: Option<String>,
}

impl Refused {
    fn new(message: impl ToString) -> Self {
        Self {
            message: message.to_string(),
            help: None,
        }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Checks a text against the `format`, the length and the bounds of its schema.
pub(crate) fn check(schema: &Value, text: &str) -> Result<(), Refused> {
    length(schema, text)?;
    match schema.get("format").and_then(Value::as_str) {
        None => Ok(()),
        Some("name") => name(text),
        Some("version") => version(text),
        Some("path") => path(text),
        Some("env-key") => env_key(text),
        Some("size") => size(schema, text),
        Some("duration-text") => duration(schema, text),
        Some("function-id") => parse_function_id(text)
            .map(drop)
            .map_err(|error| Refused::new(error).help("for example `billing/charge`")),
        Some("http-grant") => http_grant(text),
        Some("directory-grant") => parse::<DirectoryGrant>(text, "for example `data::/data:ro`"),
        Some("socket-grant") => parse::<SocketGrant>(text, "for example `db.example:5432`"),
        Some("schedule") => parse::<Schedule>(
            text,
            "for example `*/5 * * * *` (every five minutes) or `30 2 * * MON-FRI`",
        ),
        Some("time-zone") => time_zone(text),
        Some("event-attribute") => parse::<AttributeName>(text, "for example `subject`"),
        Some("topic-filter") => {
            parse::<TopicFilter>(text, "for example `detectors/+/events` or `plans/#`")
        }
        Some("broker-url") => broker_url(text),
        Some("broker-topics") => crate::broker::check_topics(text).map_err(|error| {
            Refused::new(error).help("for example `machines/{client}/#` or `alarms/+`")
        }),
        Some("password-hash") => parse::<PasswordText>(
            text,
            "the guide's chapter on MQTT has a command that makes one",
        ),
        Some("route") => parse::<Route>(text, "for example `/signals/{id}` or `/files/{*path}`"),
        Some("socket-address") => parse_address(text),
        Some("http-url") => http_url(text),
        // A format without a check is a mistake of ours; a test walks the schemas for one.
        Some(unknown) => Err(Refused::new(format!("the format `{unknown}` has no check"))),
    }
}

fn parse<T>(text: &str, help: &str) -> Result<(), Refused>
where
    T: std::str::FromStr,
    T::Err: ToString,
{
    text.parse::<T>()
        .map(drop)
        .map_err(|error| Refused::new(error.to_string()).help(help))
}

fn length(schema: &Value, text: &str) -> Result<(), Refused> {
    let bound = |key| schema.get(key).and_then(Value::as_u64);
    let found = text.chars().count() as u64;
    if let Some(max) = bound("maxLength").filter(|max| found > *max) {
        return Err(Refused::new(format!(
            "the text has {found} characters, at most {max} are allowed"
        )));
    }
    if bound("minLength").is_some_and(|min| found < min) {
        return Err(Refused::new("the text is empty"));
    }
    Ok(())
}

fn name(text: &str) -> Result<(), Refused> {
    let Err(error) = text.parse::<Name>() else {
        return Ok(());
    };
    let refused = Refused::new(error);
    let candidate = text.to_ascii_lowercase().replace(['_', ' ', '.'], "-");
    Err(if candidate.parse::<Name>().is_ok() {
        refused.help(format!("`{candidate}` would be a name"))
    } else {
        refused.help("for example `signal` or `rollup-2`")
    })
}

fn version(text: &str) -> Result<(), Refused> {
    match text.parse::<semver::Version>() {
        Ok(_) => Ok(()),
        Err(_) => Err(
            Refused::new(format!("`{text}` is no version of semver.org"))
                .help("three numbers, such as `1.2.3` or `1.2.3-beta.1`"),
        ),
    }
}

fn path(text: &str) -> Result<(), Refused> {
    if text.is_empty() {
        return Err(Refused::new("the path is empty"));
    }
    if text.contains('\0') {
        return Err(Refused::new("a path has no NUL"));
    }
    Ok(())
}

fn env_key(text: &str) -> Result<(), Refused> {
    if text.is_empty() || text.contains(['=', '\0']) {
        return Err(Refused::new(
            "the name of an environment variable is not empty and has no `=` and no NUL",
        ));
    }
    Ok(())
}

fn size(schema: &Value, text: &str) -> Result<(), Refused> {
    let bytes = parse_size(text).map_err(Refused::new)?;
    within(schema, text, &bytes, |bound| parse_size(bound).ok())
}

fn duration(schema: &Value, text: &str) -> Result<(), Refused> {
    let duration = parse_duration(text).map_err(Refused::new)?;
    within(schema, text, &duration, |bound| parse_duration(bound).ok())
}

fn within<T: PartialOrd>(
    schema: &Value,
    text: &str,
    value: &T,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<(), Refused> {
    let bound = |key| schema.get(key).and_then(Value::as_str).and_then(&parse);
    let small = bound("x-minimum").is_some_and(|min| *value < min);
    let large = bound("x-maximum").is_some_and(|max| *value > max);
    if !small && !large {
        return Ok(());
    }
    let refused = Refused::new(format!(
        "`{text}` is too {}",
        if small { "small" } else { "large" }
    ));
    Err(match bounds(schema) {
        Some(bounds) => refused.help(format!("it is {bounds}")),
        None => refused,
    })
}

fn http_grant(text: &str) -> Result<(), Refused> {
    let help = "for example `https://weather.example` or `https://*.example.com:8443`";
    let grant: HttpGrant = text
        .parse()
        .map_err(|error| Refused::new(error).help(help))?;
    match grant.host {
        HostPattern::Any => Err(Refused::new(
            "a manifest names the origins; `*` is for the command line",
        )
        .help(help)),
        _ => Ok(()),
    }
}

fn parse_address(text: &str) -> Result<(), Refused> {
    let help = "for example `127.0.0.1:3000` or `[::]:443`";
    match text.parse::<SocketAddr>() {
        Ok(_) => Ok(()),
        Err(_) => {
            Err(Refused::new("an address to listen on is an IP address and a port").help(help))
        }
    }
}

/// `http://HOST[:PORT][/PATH]` or the same with `https`.
fn http_url(text: &str) -> Result<(), Refused> {
    let help = "for example `http://127.0.0.1:4318`";
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let origin = text
        .get(..text.len() - rest.len() + authority.len())
        .unwrap_or(text);
    let grant: HttpGrant = origin
        .parse()
        .map_err(|error| Refused::new(error).help(help))?;
    let plain = path.bytes().all(|b| b.is_ascii_graphic());
    match grant.host {
        HostPattern::Name(_) | HostPattern::Address(_) if plain => Ok(()),
        _ => Err(
            Refused::new("a URL names one host, and has only visible ASCII characters").help(help),
        ),
    }
}

/// `mqtt://HOST[:PORT]` or the same with `mqtts`.
fn broker_url(text: &str) -> Result<(), Refused> {
    let help = "for example `mqtts://broker.example` or `mqtt://10.0.0.7:1883`";
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    let origin = match scheme {
        "mqtt" | "mqtts" => text.replacen("mqtt", "http", 1),
        _ => {
            let message = "the URL of a broker begins with `mqtt://` or `mqtts://`";
            return Err(Refused::new(message).help(help));
        }
    };
    let grant: HttpGrant = origin
        .parse()
        .map_err(|error| Refused::new(error).help(help))?;
    match grant.host {
        HostPattern::Name(_) | HostPattern::Address(_) => Ok(()),
        _ => Err(Refused::new("a URL names one host").help(help)),
    }
}

fn time_zone(text: &str) -> Result<(), Refused> {
    let Err(error) = text.parse::<Zone>() else {
        return Ok(());
    };
    let names: Vec<String> = jiff::tz::db()
        .available()
        .map(|name| name.to_string())
        .collect();
    let refused = Refused::new(error);
    Err(match nearest(text, names.iter().map(String::as_str)) {
        Some(near) => refused.help(format!("did you mean `{near}`?")),
        None => refused.help("a name of the IANA database, for example `Europe/Berlin` or `UTC`"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(schema: &Value) {
        let string = schema.get("type").is_some_and(|kind| kind == "string");
        if string && schema.get("format").is_some() {
            let known = check(schema, "\u{0}")
                .err()
                .is_none_or(|r| !r.message.contains("has no check"));
            assert!(known, "{schema}");
        }
        for bound in ["x-minimum", "x-maximum"] {
            if let Some(bound) = schema.get(bound).and_then(Value::as_str) {
                assert!(check(schema, bound).is_ok(), "{schema}");
            }
        }
        match schema {
            Value::Array(items) => items.iter().for_each(walk),
            Value::Object(object) => object.values().for_each(walk),
            _ => {}
        }
    }

    #[test]
    fn every_format_has_its_check_and_every_bound_is_within_itself() {
        walk(&crate::manifest_schema());
        walk(&crate::node_config_schema());
    }
}
