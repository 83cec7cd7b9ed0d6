//! What the specification demands of the names and values of attributes.

use fluent_uri::{Uri, UriRef};

use super::{EventError, Problem};

/// The specification says that names should not exceed 20 characters; more than this is refused.
const NAME_BYTES_MAX: usize = 64;

/// Checks the value of an attribute: its characters, and the syntax of its type.
pub(super) fn check(name: &str, value: &str) -> Result<(), Problem> {
    if !value.chars().all(is_allowed) {
        return Err(Problem::Character);
    }
    let core = matches!(
        name,
        "id" | "source" | "type" | "subject" | "time" | "dataschema" | "datacontenttype"
    );
    if core && value.is_empty() {
        return Err(Problem::Empty);
    }
    let (right, problem) = match name {
        "source" => (UriRef::parse(value).is_ok(), Problem::UriReference),
        "dataschema" => (is_absolute_uri(value), Problem::Uri),
        "time" => (is_timestamp(value), Problem::Timestamp),
        "datacontenttype" => (is_media_type(value), Problem::MediaType),
        _ => return Ok(()),
    };
    if right { Ok(()) } else { Err(problem) }
}

/// Checks the name of an extension attribute.
pub(super) fn extension_name(name: &str) -> Result<(), EventError> {
    let shape = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    // `data` and `specversion` are members of the JSON format that an extension must not hide.
    let taken = matches!(name, "data" | "specversion");
    match shape && !taken {
        true => Ok(()),
        false => Err(EventError::Name(
            name.chars().take(NAME_BYTES_MAX).collect(),
        )),
    }
}

/// Type `String`: no control characters (C0 and C1) and no noncharacters of Unicode.
fn is_allowed(c: char) -> bool {
    let code = u32::from(c);
    let noncharacter = (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe;
    !c.is_control() && !noncharacter
}

/// `absolute-URI` of RFC 3986, section 4.3, which has no fragment.
fn is_absolute_uri(value: &str) -> bool {
    Uri::parse(value).is_ok_and(|uri| !uri.has_fragment())
}

/// Whether a media type says JSON: `*/json` or `*/*+json` (JSON event format, section 3.1.1).
pub fn is_json(media_type: &str) -> bool {
    let subtype = essence(media_type)
        .split_once('/')
        .map(|(_, subtype)| subtype);
    subtype.is_some_and(|subtype| ends_with(subtype, "json", '+'))
}

/// Whether a media type says text that is written in UTF-8: `text/*`, `*/xml` or `*/*+xml`.
pub(super) fn is_text(media_type: &str) -> bool {
    let Some((kind, subtype)) = essence(media_type).split_once('/') else {
        return false;
    };
    (kind.eq_ignore_ascii_case("text") || ends_with(subtype, "xml", '+')) && is_utf8(media_type)
}

/// Whether a media type names no character set, or one that UTF-8 covers.
pub(super) fn is_utf8(media_type: &str) -> bool {
    let mut parameters = media_type.split(';').skip(1);
    parameters.all(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        let covered = ["utf-8", "us-ascii"];
        !name.trim().eq_ignore_ascii_case("charset")
            || covered.iter().any(|set| value.eq_ignore_ascii_case(set))
    })
}

/// A media type without its parameters.
pub(super) fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// Whether a subtype is a word, or ends with it behind a separator; letter case means nothing.
fn ends_with(subtype: &str, word: &str, separator: char) -> bool {
    let last = subtype.rsplit(separator).next().unwrap_or_default();
    last.eq_ignore_ascii_case(word)
}

/// `type "/" subtype *(";" parameter)` of RFC 2046 with the tokens of RFC 9110. Of the parameters
/// only the characters are checked: they pass through as they are.
fn is_media_type(value: &str) -> bool {
    let token = |text: &str| !text.is_empty() && text.bytes().all(is_token);
    let printable = value.bytes().all(|b| matches!(b, b' '..=b'~'));
    printable
        && value == value.trim()
        && essence(value)
            .split_once('/')
            .is_some_and(|(kind, subtype)| token(kind) && token(subtype))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// `date-time` of RFC 3339, section 5.6; a leap second only where one can be, at 23:59:60 UTC.
pub(super) fn is_timestamp(value: &str) -> bool {
    timestamp(value.as_bytes()).is_some()
}

fn timestamp(text: &[u8]) -> Option<()> {
    let (year, rest) = digits(text, 4)?;
    let (month, rest) = digits(after(rest, b"-")?, 2)?;
    let (day, rest) = digits(after(rest, b"-")?, 2)?;
    let (hour, rest) = digits(after(rest, b"Tt")?, 2)?;
    let (minute, rest) = digits(after(rest, b":")?, 2)?;
    let (second, rest) = digits(after(rest, b":")?, 2)?;
    let rest = match after(rest, b".") {
        None => rest,
        Some(fraction) => {
            let end = fraction.iter().position(|b| !b.is_ascii_digit())?;
            fraction.split_at_checked(end).filter(|_| end > 0)?.1
        }
    };
    let (offset_minutes, rest) = match after(rest, b"Zz") {
        Some(rest) => (0, rest),
        None => {
            let east = after(rest, b"+").is_some();
            let (hours, rest) = digits(after(rest, b"+-")?, 2)?;
            let (minutes, rest) = digits(after(rest, b":")?, 2)?;
            let offset = i64::from(hours) * 60 + i64::from(minutes);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (if east { offset } else { -offset }, rest)
        }
    };
    let utc_minute = (i64::from(hour) * 60 + i64::from(minute) - offset_minutes).rem_euclid(1440);
    let leap = second == 60 && utc_minute == 1439;
    let valid = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && (second < 60 || leap)
        && rest.is_empty();
    valid.then_some(())
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400) => 29,
        2 => 28,
        _ => 31,
    }
}

