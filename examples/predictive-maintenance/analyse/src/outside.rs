//! What `analyse` reaches: its store, the topics of machines and alarms, the queue `trends`.

use messages::{Alarm, Command, Trend, kind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wstd::http::Error;

use crate::outside::wasi::keyvalue::atomics::{Cas, CasError, swap};
use crate::outside::wasi::keyvalue::store::{Bucket, open};
use crate::outside::wasi::messaging::producer::send;
use crate::outside::wasi::messaging::types::{Client, Message};

wit_bindgen::generate!({ path: "../wit", world: "analyse", generate_all });

const STORE: &str = "watches";
const TRENDS: &str = "trends";

/// The name that stands for the node's broker; every other one stands for the app's queues.
const BROKER: &str = "mqtt";

/// What is reached, open.
pub struct Outside {
    bucket: Bucket,
    broker: Client,
    queues: Client,
}

/// A state, and the handle to store its successor only if nothing else was stored meanwhile.
pub struct Loaded<T> {
    pub state: T,
    pub handle: Cas,
}

impl Outside {
    pub fn connect() -> Result<Self, Error> {
        Ok(Self {
            bucket: open(STORE)?,
            broker: Client::connect(BROKER)?,
            queues: Client::connect("queues")?,
        })
    }

    /// The stored state, or a new one.
    pub fn load<T: DeserializeOwned + Default>(&self, key: &str) -> Result<Loaded<T>, Error> {
        let handle = Cas::new(&self.bucket, key)?;
        let state = handle
            .current()?
            .map(|bytes| serde_json::from_slice(&bytes))
            .transpose()?
            .unwrap_or_default();
        Ok(Loaded { state, handle })
    }

    /// Whether nobody else came first.
    pub fn store<T: Serialize>(handle: Cas, state: &T) -> Result<bool, Error> {
        match swap(handle, &serde_json::to_vec(state)?) {
            Ok(()) => Ok(true),
            Err(CasError::CasFailed(_)) => Ok(false),
            Err(CasError::StoreError(error)) => Err(error.into()),
        }
    }

    /// Answers a machine.
    pub fn command(&self, machine: &str, command: &Command) -> Result<(), Error> {
        let id = format!("command-{}", command.position);
        let topic = format!("machines/{machine}/command");
        let message = message([&id, kind::COMMAND, machine], command)?;
        Ok(send(&self.broker, &topic, message)?)
    }

    /// Tells people.
    pub fn alarm(&self, machine: &str, position: u64, alarm: &Alarm) -> Result<(), Error> {
        let id = format!("alarm-{position}");
        let message = message([&id, kind::ALARM, machine], alarm)?;
        Ok(send(&self.broker, &format!("alarms/{machine}"), message)?)
    }

    /// Hands what a message came to to the statistics. The id is made of what the message is about, so that the queue
    /// drops it when the message is delivered, and so published, again.
    pub fn trend(&self, about: &str, position: u64, trend: &Trend) -> Result<(), Error> {
        let id = format!("{about}-{position}");
        let message = message([&id, kind::TREND, &trend.machine], trend)?;
        Ok(send(&self.queues, TRENDS, message)?)
    }
}

fn message<T: Serialize>([id, kind, machine]: [&str; 3], body: &T) -> Result<Message, Error> {
    let message = Message::new(&serde_json::to_vec(body)?);
    message.set_content_type("application/json");
    let source = format!("/analyse/{machine}");
    for (name, value) in [
        ("ce-id", id),
        ("ce-source", &source),
        ("ce-type", kind),
        ("ce-subject", machine),
    ] {
        message.add_metadata(name, value);
    }
    Ok(message)
}
