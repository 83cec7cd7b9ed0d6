//! MQTT with Mosquitto's own clients: messages as events, functions that publish, rules, TLS, releases, `kill -9`.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tombolo_e2e::{App, Authority, Device, Hello, Reply, Server};

/// How long anything that must happen may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A function that acknowledges every event.
pub const TAKES: &str = "http-kitchen";
/// A function that answers every event with 500, so that it stays in its queue for a while.
const FAILS: &str = "kv-draft2";
pub const ANYTHING: &str =
    "grants = { keyvalue = [\"default\"], topics = [\"plans/#\", \"loop/#\"] }";
const MACHINES: &str = "\n[[triggers.mqtt]]\ntopic = \"machines/#\"\nfunction = \"main\"\n";

/// False, with a word, where Mosquitto's clients are not installed.
pub fn is_installed() -> bool {
    are_installed(&["mosquitto_pub", "mosquitto_sub"])
}

pub fn are_installed(programs: &[&str]) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        |program: &str| std::env::split_paths(&paths).any(|folder| folder.join(program).exists());
    let missing = programs.iter().find(|program| !is_there(program));
    if let Some(missing) = missing {
        eprintln!("skipped: {missing} is not installed");
    }
    missing.is_none()
}

pub fn app(guest: &str, settings: &str, more: &str) -> Result<App> {
    let app = App::new(guest, settings)?;
    change(&app, |manifest| manifest + more)?;
    Ok(app)
}

fn change(app: &App, change: impl FnOnce(String) -> String) -> Result<()> {
    let manifest = app.folder().join("tombolo.toml");
    let text = std::fs::read_to_string(&manifest)?;
    std::fs::write(manifest, change(text))?;
    Ok(())
}

/// A node with its broker on a port of its own.
pub struct Node {
    pub server: Server,
    pub port: String,
}

impl Node {
    pub fn up(app: &App) -> Result<Self> {
        Self::of(app.up_with(&["--mqtt-listen", "127.0.0.1:0"])?)
    }

    pub fn of(server: Server) -> Result<Self> {
        server.wait_for_log("broker at mqtt")?;
        let log = server.log();
        let (_, address) = log.split_once("broker at mqtt").context("no broker")?;
        let address = address.lines().next().unwrap_or_default();
        let port = address.rsplit(':').next().unwrap_or_default().to_owned();
        Ok(Self { server, port })
    }

    pub fn client(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let output = Command::new(program)
            .args(["-h", "localhost", "-p", &self.port])
            .args(arguments)
            .output()?;
        Ok(output)
    }

    /// Publishes a message and fails when the client says that it did not work.
    pub fn publish(&self, topic: &str, arguments: &[&str]) -> Result<()> {
        let output = self.client("mosquitto_pub", &[&["-t", topic], arguments].concat())?;
        if !output.status.success() || !output.stderr.is_empty() {
            bail!("mosquitto_pub {arguments:?}: {output:?}");
        }
        Ok(())
    }

