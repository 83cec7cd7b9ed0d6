//! From text to the models: parse, check against the schema and across tables, convert.

use serde::de::DeserializeOwned;
use serde_json::Value;
use toml::de::{DeTable, Deserializer};

use crate::check::{self, Checker, Codes};
use crate::diagnostic::Diagnostics;
use crate::manifest::Manifest;
use crate::node::NodeConfig;
use crate::{reference, schema};

/// The longest file that is read, in bytes: room for a hundred thousand routes.
pub const FILE_BYTES_MAX: usize = 16 << 20;

impl Manifest {
    /// Reads a manifest. `file` is its name in the problems.
    pub fn parse(text: &str, file: &str) -> Result<Self, Diagnostics> {
        read(
            text,
            file,
            check::MANIFEST,
            &schema::MANIFEST,
            reference::check,
        )
    }
}

impl NodeConfig {
    /// Reads a node's config. `file` is its name in the problems.
    pub fn parse(text: &str, file: &str) -> Result<Self, Diagnostics> {
        read(
            text,
            file,
            check::NODE_CONFIG,
            &schema::NODE_CONFIG,
            |_, _| (),
        )
    }
}

fn read<T: DeserializeOwned>(
    text: &str,
    file: &str,
    codes: Codes,
    schema: &Value,
    across: fn(&mut Checker<'_>, &DeTable<'_>),
) -> Result<T, Diagnostics> {
    let mut checker = Checker::new(text, file, codes);
    if text.len() > FILE_BYTES_MAX {
        let message = format!("the file is longer than {FILE_BYTES_MAX} bytes");
        checker.report(codes.value, &message, 0..0, None);
        return Err(Diagnostics(checker.finish()));
    }
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let end = text.len()..text.len();
        checker.report(
            codes.syntax,
            error.message(),
            error.span().unwrap_or(end),
            None,
        );
    }
    // What was recovered from a broken text is guesswork: problems in it would mislead.
    if checker.is_clean() {
        checker.table(schema, root.get_ref(), 0..0, "");
        across(&mut checker, root.get_ref());
    }
    if checker.is_clean() {
        match T::deserialize(Deserializer::from(root)) {
            Ok(model) => return Ok(model),
            Err(error) => {
                checker.report(
                    codes.value,
                    error.message(),
                    error.span().unwrap_or(0..0),
                    None,
                );
            }
        }
    }
    Err(Diagnostics(checker.finish()))
}