fn digits(text: &[u8], count: usize) -> Option<(u32, &[u8])> {
    let (head, rest) = text.split_at_checked(count)?;
    let number = head.iter().try_fold(0, |number, b| {
        b.is_ascii_digit()
            .then(|| number * 10 + u32::from(b - b'0'))
    })?;
    Some((number, rest))
}

fn after<'t>(text: &'t [u8], any: &[u8]) -> Option<&'t [u8]> {
    let (first, rest) = text.split_first()?;
    any.contains(first).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_those_of_rfc_3339() {
        for good in [
            "2018-04-05T17:31:00Z",
            "1985-04-12T23:20:50.52Z",
            "1996-12-19T16:39:57-08:00",
            "1990-12-31T23:59:60Z",
            "1990-12-31T15:59:60-08:00",
            "1937-01-01T12:00:27.87+00:20",
            "2024-02-29t00:00:00z",
            "2000-02-29T00:00:00.000000000000Z",
        ] {
            assert_eq!(check("time", good), Ok(()), "{good}");
        }
        for bad in [
            "2018-04-05",
            "2018-04-05T17:31:00",
            "2018-04-05 17:31:00Z",
            "2018-04-05T17:31Z",
            "2018-4-5T17:31:00Z",
            "2018-13-05T17:31:00Z",
            "2018-04-31T17:31:00Z",
            "2018-00-05T17:31:00Z",
            "2018-04-00T17:31:00Z",
            "2023-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2018-04-05T24:00:00Z",
            "2018-04-05T17:60:00Z",
            "2018-04-05T17:31:60Z",
            "2018-04-05T17:31:61Z",
            "2018-04-05T17:31:00.Z",
            "2018-04-05T17:31:00.5",
            "2018-04-05T17:31:00+24:00",
            "2018-04-05T17:31:00+0100",
            "2018-04-05T17:31:00Z ",
            "+018-04-05T17:31:00Z",
            "1522949460",
        ] {
            assert_eq!(check("time", bad), Err(Problem::Timestamp), "{bad}");
        }
    }

    #[test]
    fn sources_are_uri_references_and_schemas_absolute_uris() {
        for good in [
            "https://github.com/cloudevents",
            "mailto:cncf-wg-serverless@lists.cncf.io",
            "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66",
            "/cloudevents/spec/pull/123",
            "/sensors/tn-1234567/alerts",
            "1-555-123-4567",
            "//host/a?b#c",
            "#",
        ] {
            assert_eq!(check("source", good), Ok(()), "{good}");
        }
        for bad in ["/a b", "/Löwe", "http://[::1", "/%zz", "1:2", "/<a>"] {
            assert_eq!(check("source", bad), Err(Problem::UriReference), "{bad}");
        }
        assert_eq!(
            check("dataschema", "https://example.com/s.json?v=1"),
            Ok(())
        );
        for bad in ["/s.json", "https://example.com/s.json#part", "s"] {
            assert_eq!(check("dataschema", bad), Err(Problem::Uri), "{bad}");
        }
    }

    #[test]
    fn texts_have_no_control_characters_and_no_noncharacters() {
        for good in ["Euro € 😀", "a\u{a0}b", "\u{fffd}", "\u{10fffd}"] {
            assert_eq!(check("subject", good), Ok(()), "{good:?}");
        }
        for bad in [
            "\0",
            "a\nb",
            "\u{1f}",
            "\u{7f}",
            "\u{9f}",
            "\u{fdd0}",
            "\u{ffff}",
            "\u{1fffe}",
        ] {
            assert_eq!(check("subject", bad), Err(Problem::Character), "{bad:?}");
            assert_eq!(
                check("anyextension", bad),
                Err(Problem::Character),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn what_is_optional_is_not_empty_when_it_is_there_but_extensions_may_be() {
        for name in [
            "id",
            "source",
            "type",
            "subject",
            "time",
            "dataschema",
            "datacontenttype",
        ] {
            assert_eq!(check(name, ""), Err(Problem::Empty), "{name}");
        }
        assert_eq!(check("tenant", ""), Ok(()));
    }

    #[test]
    fn names_are_lower_case_letters_and_digits() {
        for good in [
            "a",
            "0",
            "comexampleextension1",
            "morethantwentycharacters",
            &"x".repeat(64),
        ] {
            assert_eq!(extension_name(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "A",
            "a-b",
            "a_b",
            "ä",
            "data",
            "specversion",
            &"x".repeat(65),
        ] {
            assert!(extension_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn media_types_are_read_as_the_json_format_does() {
        for json in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "text/json",
            "a/b+json",
        ] {
            assert!(is_json(json) && is_media_type(json), "{json}");
        }
        for other in [
            "application/jsonp",
            "json",
            "application/json-seq",
            "text/plain;a=json",
            "a/json+b",
        ] {
            assert!(!is_json(other), "{other}");
        }
        for text in [
            "text/csv",
            "application/xml",
            "image/svg+xml",
            "text/plain; charset=\"UTF-8\"",
        ] {
            assert!(is_text(text), "{text}");
        }
        for other in ["application/octet-stream", "text/plain; charset=iso-8859-1"] {
            assert!(!is_text(other), "{other}");
        }
        for bad in [
            "json",
            "a/",
            "/b",
            "a b/c",
            "text/plain;\u{e9}",
            " a/b",
            "a/b/c",
        ] {
            assert!(!is_media_type(bad), "{bad}");
        }
    }
}
