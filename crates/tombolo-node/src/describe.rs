//! Puts what the node knows about apps, functions and triggers into the words of the API.

use std::sync::Arc;

use tombolo_api::{Bucket, FunctionSummary, Grants, Limits, Trigger, TriggerKind, Usage};
use tombolo_core::{Code, FunctionId, Name};
use tombolo_manifest::HttpTarget;
use tombolo_runtime::FunctionStatus;
use tombolo_telemetry::Telemetry;

use crate::app::App;
use crate::deploy::Apps;
use crate::refusal::{Refusal, refuse};

pub(crate) fn apps(apps: &Apps) -> Vec<tombolo_api::App> {
    apps.list().iter().map(|one| app(one)).collect()
}

pub(crate) fn app(app: &App) -> tombolo_api::App {
    let manifest = &app.manifest;
    tombolo_api::App {
        name: app.name().clone(),
        version: manifest.app.version.to_string(),
        description: manifest.app.description.clone(),
        folder: Some(app.folder.clone()),
        functions: manifest.functions.keys().cloned().collect(),
        triggers: u32::try_from(app.trigger_count()).unwrap_or(u32::MAX),
    }
}

pub(crate) fn functions(apps: &Apps, telemetry: &Telemetry) -> Vec<FunctionSummary> {
    let ids = apps.list().into_iter().flat_map(|app| {
        let ids: Vec<FunctionId> = app.functions().keys().map(|name| app.id(name)).collect();
        ids
    });
    // A function without status was replaced between the two looks.
    ids.filter_map(|id| {
        let status = apps.runtime.status(&id)?;
        Some(FunctionSummary {
            usage: usage(telemetry, &id),
            isolation: status.isolation,
            world: status.world,
            app: id.app,
            name: id.function,
        })
    })
    .collect()
}

/// The app of this name.
pub(crate) fn find_app(apps: &Apps, name: &str) -> Result<Arc<App>, Refusal> {
    let missing = || refuse(Code::NotFound, format!("there is no app `{name}`"));
    apps.get(name).ok_or_else(missing)
}

/// The function of these names, and its app.
pub(crate) fn find(
    apps: &Apps,
    app: &str,
    function: &str,
) -> Result<(FunctionId, Arc<App>), Refusal> {
    let missing = || {
        refuse(
            Code::NotFound,
            format!("there is no function `{app}/{function}`"),
        )
    };
    let app = apps.get(app).ok_or_else(missing)?;
    let name = app
        .functions()
        .keys()
        .find(|name| name.as_str() == function)
        .ok_or_else(missing)?;
    Ok((app.id(name), app))
}

pub(crate) fn function(
    apps: &Apps,
    telemetry: &Telemetry,
    app: &App,
    id: &FunctionId,
) -> Result<tombolo_api::Function, Refusal> {
    let missing = || refuse(Code::NotFound, format!("there is no function `{id}`"));
    let function = app.functions().get(&id.function).ok_or_else(missing)?;
    let FunctionStatus {
        world,
        isolation,
        digest,
        code_loaded,
        instances_idle,
    } = apps.runtime.status(id).ok_or_else(missing)?;
    let limits = &function.limits;
    let usage = usage(telemetry, id);
    let instances = u32::try_from(instances_idle).unwrap_or(u32::MAX);
    Ok(tombolo_api::Function {
        app: id.app.clone(),
        name: id.function.clone(),
        component: function.component.clone(),
        digest,
        isolation,
        world,
        instances: instances.saturating_add(usage.running),
        code_loaded,
        limits: Limits::new(&limits.budget, limits.concurrency, limits.waiting),
        grants: grants(&function.grants),
        env: function.env.keys().cloned().collect(),
        config: function.config.clone(),
        triggers: triggers(app)
            .filter(|trigger| trigger.function.as_ref() == Some(&id.function))
            .collect(),
        usage,
    })
}

fn grants(grants: &tombolo_manifest::Grants) -> Grants {
    Grants {
        http: texts(&grants.http),
        functions: texts(&grants.functions),
        keyvalue: texts(&grants.keyvalue),
        queues: texts(&grants.queues),
        topics: texts(&grants.topics),
        secrets: texts(&grants.secrets),
        directories: texts(&grants.directories),
        sockets: texts(&grants.sockets),
    }
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(T::to_string).collect()
}

fn usage(telemetry: &Telemetry, id: &FunctionId) -> Usage {
    let metrics = telemetry.function(id);
    let used = metrics.snapshot();
    let gauge = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    Usage {
        invocations: used.invocations,
        errors: used.errors,
        cold_starts: used.cold_starts,
        cpu_ns: used.cpu_ns,
        wall_ns: used.wall_ns,
        gb_seconds: used.gb_seconds,
        bytes: used.bytes_in + used.bytes_out,
        running: gauge(used.running),
        waiting: gauge(used.waiting),
        wall: buckets(metrics.wall_buckets()),
    }
}

/// The buckets that have any, each with the bound of the one before it.
fn buckets(counts: impl Iterator<Item = (Option<u64>, u64)>) -> Vec<Bucket> {
    let mut over_ns = 0;
    let buckets = counts.map(|(up_to_ns, count)| {
        let over_ns = std::mem::replace(&mut over_ns, up_to_ns.unwrap_or_default());
        Bucket {
            over_ns,
            up_to_ns,
            count,
        }
    });
    buckets.filter(|bucket| bucket.count > 0).collect()
}

pub(crate) fn triggers(app: &App) -> impl Iterator<Item = Trigger> {
    let triggers = &app.manifest.triggers;
    let http = triggers.http.iter().map(|trigger| {
        let http = |function| one(app, TriggerKind::Http, &trigger.route, function);
        match &trigger.target {
            HttpTarget::Function(function) => http(Some(function)),
            HttpTarget::Static(folder) => Trigger {
                static_folder: Some(folder.clone()),
                ..http(None)
            },
            HttpTarget::Queue { queue, .. } => {
                let mut triggers = triggers.queue.iter();
                let consumer = triggers.find(|trigger| trigger.queue == *queue);
                Trigger {
                    queue: Some(queue.clone()),
                    ..http(consumer.map(|trigger| &trigger.function))
                }
            }
        }
    });
    let cron = triggers.cron.iter().map(|trigger| {
        one(
            app,
            TriggerKind::Cron,
            &trigger.schedule,
            Some(&trigger.function),
        )
    });
    let queue = triggers.queue.iter().map(|trigger| {
        one(
            app,
            TriggerKind::Queue,
            &trigger.queue,
            Some(&trigger.function),
        )
    });
    let mqtt = triggers.mqtt.iter().map(|trigger| {
        one(
            app,
            TriggerKind::Mqtt,
            &trigger.topic,
            Some(&trigger.function),
        )
    });
    let change = triggers.change.iter().map(|trigger| {
        let store = format!("{}/{}*", trigger.keyvalue, trigger.prefix);
        one(app, TriggerKind::Change, &store, Some(&trigger.function))
    });
    http.chain(cron).chain(queue).chain(mqtt).chain(change)
}

fn one(app: &App, kind: TriggerKind, route: &impl ToString, function: Option<&Name>) -> Trigger {
    Trigger {
        app: app.name().clone(),
        kind,
        route: route.to_string(),
        function: function.cloned(),
        static_folder: None,
        queue: None,
    }
}
