//! CloudEvents 1.0.2: the one shape of every event, what makes one valid, and its codecs for JSON and HTTP.
//!
//! Specification: <https://github.com/cloudevents/spec/tree/ce@v1.0.2/cloudevents>.

#[cfg(test)]
mod arbitrary;
mod attribute;
mod header;
pub mod http;
pub mod json;
mod stored;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Blame, Code, Failure};

pub use attribute::is_json;

/// The version of the specification that events are of.
pub const SPECVERSION: &str = "1.0";

/// A CloudEvent. Its fields are checked by [`Event::check`], which the codecs call in both directions.
///
/// `serde` is its stored form, for `postcard`; what goes over a wire is made by [`json`] and [`http`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Not empty; with `source` it names the event.
    pub id: String,
    /// A URI-reference of RFC 3986 that is not empty.
    pub source: String,
    /// The attribute `type`; not empty.
    pub kind: String,
    /// A timestamp of RFC 3339.
    pub time: Option<String>,
    /// Not empty.
    pub subject: Option<String>,
    /// A media type of RFC 2046.
    pub datacontenttype: Option<String>,
    /// An absolute URI of RFC 3986, without a fragment.
    pub dataschema: Option<String>,
    /// Extension attributes; numbers and booleans in their canonical text.
    pub extensions: BTreeMap<String, String>,
    /// The data as `datacontenttype` says; JSON is the text of its value.
    #[serde(with = "stored")]
    pub data: Option<Bytes>,
}

/// How large events may be that are received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most bytes of an event: names and values of its attributes, and its data.
    pub event_bytes: usize,
    /// Most bytes of the value of one attribute.
    pub attribute_bytes: usize,
    /// Most extension attributes of an event.
    pub extensions: usize,
    /// Most events of a batch.
    pub batch_events: usize,
    /// Most bytes of a message as it is sent: an event in JSON, or a whole batch.
    pub message_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            event_bytes: 1 << 20,
            attribute_bytes: 4 << 10,
            extensions: 64,
            batch_events: 1000,
            message_bytes: 8 << 20,
        }
    }
}

/// Why something is no valid event.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EventError {
    #[error(
        "this is no CloudEvent: it has neither `ce-*` headers nor the type application/cloudevents+json"
    )]
    NotAnEvent,
    #[error(
        "the event format `{0}` is not known; application/cloudevents+json and application/cloudevents-batch+json are"
    )]
    Format(String),
    #[error("the JSON is not valid: {0}")]
    Json(String),
    #[error("the event is no JSON object with attributes: {0}")]
    Shape(String),
    #[error("the attribute `{0}` is missing")]
    Missing(&'static str),
    #[error("specversion is `{0}`, only 1.0 is known")]
    Version(String),
    #[error("`{0}` is no attribute name; names are 1 to 64 of the characters a-z and 0-9")]
    Name(String),
    #[error("`{0}` is there twice")]
    Duplicate(String),
    #[error("the attribute `{name}` {problem}")]
    Attribute {
        /// The attribute's name.
        name: String,
        /// What is wrong with its value.
        problem: Problem,
    },
    #[error("an event has `data` or `data_base64`, not both")]
    DataTwice,
    #[error("`data_base64` is not base64 of RFC 4648, section 4")]
    Base64,
    #[error(
        "`data` of type `{0}` is a text or in `data_base64`; other JSON values need a JSON type"
    )]
    DataNotText(String),
    #[error(
        "the header `ce-datacontenttype` is not allowed; the type of the data is in Content-Type"
    )]
    ContentTypeHeader,
    #[error("{what} has {found}, at most {bound} are accepted")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is, at least.
        found: usize,
        /// How large it may be.
        bound: usize,
    },
    #[error("event {index} of the batch: {error}")]
    InBatch {
        /// The place of the event in the batch, from 0.
        index: usize,
        /// What is wrong with it.
        error: Box<EventError>,
    },
}

/// What is wrong with the value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("is empty")]
    Empty,
    #[error("has a control character or a noncharacter of Unicode")]
    Character,
    #[error("is no URI-reference of RFC 3986")]
    UriReference,
    #[error("is no absolute URI of RFC 3986 (a scheme, and no fragment)")]
    Uri,
    #[error("is no timestamp of RFC 3339, such as 2018-04-05T17:31:00Z")]
    Timestamp,
    #[error("is no media type of RFC 2046, such as application/json")]
    MediaType,
    #[error("is not a text")]
    NotText,
    #[error("is no text, boolean, or whole number of 32 bits")]
    Kind,
    #[error("has bytes in its header that are not printable ASCII; percent-encode them")]
    NotAscii,
    #[error("has a `%` in its header that two hexadecimal digits do not follow")]
    Percent,
    #[error("has a quote in its header that is not closed")]
    Quote,
    #[error("is no valid UTF-8 after percent-decoding")]
    Utf8,
}

impl EventError {
    /// Whether the sender used a format that is not understood here (HTTP 415), rather than breaking a rule.
    pub fn is_format(&self) -> bool {
        matches!(self, Self::NotAnEvent | Self::Format(_))
    }

    /// Whether something is larger than it may be (HTTP 413).
    pub fn is_size(&self) -> bool {
        match self {
            Self::TooLarge { .. } => true,
            Self::InBatch { error, .. } => error.is_size(),
            _ => false,
        }
    }

