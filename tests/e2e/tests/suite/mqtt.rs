//! MQTT with Mosquitto's own clients: messages as events, functions that publish, rules, TLS, releases, `kill -9`; and Mosquitto as the broker.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tombolo_e2e::{App, Server};

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

fn are_installed(programs: &[&str]) -> bool {
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
fn until(app: &App, name: &str, counter: &str, value: u64) -> Result<()> {
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
const PASSWORD: &str = "pbkdf2-sha256$1000$00112233445566778899aabbccddeeff$588372775fb38b5711b6f36b465e293dc7b793e008550ee8a10bb26a8e7f85b8";

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

/// Writes a certificate of the authority and its key into the folder.
fn certificate(folder: &Path, authority: &Issuer<'_, KeyPair>, name: &str) -> Result<[String; 2]> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, authority)?;
    let files = ["pem", "key"].map(|end| folder.join(format!("{name}.{end}")));
    std::fs::write(&files[0], certificate.pem())?;
    std::fs::write(&files[1], key.serialize_pem())?;
    Ok(files.map(|file| file.display().to_string()))
}

#[test]
fn a_client_certificate_is_a_user() -> Result<()> {
    if !is_installed() {
        return Ok(());
    }
    let app = app(TAKES, ANYTHING, MACHINES)?;
    let folder = app.folder();
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // OpenSSL takes a certificate for self-signed whose authority has the same name.
    let name = &mut params.distinguished_name;
    name.push(DnType::CommonName, "the plant's authority");
    let key = KeyPair::generate()?;
    let ca = folder.join("ca.pem").display().to_string();
    std::fs::write(&ca, params.self_signed(&key)?.pem())?;
    let authority = Issuer::new(params, key);
    certificate(folder, &authority, "localhost")?;
    let [pem, key] = certificate(folder, &authority, "press")?;
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

/// Mosquitto itself, with the user `node` and the password `secret`; killed when dropped.
struct Mosquitto {
    child: std::process::Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Mosquitto {
    fn start(port: u16) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (config, users) = (folder.path().join("config"), folder.path().join("users"));
        let made = Command::new("mosquitto_passwd")
            .args(["-b", "-c"])
            .arg(&users)
            .args(["node", "secret"])
            .status()?;
        if !made.success() {
            bail!("mosquitto_passwd: {made}");
        }
        let lines = format!(
            "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\nuser root\n",
            users.display()
        );
        std::fs::write(&config, lines)?;
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(&config)
            .stderr(std::process::Stdio::null())
            .spawn()?;
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > deadline {
                bail!("Mosquitto does not listen");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self {
            child,
            port,
            _folder: folder,
        })
    }

    fn publish(&self, topic: &str, payload: &str) -> Result<()> {
        let port = self.port.to_string();
        let output = Command::new("mosquitto_pub")
            .args(["-p", &port, "-u", "node", "-P", "secret", "-q", "1"])
            .args(["-t", topic, "-m", payload])
            .output()?;
        if !output.status.success() {
            bail!("mosquitto_pub: {output:?}");
        }
        Ok(())
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_broker_elsewhere_keeps_what_comes_while_the_node_is_away_and_may_go_away_itself() -> Result<()>
{
    let needed = ["mosquitto", "mosquitto_passwd", "mosquitto_pub"];
    if !are_installed(&needed) {
        return Ok(());
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mosquitto = Mosquitto::start(free.port())?;
    let trigger = format!(
        "\n[[triggers.mqtt]]\ntopic = \"machines/#\"\nfunction = \"main\"\n\
         broker = {{ url = \"mqtt://{free}\", username = \"node\", password = \"plant\" }}\n"
    );
    let app = app(TAKES, "", &trigger)?;
    std::fs::write(app.folder().join("node.toml"), "secrets = \"secrets\"\n")?;
    std::fs::create_dir(app.folder().join("secrets"))?;
    std::fs::write(app.folder().join("secrets/plant"), "secret\n")?;
    const CONNECTED: &str = "connected to an mqtt broker";

    let mut server = app.up_with(&["-v"])?;
    server.wait_for_log(CONNECTED)?;
    assert!(!server.log().contains("broker at"), "{}", server.log());
    mosquitto.publish("machines/1", "a")?;
    mosquitto.publish("elsewhere", "b")?;
    until(&app, "main.mqtt", "delivered", 1)?;
    server.kill()?;
    for number in 0..5 {
        mosquitto.publish("machines/2", &number.to_string())?;
    }
    let server = app.up_with(&["-v"])?;
    until(&app, "main.mqtt", "delivered", 5)?;

    drop(mosquitto);
    server.wait_for_log("no connection to an mqtt broker")?;
    let before = server.log().matches(CONNECTED).count();
    let mosquitto = Mosquitto::start(free.port())?;
    let deadline = Instant::now() + PATIENCE;
    while server.log().matches(CONNECTED).count() == before {
        if Instant::now() > deadline {
            bail!("no new connection:\n{}", server.log());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    mosquitto.publish("machines/3", "c")?;
    until(&app, "main.mqtt", "delivered", 6)
}
