//! What an app's manifest means for the journal: its queues and their settings, who consumes them, schedules, watched stores.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use tombolo_core::{Feed, Name, QueueId, QueueName};
use tombolo_manifest::{Durability, Isolation, QueueTrigger, WhenFull};
use tombolo_store::Changes;
use tombolo_store::queue::{
    self, BatchSettings, Callback, QueueSettings, RetrySettings, TakeBounds,
};
use tombolo_triggers::cron::CronSource;
use tombolo_triggers::delivery::{Consumer, Target};
use tombolo_triggers::mqtt::{Subscription, TOPIC_ATTRIBUTE, TopicError};

use crate::app::App;

/// What a lease lasts longer than its function may run: time to wait for a place, and to settle.
const LEASE_MARGIN: Duration = Duration::from_secs(10);

/// One queue that the app uses.
#[derive(Clone, Debug)]
pub(crate) struct AppQueue {
    pub(crate) settings: QueueSettings,
    /// None for a queue that only keeps events.
    pub(crate) consumer: Option<Consumer>,
}

/// Every queue of an app: those of its manifest, and those that feed a function. Each function has
/// one for asynchronous invocations, and one for their callbacks.
pub(crate) fn queues(app: &App) -> BTreeMap<QueueId, AppQueue> {
    let manifest = &app.manifest;
    let mut queues = BTreeMap::new();
    for (name, queue) in &manifest.queues {
        let mut triggers = manifest.triggers.queue.iter();
        let trigger = triggers.find(|trigger| trigger.queue == *name);
        let mut settings = kept(queue);
        let consumer = trigger.map(|trigger| {
            consumed(&mut settings, trigger);
            settings.lease_ms = lease_ms(app, &trigger.function, &settings);
            consumer(app, trigger, &settings)
        });
        queues.insert(
            id(app, name.clone().into()),
            AppQueue { settings, consumer },
        );
    }
    for (function, feed) in feeds(app) {
        let queue = id(app, QueueName::of_function(&function, feed));
        let called_back = (feed == Feed::Async && calls_back(app, &function))
            .then(|| id(app, QueueName::of_function(&function, Feed::Callback)));
        let mut settings = QueueSettings {
            callback: called_back.clone().map(|queue| Callback {
                queue,
                function: app.id(&function),
            }),
            order_by: order_by(feed).map(str::to_owned),
            retry: match feed {
                Feed::Callback => RetrySettings {
                    attempts: CALLBACK_ATTEMPTS,
                    ..RetrySettings::default()
                },
                _ => RetrySettings::default(),
            },
            ..QueueSettings::default()
        };
        settings.lease_ms = lease_ms(app, &function, &settings);
        let consumer = Some(Consumer {
            queue: queue.clone(),
            function: app.id(&function),
            trigger: feed.as_str(),
            batch: bounds(&settings),
            target: match feed {
                Feed::Callback => Target::Callback,
                _ => Target::Function,
            },
            reply: None,
            callback: called_back,
            transactional: false,
            lingers: lingers(app, &function, &settings),
        });
        queues.insert(queue, AppQueue { settings, consumer });
    }
    queues
}

/// Whether a function may send requests anywhere, and so callbacks.
fn calls_back(app: &App, function: &Name) -> bool {
    let function = app.functions().get(function);
    function.is_some_and(|function| !function.grants.http.is_empty())
}

/// Deliveries of a callback in all: for an hour or so, as the wait grows to five minutes.
const CALLBACK_ATTEMPTS: u16 = 20;

/// The functions of an app and what feeds them, besides queues of the manifest.
fn feeds(app: &App) -> impl Iterator<Item = (Name, Feed)> {
    let triggers = &app.manifest.triggers;
    let functions = || app.functions().keys();
    let asynchronous = functions().map(|name| (name, Feed::Async));
    let callback = functions().filter(|name| calls_back(app, name));
    let callback = callback.map(|name| (name, Feed::Callback));
    let cron = triggers.cron.iter().map(|one| (&one.function, Feed::Cron));
    let mqtt = triggers.mqtt.iter().map(|one| (&one.function, Feed::Mqtt));
    let change = triggers
        .change
        .iter()
        .map(|one| (&one.function, Feed::Change));
    let all = asynchronous
        .chain(callback)
        .chain(cron)
        .chain(mqtt)
        .chain(change);
    all.map(|(name, feed)| (name.clone(), feed))
}

/// What is delivered one at a time and in order: the changes of one key, the messages of one topic.
fn order_by(feed: Feed) -> Option<&'static str> {
    match feed {
        Feed::Change => Some("subject"),
        Feed::Mqtt => Some(TOPIC_ATTRIBUTE),
        Feed::Async | Feed::Cron | Feed::Callback => None,
    }
}

