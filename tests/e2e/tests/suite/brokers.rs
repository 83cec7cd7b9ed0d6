//! Triggers at a broker elsewhere, Mosquitto: what comes while one of the two is away, and whose certificates the node trusts.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tombolo_e2e::{App, Authority};

use crate::mqtt::{TAKES, app, are_installed, until};

/// How long anything that must happen may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);
const CONNECTED: &str = "connected to an mqtt broker";
const UNTRUSTED: &str = "nobody whom the node trusts vouches for the broker's certificate";

/// Mosquitto itself, with the user `node` and the password `secret`; killed when dropped.
struct Mosquitto {
    child: Child,
    port: u16,
    /// The authority of its certificate, where it has one.
    authority: Option<PathBuf>,
    _folder: tempfile::TempDir,
}

impl Mosquitto {
    /// On this port, and with TLS when there is an authority for its certificate.
    fn start(port: u16, authority: Option<&Authority>) -> Result<Self> {
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
        let mut lines = format!(
            "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\nuser root\n",
            users.display()
        );
        if let Some(authority) = authority {
            let [certificate, key] = authority.issue("localhost")?;
            let (certificate, key) = (certificate.display(), key.display());
            lines += &format!("certfile {certificate}\nkeyfile {key}\n");
        }
        std::fs::write(&config, lines)?;
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(&config)
            .stderr(Stdio::null())
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
            authority: authority.map(|authority| authority.file.clone()),
            _folder: folder,
        })
    }

    fn publish(&self, topic: &str, payload: &str) -> Result<()> {
        let port = self.port.to_string();
        let mut command = Command::new("mosquitto_pub");
        command
            .args(["-h", "localhost", "-p", &port])
            .args(["-u", "node", "-P", "secret", "-q", "1"])
            .args(["-t", topic, "-m", payload]);
        if let Some(authority) = &self.authority {
            command.arg("--cafile").arg(authority);
        }
        let output = command.output()?;
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

fn is_installed() -> bool {
    are_installed(&["mosquitto", "mosquitto_passwd", "mosquitto_pub"])
}

fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}

/// An app whose function gets `machines/#` of the broker at this URL.
fn subscribed(url: &str) -> Result<App> {
    let trigger = format!(
        "\n[[triggers.mqtt]]\ntopic = \"machines/#\"\nfunction = \"main\"\n\
         broker = {{ url = \"{url}\", username = \"node\", password = \"plant\" }}\n"
    );
    let app = app(TAKES, "", &trigger)?;
    std::fs::create_dir(app.folder().join("secrets"))?;
    std::fs::write(app.folder().join("secrets/plant"), "secret\n")?;
    configure(&app, None)?;
    Ok(app)
}

/// The operator's config, with a file of authorities perhaps.
fn configure(app: &App, authorities: Option<&Path>) -> Result<()> {
    let mut config = "secrets = \"secrets\"\n".to_owned();
    if let Some(file) = authorities {
        config += &format!(
            "[mqtt]\nremote_authorities = {:?}\n",
            file.display().to_string()
        );
    }
    std::fs::write(app.folder().join("node.toml"), config)?;
    Ok(())
}

#[test]
fn a_broker_elsewhere_keeps_what_comes_while_the_node_is_away_and_may_go_away_itself() -> Result<()>
{
    if !is_installed() {
        return Ok(());
    }
    let port = free_port()?;
    let mosquitto = Mosquitto::start(port, None)?;
    let app = subscribed(&format!("mqtt://127.0.0.1:{port}"))?;

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
    let mosquitto = Mosquitto::start(port, None)?;
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

#[tokio::test]
async fn a_broker_of_a_private_authority_is_trusted_where_the_operator_names_it() -> Result<()> {
    if !is_installed() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let plant = Authority::new(folder.path(), "plant")?;
    let other = Authority::new(folder.path(), "other")?;
    let port = free_port()?;
    let mosquitto = Mosquitto::start(port, Some(&plant))?;
    let url = format!("mqtts://localhost:{port}");
    let app = subscribed(&url)?;
    let connected = format!("tombolo_mqtt_remote_connected{{app=\"proof\",broker=\"{url}\"}}");

    // The public authorities alone, then a private one that has nothing to do with the broker.
    for authorities in [None, Some(other.file.as_path())] {
        configure(&app, authorities)?;
        let server = app.up_with(&["-v"])?;
        server.wait_for_log(UNTRUSTED)?;
        assert!(!server.log().contains(CONNECTED), "{}", server.log());
        assert_eq!(app.api()?.metric(&connected).await?, 0.0);
    }

    // The right one, which a node that runs takes over too.
    let server = app.up_with(&["-v"])?;
    server.wait_for_log(UNTRUSTED)?;
    std::fs::copy(&plant.file, &other.file)?;
    server.wait_for_log(CONNECTED)?;
    app.api()?.until_metric(&connected, 1.0).await?;
    mosquitto.publish("machines/1", "a")?;
    until(&app, "main.mqtt", "delivered", 1)
}

#[test]
fn a_file_of_authorities_that_cannot_be_used_is_named_at_the_start() -> Result<()> {
    let app = subscribed("mqtts://localhost:1")?;
    let file = app.folder().join("plant.pem");
    for text in [None, Some("no certificate")] {
        if let Some(text) = text {
            std::fs::write(&file, text)?;
        }
        configure(&app, Some(Path::new("plant.pem")))?;
        let output = app.run(&["up", "--listen", "127.0.0.1:0"])?;
        assert_eq!(output.code, Some(3), "{output:?}");
        for part in ["TB0504", "mqtt.remote_authorities", "plant.pem"] {
            assert!(output.stderr.contains(part), "{}", output.stderr);
        }
    }
    Ok(())
}
