//! Ten thousand MQTT devices at once: each is let in, and each is answered while the others rest.

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tombolo_e2e::App;

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

/// A device of MQTT 3.1.1 that need not say anything.
async fn device(port: u16, number: usize) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = format!("device-{number:05}");
    let mut connect = b"\x10\x18\x00\x04MQTT\x04\x02\x00\x00\x00\x0c".to_vec();
    connect.extend(name.as_bytes());
    stream.write_all(&connect).await?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).await?;
    ensure!(connack == *b"\x20\x02\x00\x00", "{name}: {connack:?}");
    Ok(stream)
}

async fn ping(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"\xc0\x00").await?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await?;
    ensure!(answer == *b"\xd0\x00", "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn ten_thousand_devices_rest_and_each_is_answered() -> Result<()> {
    if !may_open()? {
        return Ok(());
    }
    let app = App::new("http-kitchen", "grants = { topics = [\"plans/#\"] }")?;
    let node = Node::up(&app)?;
    let port: u16 = node.port.parse()?;
    let mut devices = Vec::with_capacity(DEVICES);
    while devices.len() < DEVICES {
        let next = devices.len()..devices.len() + AT_ONCE;
        devices.extend(try_join_all(next.map(|number| device(port, number))).await?);
    }
    for some in devices.chunks_mut(AT_ONCE) {
        try_join_all(some.iter_mut().map(ping)).await?;
    }
    let last = devices.last_mut().context("no device")?;
    last.write_all(b"\x32\x07\x00\x01a\x00\x07hi").await?;
    let mut puback = [0; 4];
    last.read_exact(&mut puback).await?;
    assert_eq!(puback, *b"\x40\x02\x00\x07");
    let answer = node.server.client().get("/").await?;
    assert_eq!(answer.status, 200);
    Ok(())
}