    fn of(name: &str, problem: Problem) -> Self {
        Self::Attribute {
            name: name.to_owned(),
            problem,
        }
    }
}

impl From<EventError> for Failure {
    fn from(error: EventError) -> Self {
        let code = match &error {
            error if error.is_format() => Code::EventFormat,
            error if error.is_size() => Code::EventTooLong,
            _ => Code::EventInvalid,
        };
        Self::new(code, Blame::Caller, error.to_string())
    }
}

impl Event {
    /// An event with what every event has, and nothing else.
    pub fn new(id: impl Into<String>, source: impl Into<String>, kind: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            source: source.into(),
            kind: kind.into(),
            time: None,
            subject: None,
            datacontenttype: None,
            dataschema: None,
            extensions: BTreeMap::new(),
            data: None,
        }
    }

    /// The same event with data of a media type.
    #[must_use]
    pub fn with_data(mut self, content_type: impl Into<String>, data: impl Into<Bytes>) -> Self {
        self.datacontenttype = Some(content_type.into());
        self.data = Some(data.into());
        self
    }

    /// The value of an attribute by its name in the specification, an extension's included.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        match name {
            "specversion" => Some(SPECVERSION),
            "id" => Some(&self.id),
            "source" => Some(&self.source),
            "type" => Some(&self.kind),
            "time" => self.time.as_deref(),
            "subject" => self.subject.as_deref(),
            "datacontenttype" => self.datacontenttype.as_deref(),
            "dataschema" => self.dataschema.as_deref(),
            name => self.extensions.get(name).map(String::as_str),
        }
    }

    /// All attributes that are set but `specversion`: required ones, optional ones, extensions.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        let core = [
            "id",
            "source",
            "type",
            "time",
            "subject",
            "datacontenttype",
            "dataschema",
        ];
        let core = core
            .into_iter()
            .filter_map(|name| Some((name, self.attribute(name)?)));
        let extensions = self.extensions.iter();
        core.chain(extensions.map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// How many bytes count against [`Bounds::event_bytes`].
    pub fn size_bytes(&self) -> usize {
        let attributes: usize = self
            .attributes()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        attributes + self.data.as_ref().map_or(0, Bytes::len)
    }

    /// Whether the data is JSON by its declared type.
    pub fn is_json(&self) -> bool {
        self.datacontenttype.as_deref().is_some_and(is_json)
    }

    /// Checks every rule of the specification for attributes.
    pub fn check(&self) -> Result<(), EventError> {
        for (name, value) in self.attributes() {
            attribute::check(name, value).map_err(|problem| EventError::of(name, problem))?;
        }
        self.extensions
            .keys()
            .try_for_each(|name| attribute::extension_name(name))
    }

    /// Tells the first required attribute that is not set.
    fn complete(self, bounds: &Bounds) -> Result<Self, EventError> {
        for (name, value) in [
            ("id", &self.id),
            ("source", &self.source),
            ("type", &self.kind),
        ] {
            if value.is_empty() {
                return Err(EventError::Missing(name));
            }
        }
        self.within(bounds)?;
        Ok(self)
    }

    /// Checks the rules of the specification, and the bounds.
    pub fn check_within(&self, bounds: &Bounds) -> Result<(), EventError> {
        self.check()?;
        self.within(bounds)
    }

    fn within(&self, bounds: &Bounds) -> Result<(), EventError> {
        within("an event, in bytes,", self.size_bytes(), bounds.event_bytes)?;
        within(
            "the extensions of an event",
            self.extensions.len(),
            bounds.extensions,
        )?;
        let longest = self.attributes().map(|(_, value)| value.len()).max();
        within(
            "an attribute, in bytes,",
            longest.unwrap_or(0),
            bounds.attribute_bytes,
        )
    }

    /// Sets an attribute by its name in the specification, an extension's included. One that is not valid is
    /// refused, and one that is set already; `specversion` is the codecs' own.
    pub fn set(&mut self, name: &str, value: String) -> Result<(), EventError> {
        attribute::check(name, &value).map_err(|problem| EventError::of(name, problem))?;
        let taken = match name {
            "id" => replace_empty(&mut self.id, value),
            "source" => replace_empty(&mut self.source, value),
            "type" => replace_empty(&mut self.kind, value),
            "time" => self.time.replace(value).is_some(),
            "subject" => self.subject.replace(value).is_some(),
            "datacontenttype" => self.datacontenttype.replace(value).is_some(),
            "dataschema" => self.dataschema.replace(value).is_some(),
            name => {
                attribute::extension_name(name)?;
                self.extensions.insert(name.to_owned(), value).is_some()
            }
        };
        match taken {
            true => Err(EventError::Duplicate(name.to_owned())),
            false => Ok(()),
        }
    }
}

fn check_version(version: Option<&str>) -> Result<(), EventError> {
    match version {
        Some(SPECVERSION) => Ok(()),
        Some(other) => Err(EventError::Version(other.to_owned())),
        None => Err(EventError::Missing("specversion")),
    }
}

fn replace_empty(slot: &mut String, value: String) -> bool {
    !std::mem::replace(slot, value).is_empty()
}

fn within(what: &'static str, found: usize, bound: usize) -> Result<(), EventError> {
    match found <= bound {
        true => Ok(()),
        false => Err(EventError::TooLarge { what, found, bound }),
    }
}
