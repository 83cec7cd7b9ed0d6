//! The reference pages of both files, written from their schemas.

use std::fmt::Write;

use serde_json::Value;

const MANIFEST: &str = "\
# Reference: `tombolo.toml`

The manifest of an app, in TOML. An unknown key is an error. A first line `#:schema …` with the path or URL of
[manifest.schema.json](manifest.schema.json) gives completion in editors. Paths are relative to the manifest's folder.

* A **name** has 1 to 63 lower-case letters, digits and hyphens, begins with a letter and does not end with a hyphen.
* A **size** is a whole number and a unit: `B`, `KB`, `KiB`, `MB`, `MiB`, `GB` or `GiB`, as in `64MiB`.
* A **duration** is a number and a unit: `500ms`, `2s`, `1m 30s`.
* A granted **origin** is a scheme, a host and, when it is not the usual one, a port. `*.example.com` stands for every
  name below `example.com`, but not for `example.com`. An address stands for itself alone.
* A **route** is literal segments, `{name}` for one segment that is not empty, and at the end `{*rest}` for all that is
  left, which may be nothing. A literal segment wins over `{name}`, and `{name}` over `{*rest}`. Two routes that match
  the same paths are an error. A trigger has exactly one of `function` and `static`.
* A **schedule** is minute, hour, day of the month, month and weekday, with seconds before them where they are wanted:
  numbers, lists, ranges, steps and `*`, names of months and weekdays, `L`, `W` and `#`, or `@hourly`, `@daily`,
  `@weekly`, `@monthly`, `@yearly`. When day and weekday are both given, either suffices. A schedule whose minute and
  hour do not begin with `*` names times of the day: when clocks go forward over such a time it ticks at that moment,
  when they go back it ticks the first time only. Every other schedule follows the time that passes: it has no ticks in
  an hour that does not exist and ticks in both of an hour that comes twice. This is what Vixie's cron does.
* A **topic filter** is levels between slashes; `+` stands for any one level, `#` at the end for all that follow.
* Events that wait in a queue reach the function of its trigger as CloudEvents. One that keeps failing goes to the dead
  letters, the queue `NAME.dead`. Ticks, MQTT messages and changes wait in queues that the node keeps for the function:
  `FUNCTION.cron`, `FUNCTION.mqtt` and `FUNCTION.change`.
";

const NODE_CONFIG: &str = "\
# Reference: `node.toml`

The operator's config of one node, in TOML. Every key is optional, except those whose default is `required` in a table that is there. An
unknown key is an error. A first line `#:schema …` with the path or URL of
[node-config.schema.json](node-config.schema.json) gives completion in editors. Sizes, durations and names are written
as in the [manifest](manifest.md).
";

pub fn manifest(schema: &Value) -> String {
    page(MANIFEST, schema)
}

pub fn node_config(schema: &Value) -> String {
    page(NODE_CONFIG, schema)
}

fn page(introduction: &str, schema: &Value) -> String {
    let mut page = introduction.to_owned();
    section(&mut page, "", schema);
    page
}

/// One table of keys, then those of the tables within it.
fn section(page: &mut String, header: &str, schema: &Value) {
    let properties = schema["properties"].as_object().unwrap();
    let (tables, keys): (Vec<_>, Vec<_>) = properties
        .iter()
        .partition(|(_, rule)| inner_table(rule).is_some());
    if !header.is_empty() {
        writeln!(page, "\n## `{header}`\n\n{}", described(schema)).unwrap();
    }
    if !keys.is_empty() {
        page.push_str("\n| key | value | default | meaning |\n| --- | --- | --- | --- |\n");
    }
    for (name, rule) in keys {
        let required = schema["required"]
            .as_array()
            .is_some_and(|all| all.contains(&name.as_str().into()));
        let default = match rule.get("default").or_else(|| inherited(schema, name)) {
            _ if required => "required".to_owned(),
            Some(default) => format!("`{default}`"),
            None => "–".to_owned(),
        };
        writeln!(
            page,
            "| `{name}` | {} | {default} | {} |",
            value(rule),
            described(rule)
        )
        .unwrap();
    }
    for (name, rule) in tables {
        let bare = header.trim_start_matches('[').trim_end_matches(']');
        let path = if bare.is_empty() {
            name.clone()
        } else {
            format!("{bare}.{name}")
        };
        let (suffix, inner) = inner_table(rule).unwrap();
        let path = format!("{path}{suffix}");
        let header = if rule["type"] == "array" {
            format!("[[{path}]]")
        } else {
            format!("[{path}]")
        };
        section(page, &header, inner);
    }
}

/// The table that a key holds, or a list or a map of tables.
fn inner_table(rule: &Value) -> Option<(&'static str, &Value)> {
    let candidates = [
        ("", Some(rule)),
        (".NAME", rule.get("additionalProperties")),
        ("", rule.get("items")),
    ];
    candidates
        .into_iter()
        .filter_map(|(suffix, rule)| Some((suffix, rule?)))
        .find(|(_, rule)| rule.get("properties").is_some())
}

fn inherited<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema.get("default")?.get(name)
}

/// The values of an enumeration and what they mean.
fn choices(rule: &Value) -> Vec<(&str, &str)> {
    let all = rule["oneOf"].as_array().into_iter().flatten();
    all.filter_map(|one| Some((one["const"].as_str()?, one["description"].as_str()?)))
        .collect()
}

fn described(rule: &Value) -> String {
    let choices: Vec<String> = choices(rule)
        .iter()
        .map(|(name, meaning)| format!("`{name}`: {meaning}"))
        .collect();
    let text = rule["description"]
        .as_str()
        .expect("every key is described");
    [vec![text.to_owned()], choices]
        .concat()
        .join(" ")
        .replace('|', "\\|")
}

fn value(rule: &Value) -> String {
    let choices = choices(rule);
    if !choices.is_empty() {
        let names: Vec<String> = choices
            .iter()
            .map(|(name, _)| format!("`\"{name}\"`"))
            .collect();
        return names.join(", ");
    }
    let kind = match (rule["type"].as_str().unwrap(), rule["format"].as_str()) {
        ("array", _) => {
            let most = rule["maxItems"]
                .as_u64()
                .map(|most| format!(", at most {most}"));
            return format!(
                "list ({}){}",
                value(&rule["items"]),
                most.unwrap_or_default()
            );
        }
        ("object", _) => return "table of texts".into(),
        ("string", Some("duration-text")) => "duration".into(),
        ("string", Some("http-url")) => "URL".into(),
        ("string", Some(format)) => format.replace('-', " "),
        ("string", None) => "text".into(),
        ("integer", _) => "whole number".into(),
        (plain, _) => plain.to_owned(),
    };
    let bound = |plain, text| rule.get(plain).or_else(|| rule.get(text));
    let bounds = (bound("minimum", "x-minimum"), bound("maximum", "x-maximum"));
    match (bounds, rule["maxLength"].as_u64()) {
        ((Some(min), Some(max)), _) => {
            format!("{kind}, {} to {}", plain(min), plain(max))
        }
        (_, Some(max)) => format!("{kind}, at most {max} characters"),
        _ => kind,
    }
}

fn plain(bound: &Value) -> String {
    bound
        .as_str()
        .map_or_else(|| bound.to_string(), str::to_owned)
}
