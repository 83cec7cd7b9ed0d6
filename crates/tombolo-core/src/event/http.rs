//! The HTTP protocol binding 1.0.2: binary, structured and batched messages, read and written; the delivery contract's requests.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use super::{Bounds, Event, EventError, Problem, SPECVERSION, attribute, header, json, within};
use crate::header as names;

/// How a message carries events (section 1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Attributes in `ce-*` headers, the data as the body.
    Binary,
    /// One event in JSON.
    Structured,
    /// An array of events in JSON.
    Batched,
}

const MANDATORY: [&str; 4] = ["ce-specversion", "ce-id", "ce-source", "ce-type"];

/// Whether a request or a response is meant to carry an event: by its media type, or because it has one of
/// the mandatory attributes in its headers.
pub fn is_event(headers: &HeaderMap) -> bool {
    mode(headers).is_ok()
}

/// How a message carries events. It fails for a format that is not understood, and when there are none.
pub fn mode(headers: &HeaderMap) -> Result<Mode, EventError> {
    let content_type = content_type(headers)?.unwrap_or_default();
    let essence = attribute::essence(content_type).to_ascii_lowercase();
    if essence.starts_with("application/cloudevents") {
        return match essence.as_str() {
            _ if !attribute::is_utf8(content_type) => Err(EventError::Format(content_type.into())),
            json::MEDIA_TYPE => Ok(Mode::Structured),
            json::BATCH_MEDIA_TYPE => Ok(Mode::Batched),
            _ => Err(EventError::Format(essence)),
        };
    }
    match MANDATORY.iter().any(|name| headers.contains_key(*name)) {
        true => Ok(Mode::Binary),
        false => Err(EventError::NotAnEvent),
    }
}

/// Reads the events of a request or a response, in whichever mode it is.
pub fn parse(headers: &HeaderMap, body: Bytes, bounds: &Bounds) -> Result<Vec<Event>, EventError> {
    match mode(headers)? {
        Mode::Binary => parse_binary(headers, body, bounds).map(|event| vec![event]),
        Mode::Structured => json::parse(&body, bounds).map(|event| vec![event]),
        Mode::Batched => json::parse_batch(&body, bounds),
    }
}

/// Reads an event in binary mode. An empty body is no data.
pub fn parse_binary(
    headers: &HeaderMap,
    body: Bytes,
    bounds: &Bounds,
) -> Result<Event, EventError> {
    within("the message, in bytes,", body.len(), bounds.message_bytes)?;
    let mut event = Event::new("", "", "");
    let mut version = None;
    for (header, value) in headers {
        let Some(name) = header.as_str().strip_prefix("ce-") else {
            continue;
        };
        let value = header::decode(value).map_err(|problem| EventError::of(name, problem))?;
        match name {
            "datacontenttype" => return Err(EventError::ContentTypeHeader),
            "specversion" => {
                if version.replace(value).is_some() {
                    return Err(EventError::Duplicate(name.to_owned()));
                }
            }
            name => event.set(name, value)?,
        }
    }
    super::check_version(version.as_deref())?;
    if let Some(content_type) = content_type(headers)? {
        event.set("datacontenttype", content_type.to_owned())?;
    }
    event.data = Some(body).filter(|body| !body.is_empty());
    event.complete(bounds)
}

fn content_type(headers: &HeaderMap) -> Result<Option<&str>, EventError> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(EventError::Duplicate("content-type".into()));
    }
    match value.to_str() {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(EventError::of("datacontenttype", Problem::NotAscii)),
    }
}

/// The headers and the body of an event in binary mode.
pub fn write_binary(event: Event) -> Result<(HeaderMap, Bytes), EventError> {
    event.check()?;
    let mut headers = HeaderMap::new();
    headers.insert("ce-specversion", HeaderValue::from_static(SPECVERSION));
    for (name, value) in event.attributes() {
        if name == "datacontenttype" {
            // A media type is printable ASCII and stands as it is.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(CONTENT_TYPE, value);
            }
        } else if let Ok(name) = HeaderName::try_from(format!("ce-{name}")) {
            headers.insert(name, header::encode(value));
        }
    }
    Ok((headers, event.data.unwrap_or_default()))
}

impl Event {
    /// The event as the binary-mode `POST /` that a function receives: attributes in `ce-*` headers,
    /// the data as the body, the kind of trigger and the attempt in `x-tombolo-*`.
    pub fn into_request(self, trigger: &str, attempt: u32) -> Result<Request<Bytes>, EventError> {
        let (headers, body) = write_binary(self)?;
        Ok(delivery(headers, body, trigger, attempt))
    }
}

/// Several events as the batched `POST /` that a function receives.
pub fn batch_request<'e>(
    events: impl IntoIterator<Item = &'e Event>,
    trigger: &str,
    attempt: u32,
) -> Result<Request<Bytes>, EventError> {
    let body = json::write_batch(events)?;
    let mut headers = HeaderMap::new();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static(json::BATCH_MEDIA_TYPE),
    );
    Ok(delivery(headers, body.into(), trigger, attempt))
}

fn delivery(mut headers: HeaderMap, body: Bytes, trigger: &str, attempt: u32) -> Request<Bytes> {
    headers.insert(names::TRIGGER, header::encode(trigger));
    headers.insert(names::ATTEMPT, HeaderValue::from(attempt));
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static("/");
    *request.headers_mut() = headers;
    request
}

#[cfg(test)]
mod tests;
