//! Sessions of Mosquitto's clients that outlive `kill -9` of the node: subscriptions, and messages that wait or were not acknowledged.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use anyhow::{Result, ensure};
use tombolo_e2e::App;

use crate::mqtt::{ANYTHING, Node, PATIENCE, TAKES, app, is_installed};

/// `mosquitto_sub` with a session that is kept; killed when dropped.
struct Subscriber {
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Subscriber {
    fn start(port: &str, version: &str) -> Result<Self> {
        let mut child = Command::new("mosquitto_sub")
            .args(["-h", "localhost", "-p", port, "-V", version, "-i", "device"])
            .args([
                "-c", "-x", "3600", "-q", "2", "-t", "orders/#", "-F", "%q %p",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (sender, lines) = sync_channel(10_000);
        let stdout = child.stdout.take();
        // Ends with the pipe, which ends with the process.
        thread::spawn(move || {
            for line in stdout
                .into_iter()
                .flat_map(|out| BufReader::new(out).lines())
            {
                if line.is_ok_and(|line| sender.send(line).is_err()) {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// The next message: its QoS and its payload.
    fn message(&self) -> Result<String> {
        Ok(self.lines.recv_timeout(PATIENCE)?)
    }
}

fn away(node: &Node, version: &str) -> Result<()> {
    let common = ["-c", "-x", "3600", "-q", "2", "-t", "orders/#", "-E"];
    let output = node.client(
        "mosquitto_sub",
        &[&common[..], &["-V", version, "-i", "device"]].concat(),
    )?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

fn order(node: &Node, qos: &str, number: usize) -> Result<()> {
    node.publish("orders/1", &["-q", qos, "-m", &number.to_string()])
}

/// Twenty messages, by turns of QoS 1 and 2.
fn publish(node: &Node) -> Result<Vec<String>> {
    let mut expected = Vec::new();
    for number in 0..20 {
        let qos = ["1", "2"][number % 2];
        order(node, qos, number)?;
        expected.push(format!("{qos} {number}"));
    }
    Ok(expected)
}

/// Mosquitto hands a message of QoS 2 on when it is released, so that others may pass it by.
fn by_qos(messages: Vec<String>) -> [Vec<String>; 2] {
    let (second, first) = messages.into_iter().partition(|one| one.starts_with('2'));
    [first, second]
}

#[test]
fn what_waited_for_a_client_that_is_away_waits_after_kill_9() -> Result<()> {
    if !is_installed() {
        return Ok(());
    }
    for version in ["mqttv311", "mqttv5"] {
        let app: App = app(TAKES, ANYTHING, "")?;
        let mut node = Node::up(&app)?;
        away(&node, version)?;
        let expected = publish(&node)?;
        node.server.kill()?;
        let mut node = Node::up(&app)?;
        let device = Subscriber::start(&node.port, version)?;
        let got = (0..20).map(|_| device.message());
        assert_eq!(by_qos(got.collect::<Result<_>>()?), by_qos(expected));
        // What it has got it does not get again.
        order(&node, "1", 20)?;
        assert_eq!(device.message()?, "1 20");
        order(&node, "2", 21)?;
        assert_eq!(device.message()?, "2 21");
        drop(device);
        node.server.kill()?;
        let node = Node::up(&app)?;
        order(&node, "1", 22)?;
        let device = Subscriber::start(&node.port, version)?;
        // It was killed with its acknowledgements perhaps on their way.
        while device.message()? != "1 22" {}
    }
    Ok(())
}

#[test]
fn a_client_that_is_connected_when_the_node_is_killed_finds_its_session_again() -> Result<()> {
    if !is_installed() {
        return Ok(());
    }
    for version in ["mqttv311", "mqttv5"] {
        let app = app(TAKES, ANYTHING, "")?;
        let mut node = Node::up(&app)?;
        // It comes back by itself, and knows which messages of QoS 2 it has.
        away(&node, version)?;
        let device = Subscriber::start(&node.port, version)?;
        let mut expected = publish(&node)?;
        node.server.kill()?;
        let address = format!("127.0.0.1:{}", node.port);
        let node = Node::of(app.up_with(&["--mqtt-listen", &address])?)?;
        order(&node, "2", 20)?;
        expected.push("2 20".into());
        let mut got: Vec<String> = Vec::new();
        while got.len() < expected.len() {
            let message = device.message()?;
            // Only what has QoS 1 may come again.
            if message.starts_with('2') || !got.contains(&message) {
                got.push(message);
            }
        }
        assert_eq!(by_qos(got), by_qos(expected));
    }
    Ok(())
}
