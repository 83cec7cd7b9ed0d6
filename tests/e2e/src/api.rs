//! The control API of a node, as any program speaks to it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::Request;
use serde_json::Value;

use crate::{Answer, Client, body};

/// How long anything that must happen may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);
const PREFIX: &str = "/_tombolo/api/v1";

/// A client of the node that runs with a store.
#[derive(Clone)]
pub struct Api {
    client: Client,
    token: String,
}

impl Api {
    /// The node whose store this is; it has to run.
    pub fn of(store: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(store.join("node.json"))?;
        let address: Value = serde_json::from_str(&text)?;
        let origin = address["admin"].as_str().context("no address")?;
        let token = address["token"].as_str().context("no token")?;
        Ok(Self {
            client: Client::http1(origin.trim_start_matches("http://").parse()?),
            token: token.to_owned(),
        })
    }

    /// What is at a path below `/_tombolo/api/v1`.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let request = Request::get(format!("{PREFIX}{path}"));
        let request = request.header("authorization", format!("Bearer {}", self.token));
        let answer = self.client.send(request.body(body(""))?).await?;
        if answer.status != 200 {
            bail!("{path}: {} {}", answer.status, answer.text());
        }
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// The value of a metric with all of its labels, such as `tombolo_mqtt_dropped_total{reason="full"}`.
    pub async fn metric(&self, series: &str) -> Result<f64> {
        let text = self.client.get("/_tombolo/metrics").await?.text();
        let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        let found = lines.find(|(seen, _)| *seen == series);
        let (_, value) = found.with_context(|| format!("no {series} in:\n{text}"))?;
        Ok(value.parse()?)
    }

    /// Waits until a metric has this value.
    pub async fn until_metric(&self, series: &str, value: f64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.metric(series).await?;
            if found == value {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{series} is {found} and does not become {value}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends something of a content type there.
    pub async fn post(&self, path: &str, kind: &str, bytes: Vec<u8>) -> Result<Answer> {
        let request = Request::post(format!("{PREFIX}{path}"))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", kind);
        self.client.send(request.body(body(bytes))?).await
    }

    /// Sends events to a queue of the app `proof`, with their ids as data as well.
    pub async fn send(&self, queue: &str, ids: &[String]) -> Result<Answer> {
        let event = |id: &String| {
            let text = format!("data of {id}");
            serde_json::json!({"specversion": "1.0", "id": id, "source": "/m", "type": "t", "data": text})
        };
        let events: Vec<Value> = ids.iter().map(event).collect();
        let path = format!("/apps/proof/queues/{queue}/events");
        let kind = "application/cloudevents-batch+json";
        self.post(&path, kind, serde_json::to_vec(&events)?).await
    }

    /// A queue of the app `proof`.
    pub async fn queue(&self, queue: &str) -> Result<Value> {
        self.get(&format!("/apps/proof/queues/{queue}")).await
    }

    /// The queue once it is right.
    pub async fn until(&self, queue: &str, right: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.queue(queue).await?;
            if right(&found) {
                return Ok(found);
            }
            if Instant::now() > deadline {
                bail!("{queue} does not become right: {found:#}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The events of a queue of the app `proof`, at most 1000.
    pub async fn events(&self, queue: &str) -> Result<Vec<Value>> {
        let path = format!("/apps/proof/queues/{queue}/events?limit=1000");
        let page = self.get(&path).await?;
        Ok(page["items"].as_array().context("no list")?.clone())
    }
}
