//! Values that are written as text: sizes, durations, names; their formats in the schema and in serde.

use std::time::Duration;

use schemars::{JsonSchema, SchemaGenerator};
use tombolo_core::FunctionId;
use tombolo_core::name::NameError;

/// Makes a type with `FromStr` and `Display` a text in files: serde both ways and a named `format` in the schema.
macro_rules! text_type {
    ($type:ident, $format:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        $crate::text::schema_type!($type, $format);
    };
}

/// Gives a type the schema of a text with a named `format`.
macro_rules! schema_type {
    ($type:ident, $format:literal) => {
        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "format": $format })
            }
        }
    };
}

pub(crate) use {schema_type, text_type};

/// Stands for a type of another crate in the schema.
macro_rules! stand_in {
    ($($type:ident = $format:literal;)*) => { $(pub(crate) struct $type; schema_type!($type, $format);)* };
}

stand_in! {
    AddressText = "socket-address";
    BrokerText = "broker-url";
    BrokerTopicsText = "broker-topics";
    DurationText = "duration-text";
    EnvKeyText = "env-key";
    FunctionIdText = "function-id";
    NameText = "name";
    PathText = "path";
    SizeText = "size";
    UrlText = "http-url";
    VersionText = "version";
}

/// The schema of a type, for places where an attribute wants a value.
pub(crate) fn schema_of<T: JsonSchema>() -> serde_json::Value {
    T::json_schema(&mut SchemaGenerator::default()).into()
}

/// Why a text is no size.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a size is a whole number and a unit, such as `64MiB`: B, KB, KiB, MB, MiB, GB or GiB")]
pub struct SizeError;

const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1000),
    ("B", 1),
];

/// The bytes of a size such as `64MiB`. A space may stand before the unit.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let (digits, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
        .ok_or(SizeError)?;
    let digits = digits.strip_suffix(' ').unwrap_or(digits);
    Some(digits)
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|digits| digits.parse::<u64>().ok())
        .and_then(|number| number.checked_mul(factor))
        .ok_or(SizeError)
}

/// The shortest exact spelling of a number of bytes, such as `64MiB`.
pub fn format_size(bytes: u64) -> String {
    let (unit, factor) = UNITS
        .iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / factor)
}

/// Why a text is no duration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a duration is a number and a unit, such as `500ms`, `2s` or `1m 30s`")]
pub struct DurationError;

/// Reads a duration such as `500ms`, `2s` or `1m 30s`.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    humantime::parse_duration(text).map_err(|_| DurationError)
}

/// Why a text is no `app/function`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FunctionIdError {
    #[error("a function of an app is written `app/function`")]
    Shape,
    #[error(transparent)]
    Name(#[from] NameError),
}

/// Reads `app/function`.
pub fn parse_function_id(text: &str) -> Result<FunctionId, FunctionIdError> {
    let (app, function) = text.split_once('/').ok_or(FunctionIdError::Shape)?;
    Ok(FunctionId {
        app: app.parse()?,
        function: function.parse()?,
    })
}

/// Sizes in serde.
pub(crate) mod size {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub fn serialize<T: Copy + Into<u64>, S: Serializer>(
        bytes: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_size((*bytes).into()))
    }

    pub fn deserialize<'de, T: TryFrom<u64>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = super::parse_size(&text).map_err(D::Error::custom)?;
        T::try_from(bytes).map_err(|_| D::Error::custom("the size is too large"))
    }
}

/// Sizes that may be absent, in serde.
pub(crate) mod optional_size {
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => super::size::serialize(bytes, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<u64>, D::Error> {
        super::size::deserialize(deserializer).map(Some)
    }
}

/// Durations in serde.
pub(crate) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_duration(&text).map_err(D::Error::custom)
    }
}

/// Durations that may be absent, in serde.
pub(crate) mod optional_duration {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::duration::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        super::duration::deserialize(deserializer).map(Some)
    }
}

/// Lists of `app/function` in serde.
pub(crate) mod function_ids {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};
    use tombolo_core::FunctionId;

    pub fn serialize<S: Serializer>(ids: &[FunctionId], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(ids.iter().map(ToString::to_string))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<FunctionId>, D::Error> {
        Vec::<String>::deserialize(deserializer)?
            .iter()
            .map(|text| super::parse_function_id(text).map_err(D::Error::custom))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_all_their_units() {
        for (text, bytes) in [
            ("0B", 0),
            ("7 B", 7),
            ("2KB", 2000),
            ("2KiB", 2048),
            ("3MB", 3_000_000),
            ("64MiB", 64 << 20),
            ("1GB", 1_000_000_000),
            ("4GiB", 4 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in [
            "",
            "B",
            "64",
            "64M",
            "64mib",
            "+1B",
            "-1B",
            "1.5GiB",
            "1  B",
            "٣B",
            "18446744073709551616B",
            "17179869184GiB",
        ] {
            assert_eq!(parse_size(bad), Err(SizeError), "{bad}");
        }
    }

    #[test]
    fn sizes_are_written_as_short_as_is_exact() {
        for (bytes, text) in [(0, "0B"), (1025, "1025B"), (1 << 20, "1MiB"), (3000, "3KB")] {
            assert_eq!(format_size(bytes), text);
        }
    }
}
