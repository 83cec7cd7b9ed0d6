//! CloudEvents 1.0: the one shape of every event, and its binary-mode HTTP request (the delivery contract).

use http::{HeaderValue, Method, Request, Uri, header};
use serde::{Deserialize, Serialize};

use crate::header as names;

/// A CloudEvent in its JSON format (<https://github.com/cloudevents/spec>, JSON event format 1.0).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub specversion: String,
    pub id: String,
    pub source: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datacontenttype: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

/// Why an event cannot be delivered.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    #[error("specversion is `{0}`, only 1.0 is known")]
    Version(String),
    #[error("`{0}` is empty")]
    Empty(&'static str),
    #[error("the data cannot be written as JSON")]
    Data(#[source] serde_json::Error),
}

impl Event {
    /// The event as the binary-mode `POST /` that a function receives: attributes in `ce-*` headers,
    /// the data as the body, the kind of trigger and the attempt in `x-tombolo-*`.
    pub fn into_request(self, trigger: &str, attempt: u32) -> Result<Request<Vec<u8>>, EventError> {
        if self.specversion != "1.0" {
            return Err(EventError::Version(self.specversion));
        }
        for (name, value) in [
            ("id", &self.id),
            ("source", &self.source),
            ("type", &self.kind),
        ] {
            if value.is_empty() {
                return Err(EventError::Empty(name));
            }
        }
        let (body, content_type) = match self.data {
            None => (Vec::new(), self.datacontenttype),
            Some(serde_json::Value::String(text))
                if self.datacontenttype.as_deref().is_some_and(|t| !is_json(t)) =>
            {
                (text.into_bytes(), self.datacontenttype)
            }
            Some(value) => (
                serde_json::to_vec(&value).map_err(EventError::Data)?,
                Some(
                    self.datacontenttype
                        .unwrap_or_else(|| "application/json".into()),
                ),
            ),
        };
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static("/");
        let headers = request.headers_mut();
        let attributes = [
            ("ce-specversion", Some(self.specversion)),
            ("ce-id", Some(self.id)),
            ("ce-source", Some(self.source)),
            ("ce-type", Some(self.kind)),
            ("ce-time", self.time),
            ("ce-subject", self.subject),
        ];
        for (name, value) in attributes {
            if let Some(value) = value {
                headers.insert(name, header_value(&value));
            }
        }
        if let Some(content_type) = content_type {
            headers.insert(header::CONTENT_TYPE, header_value(&content_type));
        }
        headers.insert(names::TRIGGER, header_value(trigger));
        headers.insert(names::ATTEMPT, HeaderValue::from(attempt));
        Ok(request)
    }
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.ends_with("/json") || essence.ends_with("+json")
}

/// Percent-encodes as the HTTP binding of CloudEvents 1.0 says (section 3.1.3.2): space, `"`, `%`
/// and everything outside printable ASCII, as the bytes of UTF-8.
fn header_value(text: &str) -> HeaderValue {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'!' | b'#'..=b'$' | b'&'..=b'~' => encoded.push(char::from(byte)),
            b' ' | b'"' | b'%' | 0x00..=0x1f | 0x7f..=0xff => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    HeaderValue::from_str(&encoded).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        serde_json::from_str(
            r#"{"specversion":"1.0","id":"1","source":"/detectors/7","type":"on","subject":"Löwe 1","data":{"a":1}}"#,
        )
        .unwrap()
    }

    #[test]
    fn attributes_become_headers_and_data_the_body() {
        let request = event().into_request("queue", 2).unwrap();
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri(), "/");
        assert_eq!(request.headers()["ce-source"], "/detectors/7");
        assert_eq!(request.headers()["ce-subject"], "L%C3%B6we%201");
        assert_eq!(request.headers()["content-type"], "application/json");
        assert_eq!(request.headers()["x-tombolo-trigger"], "queue");
        assert_eq!(request.headers()["x-tombolo-attempt"], "2");
        assert_eq!(request.body(), br#"{"a":1}"#);
    }

    #[test]
    fn text_data_of_a_text_type_is_not_quoted() {
        let mut event = event();
        event.datacontenttype = Some("text/csv".into());
        event.data = Some("1,2".into());
        assert_eq!(event.into_request("mqtt", 1).unwrap().body(), b"1,2");
    }

    #[test]
    fn events_without_an_identity_are_refused() {
        let mut event = event();
        event.id.clear();
        assert!(matches!(
            event.into_request("queue", 1),
            Err(EventError::Empty("id"))
        ));
    }
}
