//! The peer: a nats-server of its own for each measurement, one file-backed stream without replicas, the peer's own client.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use async_nats::jetstream::consumer::{AckPolicy, Consumer, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use crate::load::{Load, id};
use crate::meter::{Meter, Process};

const SUBJECT: &str = "events.measured";
const STREAM: &str = "events";
const CONSUMER: &str = "function";
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The most that an atomic batch may have.
const BATCH_MAX: u64 = 1000;

/// A server to start.
pub struct Server {
    pub program: PathBuf,
    /// `sync_interval`; its default when absent.
    pub sync: Option<String>,
    pub folder: PathBuf,
}

/// A server that is up, and a connection to it. Killed when dropped.
struct Running {
    child: Child,
    client: Client,
    context: Context,
}

/// How an event is acknowledged by its consumer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Acknowledgement {
    /// Sent, and not answered.
    Plain,
    /// The server confirms each.
    Confirmed,
}

impl Server {
    async fn start(&self) -> Result<Running> {
        fs::create_dir_all(&self.folder)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let sync = self.sync.as_ref();
        let sync = sync.map_or(String::new(), |sync| format!("sync_interval: {sync}\n"));
        let config = format!(
            "listen: 127.0.0.1:{port}\njetstream {{\nstore_dir: {:?}\n{sync}}}\n",
            self.folder.display().to_string()
        );
        let file = self.folder.join("nats.conf");
        fs::write(&file, config)?;
        let mut child = Command::new(&self.program)
            .arg("--config")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        match connect(port, &mut child).await {
            Ok((client, context)) => Ok(Running {
                child,
                client,
                context,
            }),
            Err(error) => {
                child.kill().ok();
                child.wait().ok();
                Err(error)
            }
        }
    }
}

/// Waits until the server answers for JetStream, too.
async fn connect(port: u16, child: &mut Child) -> Result<(Client, Context)> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Ok(client) = async_nats::connect(format!("127.0.0.1:{port}")).await {
            let context = jetstream::new(client.clone());
            if context.query_account().await.is_ok() {
                return Ok((client, context));
            }
        }
        if let Some(status) = child.try_wait()? {
            bail!("nats-server ended with {status}");
        }
        ensure!(Instant::now() < deadline, "nats-server does not answer");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Running {
    fn process(&self) -> Process {
        Process::with_id(self.child.id())
    }

    async fn make_stream(&self, retention: RetentionPolicy) -> Result<()> {
        let config = Config {
            name: STREAM.into(),
            subjects: vec!["events.*".into()],
            storage: StorageType::File,
            num_replicas: 1,
            retention,
            allow_atomic_publish: true,
            ..Config::default()
        };
        self.context.create_stream(config).await?;
        Ok(())
    }

    async fn make_consumer(&self, pending: i64) -> Result<Consumer<pull::Config>> {
        let stream = self.context.get_stream(STREAM).await?;
        let config = pull::Config {
            durable_name: Some(CONSUMER.into()),
            ack_policy: AckPolicy::Explicit,
            max_ack_pending: pending,
            ..pull::Config::default()
        };
        Ok(stream.create_consumer(config).await?)
    }

    /// One event, acknowledged and deduplicated by its id.
    async fn publish(&self, number: u64, payload: Bytes) -> Result<()> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id(number));
        let sent = self.context.publish_with_headers(SUBJECT, headers, payload);
        let answer = sent.await?.await?;
        ensure!(!answer.duplicate, "an event was not accepted");
        Ok(())
    }

    /// An atomic batch: its last event commits it, and is answered.
    async fn publish_batch(&self, first: u64, batch: u64, payload: Bytes) -> Result<()> {
        let name = format!("batch-{first}");
        let headers = |index: u64| {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", id(first + index));
            headers.insert("Nats-Batch-Id", name.as_str());
            headers.insert("Nats-Batch-Sequence", (index + 1).to_string());
            headers
        };
        for index in 0..batch - 1 {
            let sent = self
                .client
                .publish_with_headers(SUBJECT, headers(index), payload.clone());
            sent.await?;
        }
        let mut last = headers(batch - 1);
        last.insert("Nats-Batch-Commit", "1");
        let answer = self
            .client
            .request_with_headers(SUBJECT, last, payload)
            .await?;
        let answer: Value = serde_json::from_slice(&answer.payload)?;
        ensure!(
            answer["batch"].as_str() == Some(&name),
            "a batch was not accepted: {answer}"
        );
        Ok(())
    }

    async fn fill(&self, events: u64, load: Load) -> Result<()> {
        let payload = load.payload();
        let batch = |first| {
            let batch = BATCH_MAX.min(events - first);
            self.publish_batch(first, batch, payload.clone())
        };
        let batches = (0..events).step_by(BATCH_MAX as usize).map(batch);
        let mut batches = futures_util::stream::iter(batches).buffer_unordered(4);
        while batches.try_next().await?.is_some() {}
        Ok(())
    }
}

