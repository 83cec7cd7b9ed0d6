//! `tombolo describe`: everything about one app, function or trigger.

use std::time::Duration;

use tombolo_api::{App, Client, Function, Grants, Limits, Trigger, TriggerKind, Usage};
use tombolo_core::Code;
use tombolo_manifest::format_size;

use crate::app;
use crate::arguments::{Describe, Global, Thing};
use crate::error::Error;
use crate::output::{Output, pairs};

/// Describes one thing of the node of the folder.
pub async fn run(arguments: &Describe, global: &Global, output: &Output) -> Result<(), Error> {
    let client = app::client(global, &arguments.files)?;
    match arguments.kind {
        Thing::App => {
            let app = client.app(&arguments.name).await?;
            output.one(&app, || app.name.to_string(), || app_text(&app))
        }
        Thing::Function => {
            let id = app::function_id(&client, &arguments.name).await?;
            let function = client.function(&id).await?;
            output.one(&function, || id.to_string(), || function_text(&function))
        }
        Thing::Trigger => {
            let trigger = trigger(&client, &arguments.name).await?;
            output.one(
                &trigger,
                || trigger_name(&trigger),
                || trigger_text(&trigger),
            )
        }
    }
}

/// The trigger of this route. `get triggers -o name` writes the kind before it.
async fn trigger(client: &Client, name: &str) -> Result<Trigger, Error> {
    let triggers = client.triggers().await?.items;
    let found = triggers
        .into_iter()
        .find(|trigger| trigger.route == name || trigger_name(trigger) == name);
    found.ok_or_else(|| {
        Error::new(Code::NotFound, format!("there is no trigger `{name}`"))
            .help("`tombolo get triggers` lists what there is")
    })
}

/// What names a trigger among all of a node.
pub fn trigger_name(trigger: &Trigger) -> String {
    format!("{}:{}", kind(trigger), trigger.route)
}

fn trigger_text(trigger: &Trigger) -> String {
    pairs(&[
        ("Kind", kind(trigger).into()),
        ("Route", trigger.route.clone()),
        ("App", trigger.app.to_string()),
        ("Target", target(trigger)),
    ])
}

fn app_text(app: &App) -> String {
    let functions: Vec<String> = app.functions.iter().map(ToString::to_string).collect();
    let folder = app
        .folder
        .as_ref()
        .map(|folder| folder.display().to_string());
    pairs(&[
        ("Name", app.name.to_string()),
        ("Version", app.version.clone()),
        (
            "Description",
            or_dash(app.description.clone().unwrap_or_default()),
        ),
        ("Folder", or_dash(folder.unwrap_or_default())),
        ("Functions", or_dash(functions.join("\n"))),
        ("Triggers", app.triggers.to_string()),
    ])
}

fn function_text(function: &Function) -> String {
    let config: Vec<String> = function
        .config
        .iter()
        .map(|(key, value)| format!("{key} = {value}"))
        .collect();
    let triggers: Vec<String> = function
        .triggers
        .iter()
        .map(|trigger| format!("{} {}", kind(trigger), trigger.route))
        .collect();
    pairs(&[
        ("App", function.app.to_string()),
        ("Name", function.name.to_string()),
        ("Component", function.component.display().to_string()),
        ("Digest", function.digest.to_string()),
        ("World", function.world.clone()),
        ("Isolation", function.isolation.clone()),
        ("Instances", function.instances.to_string()),
        (
            "Code in memory",
            if function.code_loaded { "yes" } else { "no" }.into(),
        ),
        ("Triggers", or_dash(triggers.join("\n"))),
        ("Limits", limits(&function.limits)),
        ("Grants", or_dash(grants(&function.grants))),
        ("Environment", or_dash(function.env.join("\n"))),
        ("Config", or_dash(config.join("\n"))),
        ("Usage", usage(&function.usage)),
    ])
}

fn limits(limits: &Limits) -> String {
    let duration = |ms| humantime::format_duration(Duration::from_millis(ms)).to_string();
    [
        format!("wall        {}", duration(limits.wall_ms)),
        format!("cpu         {}", duration(limits.cpu_ms)),
        format!("memory      {}", format_size(limits.memory_bytes)),
        format!("hostcall    {}", format_size(limits.hostcall_bytes)),
        format!("response    {}", format_size(limits.response_bytes)),
        format!("logs        {}", format_size(limits.log_bytes)),
        format!("concurrency {}", limits.concurrency),
        format!("waiting     {}", limits.waiting),
    ]
    .join("\n")
}

fn grants(grants: &Grants) -> String {
    [
        ("http", &grants.http),
        ("functions", &grants.functions),
        ("keyvalue", &grants.keyvalue),
        ("queues", &grants.queues),
        ("topics", &grants.topics),
        ("secrets", &grants.secrets),
        ("directories", &grants.directories),
        ("sockets", &grants.sockets),
    ]
    .into_iter()
    .filter(|(_, granted)| !granted.is_empty())
    .map(|(name, granted)| format!("{name:11} {}", granted.join(", ")))
    .collect::<Vec<_>>()
    .join("\n")
}

fn usage(usage: &Usage) -> String {
    [
        format!("invocations {}", usage.invocations),
        format!("errors      {}", usage.errors),
        format!("cold starts {}", usage.cold_starts),
        format!("running     {}", usage.running),
        format!("waiting     {}", usage.waiting),
        format!("cpu         {}", nanoseconds(usage.cpu_ns)),
        format!("wall        {}", nanoseconds(usage.wall_ns)),
        format!("gb-seconds  {:.3}", usage.gb_seconds),
        format!("bytes       {}", usage.bytes),
    ]
    .join("\n")
}

/// A duration with three digits after the point.
pub fn nanoseconds(nanoseconds: u64) -> String {
    format!("{:.3?}", Duration::from_nanos(nanoseconds))
}

/// The kind of a trigger as text.
pub fn kind(trigger: &Trigger) -> &'static str {
    match trigger.kind {
        TriggerKind::Http => "http",
        TriggerKind::Cron => "cron",
        TriggerKind::Queue => "queue",
        TriggerKind::Mqtt => "mqtt",
        TriggerKind::Change => "change",
    }
}

/// What a trigger leads to.
pub fn target(trigger: &Trigger) -> String {
    let app = &trigger.app;
    match (&trigger.queue, &trigger.function, &trigger.static_folder) {
        (Some(queue), _, _) => format!("queue {app}/{queue}"),
        (None, Some(function), _) => format!("{app}/{function}"),
        (None, None, Some(folder)) => folder.display().to_string(),
        (None, None, None) => "-".into(),
    }
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".into() } else { text }
}
