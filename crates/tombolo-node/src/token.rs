//! The token that opens a node's API: 32 random bytes, made at each start and compared in constant time.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read as _};

use http::{HeaderMap, header};
use subtle::ConstantTimeEq as _;

/// The token of one run of a node. `Debug` does not show it.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    pub(crate) fn generate() -> io::Result<Self> {
        let mut bytes = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self(hex(&bytes)))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a request carries `Authorization: Bearer TOKEN`, exactly once.
    pub(crate) fn opens(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return false;
        };
        let bytes = value.as_bytes();
        let Some((scheme, token)) = bytes.split_at_checked("Bearer ".len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(token.ct_eq(self.0.as_bytes()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_opens() {
        let token = Token::generate().unwrap();
        let headers = |values: &[String]| {
            let values = values
                .iter()
                .map(|value| (header::AUTHORIZATION, value.parse().unwrap()));
            values.fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            })
        };
        let right = format!("Bearer {}", token.as_str());
        assert!(token.opens(&headers(std::slice::from_ref(&right))));
        for wrong in [
            vec![],
            vec![String::new()],
            vec!["Bearer ".into()],
            vec![format!("{right}0")],
            vec![right.replace("Bearer", "Basic")],
            vec![format!("Bearer {}", Token::generate().unwrap().as_str())],
            vec![right.clone(), right],
        ] {
            assert!(!token.opens(&headers(&wrong)), "{wrong:?}");
        }
    }

    #[test]
    fn debug_output_does_not_show_it() {
        let token = Token::generate().unwrap();
        assert_eq!(token.as_str().len(), 64);
        assert!(!format!("{token:?}").contains(token.as_str()));
    }
}