pub async fn publish(server: &Server, load: Load) -> Result<Value> {
    let running = server.start().await?;
    running.make_stream(RetentionPolicy::Limits).await?;
    let payload = load.payload();
    let running = &running;
    load.run(running.process(), |first| {
        let payload = payload.clone();
        async move {
            match load.batch {
                1 => running.publish(first, payload).await,
                batch => running.publish_batch(first, batch, payload).await,
            }
        }
    })
    .await
}

/// A work queue, as ours is: what is acknowledged is gone. Ends when the server has all acknowledgements.
pub async fn consume(
    server: &Server,
    events: u64,
    load: Load,
    acknowledgement: Acknowledgement,
) -> Result<Value> {
    let running = server.start().await?;
    running.make_stream(RetentionPolicy::WorkQueue).await?;
    running.fill(events, load).await?;
    let outstanding = load.outstanding * load.batch as usize;
    let mut consumer = running.make_consumer(i64::try_from(outstanding)?).await?;
    let meter = Meter::start(running.process())?;
    let pull = consumer.stream().max_messages_per_batch(outstanding);
    let messages = pull.messages().await?.take(events as usize);
    let acknowledged = messages.map(|message| async move {
        let message = message?;
        let done = match acknowledgement {
            Acknowledgement::Plain => message.ack().await,
            Acknowledgement::Confirmed => message.double_ack().await,
        };
        done.map_err(|error| anyhow!("an acknowledgement failed: {error}"))
    });
    let mut acknowledged = std::pin::pin!(acknowledged.buffer_unordered(outstanding));
    while acknowledged.try_next().await?.is_some() {}
    loop {
        let found = consumer.info().await?;
        if found.num_ack_pending == 0 && found.num_pending == 0 {
            break;
        }
    }
    meter.stop(events, load.event_bytes)
}

/// From the start of a server whose stream is full to the first event.
pub async fn restart(server: &Server, events: u64, load: Load, in_order: bool) -> Result<Value> {
    {
        let mut running = server.start().await?;
        running.make_stream(RetentionPolicy::WorkQueue).await?;
        running.make_consumer(1000).await?;
        running.fill(events, load).await?;
        if in_order {
            let id = running.child.id().to_string();
            Command::new("kill").args(["-TERM", &id]).status()?;
            running.child.wait()?;
        }
    }
    let begun = Instant::now();
    let running = server.start().await?;
    let opened = begun.elapsed();
    first_event(&running).await?;
    let first = begun.elapsed();
    let mut stream = running.context.get_stream(STREAM).await?;
    let found = stream.info().await?.state.messages;
    ensure!(found == events, "{found} of {events} are there");
    Ok(json!({
        "open_ms": opened.as_secs_f64() * 1e3,
        "first_event_ms": first.as_secs_f64() * 1e3,
        "resident_mib": running.process().resident_mib()?,
    }))
}

async fn first_event(running: &Running) -> Result<()> {
    let consumer: Consumer<pull::Config> = running
        .context
        .get_consumer_from_stream(CONSUMER, STREAM)
        .await?;
    let mut messages = consumer.fetch().max_messages(1).messages().await?;
    let message = messages.next().await.context("no event was delivered")?;
    message.map_err(|error| anyhow!("no event was delivered: {error}"))?;
    Ok(())
}

/// The folder of one measurement, removed when it is over.
pub struct Folder(PathBuf);

impl Folder {
    pub fn make(path: &Path) -> Result<Self> {
        if path.exists() {
            fs::remove_dir_all(path)?;
        }
        fs::create_dir_all(path)?;
        Ok(Self(path.into()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}