    /// The first message that the filter selects.
    fn first(&self, filter: &str, arguments: &[&str]) -> Result<String> {
        let seconds = PATIENCE.as_secs().to_string();
        let common = ["-t", filter, "-C", "1", "-W", &seconds];
        let output = self.client("mosquitto_sub", &[&common, arguments].concat())?;
        if !output.status.success() {
            bail!("mosquitto_sub {filter}: {output:?}");
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn json(app: &App, arguments: &[&str]) -> Result<Value> {
    let output = app.run(&[&["queue"], arguments, &["--json"]].concat())?;
    if output.code != Some(0) {
        bail!("{output:?}");
    }
    Ok(serde_json::from_str(&output.stdout)?)
}

/// Waits until a counter of a queue has this value.
pub fn until(app: &App, name: &str, counter: &str, value: u64) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listed = json(app, &["list"])?;
        let queues = listed["items"].as_array().context("no list")?;
        let found = queues.iter().find(|queue| queue["name"] == name);
        if found.is_some_and(|queue| queue["counters"][counter] == value) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{name} does not get {counter} {value}: {listed:#}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_message_is_an_event_of_the_function_whose_filter_selects_its_topic() -> Result<()> {
    if !is_installed() {
        return Ok(());
    }
    let app = app(FAILS, ANYTHING, MACHINES)?;
    let node = Node::up(&app)?;
    node.publish(
        "machines/7/speed",
        &["-i", "press", "-q", "0", "-m", "1720"],
    )?;
    node.publish("machines/7", &["-q", "1", "-m", "x"])?;
    node.publish("machines", &["-q", "2", "-m", "y"])?;
    node.publish("elsewhere", &["-q", "1", "-m", "z"])?;
    until(&app, "main.mqtt", "published", 3)?;
    let listed = json(&app, &["peek", "main.mqtt"])?;
    let event = &listed["items"][0]["event"];
    for (attribute, value) in [
        ("type", "tombolo.mqtt.message"),
        ("source", "/tombolo/mqtt/press"),
        ("subject", "machines/7/speed"),
        ("mqtttopic", "machines/7/speed"),
    ] {
        assert_eq!(event[attribute], value, "{event:#}");
    }
    assert_eq!(event["data_base64"], "MTcyMA==", "{event:#}");
    Ok(())
}

#[test]
fn messages_that_are_cloud_events_keep_their_identity_and_broken_ones_are_refused() -> Result<()> {
    if !is_installed() {
        return Ok(());
    }
    let app = app(TAKES, ANYTHING, MACHINES)?;
    let node = Node::up(&app)?;
    let property =
        |name: &'static str, value: &'static str| ["-D", "PUBLISH", "user-property", name, value];
    let attributes = [
        property("specversion", "1.0"),
        property("id", "42"),
        property("type", "speed"),
    ]
    .concat();
    let source = property("source", "/m/7");
    let common = ["-V", "5", "-q", "1", "-m", "1720"];
    let whole = [&common[..], &attributes, &source].concat();
    node.publish("machines/7", &whole)?;
    node.publish("machines/7", &whole)?;
    let broken = [&["-t", "machines/7"], &common[..], &attributes].concat();
    let refused = node.client("mosquitto_pub", &broken)?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("ayload format invalid"), "{refused:?}");
    node.publish("machines/7", &["-q", "1", "-m", "last"])?;
    until(&app, "main.mqtt", "delivered", 2)?;
    until(&app, "main.mqtt", "published", 2)
}

#[tokio::test]
async fn a_message_is_played_by_invoke_as_a_client_would_send_it() -> Result<()> {
    let notes = "env = { NOTES = \"notes\" }\ngrants = { keyvalue = [\"notes\"] }";
    let look = "grants = { keyvalue = [\"notes\"] }";
    let trigger = "\n[[triggers.mqtt]]\ntopic = \"#\"\nfunction = \"main\"\n";
    let app = App::with_functions(&[("look", "kv-draft2", look), ("main", "events", notes)])?;
    let app = app.with(trigger)?;
    let played = ["invoke", "main", "--trigger", "mqtt", "--data", "1720"];
    let alone = app.run(&played)?;
    assert_eq!(alone.code, Some(0), "{alone:?}");
    assert_eq!(alone.stdout, "as it was told");

    let node = Node::up(&app)?;
    let hello = Hello {
        client: b"invoke",
        ..Hello::default()
    };
    let mut device = Device::connect(node.port.parse()?, hello).await?;
    let sent = device.publish(b"tombolo/invoke", b"1720", false).await?;
    assert_eq!(sent, Reply::Code(0));
    until(&app, "main.mqtt", "delivered", 1)?;
    let beside = app.run(&played)?;
    assert_eq!(beside.code, Some(0), "{beside:?}");

    let client = node.server.client();
    let keys = client.get("/keys?store=notes").await?.text();
    let mut seen = Vec::new();
    for key in keys.split(',') {
        let noted = client.get(&format!("/get?store=notes&key={key}")).await?;
        let mut noted: Value = serde_json::from_slice(&noted.body)?;
        let headers = noted.as_object_mut().context("no headers")?;
        // What no two events have in common.
        for own in ["ce-id", "ce-time", "traceparent", "x-request-id"] {
            assert!(headers.remove(own).is_some(), "{own} is missing: {keys}");
        }
        // Of the way that the data came by; the body is compared.
        headers.remove("content-length");
        seen.push(noted);
    }
    assert_eq!(seen.len(), 3, "{keys}");
    assert_eq!(seen[0]["ce-mqtttopic"], "tombolo/invoke");
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:#?}");
    Ok(())
}

#[tokio::test]
async fn functions_publish_to_the_topics_they_were_granted() -> Result<()> {
    if !is_installed() {
        return Ok(());
    }
    let app = app(TAKES, ANYTHING, "")?;
    let node = Node::up(&app)?;
    let client = node.server.client();
    let path = "/publish-topic?topic=plans/7&retain=true&qos=1";
    let answer = client.post(path, "stop").await?;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(node.first("plans/+", &[])?, "stop\n");
    let told = node.first("plans/+", &["-V", "5", "-F", "%P"])?;
    assert!(told.contains("source:/proof/main"), "{told}");
    for (topic, status) in [("other", 403), ("plans/%23", 403), ("plans/7&qos=9", 400)] {
        let path = format!("/publish-topic?topic={topic}");
        let answer = client.post(&path, "x").await?;
        assert_eq!(answer.status, status, "{topic}: {}", answer.text());
    }
    Ok(())
}

#[tokio::test]
async fn functions_publish_to_topics_by_messaging() -> Result<()> {
    if !is_installed() {
        return Ok(());
    }
    let app = app("messaging-draft", ANYTHING, "")?;
    let node = Node::up(&app)?;
    let client = node.server.client();
    let sent = client
        .post(
            "/send?client=mqtt&topic=plans/8&mqtt-retain=true&type=plan",
            "go",
        )
        .await?;
    assert_eq!(sent.text(), "sent");
    assert_eq!(node.first("plans/8", &[])?, "go\n");
    let denied = client.post("/send?client=mqtt&topic=other", "x").await?;
    assert!(denied.text().starts_with("denied: "), "{}", denied.text());
    let queue = client
        .post("/send?client=default&topic=plans/8", "x")
        .await?;
    assert!(queue.text().starts_with("denied: "), "{}", queue.text());
    Ok(())
}

#[test]
fn a_function_that_triggers_itself_by_a_topic_comes_to_an_end() -> Result<()> {
    if !is_installed() {
        return Ok(());
    }
    let settings = format!("{ANYTHING}\nenv = {{ TOPIC = \"loop/on\" }}");
    let more = "\n[[triggers.mqtt]]\ntopic = \"loop/#\"\nfunction = \"main\"\n";
    let app = app("messaging-draft", &settings, more)?;
    let node = Node::up(&app)?;
    node.publish("loop/start", &["-q", "1", "-m", "round"])?;
    until(&app, "main.mqtt", "delivered", 16)?;
    until(&app, "main.mqtt", "published", 17)?;
    let listed = json(&app, &["peek", "main.mqtt"])?;
    assert_eq!(listed["items"][0]["event"]["tombolohops"], "16");
    Ok(())
}

#[test]
fn what_was_acknowledged_is_delivered_after_kill_9() -> Result<()> {
    if !is_installed() {
        return Ok(());
    }
    let app = app(FAILS, ANYTHING, MACHINES)?;
    let mut node = Node::up(&app)?;
    for number in 0..20 {
        let (topic, payload) = (format!("machines/{number}"), number.to_string());
        node.publish(&topic, &["-q", "1", "-m", &payload])?;
    }
    node.server.kill()?;
    change(&app, |manifest| {
        manifest.replace("kv_draft2.wasm", "http_kitchen.wasm")
    })?;
    let _node = Node::up(&app)?;
    until(&app, "main.mqtt", "delivered", 20)
}

#[test]
fn what_is_retained_is_there_after_kill_9_until_it_is_cleared() -> Result<()> {
    if !is_installed() {
        return Ok(());
    }
    let app = app(TAKES, ANYTHING, "")?;
    let mut node = Node::up(&app)?;
    node.publish("state/1", &["-r", "-q", "1", "-m", "old"])?;
    node.publish("state/1", &["-r", "-q", "1", "-m", "on"])?;
    node.publish("state/0", &["-r", "-q", "1", "-m", "gone"])?;
    node.publish("state/0", &["-r", "-q", "1", "-n"])?;
    node.server.kill()?;
    let node = Node::up(&app)?;
    let options = ["-v", "--retained-only"];
    assert_eq!(node.first("state/#", &options)?, "state/1 on\n");
    Ok(())
}

#[test]
fn a_new_release_brings_its_own_filters() -> Result<()> {
    if !is_installed() {
        return Ok(());
    }
    let app = app(TAKES, ANYTHING, MACHINES)?;
    let node = Node::up(&app)?;
    node.publish("machines/1", &["-q", "1", "-m", "x"])?;
    until(&app, "main.mqtt", "delivered", 1)?;
    change(&app, |manifest| {
        let renamed = manifest.replace("machines/#", "presses/#");
        renamed.replace("version = \"1.0.0\"", "version = \"2.0.0\"")
    })?;
    node.server.signal("HUP")?;
    node.server.wait_for_log("serving version 2.0.0")?;
    node.publish("machines/2", &["-q", "1", "-m", "x"])?;
    node.publish("presses/2", &["-q", "1", "-m", "x"])?;
    until(&app, "main.mqtt", "delivered", 2)?;
    until(&app, "main.mqtt", "published", 2)
}

/// `secret`, with few iterations.
pub const PASSWORD: &str = "pbkdf2-sha256$1000$00112233445566778899aabbccddeeff$588372775fb38b5711b6f36b465e293dc7b793e008550ee8a10bb26a8e7f85b8";

#[test]
fn only_known_users_come_in_and_only_to_their_topics() -> Result<()> {
    if !is_installed() {
        return Ok(());
    }
    let app = app(TAKES, ANYTHING, MACHINES)?;
    let config = format!(
        "[[mqtt.users]]\nname = \"press\"\npassword = \"{PASSWORD}\"\n\
         [[mqtt.rules]]\nuser = \"press\"\ntopics = \"machines/{{user}}/#\"\npublish = true\n"
    );
    std::fs::write(app.folder().join("node.toml"), config)?;
    let node = Node::up(&app)?;
    let message = ["-V", "5", "-q", "1", "-m", "x"];
    let known = [&message[..], &["-u", "press", "-P", "secret"]].concat();
    node.publish("machines/press/speed", &known)?;
    let elsewhere = [&["-t", "machines/other/speed"], &known[..]].concat();
    let refused = node.client("mosquitto_pub", &elsewhere)?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("ot authorized"), "{refused:?}");
    let wrong = ["-u", "press", "-P", "guess"];
    for credentials in [&[][..], &wrong] {
        let all = [&["-t", "machines/press/speed"], &message[..], credentials].concat();
        let refused = node.client("mosquitto_pub", &all)?;
        assert!(!refused.status.success(), "{credentials:?}: {refused:?}");
    }
    let listening = [
        "-t",
        "machines/press/#",
        "-u",
        "press",
        "-P",
        "secret",
        "-C",
        "1",
    ];
    let refused = node.client("mosquitto_sub", &listening)?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("denied"), "{refused:?}");
    until(&app, "main.mqtt", "delivered", 1)?;
    until(&app, "main.mqtt", "published", 1)
}

