//! The OpenAPI 3.1 document, made from the types.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};

use crate::{App, Function, FunctionSummary, Level, List, LogEntry, Node, Problem, Trigger};

/// The description of the API; `docs/reference/openapi.json` is this, checked in.
pub fn openapi() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let problem = content(
        "application/problem+json",
        schema::<Problem>(&mut generator),
    );
    let level = schema::<Level>(&mut generator);
    let paths = json!({
        "/node": get("node", "The node itself", &[], json_of::<Node>(&mut generator)),
        "/apps": get("apps", "Every app", &[], json_of::<List<App>>(&mut generator)),
        "/apps/{app}": get("app", "One app", &["app"], json_of::<App>(&mut generator)),
        "/functions": get("functions", "Every function", &[], json_of::<List<FunctionSummary>>(&mut generator)),
        "/functions/{app}/{function}":
            get("function", "One function", &["app", "function"], json_of::<Function>(&mut generator)),
        "/functions/{app}/{function}/invoke": invoke(),
        "/triggers": get("triggers", "Every trigger", &[], json_of::<List<Trigger>>(&mut generator)),
        "/logs": logs(content("application/x-ndjson", schema::<LogEntry>(&mut generator)), &level),
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tombolo control API",
            "version": "1",
            "description": "Served by the node's admin listener. Every refusal is problem+json (RFC 9457).",
        },
        "servers": [{ "url": crate::path::PREFIX }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "responses": { "Problem": { "description": "A refusal", "content": problem } },
            "schemas": generator.take_definitions(true),
        },
    })
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

fn json_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    content("application/json", schema::<T>(generator))
}

fn content(kind: &str, schema: Value) -> Value {
    json!({ kind: { "schema": schema } })
}

fn in_path(names: &[&str]) -> Vec<Value> {
    names
        .iter()
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect()
}

fn get(id: &str, summary: &str, parameters: &[&str], content: Value) -> Value {
    json!({ "get": {
        "operationId": id,
        "summary": summary,
        "parameters": in_path(parameters),
        "responses": {
            "200": { "description": summary, "content": content },
            "default": { "$ref": "#/components/responses/Problem" },
        },
    } })
}

fn logs(content: Value, level: &Value) -> Value {
    let text = json!({ "type": "string" });
    let parameters: Vec<Value> = [
        ("app", "Entries of this app", text.clone()),
        ("function", "Entries of functions of this name", text.clone()),
        ("level", "The least level", level.clone()),
        ("grep", "A regular expression that the message matches", text),
        ("since", "Entries from this moment on, in UTC with milliseconds", json!({ "type": "string", "format": "date-time" })),
        ("tail", "At most so many of the newest entries that exist already", json!({ "type": "integer", "minimum": 0 })),
        ("follow", "Go on with what is logged from now on", json!({ "type": "boolean", "default": false })),
    ]
    .into_iter()
    .map(|(name, what, schema)| json!({ "name": name, "in": "query", "description": what, "schema": schema }))
    .collect();
    json!({ "get": {
        "operationId": "logs",
        "summary": "Log entries, one JSON object a line, oldest first; empty lines are signs of life",
        "parameters": parameters,
        "responses": {
            "200": { "description": "Log entries", "content": content },
            "default": { "$ref": "#/components/responses/Problem" },
        },
    } })
}

fn invoke() -> Value {
    let mut parameters = in_path(&["app", "function"]);
    for (name, what) in [
        (
            "x-invoke-method",
            "The method of the request that the function sees",
        ),
        (
            "x-invoke-target",
            "Path and query of the request that the function sees",
        ),
    ] {
        parameters.push(json!({
            "name": name, "in": "header", "required": true, "description": what, "schema": { "type": "string" },
        }));
    }
    json!({ "post": {
        "operationId": "invoke",
        "summary": "Run a function for one request",
        "description": "The body is the body that the function sees; each header `x-invoke-header-NAME` is its header NAME.",
        "parameters": parameters,
        "requestBody": { "content": { "*/*": {} } },
        "responses": {
            "default": {
                "description": "With the header `x-invoke-answered: true` the function's answer or the failure of the invocation, else a refusal of the API (problem+json)",
                "content": { "*/*": {} },
            },
        },
    } })
}
