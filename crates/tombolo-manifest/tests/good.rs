//! Files that are right: what they mean, and their defaults.

use std::time::Duration;

use tombolo_core::Budget;
use tombolo_manifest::{
    Batch, Durability, HttpTarget, Isolation, LogFormat, Manifest, Missed, NodeConfig, Queue,
    Retry, SocketGrant, Tier, WhenFull,
};

const MANIFEST: &str = r##"#:schema ../../docs/reference/manifest.schema.json
[app]
name = "smart-traffic"
version = "1.2.0"

[functions.signal]
component = "target/wasm32-wasip2/release/signal.wasm"
build     = { command = "cargo build --release --target wasm32-wasip2", watch = ["src/**", "Cargo.toml"] }
limits    = { memory = "64MiB", wall = "2s", cpu = "500ms", concurrency = 200, waiting = 1000, response = "8MiB", logs = "64KiB", hostcall = "1MiB" }
isolation = "serial"
grants    = { http = ["https://weather.example"], functions = ["billing/charge"], keyvalue = ["signals"], queues = ["plans"], topics = ["plans/#"], secrets = ["weather-key"], directories = ["data::/data:ro"], sockets = ["db.example:*"] }
env       = { CITY = "Portland" }
config    = { horizon = "90s" }

[functions.plain]
component = "plain.wasm"

[queues.readings]
durability = "memory"
retention  = { age = "7d", bytes = "512MiB" }
full       = "compact"
order_by   = "subject"

[queues.plans]

[[triggers.cron]]
schedule = "0 */5 * * * *"
timezone = "America/Los_Angeles"
missed   = "all"
function = "plain"

[[triggers.cron]]
schedule = "30 2 * * *"
function = "plain"

[[triggers.queue]]
queue = "readings"
function = "signal"
retry = { attempts = 8, backoff = "500ms", age = "1d" }
concurrency = 4
rate = 100
reply = "plans"
transactional = true

[[triggers.queue]]
queue = "plans"
function = "plain"
batch = { max = 100, bytes = "256KiB", wait = "250ms" }

[[triggers.mqtt]]
topic = "detectors/+/events"
function = "signal"

[[triggers.mqtt]]
topic = "detectors/+/events"
qos = 2
function = "signal"
broker = { url = "mqtts://broker.example:8883", username = "node", password = "broker" }

[[triggers.change]]
keyvalue = "signals"
prefix = "phase/"
function = "plain"

[[triggers.http]]
route = "/signals/{id}"
function = "signal"

[[triggers.http]]
route = "/{*path}"
static = "public/"
"##;

#[test]
fn a_manifest_means_what_it_says() {
    let manifest = Manifest::parse(MANIFEST, "tombolo.toml").unwrap();
    let signal = &manifest.functions[&"signal".parse().unwrap()];
    assert_eq!(signal.limits.budget.memory_bytes, 64 << 20);
    assert_eq!(signal.limits.budget.wall, Duration::from_secs(2));
    assert_eq!(signal.limits.budget.cpu, Duration::from_millis(500));
    assert_eq!(signal.isolation, Isolation::Serial);
    assert_eq!(signal.build.as_ref().unwrap().watch.len(), 2);
    assert_eq!(signal.grants.functions[0].to_string(), "billing/charge");
    assert!(signal.grants.http[0].allows("https", "weather.example", 443));
    assert!(!signal.grants.directories[0].writable);
    assert!(matches!(
        signal.grants.sockets[0],
        SocketGrant::Endpoint { port: None, .. }
    ));
    assert_eq!(signal.env["CITY"], "Portland");
    assert_eq!(signal.config["horizon"], "90s");
    let [first, second] = manifest.triggers.http.as_slice() else {
        panic!("two triggers");
    };
    assert_eq!(
        first.target,
        HttpTarget::Function("signal".parse().unwrap())
    );
    assert_eq!(second.target, HttpTarget::Static("public/".into()));
}

#[test]
fn queues_and_their_triggers_mean_what_they_say() {
    let manifest = Manifest::parse(MANIFEST, "tombolo.toml").unwrap();
    let readings = &manifest.queues[&"readings".parse().unwrap()];
    assert_eq!(readings.durability, Durability::Memory);
    assert_eq!(readings.retention.age, Duration::from_secs(7 * 86_400));
    assert_eq!(readings.bytes_max(), 512 << 20);
    assert_eq!(readings.full, WhenFull::Compact);
    assert_eq!(readings.order_by.as_ref().unwrap().as_str(), "subject");
    let plans = &manifest.queues[&"plans".parse().unwrap()];
    assert_eq!(*plans, Queue::default());
    assert_eq!(
        (plans.durability, plans.full),
        (Durability::Fsync, WhenFull::Refuse)
    );
    assert_eq!(plans.retention.age, Duration::from_secs(30 * 86_400));
    assert_eq!(plans.bytes_max(), 1 << 30);
    let in_memory = Queue {
        durability: Durability::Memory,
        ..Queue::default()
    };
    assert_eq!(in_memory.bytes_max(), 16 << 20);

    let [first, second] = manifest.triggers.queue.as_slice() else {
        panic!("two consumers");
    };
    assert_eq!(first.batch, Batch::default());
    assert_eq!((first.batch.max, first.batch.wait), (1, Duration::ZERO));
    assert_eq!(
        first.retry,
        Retry {
            attempts: 8,
            backoff: Duration::from_millis(500),
            age: Some(Duration::from_secs(86_400)),
        }
    );
    assert_eq!((first.concurrency, first.rate), (4, Some(100)));
    assert_eq!(first.reply, Some("plans".parse().unwrap()));
    assert!(first.transactional && !second.transactional);
    assert_eq!(second.retry, Retry::default());
    assert_eq!((second.batch.max, second.batch.bytes), (100, 256 << 10));
}

