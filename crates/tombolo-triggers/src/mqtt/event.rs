//! Messages as events and events as messages: the CloudEvents protocol binding for MQTT 1.0.2, and what every other message becomes.
//!
//! A message is an event in binary mode when it has the user property `specversion`, and one in structured
//! mode when its content type begins with `application/cloudevents`. Any other becomes an event
//! of type `tombolo.mqtt.message`. Each has its topic in the extension attribute `mqtttopic`, which only we set.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tombolo_core::TraceContext;
use tombolo_core::event::{Bounds, Event, EventError, SPECVERSION, http as binding, json};

use super::auth::random_name;
use super::message::{Message, Properties};

/// The extension attribute that has the topic.
pub const TOPIC: &str = "mqtttopic";
const TYPE: &str = "tombolo.mqtt.message";
const TRACEPARENT: &str = "traceparent";
const CLOUDEVENTS: &str = "application/cloudevents";

/// Makes names of events that no other message has had, in this process or an earlier one.
pub struct Ids {
    process: String,
    next: AtomicU64,
}

impl Ids {
    /// None when the system has no random numbers.
    pub fn new() -> Option<Self> {
        let process = random_name()?;
        Some(Self {
            process,
            next: AtomicU64::new(0),
        })
    }

    fn next(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number:x}", self.process)
    }
}

/// Where the events of a client come from.
pub fn client_source(client: &str) -> String {
    format!(
        "/tombolo/mqtt/{}",
        utf8_percent_encode(client, NON_ALPHANUMERIC)
    )
}

/// The event that a message is, or becomes with this source; and the trace that it belongs to.
///
/// # Errors
/// The message says that it is an event, and is no valid one; or it is too large for one.
pub fn of_message(
    message: &Message,
    source: impl FnOnce() -> String,
    ids: &Ids,
) -> Result<(Event, Option<TraceContext>), EventError> {
    let properties = &message.properties;
    let content_type = properties.content_type.as_deref().unwrap_or_default();
    let is_structured = content_type
        .get(..CLOUDEVENTS.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(CLOUDEVENTS));
    let mut event = if is_structured {
        structured(message, content_type)?
    } else if property(properties, "specversion").is_some() {
        binary(message)?
    } else {
        wrapped(message, source(), ids)
    };
    if event.subject.is_none() {
        event.subject = Some(message.topic.to_string());
    }
    event
        .extensions
        .insert(TOPIC.to_owned(), message.topic.to_string());
    event.check_within(&Bounds::default())?;
    let trace = property(properties, TRACEPARENT).or(event.attribute(TRACEPARENT));
    let trace = trace.and_then(|trace| trace.parse().ok());
    Ok((event, trace))
}

/// The payload and the properties of a message that carries the event in binary mode.
pub fn into_message(event: Event, trace: Option<TraceContext>) -> (Bytes, Properties) {
    let mut user = vec![("specversion".into(), SPECVERSION.into())];
    for (name, value) in event.attributes() {
        // The topic is what the message is published to; the type of the data has a place of its own.
        if name != "datacontenttype" && name != TOPIC {
            user.push((Arc::from(name), Arc::from(value)));
        }
    }
    if let Some(trace) = trace
        && !event.extensions.contains_key(TRACEPARENT)
    {
        user.push((TRACEPARENT.into(), trace.to_string().into()));
    }
    let properties = Properties {
        content_type: event.datacontenttype.map(Arc::from),
        user,
        ..Properties::default()
    };
    (event.data.unwrap_or_default(), properties)
}

fn property<'m>(properties: &'m Properties, name: &str) -> Option<&'m str> {
    let mut user = properties.user.iter();
    let found = user.find(|(key, _)| &**key == name);
    found.map(|(_, value)| &**value)
}

fn structured(message: &Message, content_type: &str) -> Result<Event, EventError> {
    let mut headers = http::HeaderMap::new();
    let value = http::HeaderValue::from_str(content_type);
    let value = value.map_err(|_| EventError::Format(content_type.escape_debug().to_string()))?;
    headers.insert(http::header::CONTENT_TYPE, value);
    match binding::mode(&headers)? {
        binding::Mode::Structured => json::parse(&message.payload, &Bounds::default()),
        // The binding for MQTT has no batches.
        _ => Err(EventError::Format(content_type.to_owned())),
    }
}

