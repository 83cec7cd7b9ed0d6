//! One MQTT 5 client: publishes with QoS 1 as CloudEvents, counts what the broker acknowledged, hears one topic filter.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use messages::{Channel, Inspection};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, PublishProperties, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::time::timeout;

/// How long an answer of the broker or of a function may take before the replay gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Messages that may wait for their acknowledgement.
const ARRIVING_MAX: u16 = 64;
const PACKET_BYTES_MAX: u32 = 1 << 20;

/// A message that came on the subscribed topic.
pub struct Heard {
    pub at: Instant,
    pub payload: Vec<u8>,
}

pub struct Link {
    client: AsyncClient,
    events: EventLoop,
    name: String,
    /// Publications that the broker has not acknowledged yet, and those that it has.
    open: u64,
    acknowledged: u64,
    heard: VecDeque<Heard>,
}

impl Link {
    /// Connects and subscribes; returns when the broker has granted the subscription.
    pub async fn connect(broker: &str, name: &str, filter: &str) -> Result<Self> {
        let (host, port) = broker
            .rsplit_once(':')
            .with_context(|| format!("`{broker}` is no HOST:PORT"))?;
        let mut options = MqttOptions::new(name, host, port.parse()?);
        options
            .set_max_packet_size(Some(PACKET_BYTES_MAX))
            .set_outgoing_inflight_upper_limit(ARRIVING_MAX);
        let (client, events) = AsyncClient::new(options, usize::from(ARRIVING_MAX));
        let mut link = Self {
            client,
            events,
            name: name.to_owned(),
            open: 0,
            acknowledged: 0,
            heard: VecDeque::new(),
        };
        link.client.subscribe(filter, QoS::AtLeastOnce).await?;
        loop {
            if let Event::Incoming(Packet::SubAck(granted)) = link.poll().await? {
                ensure!(
                    granted
                        .return_codes
                        .iter()
                        .all(|code| matches!(code, SubscribeReasonCode::Success(_))),
                    "{name} may not subscribe to {filter}: {:?}",
                    granted.return_codes
                );
                return Ok(link);
            }
        }
    }

    /// Publishes an event with QoS 1; does not wait for the acknowledgement. The number tells it from others on its
    /// channel: published again it is the same event, and taken once.
    pub async fn publish(
        &mut self,
        machine: &str,
        channel: Channel,
        number: u64,
        payload: Vec<u8>,
    ) -> Result<()> {
        self.acknowledged_but(u64::from(ARRIVING_MAX) / 2).await?;
        let json = payload.first() == Some(&b'{');
        let attributes = [
            ("specversion", "1.0"),
            ("id", &number.to_string()),
            ("source", &format!("/machines/{machine}/{}", channel.name())),
            ("type", "maintenance.measured"),
            ("subject", machine),
        ];
        let properties = PublishProperties {
            content_type: Some(
                if json {
                    "application/json"
                } else {
                    "application/octet-stream"
                }
                .to_owned(),
            ),
            user_properties: attributes
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
            ..PublishProperties::default()
        };
        self.client
            .publish_with_properties(
                channel.topic(machine),
                QoS::AtLeastOnce,
                false,
                payload,
                properties,
            )
            .await?;
        self.open += 1;
        Ok(())
    }

    pub async fn inspect(&mut self, machine: &str, inspection: &Inspection) -> Result<()> {
        let payload = serde_json::to_vec(inspection)?;
        self.publish(machine, Channel::Inspection, 0, payload).await
    }

    /// Waits until everything was acknowledged; returns how much that is.
    pub async fn acknowledged(&mut self) -> Result<u64> {
        self.acknowledged_but(0).await?;
        Ok(self.acknowledged)
    }

    pub fn acknowledged_so_far(&self) -> u64 {
        self.acknowledged
    }

    /// The next message that is heard, however long it takes.
    pub async fn hear(&mut self) -> Result<Heard> {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Ok(heard);
            }
            self.poll().await?;
        }
    }

    /// The next message, which has to come soon.
    pub async fn hear_soon(&mut self) -> Result<Heard> {
        let name = self.name.clone();
        let heard = timeout(PATIENCE, self.hear()).await;
        heard.with_context(|| format!("{name} has heard nothing for {PATIENCE:?}"))?
    }

    /// What was heard until an instant; goes on acknowledging meanwhile.
    pub async fn hear_until(&mut self, instant: Instant) -> Result<Vec<Heard>> {
        let deadline = tokio::time::Instant::from_std(instant);
        while let Ok(event) = tokio::time::timeout_at(deadline, self.events.poll()).await {
            let event = event.with_context(|| format!("{} lost its connection", self.name))?;
            self.note(&event)?;
        }
        Ok(self.heard.drain(..).collect())
    }

    /// Waits until all but so many publications are acknowledged.
    async fn acknowledged_but(&mut self, open: u64) -> Result<()> {
        let name = self.name.clone();
        let waiting = async {
            while self.open > open {
                self.poll().await?;
            }
            Ok(())
        };
        let waited = timeout(PATIENCE, waiting).await;
        waited.with_context(|| format!("{name} waits in vain for acknowledgements"))?
    }

    async fn poll(&mut self) -> Result<Event> {
        let event = self.events.poll().await;
        let event = event.with_context(|| format!("{} lost its connection", self.name))?;
        self.note(&event)?;
        Ok(event)
    }

    fn note(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Incoming(Packet::PubAck(answer)) => {
                if !matches!(
                    answer.reason,
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers
                ) {
                    bail!("{} was refused a message: {:?}", self.name, answer.reason);
                }
                self.open = self.open.saturating_sub(1);
                self.acknowledged += 1;
            }
            Event::Incoming(Packet::Publish(message)) => {
                self.heard.push_back(Heard {
                    at: Instant::now(),
                    payload: message.payload.to_vec(),
                });
            }
            _ => {}
        }
        Ok(())
    }
}