/// What the app's MQTT triggers want of the node's own broker.
pub(crate) fn subscriptions(app: &App) -> Result<Vec<Subscription>, TopicError> {
    let triggers = app.manifest.triggers.mqtt.iter();
    let own = triggers.filter(|trigger| trigger.broker.is_none());
    own.map(|trigger| {
        let queue = mqtt_queue(app, &trigger.function);
        Ok((trigger.topic.as_str().parse()?, queue))
    })
    .collect()
}

/// The queue of the messages for a function.
pub(crate) fn mqtt_queue(app: &App, function: &Name) -> QueueId {
    id(app, QueueName::of_function(function, Feed::Mqtt))
}

/// The cron triggers of an app.
pub(crate) fn schedules(app: &App) -> Vec<CronSource> {
    let triggers = app.manifest.triggers.cron.iter();
    triggers
        .map(|trigger| CronSource::new(app.name().clone(), trigger.clone()))
        .collect()
}

/// The stores of an app whose changes are events.
pub(crate) fn changes(app: &App) -> impl Iterator<Item = Changes> {
    app.manifest.triggers.change.iter().map(|trigger| Changes {
        app: app.name().clone(),
        store: trigger.keyvalue.clone(),
        prefix: trigger.prefix.clone(),
        queue: id(app, QueueName::of_function(&trigger.function, Feed::Change)),
    })
}

fn id(app: &App, queue: QueueName) -> QueueId {
    QueueId {
        app: app.name().clone(),
        queue,
    }
}

/// How a queue keeps events.
fn kept(queue: &tombolo_manifest::Queue) -> QueueSettings {
    QueueSettings {
        durability: match queue.durability {
            Durability::Fsync => queue::Durability::Fsync,
            Durability::Memory => queue::Durability::Memory,
        },
        age_ms: milliseconds(queue.retention.age),
        bytes: queue.bytes_max(),
        full: match queue.full {
            WhenFull::Refuse => queue::WhenFull::Refuse,
            WhenFull::DropOldest => queue::WhenFull::DropOldest,
            WhenFull::Compact => queue::WhenFull::Compact,
        },
        order_by: queue.order_by.as_ref().map(|name| name.as_str().to_owned()),
        ..QueueSettings::default()
    }
}

/// How a trigger has events handed out.
fn consumed(settings: &mut QueueSettings, trigger: &QueueTrigger) {
    settings.concurrency = trigger.concurrency;
    settings.rate_per_s = trigger.rate.and_then(NonZeroU32::new);
    settings.batch = BatchSettings {
        events: trigger.batch.max,
        bytes: u32::try_from(trigger.batch.bytes).unwrap_or(u32::MAX),
        wait_ms: milliseconds(trigger.batch.wait),
    };
    settings.retry = RetrySettings {
        attempts: u16::try_from(trigger.retry.attempts).unwrap_or(u16::MAX),
        backoff_ms: milliseconds(trigger.retry.backoff),
        backoff_max_ms: settings
            .retry
            .backoff_max_ms
            .max(milliseconds(trigger.retry.backoff)),
        age_ms: trigger.retry.age.map(milliseconds),
    };
}

fn consumer(app: &App, trigger: &QueueTrigger, settings: &QueueSettings) -> Consumer {
    Consumer {
        queue: id(app, trigger.queue.clone().into()),
        function: app.id(&trigger.function),
        target: Target::Function,
        trigger: "queue",
        batch: TakeBounds {
            events: trigger.batch.max,
            bytes: u32::try_from(trigger.batch.bytes).unwrap_or(u32::MAX),
        },
        reply: trigger
            .reply
            .as_ref()
            .map(|reply| id(app, reply.clone().into())),
        callback: None,
        transactional: trigger.transactional,
        lingers: lingers(app, &trigger.function, settings),
    }
}

fn bounds(settings: &QueueSettings) -> TakeBounds {
    TakeBounds {
        events: settings.batch.events,
        bytes: settings.batch.bytes,
    }
}

fn lease_ms(app: &App, function: &Name, settings: &QueueSettings) -> u64 {
    let wall = wall(app, function).saturating_add(LEASE_MARGIN);
    milliseconds(wall.saturating_add(lingers(app, function, settings)))
}

/// How long a function may be at work for an event of an ordered queue after it was given up.
fn lingers(app: &App, function: &Name, settings: &QueueSettings) -> Duration {
    let concurrent = app
        .functions()
        .get(function)
        .is_some_and(|function| function.isolation == Isolation::Concurrent);
    match concurrent && settings.order_by.is_some() {
        // Its instance ends by then, at the latest.
        true => wall(app, function).saturating_add(Duration::from_secs(1)),
        false => Duration::ZERO,
    }
}