fn binary(message: &Message) -> Result<Event, EventError> {
    let mut event = Event::new("", "", "");
    if let Some(content_type) = &message.properties.content_type {
        event.set("datacontenttype", content_type.to_string())?;
    }
    let mut version = None;
    for (name, value) in &message.properties.user {
        match &**name {
            "specversion" => {
                if version.replace(&**value).is_some() {
                    return Err(EventError::Duplicate(name.to_string()));
                }
            }
            TOPIC => {}
            // What cannot be the name of an attribute is something else of the publisher's.
            name if !is_attribute_name(name) => {}
            name => event.set(name, value.to_string())?,
        }
    }
    match version {
        Some(SPECVERSION) => {}
        other => return Err(EventError::Version(other.unwrap_or_default().to_owned())),
    }
    for (name, value) in [
        ("id", &event.id),
        ("source", &event.source),
        ("type", &event.kind),
    ] {
        if value.is_empty() {
            return Err(EventError::Missing(name));
        }
    }
    event.data = data(message);
    Ok(event)
}

/// The event that a message without attributes becomes. Its user properties are extensions where they can be.
fn wrapped(message: &Message, source: String, ids: &Ids) -> Event {
    let mut event = Event::new(ids.next(), source, TYPE);
    event.time = Some(format!("{:.3}", Timestamp::now()));
    event.data = data(message);
    let content_type = message.properties.content_type.as_deref();
    let content_type = content_type.map(|value| ("datacontenttype", value));
    let user = message.properties.user.iter();
    let user = user
        .map(|(name, value)| (&**name, &**value))
        .filter(|(name, _)| is_attribute_name(name) && !is_core(name));
    for (name, value) in content_type.into_iter().chain(user) {
        // What is no valid value, or comes a second time, stays behind: nobody said that it is an attribute.
        if event.attribute(name).is_none() {
            let _ = event.set(name, value.to_owned());
        }
    }
    event
}

fn data(message: &Message) -> Option<Bytes> {
    (!message.payload.is_empty()).then(|| message.payload.clone())
}

fn is_attribute_name(name: &str) -> bool {
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !name.is_empty() && name.bytes().all(lower)
}

