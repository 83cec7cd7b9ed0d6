//! Ten thousand MQTT devices at once: each is let in, and each is answered while the others rest.

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tombolo_e2e::{App, Device, Hello, Reply};

use crate::mqtt::Node;

const DEVICES: usize = 10_000;
/// Those that connect, or ask, at the same moment.
const AT_ONCE: usize = 100;
/// What this process and the node need each, with room for what else they open.
const FILES: u64 = 11_000;

/// False, with a word, where so many files may not be open.
fn may_open() -> Result<bool> {
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < FILES) {
        eprintln!("skipped: a process may not have {FILES} files open here");
        return Ok(false);
    }
    if limit.current.is_some_and(|current| current < FILES) {
        // The node inherits it.
        let current = Some(FILES);
        setrlimit(Resource::Nofile, Rlimit { current, ..limit })?;
    }
    Ok(true)
}

#[tokio::test]
async fn ten_thousand_devices_rest_and_each_is_answered() -> Result<()> {
    if !may_open()? {
        return Ok(());
    }
    let app = App::new("http-kitchen", "grants = { topics = [\"plans/#\"] }")?;
    let node = Node::up(&app)?;
    let port: u16 = node.port.parse()?;
    let names: Vec<String> = (0..DEVICES)
        .map(|number| format!("device-{number:05}"))
        .collect();
    let mut devices = Vec::with_capacity(DEVICES);
    for some in names.chunks(AT_ONCE) {
        let hellos = some.iter().map(|name| Hello {
            old: true,
            client: name.as_bytes(),
            ..Hello::default()
        });
        let connecting = hellos.map(|hello| Device::connect(port, hello));
        devices.extend(try_join_all(connecting).await?);
    }
    for some in devices.chunks_mut(AT_ONCE) {
        let answered = try_join_all(some.iter_mut().map(Device::ping)).await?;
        assert!(answered.into_iter().all(|answered| answered));
    }
    let last = devices.last_mut().context("no device")?;
    assert_eq!(last.publish(b"a", b"hi", false).await?, Reply::Code(0));
    let answer = node.server.client().get("/").await?;
    assert_eq!(answer.status, 200);
    Ok(())
}
