//! Random valid events, for the properties of the codecs.

use bytes::Bytes;
use proptest::option::of;
use proptest::prelude::*;

use super::Event;

/// Data with a type, whole or none; JSON without spaces around it, which JSON does not keep.
fn data() -> impl Strategy<Value = (Option<String>, Option<Bytes>)> {
    let text = "[a-zäé €😀\"\\\\\n\t]{0,20}";
    prop_oneof![
        Just((None, None)),
        Just((Some("application/json".to_owned()), None)),
        text.prop_map(|text| (Some("text/plain".into()), Some(text.into()))),
        text.prop_map(|text| {
            let json = serde_json::json!({ "text": text, "n": [1, null, true] });
            (
                Some("application/json; charset=utf-8".into()),
                Some(json.to_string().into()),
            )
        }),
        any::<Vec<u8>>().prop_map(|bytes| (Some("image/png".into()), Some(bytes.into()))),
        any::<Vec<u8>>().prop_map(|bytes| (None, Some(bytes.into()))),
    ]
}

/// Any event that the specification allows.
pub(crate) fn event() -> impl Strategy<Value = Event> {
    let text = || "\\PC{1,20}";
    let source = "(https?://[a-z]{1,9}\\.example)?(/[a-zA-Z0-9~!$&'()*+,;=:@._-]{1,9}){1,3}(\\?[a-z=&]{0,9})?(#[a-z]{0,4})?";
    let time = "20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";
    let schema = "[a-z]{1,5}://[a-z]{1,9}/[a-z0-9/]{0,9}(\\?[a-z]{0,4})?";
    let extensions = prop::collection::btree_map("x[a-z0-9]{0,18}", "\\PC{0,20}", 0..6);
    let required = (text(), source, text());
    (
        required,
        of(time),
        of(text()),
        of(schema),
        extensions,
        data(),
    )
        .prop_map(
            |(
                (id, source, kind),
                time,
                subject,
                dataschema,
                extensions,
                (datacontenttype, data),
            )| Event {
                id,
                source,
                kind,
                time,
                subject,
                datacontenttype,
                dataschema,
                extensions,
                data,
            },
        )
}
