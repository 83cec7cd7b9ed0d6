//! A disk that is full or read-only: refusals that say so, nothing that was accepted lost, and work goes on afterwards.

use anyhow::{Context, Result};
use serde_json::Value;
use tombolo_e2e::{Answer, Api, App, Server, SmallDisk};

const KEPT: &str = "\n[queues.readings]\nretention = { bytes = \"1GiB\" }\n";

fn app() -> Result<App> {
    App::new("kv-draft2", "grants = { keyvalue = [\"default\"] }")?.with(KEPT)
}

/// `tombolo up` of the app with its store on the disk.
fn up(app: &App, disk: &SmallDisk) -> Result<Server> {
    let mut command = disk.command();
    command.args(["up", "--listen", "127.0.0.1:0", "--directory"]);
    command
        .arg(app.folder())
        .arg("--store")
        .arg(disk.inside().join("store"));
    Server::start(&mut command)
}

fn api(disk: &SmallDisk) -> Result<Api> {
    Api::of(&disk.outside().join("store"))
}

/// Sends an event of 8 KiB.
async fn send(api: &Api, id: usize) -> Result<Answer> {
    let data = "x".repeat(8 << 10);
    let id = id.to_string();
    let event = serde_json::json!({"specversion": "1.0", "id": id, "source": "/m", "type": "t", "data": data});
    let kind = "application/cloudevents+json";
    let bytes = serde_json::to_vec(&event)?;
    api.post("/apps/proof/queues/readings/events", kind, bytes)
        .await
}

async fn depth(api: &Api) -> Result<Value> {
    Ok(api.queue("readings").await?["depth"].clone())
}

#[tokio::test]
async fn a_full_disk_refuses_and_keeps_what_it_has() -> Result<()> {
    let Some(disk) = SmallDisk::mount(64)? else {
        return Ok(());
    };
    let app = app()?;
    let mut server = up(&app, &disk)?;
    let mut sent = api(&disk)?;
    let ballast = disk.fill(20 << 20)?;
    // Keys fill the disk faster than events do, and are refused sooner, since they are longer.
    let mut keys = 0;
    let refused = loop {
        let value = vec![b'v'; 400 << 10];
        let path = format!("/set?key=k{keys}");
        let set = server.client().post(&path, value).await?;
        if set.status != 200 {
            break set;
        }
        keys += 1;
        anyhow::ensure!(keys < 500, "the disk is never full");
    };
    assert!(
        refused.text().contains("disk of the store is full"),
        "{}",
        refused.text()
    );
    let mut accepted = 0;
    let refused = loop {
        let answer = send(&sent, accepted).await?;
        if answer.status != 202 {
            break answer;
        }
        accepted += 1;
        anyhow::ensure!(accepted < 500, "the disk is never full");
    };
    assert_eq!(refused.status, 507, "{}", refused.text());
    assert_eq!(refused.problem()?["code"], "TB0506");
    assert!(keys > 0);
    assert_eq!(depth(&sent).await?, accepted);
    assert_eq!(server.client().get("/exists?key=k0").await?.text(), "true");

    // A power cut meanwhile changes nothing.
    server.kill()?;
    server = up(&app, &disk)?;
    sent = api(&disk)?;
    assert_eq!(depth(&sent).await?, accepted);
    let keys_kept = server
        .client()
        .get(&format!("/exists?key=k{}", keys - 1))
        .await?;
    assert_eq!(keys_kept.text(), "true");
    std::fs::remove_file(ballast)?;
    assert_eq!(send(&sent, 1000).await?.status, 202);
    let set = server.client().post("/set?key=later", "value").await?;
    assert_eq!(set.status, 200, "{}", set.text());
    server.terminate()?;
    assert!(server.wait()?.success(), "{}", server.log());
    Ok(())
}

#[tokio::test]
async fn a_read_only_disk_is_named_and_nothing_on_it_changes() -> Result<()> {
    let Some(disk) = SmallDisk::mount(64)? else {
        return Ok(());
    };
    let app = app()?;
    let mut server = up(&app, &disk)?;
    assert_eq!(
        api(&disk)?
            .send("readings", &["1".to_owned()])
            .await?
            .status,
        202
    );
    server.terminate()?;
    assert!(server.wait()?.success(), "{}", server.log());

    disk.remount("ro")?;
    let refused = up(&app, &disk)
        .err()
        .context("it serves from a read-only disk")?;
    let text = refused.to_string();
    for part in ["error[TB0005]", "Read-only file system", "--store DIR"] {
        assert!(text.contains(part), "no {part}: {text}");
    }
    disk.remount("rw")?;
    let _server = up(&app, &disk)?;
    assert_eq!(api(&disk)?.queue("readings").await?["depth"], 1);
    Ok(())
}