fn wall(app: &App, function: &Name) -> Duration {
    let function = app.functions().get(function);
    let limits = function.map(|function| function.limits);
    limits.unwrap_or_default().budget.wall
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use tombolo_manifest::Manifest;

    use super::*;
    use crate::app::AppSource;

    #[test]
    fn a_manifest_makes_queues_consumers_schedules_and_watched_stores() {
        let text = r#"
            [app]
            name = "plant"
            version = "1.0.0"
            [functions.analyse]
            component = "a.wasm"
            limits = { wall = "20s" }
            grants = { keyvalue = ["machines"], queues = ["plans"], http = ["https://done.example"] }
            [queues.readings]
            durability = "memory"
            retention = { age = "1h", bytes = "1MiB" }
            full = "compact"
            order_by = "subject"
            [queues.plans]
            [queues.orders]
            [[triggers.queue]]
            queue = "orders"
            function = "analyse"
            reply = "plans"
            [[triggers.queue]]
            queue = "readings"
            function = "analyse"
            batch = { max = 100, wait = "250ms" }
            retry = { attempts = 7, backoff = "10min" }
            rate = 50
            [[triggers.cron]]
            schedule = "*/5 * * * *"
            function = "analyse"
            [[triggers.change]]
            keyvalue = "machines"
            prefix = "m/"
            function = "analyse"
        "#;
        let manifest = Manifest::parse(text, "tombolo.toml").unwrap();
        let folder = "/apps/plant".into();
        let app = App::resolve(AppSource { folder, manifest }).unwrap();
        let queues = queues(&app);
        let names: Vec<String> = queues.keys().map(QueueId::to_string).collect();
        let expected = [
            "analyse.async",
            "analyse.callback",
            "analyse.change",
            "analyse.cron",
            "orders",
            "plans",
            "readings",
        ];
        assert_eq!(names, expected.map(|name| format!("plant/{name}")));
        let of = |name: &str| &queues[&id(&app, name.parse().unwrap())];

        let readings = of("readings");
        assert_eq!(
            readings.settings,
            QueueSettings {
                durability: queue::Durability::Memory,
                age_ms: 3_600_000,
                bytes: 1 << 20,
                full: queue::WhenFull::Compact,
                order_by: Some("subject".into()),
                concurrency: 64,
                rate_per_s: NonZeroU32::new(50),
                batch: BatchSettings {
                    events: 100,
                    bytes: 1 << 20,
                    wait_ms: 250
                },
                retry: RetrySettings {
                    attempts: 7,
                    backoff_ms: 600_000,
                    backoff_max_ms: 600_000,
                    age_ms: None
                },
                lease_ms: 30_000,
                ..QueueSettings::default()
            }
        );
        let consumer = readings.consumer.as_ref().unwrap();
        assert_eq!((consumer.trigger, consumer.batch.events), ("queue", 100));
        assert!(consumer.reply.is_none());
        let reply = of("orders").consumer.as_ref().unwrap().reply.as_ref();
        assert_eq!(reply.unwrap().to_string(), "plant/plans");
        assert!(of("plans").consumer.is_none());
        assert_eq!(
            of("analyse.change").settings.order_by.as_deref(),
            Some("subject")
        );
        assert_eq!(
            of("analyse.cron").consumer.as_ref().unwrap().trigger,
            "cron"
        );
        assert_eq!(schedules(&app)[0].queue().to_string(), "plant/analyse.cron");
        let watched: Vec<Changes> = changes(&app).collect();
        assert_eq!((watched[0].prefix.as_str(), watched.len()), ("m/", 1));
        assert_eq!(watched[0].queue.to_string(), "plant/analyse.change");
    }

    #[test]
    fn messages_of_one_topic_come_in_order_from_the_nodes_own_broker_and_from_others() {
        let text = r#"
            [app]
            name = "plant"
            version = "1.0.0"
            [functions.analyse]
            component = "a.wasm"
            isolation = "concurrent"
            [[triggers.mqtt]]
            topic = "m/+"
            function = "analyse"
            [[triggers.mqtt]]
            topic = "n/+"
            function = "analyse"
            broker = { url = "mqtt://broker.example" }
        "#;
        let manifest = Manifest::parse(text, "tombolo.toml").unwrap();
        let folder = "/apps/plant".into();
        let app = App::resolve(AppSource { folder, manifest }).unwrap();
        let own = subscriptions(&app).unwrap();
        let [(filter, queue)] = own.as_slice() else {
            panic!("{own:?}");
        };
        assert_eq!(filter.as_str(), "m/+");
        assert_eq!(queue.to_string(), "plant/analyse.mqtt");
        let all = queues(&app);
        let settings = &all[queue].settings;
        assert_eq!(settings.order_by.as_deref(), Some("mqtttopic"));
        // A concurrent instance may be at work for as long again, and the next of the topic waits for that.
        let lingers = |queue: &QueueId| all[queue].consumer.as_ref().unwrap().lingers;
        assert_eq!((lingers(queue).as_secs(), settings.lease_ms), (31, 71_000));
        let unordered = id(&app, "analyse.async".parse().unwrap());
        assert_eq!(lingers(&unordered), Duration::ZERO);
        assert_eq!(all[&unordered].settings.lease_ms, 40_000);
    }
}
