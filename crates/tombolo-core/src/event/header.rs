//! Attribute values in HTTP headers: percent-encoding, and what receivers have to undo (HTTP binding, section 3.1.3.2).

use std::fmt::Write as _;

use http::HeaderValue;

use super::Problem;

/// Encodes space, `"`, `%` and everything outside printable ASCII as the bytes of UTF-8.
pub(super) fn encode(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'!' | b'#'..=b'$' | b'&'..=b'~' => encoded.push(char::from(byte)),
            b' ' | b'"' | b'%' | 0x00..=0x1f | 0x7f..=0xff => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    // What was encoded is printable ASCII, so the fallback is never taken.
    HeaderValue::from_str(&encoded).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Undoes double quotes with their backslashes first, then one round of percent-encoding.
pub(super) fn decode(value: &HeaderValue) -> Result<String, Problem> {
    let unquoted = unquote(value.as_bytes())?;
    let mut decoded = Vec::with_capacity(unquoted.len());
    let mut bytes = unquoted.into_iter();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => (hex(bytes.next())? << 4) | hex(bytes.next())?,
            byte => byte,
        });
    }
    String::from_utf8(decoded).map_err(|_| Problem::Utf8)
}

/// Quotes may stand around the whole value or a part of it (RFC 7230, section 3.2.6); older versions of the
/// binding wrote them around what has spaces.
fn unquote(value: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut plain = Vec::with_capacity(value.len());
    let mut quoted = false;
    let mut bytes = value.iter().copied();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'"' => {
                quoted = !quoted;
                continue;
            }
            b'\\' if quoted => bytes.next().ok_or(Problem::Quote)?,
            byte => byte,
        };
        match byte {
            b' '..=b'~' => plain.push(byte),
            _ => return Err(Problem::NotAscii),
        }
    }
    if quoted {
        Err(Problem::Quote)
    } else {
        Ok(plain)
    }
}

fn hex(digit: Option<u8>) -> Result<u8, Problem> {
    match digit {
        Some(digit @ b'0'..=b'9') => Ok(digit - b'0'),
        Some(digit @ b'a'..=b'f') => Ok(digit - b'a' + 10),
        Some(digit @ b'A'..=b'F') => Ok(digit - b'A' + 10),
        _ => Err(Problem::Percent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> Result<String, Problem> {
        decode(&HeaderValue::from_bytes(bytes).unwrap())
    }

    #[test]
    fn the_example_of_the_specification() {
        let encoded = encode("Euro € 😀");
        assert_eq!(encoded, "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(decode(&encoded).unwrap(), "Euro € 😀");
    }

    #[test]
    fn only_what_must_be_is_encoded() {
        assert_eq!(
            encode("a \"b\" 100%\u{7f}é~!#&'\\"),
            "a%20%22b%22%20100%25%7F%C3%A9~!#&'\\"
        );
    }

    #[test]
    fn what_senders_quote_or_encode_needlessly_is_understood() {
        for (sent, meant) in [
            (&b"simple"[..], "simple"),
            (b"with space", "with space"),
            (b"%41%e2%82%ac", "A€"),
            (b"\"quoted text\"", "quoted text"),
            (br#""a \"b\" \\ c""#, r#"a "b" \ c"#),
            (br#"a"b c"d"#, "ab cd"),
            (br#""%22""#, "\""),
            (br"a\b", r"a\b"),
            (b"%2541", "%41"),
            (b"\"\"", ""),
            (b"", ""),
        ] {
            assert_eq!(decoded(sent).unwrap(), meant);
        }
    }

    #[test]
    fn what_is_broken_is_refused_with_its_cause() {
        for (sent, problem) in [
            (&b"%C0%A0"[..], Problem::Utf8),
            (b"%C0%80", Problem::Utf8),
            (b"%E0%80%80", Problem::Utf8),
            (b"%F0%80%80%80", Problem::Utf8),
            (b"%ED%A0%80", Problem::Utf8),
            (b"%F4%90%80%80", Problem::Utf8),
            (b"%E2%82", Problem::Utf8),
            (b"%80", Problem::Utf8),
            (b"100%", Problem::Percent),
            (b"%4", Problem::Percent),
            (b"%zz", Problem::Percent),
            (b"% 41", Problem::Percent),
            (b"\"open", Problem::Quote),
            (b"a\"", Problem::Quote),
            (b"\"a\\", Problem::Quote),
            (b"a\tb", Problem::NotAscii),
            ("é".as_bytes(), Problem::NotAscii),
            (b"\xff", Problem::NotAscii),
        ] {
            assert_eq!(decoded(sent), Err(problem), "{sent:?}");
        }
    }
}
