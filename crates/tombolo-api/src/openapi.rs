//! The OpenAPI 3.1 document, made from the types.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use tombolo_core::publish::{PRIORITY_DEFAULT, PRIORITY_LOWEST};

use crate::log::LevelText;
use crate::{
    App, DroppedEvent, Function, FunctionSummary, List, LogEntry, Node, Problem, Queue,
    QueuedEvent, Receipt, Selected, Selection, Trigger,
};

/// The description of the API; `docs/reference/openapi.json` is this, checked in.
pub fn openapi() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let problem = content(
        "application/problem+json",
        schema::<Problem>(&mut generator),
    );
    let level = schema::<LevelText>(&mut generator);
    let mut paths = json!({
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
    if let Some(paths) = paths.as_object_mut() {
        paths.extend(queues(&mut generator));
    }
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

/// Parameters of a query, each with what it means and its schema.
fn in_query<const N: usize>(parameters: [(&str, &str, Value); N]) -> impl Iterator<Item = Value> {
    parameters.into_iter().map(|(name, what, schema)| {
        json!({ "name": name, "in": "query", "description": what, "schema": schema })
    })
}

/// When sent events are to be delivered, and before which others.
fn terms() -> impl Iterator<Item = Value> {
    in_query([
        (
            "delay",
            "Deliver not before this time from now, such as `5s` or `1m 30s`; or `due`",
            json!({ "type": "string" }),
        ),
        (
            "due",
            "Deliver not before this moment; or `delay`",
            json!({ "type": "string", "format": "date-time" }),
        ),
        (
            "priority",
            "0 goes first",
            json!({ "type": "integer", "minimum": 0, "maximum": PRIORITY_LOWEST, "default": PRIORITY_DEFAULT }),
        ),
    ])
}

fn get(id: &str, summary: &str, parameters: &[&str], content: Value) -> Value {
    json!({ "get": read(id, summary, &in_path(parameters), content) })
}

fn read(id: &str, summary: &str, parameters: &[Value], content: Value) -> Value {
    json!({
        "operationId": id,
        "summary": summary,
        "parameters": parameters,
        "responses": {
            "200": { "description": summary, "content": content },
            "default": { "$ref": "#/components/responses/Problem" },
        },
    })
}

/// The paths of queues.
fn queues(generator: &mut SchemaGenerator) -> Map<String, Value> {
    let queue = ["app", "queue"];
    let receipt = json_of::<Receipt>(generator);
    let mut page = in_path(&queue);
    page.extend(in_query([
        (
            "from",
            "Events from this number on",
            json!({ "type": "integer", "minimum": 0, "default": 0 }),
        ),
        (
            "limit",
            "At most so many; a page ends early when it is long",
            json!({ "type": "integer", "minimum": 0, "default": 20, "maximum": 1000 }),
        ),
    ]));
    let summary = "Events of a queue, oldest first; nothing is taken";
    let listed = json_of::<List<QueuedEvent>>(generator);
    let events = json!({
        "get": read("queueEvents", summary, &page, listed),
        "post": send("sendEvents", "Send CloudEvents to a queue", &queue, &receipt),
    });
    let later = "Send CloudEvents to a function, which receives them later";
    let mut of_function = send("invokeLater", later, &["app", "function"], &receipt);
    let parameters = of_function.get_mut("parameters");
    if let Some(parameters) = parameters.and_then(Value::as_array_mut) {
        parameters.push(json!({
            "name": "callback",
            "in": "query",
            "description": "Where what became of the events is sent, as far as the function's grants allow",
            "schema": { "type": "string", "format": "uri" },
        }));
    }
    let redrive = "Publish dead letters again in the queue that they came from";
    let paths = [
        (
            "/queues",
            get(
                "queues",
                "Every queue",
                &[],
                json_of::<List<Queue>>(generator),
            ),
        ),
        (
            "/apps/{app}/queues/{queue}",
            get("queue", "One queue", &queue, json_of::<Queue>(generator)),
        ),
        ("/apps/{app}/queues/{queue}/events", events),
        (
            "/apps/{app}/queues/{queue}/events/{sequence}",
            get(
                "queueEvent",
                "One event of a queue",
                &["app", "queue", "sequence"],
                json_of::<QueuedEvent>(generator),
            ),
        ),
        (
            "/apps/{app}/queues/{queue}/drops",
            get(
                "queueDrops",
                "The last events that a queue dropped",
                &queue,
                json_of::<List<DroppedEvent>>(generator),
            ),
        ),
        (
            "/apps/{app}/queues/{queue}/redrive",
            select("redrive", redrive, generator),
        ),
        (
            "/apps/{app}/queues/{queue}/purge",
            select("purge", "Remove events of a queue", generator),
        ),
        (
            "/apps/{app}/functions/{function}/events",
            json!({ "post": of_function }),
        ),
    ];
    paths
        .into_iter()
        .map(|(path, item)| (path.to_owned(), item))
        .collect()
}

fn send(id: &str, summary: &str, parameters: &[&str], receipt: &Value) -> Value {
    let mut parameters = in_path(parameters);
    parameters.extend(terms());
    json!({
        "operationId": id,
        "summary": summary,
        "description": "Binary, structured or batched mode of CloudEvents 1.0; answered when the events are as durable as the queue says.",
        "parameters": parameters,
        "requestBody": { "content": { "*/*": {} } },
        "responses": {
            "202": { "description": "The events are kept", "content": receipt },
            "default": { "$ref": "#/components/responses/Problem" },
        },
    })
}

fn select(id: &str, summary: &str, generator: &mut SchemaGenerator) -> Value {
    json!({ "post": {
        "operationId": id,
        "summary": summary,
        "parameters": in_path(&["app", "queue"]),
        "requestBody": { "required": true, "content": json_of::<Selection>(generator) },
        "responses": {
            "200": { "description": "How many events were meant", "content": json_of::<Selected>(generator) },
            "default": { "$ref": "#/components/responses/Problem" },
        },
    } })
}

fn logs(content: Value, level: &Value) -> Value {
    let text = json!({ "type": "string" });
    let parameters: Vec<Value> = in_query([
        ("app", "Entries of this app", text.clone()),
        (
            "function",
            "Entries of functions of this name",
            text.clone(),
        ),
        ("level", "The least level", level.clone()),
        (
            "grep",
            "A regular expression that the message matches",
            text,
        ),
        (
            "since",
            "Entries from this moment on, in UTC with milliseconds",
            json!({ "type": "string", "format": "date-time" }),
        ),
        (
            "tail",
            "At most so many of the newest entries that exist already",
            json!({ "type": "integer", "minimum": 0 }),
        ),
        (
            "follow",
            "Go on with what is logged from now on",
            json!({ "type": "boolean", "default": false }),
        ),
    ])
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
