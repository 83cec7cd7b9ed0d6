//! Clients of other makes, where they are installed: Mosquitto's, paho and MQTT.js.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::client::{PATIENCE, open_config, start};

fn is_installed(program: &str) -> bool {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).exists())
    });
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

#[tokio::test]
async fn mosquitto_clients_understand_the_broker() {
    if !is_installed("mosquitto_pub") || !is_installed("mosquitto_sub") {
        return;
    }
    let broker = start(open_config()).await;
    let port = broker.addresses[0].port().to_string();
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let common = ["-h", "127.0.0.1", "-p", &port, "-V", version, "-q", qos];
            let topic = format!("{version}/{qos}");
            let mut subscriber = Command::new("mosquitto_sub")
                .args(common)
                .args(["-t", &topic, "-C", "2", "-F", "%r %q %t %p"])
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            while broker.handle.figures().subscriptions == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            let publish = async |payload: &str, retain: &[&str]| {
                let published = Command::new("mosquitto_pub")
                    .args(common)
                    .args(["-t", &topic, "-m", payload])
                    .args(retain)
                    .status();
                assert!(published.await.unwrap().success());
            };
            publish("live", &[]).await;
            publish("kept", &["-r"]).await;
            let mut lines = BufReader::new(subscriber.stdout.take().unwrap()).lines();
            for payload in ["live", "kept"] {
                let line = tokio::time::timeout(PATIENCE, lines.next_line())
                    .await
                    .unwrap();
                assert_eq!(line.unwrap().unwrap(), format!("0 {qos} {topic} {payload}"));
            }
            assert!(subscriber.wait().await.unwrap().success());
            let late = Command::new("mosquitto_sub")
                .args(common)
                .args(["-t", &topic, "-C", "1", "-F", "%r %p"])
                .output()
                .await
                .unwrap();
            assert_eq!(late.stdout, b"1 kept\n");
            while broker.handle.figures().subscriptions > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
    }
    broker.stop().await;
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mqtt/foreign_clients")
}

/// Runs a script of a foreign client against a broker, where its library is installed.
async fn run_script(program: &Path, library: &str, script: &str) {
    let folder = folder();
    if !folder.join(library).exists() {
        eprintln!("skipped: `cargo xtask setup` installs the library of {script}");
        return;
    }
    let broker = start(open_config()).await;
    let run = Command::new(program)
        .arg(script)
        .arg(broker.addresses[0].port().to_string())
        .current_dir(folder)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE * 3, run)
        .await
        .unwrap()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(output.stdout, b"ok\n");
    broker.stop().await;
}

#[tokio::test]
async fn paho_understands_the_broker() {
    let python = folder().join(".venv/bin/python");
    run_script(&python, ".venv/installed", "paho_client.py").await;
}

#[tokio::test]
async fn mqtt_js_understands_the_broker() {
    run_script(Path::new("node"), "node_modules/mqtt", "mqttjs_client.cjs").await;
}