fn is_core(name: &str) -> bool {
    matches!(
        name,
        "specversion"
            | "id"
            | "source"
            | "type"
            | "time"
            | "subject"
            | "datacontenttype"
            | "dataschema"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::Qos;

    fn message(content_type: Option<&str>, user: &[(&str, &str)], payload: &str) -> Message {
        Message {
            topic: "machines/7/speed".into(),
            payload: payload.to_owned().into(),
            qos: Qos::AtLeastOnce,
            retain: false,
            expires: None,
            properties: Properties {
                content_type: content_type.map(Arc::from),
                user: user
                    .iter()
                    .map(|(k, v)| ((*k).into(), (*v).into()))
                    .collect(),
                ..Properties::default()
            },
        }
    }

    fn event(message: &Message) -> Result<Event, EventError> {
        let ids = Ids::new().unwrap();
        of_message(message, || client_source("press 7/ü"), &ids).map(|(event, _)| event)
    }

    const ATTRIBUTES: [(&str, &str); 4] = [
        ("specversion", "1.0"),
        ("id", "42"),
        ("source", "/m/7"),
        ("type", "speed"),
    ];

    #[test]
    fn a_bare_message_becomes_an_event_with_its_topic_as_subject() {
        let user = [
            ("site", "harbour"),
            ("id", "9"),
            ("Not-A-Name", "x"),
            ("site", "twice"),
        ];
        let one = message(None, &user, "1720");
        let event = event(&one).unwrap();
        assert_eq!(event.kind, TYPE);
        assert_eq!(event.source, "/tombolo/mqtt/press%207%2F%C3%BC");
        assert_eq!(event.subject.as_deref(), Some("machines/7/speed"));
        assert_eq!(event.attribute(TOPIC), Some("machines/7/speed"));
        assert_eq!(event.attribute("site"), Some("harbour"));
        assert_ne!(event.id, "9");
        assert_eq!(event.data.as_deref(), Some(&b"1720"[..]));
        let odd = message(Some("no media type"), &[], "");
        let odd = super::tests::event(&odd).unwrap();
        assert_eq!((odd.datacontenttype, odd.data), (None, None));
    }

    #[test]
    fn ids_differ() {
        let ids = Ids::new().unwrap();
        assert_ne!(ids.next(), ids.next());
        assert_ne!(Ids::new().unwrap().next(), Ids::new().unwrap().next());
    }

    #[test]
    fn an_event_in_binary_mode_keeps_what_it_says_of_itself() {
        let more = [
            ("subject", "spindle"),
            ("site", "a"),
            (TOPIC, "forged"),
            ("X-Gateway", "g"),
        ];
        let user = [&ATTRIBUTES[..], &more].concat();
        let event = event(&message(Some("application/json"), &user, "{}")).unwrap();
        assert_eq!(
            (&*event.id, &*event.source, &*event.kind),
            ("42", "/m/7", "speed")
        );
        assert_eq!(event.subject.as_deref(), Some("spindle"));
        assert_eq!(event.attribute(TOPIC), Some("machines/7/speed"));
        assert_eq!(event.datacontenttype.as_deref(), Some("application/json"));
        assert_eq!(event.extensions.len(), 2);
    }

    #[test]
    fn an_event_in_structured_mode_is_read() {
        let text = r#"{"specversion":"1.0","id":"1","source":"/m","type":"t","data":{"rpm":3}}"#;
        let kind = Some("application/cloudevents+json; charset=utf-8");
        let event = event(&message(kind, &[], text)).unwrap();
        assert_eq!((&*event.id, &*event.kind), ("1", "t"));
        assert_eq!(event.subject.as_deref(), Some("machines/7/speed"));
        assert_eq!(event.data.as_deref(), Some(&br#"{"rpm":3}"#[..]));
    }

    #[test]
    fn what_says_that_it_is_an_event_has_to_be_a_valid_one() {
        let broken = [
            message(None, &ATTRIBUTES[..3], ""),
            message(None, &[("specversion", "0.3")], ""),
            message(None, &[&ATTRIBUTES[..], &[("id", "43")]].concat(), ""),
            message(
                None,
                &[&ATTRIBUTES[..], &[("time", "yesterday")]].concat(),
                "",
            ),
            message(
                None,
                &[&ATTRIBUTES[..2], &[("source", "a b"), ("type", "t")]].concat(),
                "",
            ),
            message(Some("no media type"), &ATTRIBUTES, ""),
            message(Some("application/cloudevents+json"), &[], "{}"),
            message(Some("application/cloudevents-batch+json"), &[], "[]"),
            message(Some("application/cloudevents+avro"), &[], "x"),
            message(Some("Application/CloudEvents+json\n"), &[], "x"),
        ];
        for one in broken {
            assert!(event(&one).is_err(), "{one:?}");
        }
    }

    #[test]
    fn an_event_goes_through_a_message_unchanged() {
        let mut sent = Event::new("7", "/plant/analyse", "plan").with_data("text/plain", "go");
        sent.set("site", "harbour".into()).unwrap();
        sent.set("subject", "press-7".into()).unwrap();
        let trace = TraceContext {
            trace_id: 7,
            span_id: 9,
            sampled: true,
        };
        let (payload, properties) = into_message(sent.clone(), Some(trace));
        let carried = Message {
            payload,
            properties,
            ..message(None, &[], "")
        };
        let ids = Ids::new().unwrap();
        let (mut got, told) = of_message(&carried, String::new, &ids).unwrap();
        assert_eq!(told, Some(trace));
        assert_eq!(got.extensions.remove(TRACEPARENT), Some(trace.to_string()));
        assert_eq!(
            got.extensions.remove(TOPIC).as_deref(),
            Some("machines/7/speed")
        );
        assert_eq!(got, sent);
    }
}
