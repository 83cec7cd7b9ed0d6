//! The HTTP binding: what the specification shows, what it forbids, and what survives being written.

use proptest::prelude::*;

use super::*;

type Headers<'h> = [(&'h str, &'h str)];

fn headers(pairs: &Headers<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

const GOOD: [(&str, &str); 4] = [
    ("ce-specversion", "1.0"),
    ("ce-type", "com.example.someevent"),
    ("ce-id", "1234-1234-1234"),
    ("ce-source", "/mycontext/subcontext"),
];

fn read(more: &Headers<'_>, body: &'static str) -> Result<Vec<Event>, EventError> {
    let pairs = [&GOOD, more].concat();
    parse(&headers(&pairs), body.into(), &Bounds::default())
}

#[test]
fn the_example_of_the_specification_is_read() {
    let more = [
        ("CE-Time", "2018-04-05T03:56:24Z"),
        ("ce-subject", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
        ("ce-comexampleothervalue", "5"),
        ("Content-Type", "application/json; charset=utf-8"),
        ("Host", "webhook.example.com"),
        ("x-other", "not an attribute"),
    ];
    let [event] = read(&more, "{}").unwrap().try_into().unwrap();
    assert_eq!(event.id, "1234-1234-1234");
    assert_eq!(event.source, "/mycontext/subcontext");
    assert_eq!(event.kind, "com.example.someevent");
    assert_eq!(event.time.as_deref(), Some("2018-04-05T03:56:24Z"));
    assert_eq!(event.subject.as_deref(), Some("Euro € 😀"));
    assert_eq!(event.extensions.len(), 1);
    assert_eq!(
        event.datacontenttype.as_deref(),
        Some("application/json; charset=utf-8")
    );
    assert_eq!(event.data.as_deref(), Some(&b"{}"[..]));
}

#[test]
fn an_empty_body_is_no_data() {
    let [event] = read(&[], "").unwrap().try_into().unwrap();
    assert_eq!(
        event,
        Event {
            data: None,
            ..Event::new(
                "1234-1234-1234",
                "/mycontext/subcontext",
                "com.example.someevent"
            )
        }
    );
}

#[test]
fn the_media_type_decides_the_mode() {
    let event = r#"{"specversion":"1.0","type":"t","source":"/s","id":"1"}"#;
    let batch = r#"[{"specversion":"1.0","type":"t","source":"/s","id":"1"}]"#;
    for (content_type, body) in [
        ("application/cloudevents+json", event),
        ("application/cloudevents+json; charset=UTF-8", event),
        ("Application/CloudEvents+JSON;charset=\"utf-8\"", event),
        ("application/cloudevents-batch+json", batch),
        ("application/cloudevents-batch+json; charset=utf-8", batch),
    ] {
        let sent = headers(&[("content-type", content_type)]);
        let events = parse(&sent, body.into(), &Bounds::default()).unwrap();
        assert_eq!(events, [Event::new("1", "/s", "t")], "{content_type}");
        // Headers of the binary mode may be there as well; the payload counts.
        let [structured] = read(&[("content-type", content_type)], body)
            .unwrap()
            .try_into()
            .unwrap();
        assert_eq!(structured.id, "1");
    }
    for content_type in [
        "application/cloudevents+xml",
        "application/cloudevents+avro",
        "application/cloudevents",
        "application/cloudevents-batch",
        "application/cloudevents-batch+protobuf",
        "application/cloudeventsomething",
        "application/cloudevents+json; charset=utf-16",
    ] {
        let error = read(&[("content-type", content_type)], event).unwrap_err();
        assert!(error.is_format(), "{content_type}: {error}");
    }
    let plain = headers(&[("content-type", "application/json")]);
    assert!(!is_event(&plain));
    let error = parse(&plain, "{}".into(), &Bounds::default()).unwrap_err();
    assert_eq!(error, EventError::NotAnEvent);
    assert!(error.is_format());
}

#[test]
fn broken_messages_are_refused_with_their_cause() {
    for missing in 0..4 {
        let mut pairs = GOOD.to_vec();
        let (name, _) = pairs.remove(missing);
        let error = parse(&headers(&pairs), Bytes::new(), &Bounds::default()).unwrap_err();
        let name = name.trim_start_matches("ce-");
        assert_eq!(
            error.to_string(),
            format!("the attribute `{name}` is missing")
        );
    }
    let attribute = EventError::of;
    for (more, error) in [
        (&[("ce-id", "2")][..], EventError::Duplicate("id".into())),
        (
            &[("ce-specversion", "1.0")],
            EventError::Duplicate("specversion".into()),
        ),
        (
            &[("ce-x", "1"), ("ce-x", "1")],
            EventError::Duplicate("x".into()),
        ),
        (
            &[("content-type", "a/b"), ("content-type", "a/b")],
            EventError::Duplicate("content-type".into()),
        ),
        (
            &[("ce-datacontenttype", "a/b")],
            EventError::ContentTypeHeader,
        ),
        (&[("ce-data", "1")], EventError::Name("data".into())),
        (&[("ce-my-name", "1")], EventError::Name("my-name".into())),
        (&[("ce-my_name", "1")], EventError::Name("my_name".into())),
        (&[("ce-", "1")], EventError::Name(String::new())),
        (
            &[("content-type", "json")],
            attribute("datacontenttype", Problem::MediaType),
        ),
        (&[("ce-subject", "")], attribute("subject", Problem::Empty)),
        (
            &[("ce-subject", "%C0%A0")],
            attribute("subject", Problem::Utf8),
        ),
        (
            &[("ce-subject", "a%0Ab")],
            attribute("subject", Problem::Character),
        ),
        (
            &[("ce-subject", "é")],
            attribute("subject", Problem::NotAscii),
        ),
        (
            &[("ce-time", "2018-04-05")],
            attribute("time", Problem::Timestamp),
        ),
    ] {
        assert_eq!(read(more, ""), Err(error), "{more:?}");
    }
    let old = [
        ("ce-specversion", "0.3"),
        ("ce-type", "t"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
    ];
    let error = parse(&headers(&old), Bytes::new(), &Bounds::default());
    assert_eq!(error, Err(EventError::Version("0.3".into())));
}

#[test]
fn a_function_receives_attributes_as_headers_and_data_as_the_body() {
    let mut event =
        Event::new("1", "/detectors/7", "on").with_data("text/plain; charset=utf-8", "a");
    event.subject = Some("Löwe 1".into());
    let request = event.into_request("queue", 2).unwrap();
    assert_eq!(request.method(), "POST");
    assert_eq!(request.uri(), "/");
    assert_eq!(request.headers()["ce-source"], "/detectors/7");
    assert_eq!(request.headers()["ce-specversion"], "1.0");
    assert_eq!(request.headers()["ce-subject"], "L%C3%B6we%201");
    assert_eq!(
        request.headers()["content-type"],
        "text/plain; charset=utf-8"
    );
    assert_eq!(request.headers()["x-tombolo-trigger"], "queue");
    assert_eq!(request.headers()["x-tombolo-attempt"], "2");
    assert_eq!(request.body(), "a");
    assert!(Event::new("", "/s", "t").into_request("queue", 1).is_err());
}

#[test]
fn a_function_receives_a_batch_as_json() {
    let events = [Event::new("1", "/s", "t"), Event::new("2", "/s", "t")];
    let request = batch_request(&events, "queue", 1).unwrap();
    assert_eq!(
        request.headers()["content-type"],
        "application/cloudevents-batch+json"
    );
    let (head, body) = request.into_parts();
    assert_eq!(
        parse(&head.headers, body, &Bounds::default()).unwrap(),
        events
    );
}

proptest! {
    #[test]
    fn events_survive_http(event in crate::event::arbitrary::event()) {
        let (headers, body) = write_binary(event.clone()).unwrap();
        let read = parse(&headers, body, &Bounds::default()).unwrap();
        // Binary mode has one way to write no data and empty data.
        let data = event.data.clone().filter(|data| !data.is_empty());
        prop_assert_eq!(read, vec![Event { data, ..event }]);
    }

    #[test]
    fn any_header_value_is_read_or_refused(value in "[ -~]{0,30}", bytes in any::<Vec<u8>>()) {
        for value in [value.as_bytes(), &bytes] {
            let Ok(value) = HeaderValue::from_bytes(value) else { continue };
            for name in ["ce-id", "ce-source", "ce-time", "ce-x", "content-type"] {
                let mut headers = headers(&GOOD);
                headers.insert(name, value.clone());
                if let Ok(events) = parse(&headers, Bytes::from_static(b"{}"), &Bounds::default()) {
                    for event in events {
                        event.check().unwrap();
                        let (headers, body) = write_binary(event.clone()).unwrap();
                        prop_assert_eq!(parse(&headers, body, &Bounds::default()), Ok(vec![event]));
                    }
                }
            }
        }
    }
}
