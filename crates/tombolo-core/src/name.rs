//! Names of apps, functions, queues, buckets and stores, and the pair that identifies a function on a node.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A name of an app or of anything that belongs to one: 1 to 63 characters, lower-case letters,
/// digits and hyphens, starting with a letter and not ending with a hyphen (a DNS label of
/// RFC 1035, so that `<function>.fn.tombolo.internal` is always a host name).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name(Arc<str>);

/// Why a text is not a name.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone, Copy)]
pub enum NameError {
    #[error("a name has 1 to 63 characters, this one has {0}")]
    Length(usize),
    #[error("a name starts with a lower-case letter, not with `{0}`")]
    Start(char),
    #[error("a name has only lower-case letters, digits and hyphens, not `{0}`")]
    Character(char),
    #[error("a name does not end with a hyphen")]
    End,
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let Some(first) = text.chars().next() else {
            return Err(NameError::Length(0));
        };
        if !first.is_ascii_lowercase() {
            return Err(NameError::Start(first));
        }
        if let Some(bad) = text
            .chars()
            .find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-'))
        {
            return Err(NameError::Character(bad));
        }
        if text.len() > 63 {
            return Err(NameError::Length(text.len()));
        }
        if text.ends_with('-') {
            return Err(NameError::End);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A function on a node, written `app/function`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct FunctionId {
    /// The app that the function belongs to.
    pub app: Name,
    /// The function's name within the app.
    pub function: Name,
}

impl fmt::Display for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "signal", "a-1", &"a".repeat(63)] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for (bad, why) in [
            ("", NameError::Length(0)),
            ("1a", NameError::Start('1')),
            ("A", NameError::Start('A')),
            ("a_b", NameError::Character('_')),
            ("a.b", NameError::Character('.')),
            ("aé", NameError::Character('é')),
            ("a-", NameError::End),
            (&"a".repeat(64), NameError::Length(64)),
        ] {
            assert_eq!(bad.parse::<Name>().unwrap_err(), why, "{bad}");
        }
    }
}
