//! The JSON Schemas of both files: what editors complete from, and what the checks of this crate walk.

use std::sync::LazyLock;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::manifest::Manifest;
use crate::node::NodeConfig;

pub(crate) static MANIFEST: LazyLock<Value> = LazyLock::new(generate::<Manifest>);
pub(crate) static NODE_CONFIG: LazyLock<Value> = LazyLock::new(generate::<NodeConfig>);

/// The JSON Schema of `tombolo.toml`.
pub fn manifest_schema() -> Value {
    MANIFEST.clone()
}

/// The JSON Schema of `node.toml`.
pub fn node_config_schema() -> Value {
    NODE_CONFIG.clone()
}

fn generate<T: JsonSchema>() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    remove_null(&mut schema);
    schema
}

/// TOML has no null: what is optional is left out, never null.
fn remove_null(node: &mut Value) {
    if let Value::Array(items) = node {
        items.iter_mut().for_each(remove_null);
        return;
    }
    let Value::Object(object) = node else { return };
    if object.get("default").is_some_and(Value::is_null) {
        object.remove("default");
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(choices)) = object.get("anyOf")
        && let [Value::Object(only), null] = choices.as_slice()
        && null.get("type").is_some_and(|name| name == "null")
    {
        let only = only.clone();
        object.remove("anyOf");
        for (key, value) in only {
            object.entry(key).or_insert(value);
        }
    }
    object.values_mut().for_each(remove_null);
}