#[test]
fn schedules_topics_and_changes_mean_what_they_say() {
    let manifest = Manifest::parse(MANIFEST, "tombolo.toml").unwrap();
    let [first, second] = manifest.triggers.cron.as_slice() else {
        panic!("two schedules");
    };
    assert_eq!(first.schedule.as_str(), "0 */5 * * * *");
    assert_eq!(first.timezone.as_str(), "America/Los_Angeles");
    assert_eq!(first.missed, Missed::All);
    assert_eq!(
        (second.timezone.as_str(), second.missed),
        ("UTC", Missed::Once)
    );
    let [own, other] = manifest.triggers.mqtt.as_slice() else {
        panic!("two subscriptions");
    };
    assert!(own.topic.matches("detectors/7/events") && own.broker.is_none());
    assert_eq!((own.qos, other.qos), (1, 2));
    let broker = other.broker.as_ref().unwrap();
    assert_eq!(broker.url, "mqtts://broker.example:8883");
    assert_eq!(broker.password, Some("broker".parse().unwrap()));
    assert_eq!(manifest.triggers.change[0].prefix, "phase/");
    let grants = &manifest.functions[&"signal".parse().unwrap()].grants;
    assert_eq!(grants.queues, ["plans".parse().unwrap()]);
    assert!(grants.topics[0].matches("plans/7"));
}

#[test]
fn a_function_is_granted_nothing_unless_it_says_so() {
    let manifest = Manifest::parse(MANIFEST, "tombolo.toml").unwrap();
    let plain = &manifest.functions[&"plain".parse().unwrap()];
    assert_eq!(plain.grants, tombolo_manifest::Grants::default());
    assert!(plain.env.is_empty() && plain.config.is_empty());
    assert_eq!(plain.isolation, Isolation::Fresh);
    assert_eq!(plain.limits.budget, Budget::default());
    assert_eq!(
        (plain.limits.concurrency, plain.limits.waiting),
        (200, 1000)
    );
}

#[test]
fn a_manifest_that_is_written_reads_the_same() {
    let manifest = Manifest::parse(MANIFEST, "tombolo.toml").unwrap();
    let written = toml::to_string(&manifest).unwrap();
    assert_eq!(Manifest::parse(&written, "written").unwrap(), manifest);
}

#[test]
fn an_empty_config_is_the_default_and_survives_writing() {
    let config = NodeConfig::parse("", "node.toml").unwrap();
    assert_eq!(config, NodeConfig::default());
    let written = toml::to_string(&config).unwrap();
    assert_eq!(NodeConfig::parse(&written, "written").unwrap(), config);
}

#[test]
fn a_config_means_what_it_says() {
    let text = r#"
        name = "harbour-1"
        tier = "device"
        [http]
        listen = ["0.0.0.0:8080", "[::]:8080"]
        tls = { certificate = "cert.pem", key = "key.pem" }
        header_bytes_max = "32KiB"
        [mqtt]
        sessions_max = 100
        [[mqtt.listeners]]
        address = "0.0.0.0:8883"
        tls = { certificate = "cert.pem", key = "key.pem", client_authorities = "ca.pem" }
        [[mqtt.users]]
        name = "press-7"
        password = "pbkdf2-sha256$1$00$0000000000000000000000000000000000000000000000000000000000000000"
        [[mqtt.rules]]
        user = "press-7"
        topics = "machines/{client}/#"
        publish = true
        [runtime]
        memory_bytes_max = "1GiB"
        [telemetry]
        otlp = "http://127.0.0.1:4318"
        sample_ratio = 1
        log_format = "json"
    "#;
    let config = NodeConfig::parse(text, "node.toml").unwrap();
    assert_eq!(config.tier, Tier::Device);
    assert_eq!(config.http.listen.len(), 2);
    assert_eq!(config.http.header_bytes_max, 32 << 10);
    assert_eq!(config.http.body_bytes_max, 16 << 20);
    assert_eq!(config.http.tls.unwrap().key.to_str(), Some("key.pem"));
    assert_eq!(config.mqtt.sessions_max, 100);
    assert_eq!(config.mqtt.retained_max, 50_000);
    let listener = &config.mqtt.listeners[0];
    assert!(!listener.anonymous && listener.tls.is_some());
    assert_eq!(config.mqtt.users[0].name, "press-7");
    let rule = &config.mqtt.rules[0];
    assert!(rule.publish && !rule.subscribe);
    assert_eq!(config.runtime.memory_bytes_max, Some(1 << 30));
    assert_eq!(config.telemetry.sample_ratio, 1.0);
    assert_eq!(config.telemetry.log_format, LogFormat::Json);
}

#[test]
fn a_hundred_thousand_routes_are_read() {
    let mut text = MANIFEST.to_owned();
    for index in 0..99_998 {
        text.push_str(&format!(
            "\n[[triggers.http]]\nroute = \"/{index}\"\nfunction = \"plain\"\n"
        ));
    }
    let manifest = Manifest::parse(&text, "tombolo.toml").unwrap();
    assert_eq!(manifest.triggers.http.len(), 100_000);
}

#[test]
fn a_flood_of_problems_is_cut() {
    let long = "x".repeat(100_000);
    let mut text = format!("a = [\"{long}\"] \n");
    for index in 0..10_000 {
        text.push_str(&format!("key{index} = \"{}\"\n", &long[..9]));
    }
    let problems = Manifest::parse(&text, "tombolo.toml").unwrap_err();
    assert_eq!(problems.iter().count(), 100);
    assert!(
        problems
            .iter()
            .all(|problem| problem.source_line.len() < 300)
    );
}
