//! The JSON format: what the specification shows, what it forbids, and what survives being written.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<Event, EventError> {
    parse(text.as_bytes(), &Bounds::default())
}

fn with(members: &str) -> Result<Event, EventError> {
    read(&format!(
        r#"{{"specversion":"1.0","type":"t","source":"/s","id":"1"{members}}}"#
    ))
}

#[test]
fn the_examples_of_the_specification_are_read() {
    let thrift = read(
        r#"{
        "specversion" : "1.0", "type" : "com.example.someevent", "source" : "/mycontext", "id" : "A234-1234-1234",
        "time" : "2018-04-05T17:31:00Z", "comexampleextension1" : "value", "comexampleothervalue" : 5,
        "datacontenttype" : "application/vnd.apache.thrift.binary", "data_base64" : "AAECAw==" }"#,
    )
    .unwrap();
    assert_eq!(thrift.data.as_deref(), Some(&[0, 1, 2, 3][..]));
    assert_eq!(thrift.attribute("comexampleothervalue"), Some("5"));
    assert_eq!(thrift.attribute("comexampleextension1"), Some("value"));
    assert_eq!(thrift.time.as_deref(), Some("2018-04-05T17:31:00Z"));

    let xml = with(
        r#","unsetextension":null,"datacontenttype":"application/xml","data":"<much wow=\"xml\"/>""#,
    )
    .unwrap();
    assert_eq!(xml.data.as_deref(), Some(&br#"<much wow="xml"/>"#[..]));
    assert_eq!(xml.extensions.len(), 0);

    let json = with(
        r#","subject":null,"datacontenttype":"application/json","data":{ "appinfoB" : 123, "appinfoA" : 1.0 }"#,
    )
    .unwrap();
    let text = br#"{ "appinfoB" : 123, "appinfoA" : 1.0 }"#;
    assert_eq!(json.data.as_deref(), Some(&text[..]));
    assert_eq!(json.subject, None);

    let literal = with(r#","data":"I'm just a string""#).unwrap();
    assert_eq!(literal.datacontenttype.as_deref(), Some("application/json"));
    assert_eq!(
        literal.data.as_deref(),
        Some(&br#""I'm just a string""#[..])
    );
}

#[test]
fn json_data_is_kept_to_the_digit_and_null_is_a_value() {
    for value in [
        "null",
        "12345678901234567890123.4567890123456789",
        r#"{"b":1,"a":1,"b":2}"#,
        "\"\\u0041\"",
        "[]",
    ] {
        let event = with(&format!(r#","data":{value}"#)).unwrap();
        assert_eq!(event.data.as_deref(), Some(value.as_bytes()), "{value}");
        let written = write(&event).unwrap();
        assert_eq!(parse(&written, &Bounds::default()).unwrap(), event);
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(with(&format!(r#","data":{deep}"#)).is_ok());
}

#[test]
fn attributes_of_the_types_of_the_specification_become_their_text() {
    let event =
        with(r#","yes":true,"no":false,"low":-2147483648,"high":2147483647,"zero":-0,"empty":"""#)
            .unwrap();
    let found: Vec<_> = event.extensions.values().map(String::as_str).collect();
    assert_eq!(
        found,
        ["", "2147483647", "-2147483648", "false", "true", "0"]
    );
    for bad in ["2147483648", "1.5", "5.0", "1e2", "{}", "[1]"] {
        let error = with(&format!(r#","x":{bad}"#)).unwrap_err();
        assert_eq!(error, EventError::of("x", Problem::Kind), "{bad}");
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "one table of cases")]
fn broken_events_are_refused_with_their_cause() {
    let attribute = |name: &str, problem| EventError::of(name, problem);
    for (text, error) in [
        (
            r#"{"type":"t","source":"/s","id":"1"}"#,
            EventError::Missing("specversion"),
        ),
        (
            r#"{"specversion":null,"type":"t","source":"/s","id":"1"}"#,
            EventError::Missing("specversion"),
        ),
        (
            r#"{"specversion":"1.0","source":"/s","id":"1"}"#,
            EventError::Missing("type"),
        ),
        (
            r#"{"specversion":"1.0","type":"t","id":"1"}"#,
            EventError::Missing("source"),
        ),
        (
            r#"{"specversion":"1.0","type":"t","source":"/s","id":null}"#,
            EventError::Missing("id"),
        ),
        (
            r#"{"specversion":"0.3","type":"t","source":"/s","id":"1"}"#,
            EventError::Version("0.3".into()),
        ),
        (
            r#"{"specversion":1.0,"type":"t","source":"/s","id":"1"}"#,
            attribute("specversion", Problem::NotText),
        ),
        (
            r#"{"specversion":"1.0","type":"t","source":"/s","id":""}"#,
            attribute("id", Problem::Empty),
        ),
        (
            r#"{"specversion":"1.0","type":"t","source":"/s","id":7}"#,
            attribute("id", Problem::NotText),
        ),
        (
            r#"{"specversion":"1.0","type":"t","source":"","id":"1"}"#,
            attribute("source", Problem::Empty),
        ),
        (
            r#"{"specversion":"1.0","specversion":"1.0","type":"t","source":"/s","id":"1"}"#,
            EventError::Duplicate("specversion".into()),
        ),
        (
            r#"{"specversion":"1.0","id":"1","id":"1","type":"t","source":"/s"}"#,
            EventError::Duplicate("id".into()),
        ),
    ] {
        assert_eq!(read(text), Err(error), "{text}");
    }
    for (members, error) in [
        (r#","subject":"""#, attribute("subject", Problem::Empty)),
        (
            r#","subject":"a\nb""#,
            attribute("subject", Problem::Character),
        ),
        (
            r#","subject":"\uffff""#,
            attribute("subject", Problem::Character),
        ),
        (
            r#","time":"yesterday""#,
            attribute("time", Problem::Timestamp),
        ),
        (
            r#","dataschema":"relative""#,
            attribute("dataschema", Problem::Uri),
        ),
        (
            r#","datacontenttype":"json""#,
            attribute("datacontenttype", Problem::MediaType),
        ),
        (r#","BadName":"1""#, EventError::Name("BadName".into())),
        (r#","bad_name":"1""#, EventError::Name("bad_name".into())),
        (r#","":"1""#, EventError::Name(String::new())),
        (r#","x":"1","x":"2""#, EventError::Duplicate("x".into())),
        (
            r#","data":1,"data":2"#,
            EventError::Duplicate("data".into()),
        ),
        (r#","data":1,"data_base64":"""#, EventError::DataTwice),
        (
            r#","data":null,"data_base64":"AA==""#,
            EventError::DataTwice,
        ),
        (r#","data_base64":"AA""#, EventError::Base64),
        (r#","data_base64":"-_==""#, EventError::Base64),
        (r#","data_base64":5"#, EventError::Base64),
        (
            r#","datacontenttype":"text/csv","data":5"#,
            EventError::DataNotText("text/csv".into()),
        ),
    ] {
        assert_eq!(with(members), Err(error), "{members}");
    }
    for text in [
        "",
        "{",
        "{\"a\":1",
        "{\"a\":}",
        "\u{feff}{}",
        "{} {}",
        r#"{"a":"\udead"}"#,
    ] {
        assert!(matches!(read(text), Err(EventError::Json(_))), "{text}");
    }
    assert!(matches!(read("[]"), Err(EventError::Shape(_))));
    assert!(matches!(read("null"), Err(EventError::Shape(_))));
    let overlong =
        b"{\"specversion\":\"1.0\",\"type\":\"\xc0\xa0\",\"source\":\"/s\",\"id\":\"1\"}";
    assert!(matches!(
        parse(overlong, &Bounds::default()),
        Err(EventError::Json(_))
    ));
}

#[test]
fn batches_are_arrays_of_events() {
    let one = r#"{"specversion":"1.0","type":"t","source":"/s","id":"1"}"#;
    let bounds = Bounds::default();
    assert_eq!(parse_batch(b"[]", &bounds).unwrap(), []);
    let two = parse_batch(format!("[{one},{one}]").as_bytes(), &bounds).unwrap();
    assert_eq!(two.len(), 2);
    let error = parse_batch(format!("[{one},{{}}]").as_bytes(), &bounds).unwrap_err();
    assert_eq!(
        error.to_string(),
        "event 1 of the batch: the attribute `specversion` is missing"
    );
    assert!(matches!(
        parse_batch(one.as_bytes(), &bounds),
        Err(EventError::Shape(_))
    ));
}

#[test]
fn what_is_too_large_is_told_from_what_is_wrong() {
    let bounds = Bounds {
        event_bytes: 200,
        attribute_bytes: 50,
        extensions: 2,
        batch_events: 2,
        message_bytes: 10_000,
    };
    let one = r#"{"specversion":"1.0","type":"t","source":"/s","id":"1"}"#;
    assert!(parse_batch(format!("[{one},{one}]").as_bytes(), &bounds).is_ok());
    let long = "x".repeat(51);
    let whole = "x".repeat(201);
    let huge = " ".repeat(10_001);
    for text in [
        format!("[{one},{one},{one}]"),
        format!(r#"[{{"specversion":"1.0","type":"t","source":"/s","id":"{long}"}}]"#),
        format!(r#"[{{"specversion":"1.0","type":"t","source":"/s","id":"1","data":"{whole}"}}]"#),
        r#"[{"specversion":"1.0","type":"t","source":"/s","id":"1","a":1,"b":1,"c":1}]"#.into(),
        format!("[{}0]", "0,".repeat(4000)),
        huge,
    ] {
        let error = parse_batch(text.as_bytes(), &bounds).unwrap_err();
        assert!(error.is_size(), "{error}");
    }
    let members: String = (0..100).map(|n| format!(r#","x{n}":null"#)).collect();
    let flood = format!(r#"{{"specversion":"1.0"{members}}}"#);
    assert!(parse(flood.as_bytes(), &bounds).unwrap_err().is_size());
}

#[test]
fn data_that_is_not_what_its_type_says_is_written_as_bytes() {
    for (content_type, data, member) in [
        ("application/json", &b"{broken"[..], "data_base64"),
        ("application/json", b"\xff", "data_base64"),
        ("application/json", b" [1] ", "data"),
        ("text/csv", b"1,2", "data"),
        ("text/csv", b"\xff", "data_base64"),
        ("text/csv; charset=latin1", b"1,2", "data_base64"),
        ("application/octet-stream", b"text", "data_base64"),
    ] {
        let event = Event::new("1", "/s", "t").with_data(content_type, data);
        let written = String::from_utf8(write(&event).unwrap()).unwrap();
        assert!(written.contains(&format!("\"{member}\":")), "{written}");
        let read = parse(written.as_bytes(), &Bounds::default()).unwrap();
        assert_eq!(read.data.unwrap().trim_ascii(), data.trim_ascii());
    }
    let broken = Event::new("", "/s", "t");
    assert!(write(&broken).is_err() && write_batch([&broken]).is_err());
}

proptest! {
    #[test]
    fn events_survive_json(event in crate::event::arbitrary::event()) {
        let written = write(&event).unwrap();
        prop_assert_eq!(&parse(&written, &Bounds::default()).unwrap(), &event);
        let batch = write_batch([&event, &event]).unwrap();
        prop_assert_eq!(parse_batch(&batch, &Bounds::default()).unwrap(), vec![event.clone(), event]);
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        event in crate::event::arbitrary::event(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = write(&event).unwrap().to_vec();
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        let _ = parse(&bytes, &Bounds::default());
        let batch = [b"[", bytes.as_slice(), b"]"].concat();
        let _ = parse_batch(&batch, &Bounds::default());
    }

    #[test]
    fn events_survive_storage(event in crate::event::arbitrary::event()) {
        let stored = postcard::to_stdvec(&event).unwrap();
        prop_assert!(stored.len() <= event.size_bytes() + 64 + 8 * event.extensions.len());
        prop_assert_eq!(postcard::from_bytes::<Event>(&stored).unwrap(), event);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,40}", bytes in any::<Vec<u8>>()) {
        let framed = format!(r#"{{"specversion":"1.0","type":"t","source":"/s","id":"1","x":{text}}}"#);
        for input in [text.as_bytes(), framed.as_bytes(), &bytes] {
            if let Ok(event) = parse(input, &Bounds::default()) {
                event.check().unwrap();
                let written = write(&event).unwrap();
                prop_assert_eq!(parse(&written, &Bounds::default()).unwrap(), event);
            }
            let _ = parse_batch(input, &Bounds::default());
        }
    }
}
