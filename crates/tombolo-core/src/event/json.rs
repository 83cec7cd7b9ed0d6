//! The JSON event format 1.0.2 and its batches, read and written.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Serialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::{Bounds, Event, EventError, Problem, SPECVERSION, attribute, within};

/// The media type of one event.
pub const MEDIA_TYPE: &str = "application/cloudevents+json";
/// The media type of a batch.
pub const BATCH_MEDIA_TYPE: &str = "application/cloudevents-batch+json";

/// Members of an event beside its extensions: seven attributes, `specversion`, `data` and `data_base64`.
const CORE_MEMBERS: usize = 10;

/// Reads one event.
pub fn parse(text: &[u8], bounds: &Bounds) -> Result<Event, EventError> {
    within("the message, in bytes,", text.len(), bounds.message_bytes)?;
    event(utf8(text)?, bounds)
}

/// Reads a batch, which may be empty.
pub fn parse_batch(text: &[u8], bounds: &Bounds) -> Result<Vec<Event>, EventError> {
    within("the message, in bytes,", text.len(), bounds.message_bytes)?;
    let items = read(Items(bounds.batch_events), utf8(text)?)?;
    within("the batch", items.count, bounds.batch_events)?;
    let events = items.kept.into_iter().enumerate();
    events
        .map(|(index, item)| {
            event(item.get(), bounds).map_err(|error| EventError::InBatch {
                index,
                error: Box::new(error),
            })
        })
        .collect()
}

/// Writes one event. It fails when the event breaks a rule of the specification.
pub fn write(event: &Event) -> Result<Vec<u8>, EventError> {
    event.check()?;
    to_vec(&Written(event))
}

/// Writes a batch. It fails when an event breaks a rule of the specification.
pub fn write_batch<'e>(events: impl IntoIterator<Item = &'e Event>) -> Result<Vec<u8>, EventError> {
    let mut written = Vec::new();
    for (index, event) in events.into_iter().enumerate() {
        event.check().map_err(|error| EventError::InBatch {
            index,
            error: Box::new(error),
        })?;
        written.push(Written(event));
    }
    to_vec(&written)
}

fn to_vec(value: &impl Serialize) -> Result<Vec<u8>, EventError> {
    serde_json::to_vec(value).map_err(|error| EventError::Json(error.to_string()))
}

fn utf8(text: &[u8]) -> Result<&str, EventError> {
    std::str::from_utf8(text).map_err(|error| EventError::Json(error.to_string()))
}

fn read<'t, S: DeserializeSeed<'t>>(seed: S, text: &'t str) -> Result<S::Value, EventError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut deserializer).map_err(failure)?;
    deserializer.end().map_err(failure)?;
    Ok(value)
}

fn failure(error: serde_json::Error) -> EventError {
    match error.is_data() {
        true => EventError::Shape(error.to_string()),
        false => EventError::Json(error.to_string()),
    }
}

fn event(text: &str, bounds: &Bounds) -> Result<Event, EventError> {
    let members_max = bounds.extensions.saturating_add(CORE_MEMBERS);
    let members = read(Members(members_max), text)?;
    within("the members of an event", members.count, members_max)?;
    let mut event = Event::new("", "", "");
    let mut version = None;
    let (mut data, mut base64) = (None, None);
    for (name, raw) in members.kept {
        let repeated = match name.as_str() {
            "data" => data.replace(raw).is_some(),
            "data_base64" => base64.replace(raw).is_some(),
            "specversion" => match attribute_value(&name, raw)? {
                Some(value) => version.replace(value).is_some(),
                None => false,
            },
            _ => {
                if let Some(value) = attribute_value(&name, raw)? {
                    event.set(&name, value)?;
                }
                false
            }
        };
        if repeated {
            return Err(EventError::Duplicate(name));
        }
    }
    super::check_version(version.as_deref())?;
    read_data(&mut event, data, base64.filter(|raw| raw.get() != "null"))?;
    event.complete(bounds)
}

/// An attribute in its canonical text; none for `null`, which means that it is not set.
fn attribute_value(name: &str, raw: &RawValue) -> Result<Option<String>, EventError> {
    let core = matches!(
        name,
        "specversion"
            | "id"
            | "source"
            | "type"
            | "time"
            | "subject"
            | "datacontenttype"
            | "dataschema"
    );
    let text = raw.get();
    let value = match text.as_bytes().first() {
        Some(b'n') => return Ok(None),
        Some(b'"') => string(raw)?,
        _ if core => return Err(EventError::of(name, Problem::NotText)),
        Some(b't' | b'f') => text.to_owned(),
        // The type `Integer` has the range of 32 bits.
        _ => match text.parse::<i32>() {
            Ok(number) => number.to_string(),
            Err(_) => return Err(EventError::of(name, Problem::Kind)),
        },
    };
    Ok(Some(value))
}

