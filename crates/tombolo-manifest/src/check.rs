//! The check of a parsed file against its schema: unknown and missing keys, types, bounds and formats of values, all that are wrong.

use std::ops::Range;

use serde_json::Value;
use tombolo_core::Code;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::Diagnostic;
use crate::format;

/// More problems than these are not reported.
const PROBLEMS_MAX: usize = 100;

/// The codes that the problems of a file get.
#[derive(Clone, Copy)]
pub(crate) struct Codes {
    pub syntax: Code,
    pub key: Code,
    pub value: Code,
    pub reference: Code,
}

/// The codes of `tombolo.toml`.
pub(crate) const MANIFEST: Codes = Codes {
    syntax: Code::ManifestSyntax,
    key: Code::ManifestKey,
    value: Code::ManifestValue,
    reference: Code::ManifestReference,
};

/// The codes of `node.toml`.
pub(crate) const NODE_CONFIG: Codes = Codes {
    syntax: Code::NodeConfig,
    key: Code::NodeConfig,
    value: Code::NodeConfig,
    reference: Code::NodeConfig,
};

/// Collects the problems of one text.
pub(crate) struct Checker<'a> {
    pub text: &'a str,
    pub file: &'a str,
    pub codes: Codes,
    found: Vec<Diagnostic>,
}

impl<'a> Checker<'a> {
    pub fn new(text: &'a str, file: &'a str, codes: Codes) -> Self {
        Self {
            text,
            file,
            codes,
            found: Vec::new(),
        }
    }

    /// The problems in the order of the file.
    pub fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|found| (found.line, found.column));
        self.found
    }

    pub fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    /// Keeps a problem, while there is room.
    pub fn report(&mut self, code: Code, message: &str, span: Range<usize>, help: Option<String>) {
        if self.found.len() < PROBLEMS_MAX {
            let mut problem = Diagnostic::at(code, message, self.file, self.text, span);
            if let Some(help) = help {
                problem = problem.help(help);
            }
            self.found.push(problem);
        }
    }

    fn wrong(&mut self, span: Range<usize>, message: &str, help: Option<String>) {
        self.report(self.codes.value, message, span, help);
    }

    /// Checks a table against the schema of an object. `place` is the path of the table, empty at the top.
    pub fn table(&mut self, schema: &Value, table: &DeTable<'_>, span: Range<usize>, place: &str) {
        let properties = schema.get("properties").and_then(Value::as_object);
        for (key, value) in table {
            if self.found.len() >= PROBLEMS_MAX {
                return;
            }
            let name = key.get_ref().as_ref();
            let path = join(place, name);
            if let Some(known) = properties.and_then(|known| known.get(name)) {
                self.value(known, value, &path);
                continue;
            }
            match schema.get("additionalProperties") {
                Some(entry @ Value::Object(_)) => {
                    if let Some(rule) = schema.get("propertyNames") {
                        self.string(rule, name, key.span());
                    }
                    self.value(entry, value, &path);
                }
                _ => {
                    let known = properties.into_iter().flat_map(|known| known.keys());
                    self.unknown_key(name, key.span(), place, known.map(String::as_str));
                }
            }
        }
        let required = schema.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if table.get(name).is_none() {
                let message = format!("the key `{}` is missing", join(place, name));
                let rule = properties.and_then(|known| known.get(name));
                self.wrong(
                    span.clone(),
                    &message,
                    rule.and_then(|rule| advice(name, rule)),
                );
            }
        }
        let max = schema.get("maxProperties").and_then(Value::as_u64);
        self.count(table.len(), None, max, span, place);
    }

    fn unknown_key<'k>(
        &mut self,
        name: &str,
        span: Range<usize>,
        place: &str,
        known: impl Iterator<Item = &'k str> + Clone,
    ) {
        let message = match place {
            "" => format!("unknown key `{name}`"),
            place => format!("unknown key `{name}` in `{place}`"),
        };
        let help = match nearest(name, known.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the keys here are {}", list(known)),
        };
        self.report(self.codes.key, &message, span, Some(help));
    }

    fn value(&mut self, schema: &Value, value: &Spanned<DeValue<'_>>, place: &str) {
        let span = value.span();
        let choices = choices(schema);
        // An enumeration has its type in each of its values, and all are texts.
        let expected = schema.get("type").and_then(Value::as_str);
        let expected = expected.unwrap_or("string");
        match (expected, value.get_ref()) {
            ("object", DeValue::Table(table)) => self.table(schema, table, span, place),
            ("array", DeValue::Array(items)) => {
                let min = schema.get("minItems").and_then(Value::as_u64);
                let max = schema.get("maxItems").and_then(Value::as_u64);
                self.count(items.len(), min, max, span, place);
                for (index, item) in items.iter().enumerate() {
                    if let Some(rule) = schema.get("items") {
                        self.value(rule, item, &format!("{place}[{index}]"));
                    }
                }
            }
            ("string", DeValue::String(text)) if !choices.is_empty() => {
                self.choice(&choices, text, span, place);
            }
            ("string", DeValue::String(text)) => self.string(schema, text, span),
            ("boolean", DeValue::Boolean(_)) => {}
            ("integer" | "number", DeValue::Integer(number)) => {
                let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok();
                self.number(schema, parsed.map(|n| n as f64), span, place);
            }
            ("number", DeValue::Float(number)) => {
                self.number(schema, number.as_str().parse().ok(), span, place);
            }
            (expected, found) => {
                let found = kind(found.type_str());
                let wanted = match schema.get("format").and_then(Value::as_str) {
                    Some("size") => "a size in quotes, such as \"64MiB\"",
                    Some("duration-text") => "a duration in quotes, such as \"2s\"",
                    _ => kind(expected),
                };
                let message = format!("`{place}` must be {wanted}, but this is {found}");
                self.wrong(span, &message, advice(last(place), schema));
            }
        }
    }

    fn choice(&mut self, choices: &[&str], text: &str, span: Range<usize>, place: &str) {
        if choices.contains(&text) {
            return;
        }
        let message = format!("`{text}` is no value of `{place}`");
        let all = list(choices.iter().copied());
        let help = match nearest(text, choices.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? The values are {all}"),
            None => format!("the values are {all}"),
        };
        self.wrong(span, &message, Some(help));
    }

    fn string(&mut self, schema: &Value, text: &str, span: Range<usize>) {
        if let Err(refused) = format::check(schema, text) {
            self.wrong(span, &refused.message, refused.help);
        }
    }

    fn number(&mut self, schema: &Value, number: Option<f64>, span: Range<usize>, place: &str) {
        let bound = |key| schema.get(key).and_then(Value::as_f64);
        let (min, max) = (bound("minimum"), bound("maximum"));
        let within = number.is_some_and(|number| {
            min.is_none_or(|min| number >= min) && max.is_none_or(|max| number <= max)
        });
        if !within {
            let message = format!("`{place}` is out of bounds");
            self.wrong(span, &message, advice(last(place), schema));
        }
    }

    fn count(
        &mut self,
        found: usize,
        min: Option<u64>,
        max: Option<u64>,
        span: Range<usize>,
        place: &str,
    ) {
        let found = found as u64;
        if let Some(max) = max.filter(|max| found > *max) {
            let message = format!("`{place}` has {found} entries, at most {max} are allowed");
            self.wrong(span, &message, None);
        } else if let Some(min) = min.filter(|min| found < *min) {
            let message = format!("`{place}` has {found} entries, at least {min} is needed");
            self.wrong(span, &message, None);
        }
    }
}