#[test]
fn a_client_certificate_is_a_user() -> Result<()> {
    if !is_installed() {
        return Ok(());
    }
    let app = app(TAKES, ANYTHING, MACHINES)?;
    let folder = app.folder();
    let authority = Authority::new(folder, "ca")?;
    let ca = authority.file.display().to_string();
    authority.issue("localhost")?;
    let [pem, key] = authority.issue("press")?;
    let [pem, key] = [pem, key].map(|file| file.display().to_string());
    let config = "[[mqtt.listeners]]\naddress = \"127.0.0.1:0\"\n\
         tls = { certificate = \"localhost.pem\", key = \"localhost.key\", client_authorities = \"ca.pem\", client_certificate_required = true }\n\
         [[mqtt.rules]]\nuser = \"press\"\ntopics = \"machines/{user}/#\"\npublish = true\n";
    std::fs::write(folder.join("node.toml"), config)?;
    let node = Node::of(app.up()?)?;
    let message = ["-V", "5", "-q", "1", "-m", "x", "--cafile", &ca];
    let known = [&message[..], &["--cert", &pem, "--key", &key]].concat();
    node.publish("machines/press/speed", &known)?;
    let elsewhere = [&["-t", "machines/other/speed"], &known[..]].concat();
    let refused = node.client("mosquitto_pub", &elsewhere)?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("ot authorized"), "{refused:?}");
    let unknown = [&["-t", "machines/press/speed"], &message[..]].concat();
    let refused = node.client("mosquitto_pub", &unknown)?;
    assert!(!refused.status.success(), "{refused:?}");
    until(&app, "main.mqtt", "delivered", 1)?;
    until(&app, "main.mqtt", "published", 1)
}

#[test]
fn an_address_in_use_says_so_with_help() -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let app = app(TAKES, ANYTHING, MACHINES)?;
    let output = app.run(&["up", "--listen", "127.0.0.1:0", "--mqtt-listen", &address])?;
    assert_eq!(output.code, Some(7), "{output:?}");
    for part in ["TB0503", &address, "--mqtt-listen 127.0.0.1:0"] {
        assert!(output.stderr.contains(part), "{}", output.stderr);
    }
    Ok(())
}