fn string(raw: &RawValue) -> Result<String, EventError> {
    serde_json::from_str(raw.get()).map_err(|error| EventError::Json(error.to_string()))
}

/// Section 3.1.2 of the format: base64 is bytes, JSON stays JSON, the rest is a text.
fn read_data(
    event: &mut Event,
    data: Option<&RawValue>,
    base64: Option<&RawValue>,
) -> Result<(), EventError> {
    event.data = match (data, base64) {
        (Some(_), Some(_)) => return Err(EventError::DataTwice),
        (None, None) => None,
        (None, Some(raw)) => {
            let text: String = serde_json::from_str(raw.get()).map_err(|_| EventError::Base64)?;
            Some(
                STANDARD
                    .decode(text)
                    .map_err(|_| EventError::Base64)?
                    .into(),
            )
        }
        (Some(raw), None) => match &event.datacontenttype {
            Some(other) if !attribute::is_json(other) => match raw.get().as_bytes().first() {
                Some(b'"') => Some(string(raw)?.into()),
                Some(b'n') => None,
                _ => return Err(EventError::DataNotText(other.clone())),
            },
            // Without a type, JSON is implied; to say so keeps the meaning in other bindings.
            content_type => {
                if content_type.is_none() {
                    event.datacontenttype = Some("application/json".into());
                }
                Some(Bytes::copy_from_slice(raw.get().as_bytes()))
            }
        },
    };
    Ok(())
}

/// What was kept of a list or an object, and how much there was.
struct Bounded<T> {
    kept: Vec<T>,
    count: usize,
}

impl<T> Bounded<T> {
    fn new() -> Self {
        Self {
            kept: Vec::new(),
            count: 0,
        }
    }
}

/// The members of an object, in their order; more than the bound are counted, not kept.
struct Members(usize);

impl<'de> DeserializeSeed<'de> for Members {
    type Value = Bounded<(String, &'de RawValue)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members {
    type Value = Bounded<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Bounded::new();
        while members.kept.len() < self.0 {
            let Some(member) = map.next_entry()? else {
                return Ok(members);
            };
            members.kept.push(member);
            members.count += 1;
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            members.count += 1;
        }
        Ok(members)
    }
}

/// The elements of an array; more than the bound are counted, not kept.
struct Items(usize);

impl<'de> DeserializeSeed<'de> for Items {
    type Value = Bounded<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items {
    type Value = Bounded<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Bounded::new();
        while items.kept.len() < self.0 {
            let Some(item) = list.next_element()? else {
                return Ok(items);
            };
            items.kept.push(item);
            items.count += 1;
        }
        while list.next_element::<IgnoredAny>()?.is_some() {
            items.count += 1;
        }
        Ok(items)
    }
}

/// An event as it is written.
struct Written<'e>(&'e Event);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("specversion", SPECVERSION)?;
        for (name, value) in self.0.attributes() {
            map.serialize_entry(name, value)?;
        }
        if let Some(data) = &self.0.data {
            match spelled(data, self.0.datacontenttype.as_deref()) {
                Spelled::Json(value) => map.serialize_entry("data", value)?,
                Spelled::Text(text) => map.serialize_entry("data", text)?,
                Spelled::Binary => map.serialize_entry("data_base64", &STANDARD.encode(data))?,
            }
        }
        map.end()
    }
}

/// How data stands in JSON.
enum Spelled<'d> {
    Json(&'d RawValue),
    Text(&'d str),
    Binary,
}

/// Data that is not what its type says is bytes: nothing is lost, and the JSON is valid.
fn spelled<'d>(data: &'d [u8], content_type: Option<&str>) -> Spelled<'d> {
    let (Some(content_type), Ok(text)) = (content_type, std::str::from_utf8(data)) else {
        return Spelled::Binary;
    };
    if attribute::is_json(content_type) && attribute::is_utf8(content_type) {
        return serde_json::from_str(text).map_or(Spelled::Binary, Spelled::Json);
    }
    match attribute::is_text(content_type) {
        true => Spelled::Text(text),
        false => Spelled::Binary,
    }
}

#[cfg(test)]
mod tests;