/// What a schema says about a key, in one line: its description and its bounds.
fn advice(name: &str, schema: &Value) -> Option<String> {
    let description = schema.get("description").and_then(Value::as_str)?;
    Some(match bounds(schema) {
        Some(bounds) => format!("`{name}`: {description} It is {bounds}."),
        None => format!("`{name}`: {description}"),
    })
}

/// The bounds of a value as a person says them, such as `from 1 to 100000`.
pub(crate) fn bounds(schema: &Value) -> Option<String> {
    let bound = |plain, text| match schema.get(plain).or_else(|| schema.get(text))? {
        Value::String(text) => Some(text.clone()),
        number => Some(number.to_string()),
    };
    let (min, max) = (
        bound("minimum", "x-minimum")?,
        bound("maximum", "x-maximum")?,
    );
    Some(format!("from {min} to {max}"))
}

/// The values of an enumeration; none for other schemas.
pub(crate) fn choices(schema: &Value) -> Vec<&str> {
    let described = schema.get("oneOf").and_then(Value::as_array);
    let plain = schema.get("enum").and_then(Value::as_array);
    let described = described
        .into_iter()
        .flatten()
        .filter_map(|one| one.get("const"));
    described
        .chain(plain.into_iter().flatten())
        .filter_map(Value::as_str)
        .collect()
}

/// The name nearest to a text, when it is near enough to be what was meant.
pub(crate) fn nearest<'k>(text: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    // Longer texts are no misspelling of a key, and the distance takes time quadratic in them.
    if text.len() > 128 {
        return None;
    }
    let distances = known.map(|known| (strsim::damerau_levenshtein(text, known), known));
    let (distance, near) = distances.min_by_key(|(distance, _)| *distance)?;
    let length = near.chars().count().max(text.chars().count());
    let allowed = (length / 3).max(1).min(length.saturating_sub(1));
    (distance <= allowed).then_some(near)
}

/// Names for a sentence: `a`, `b` and `c`, at most a dozen.
pub(crate) fn list<'k>(names: impl Iterator<Item = &'k str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => "none".into(),
        [only] => only.clone(),
        [first @ .., last] if names.len() <= 12 => format!("{} and {last}", first.join(", ")),
        [a @ .., _] => {
            let shown = a.get(..12).unwrap_or(a);
            format!(
                "{} and {} more",
                shown.join(", "),
                names.len() - shown.len()
            )
        }
    }
}

fn join(place: &str, name: &str) -> String {
    match place {
        "" => name.into(),
        place => format!("{place}.{name}"),
    }
}

fn last(place: &str) -> &str {
    place.rsplit('.').next().unwrap_or(place)
}

/// A type as a person says it, by its name in JSON Schema or in TOML.
fn kind(name: &str) -> &'static str {
    match name {
        "string" => "a text",
        "integer" => "a whole number",
        "number" | "float" => "a number",
        "boolean" => "`true` or `false`",
        "array" => "a list",
        "object" | "table" => "a table",
        _ => "a date or time",
    }
}
