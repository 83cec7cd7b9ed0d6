//! One connection to a broker elsewhere: subscribes, has the journal keep what comes, acknowledges then, and comes back when it is lost.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf as _;
use rustls::CertificateError;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tombolo_store::{KeyValue, StoreError, Write};

use super::packets::{self, FromBroker, WINDOW};
use super::{RemoteBroker, Trusted};
use crate::mqtt::auth::random_fraction;
use crate::mqtt::encode::{self, Goodbye, Verdict};
use crate::mqtt::inbound::{Arrived, Inbound};
use crate::mqtt::message::{Message, Qos, Refusal};
use crate::mqtt::socket::{Stream, Turn, Wire};
use crate::mqtt::subscriptions::Intake;
use crate::mqtt::wire::{Answer, Publish, Version, WireError, frame};

const KEEP_ALIVE_SECONDS: u16 = 30;
/// How long a broker may take for each step of a beginning.
const STEP_MAX: Duration = Duration::from_secs(10);
/// How long the first pause is before the broker is asked again, and the longest.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The longest packet that is read.
const PACKET_BYTES_MAX: usize = 2 << 20;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the broker's URL cannot be understood")]
    Url,
    #[error("the broker's name is no name for a certificate")]
    Name(#[from] InvalidDnsNameError),
    #[error(
        "nobody whom the node trusts vouches for the broker's certificate: see `mqtt.remote_authorities`"
    )]
    Untrusted(#[source] io::Error),
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the broker took longer than {} s", STEP_MAX.as_secs())]
    Slow,
    #[error("the broker is silent")]
    Silent,
    #[error("the broker closed the connection")]
    Closed,
    #[error("the broker refuses the connection: {0}")]
    Denied(String),
    #[error("the broker ended the connection: {0}")]
    Goodbye(String),
    #[error("what the broker sends is not MQTT 5")]
    Wire(#[from] WireError),
    #[error("what the broker sends breaks the protocol: {0:?}")]
    Protocol(Goodbye),
    #[error("a message cannot be kept now")]
    Refused(#[from] Refusal),
    #[error("the store does not remember the subscriptions")]
    Store(#[from] StoreError),
}

/// The connection of one app to one broker.
pub struct Subscriber {
    broker: RemoteBroker,
    /// The name of the session at the broker, and what it is remembered by.
    client: String,
    trusted: Arc<Trusted>,
    intake: Arc<Intake>,
    memory: KeyValue,
    /// Messages of QoS 2 that the journal has and the broker has not released.
    received: BTreeSet<u16>,
}

impl Subscriber {
    pub fn new(
        broker: RemoteBroker,
        store: &str,
        trusted: Arc<Trusted>,
        intake: Arc<Intake>,
        memory: KeyValue,
    ) -> Self {
        // One session for each store, app, broker and user.
        let user = broker.username.as_deref().unwrap_or_default();
        let whole = format!("{store}\n{}\n{}\n{user}", broker.app, broker.url);
        let digest = blake3::hash(whole.as_bytes()).to_hex();
        let digest = digest.get(..12).unwrap_or_default().to_owned();
        Self {
            client: format!("tombolo-{digest}"),
            broker,
            trusted,
            intake,
            memory,
            received: BTreeSet::new(),
        }
    }

    /// Keeps the connection up until it is told to stop; tells each time when it is there or gone.
    pub async fn run(mut self, stop: &CancellationToken, tell: impl Fn(bool)) {
        let mut pause = PAUSE_FIRST;
        loop {
            let connected = || tell(true);
            let begun = Instant::now();
            let ended = self.session(stop, connected).await;
            tell(false);
            let Err(lost) = ended else {
                return;
            };
            let (broker, app) = (&self.broker.url, &self.broker.app);
            let cause = std::error::Error::source(&lost).map(ToString::to_string);
            if begun.elapsed() > PAUSE_MAX {
                pause = PAUSE_FIRST;
            }
            tracing::warn!(%broker, %app, error = %lost, cause, retry_s = pause.as_secs(), "no connection to an mqtt broker");
            let jittered = pause.mul_f64(0.5 + random_fraction() / 2.0);
            let slept = stop.run_until_cancelled(tokio::time::sleep(jittered));
            if slept.await.is_none() {
                return;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One connection from its beginning to its end; `Ok` when it was told to stop.
    async fn session(
        &mut self,
        stop: &CancellationToken,
        connected: impl Fn(),
    ) -> Result<(), Lost> {
        let (tls, host, port) = parts(&self.broker.url).ok_or(Lost::Url)?;
        let begin = async {
            let name = host.trim_matches(['[', ']']);
            let stream = in_time(async { Ok(TcpStream::connect((name, port)).await?) }).await?;
            stream.set_nodelay(true)?;
            if !tls {
                return Ok::<_, Lost>(Box::new(stream) as Box<dyn Stream>);
            }
            let server = ServerName::try_from(name.to_owned())?;
            let connecting = TlsConnector::from(self.trusted.current()).connect(server, stream);
            let stream = in_time(async { connecting.await.map_err(no_tls) }).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        };
        let Some(stream) = stop.run_until_cancelled(begin).await else {
            return Ok(());
        };
        let mut wire = Wire::new(stream?);
        let begun = stop.run_until_cancelled(self.begin(&mut wire));
        match begun.await {
            None => return Ok(()),
            Some(begun) => begun?,
        }
        let mut inbound = Inbound::new(WINDOW);
        let ended = self.serve(&mut wire, &mut inbound, stop, connected).await;
        // What was read is finished: with its answer, the broker need not send it again.
        while let Some(arrived) = inbound.next().await {
            if self.conclude(&mut wire, &arrived).is_err() {
                break;
            }
        }
        if ended.is_ok() {
            packets::goodbye(&mut wire.output);
            wire.flush().await;
        }
        ended
    }

    /// Says hello and subscribes.
    async fn begin(&mut self, wire: &mut Wire<Box<dyn Stream>>) -> Result<(), Lost> {
        packets::connect(
            &mut wire.output,
            &self.broker,
            &self.client,
            KEEP_ALIVE_SECONDS,
        );
        let present = match in_time(next(wire)).await? {
            FromBroker::Welcome { present } => present,
            FromBroker::Denied(why) => return Err(Lost::Denied(why)),
            _ => return Err(Lost::Protocol(Goodbye::Protocol)),
        };
        if !present {
            self.received.clear();
        }
        let wanted = self.wanted();
        let known = if present {
            self.known()?
        } else {
            BTreeSet::new()
        };
        let stale: Vec<String> = known.difference(&wanted).cloned().collect();
        // Everything that the session may be subscribed to, until the broker has said what it is.
        let all: BTreeSet<String> = known.union(&wanted).cloned().collect();
        self.remember(&all).await?;
        if !stale.is_empty() {
            packets::unsubscribe(&mut wire.output, &stale);
        }
        let subscriptions = self.broker.subscriptions.iter();
        let subscriptions = subscriptions.map(|(filter, qos, _)| (filter, *qos));
        packets::subscribe(&mut wire.output, subscriptions);
        Ok(())
    }

    /// The filters that the session is to be subscribed to.
    fn wanted(&self) -> BTreeSet<String> {
        let filters = self.broker.subscriptions.iter();
        filters
            .map(|(filter, _, _)| filter.as_str().to_owned())
            .collect()
    }

    fn known(&self) -> Result<BTreeSet<String>, StoreError> {
        let known = self.memory.get(&self.client)?;
        let known = known.and_then(|text| serde_json::from_slice(&text).ok());
        Ok(known.unwrap_or_default())
    }

    async fn remember(&self, filters: &BTreeSet<String>) -> Result<(), StoreError> {
        let text = serde_json::to_vec(filters).unwrap_or_default();
        if self.memory.get(&self.client)?.as_deref() == Some(&text) {
            return Ok(());
        }
        let write = Write::Set {
            key: self.client.clone(),
            value: text.into(),
        };
        self.memory.write(vec![write]).await
    }

    async fn serve(
        &mut self,
        wire: &mut Wire<Box<dyn Stream>>,
        inbound: &mut Inbound,
        stop: &CancellationToken,
        connected: impl Fn(),
    ) -> Result<(), Lost> {
        let keep_alive = Duration::from_secs(KEEP_ALIVE_SECONDS.into());
        let mut pings = interval(keep_alive / 2);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            while inbound.has_room()
                && let Some(packet) = take(wire)?
            {
                match packet {
                    FromBroker::Subscribed(granted) => {
                        self.subscribed(&granted);
                        connected();
                    }
                    FromBroker::Unsubscribed => self.remember(&self.wanted()).await?,
                    packet => self.handle(wire, inbound, packet)?,
                }
            }
            let reads = inbound.has_room() && !wire.is_full();
            // Every branch is cancel safe: what it did is recorded when it is done.
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Some(arrived) = inbound.next(), if !inbound.is_empty() => {
                    self.conclude(wire, &arrived)?;
                }
                turn = wire.turn(reads), if reads || wire.has_output() => match turn? {
                    Turn::Read => heard = Instant::now(),
                    Turn::Wrote => {}
                    Turn::Ended => return Err(Lost::Closed),
                },
                _ = pings.tick() => {
                    if !reads {
                        // It is we who do not listen.
                        heard = Instant::now();
                    }
                    if heard.elapsed() > keep_alive * 3 / 2 {
                        return Err(Lost::Silent);
                    }
                    packets::ping(&mut wire.output);
                }
            }
        }
    }

    fn handle(
        &mut self,
        wire: &mut Wire<Box<dyn Stream>>,
        inbound: &mut Inbound,
        packet: FromBroker,
    ) -> Result<(), Lost> {
        match packet {
            FromBroker::Publish(publish) => self.publish(wire, inbound, *publish),
            FromBroker::Release(packet) => {
                self.received.remove(&packet);
                let out = &mut wire.output;
                encode::answer(out, Version::V5, Answer::Complete, packet, 0);
                Ok(())
            }
            FromBroker::Pong => Ok(()),
            FromBroker::Goodbye(why) => Err(Lost::Goodbye(why)),
            FromBroker::Welcome { .. }
            | FromBroker::Denied(_)
            | FromBroker::Subscribed(_)
            | FromBroker::Unsubscribed => Err(Lost::Protocol(Goodbye::Protocol)),
        }
    }

    fn subscribed(&self, granted: &[bool]) {
        let (broker, app) = (&self.broker.url, &self.broker.app);
        tracing::info!(%broker, %app, "connected to an mqtt broker");
        for ((filter, _, _), granted) in self.broker.subscriptions.iter().zip(granted) {
            if !granted {
                tracing::warn!(%broker, %app, %filter, "an mqtt broker refuses a subscription");
            }
        }
    }

    fn publish(
        &mut self,
        wire: &mut Wire<Box<dyn Stream>>,
        inbound: &mut Inbound,
        mut publish: Publish,
    ) -> Result<(), Lost> {
        inbound.resolve(&mut publish).map_err(Lost::Protocol)?;
        let (message, packet) = (Arc::new(publish.message), publish.packet);
        if let Some(packet) = packet
            && message.qos == Qos::ExactlyOnce
        {
            if inbound.holds(packet) {
                return Ok(());
            }
            if self.received.contains(&packet) {
                let out = &mut wire.output;
                encode::answer(out, Version::V5, Answer::Received, packet, 0);
                return Ok(());
            }
        }
        let queues = self.queues(&message);
        let source = self.broker.url.clone();
        let keeping = self.intake.keep(&message, || source, queues);
        inbound.push(message, packet, keeping);
        Ok(())
    }

    fn queues(&self, message: &Message) -> BTreeSet<tombolo_core::QueueId> {
        let subscriptions = self.broker.subscriptions.iter();
        subscriptions
            .filter(|(filter, _, _)| filter.matches(&message.topic))
            .map(|(_, _, queue)| queue.clone())
            .collect()
    }

    /// Acknowledges what the journal has, and what no journal will ever have. What it cannot take now
    /// stays with the broker: the connection ends, and the broker sends it again.
    fn conclude(
        &mut self,
        wire: &mut Wire<Box<dyn Stream>>,
        arrived: &Arrived,
    ) -> Result<(), Lost> {
        let Arrived {
            message,
            packet,
            verdict,
        } = arrived;
        let Some(packet) = *packet else {
            return Ok(());
        };
        match verdict {
            Verdict::Accepted if message.qos == Qos::ExactlyOnce => {
                self.received.insert(packet);
            }
            Verdict::Accepted | Verdict::Forbidden => {}
            Verdict::Refused(Refusal::Invalid) => {
                let (broker, topic) = (&self.broker.url, &message.topic);
                tracing::warn!(%broker, %topic, "a message of an mqtt broker is no valid event");
            }
            Verdict::Refused(refusal) => return Err(Lost::Refused(*refusal)),
        }
        let out = &mut wire.output;
        encode::verdict(out, Version::V5, message.qos, packet, *verdict);
        Ok(())
    }
}

/// The next packet, read to its end.
async fn next(wire: &mut Wire<Box<dyn Stream>>) -> Result<FromBroker, Lost> {
    loop {
        if let Some(packet) = take(wire)? {
            return Ok(packet);
        }
        if !wire.read().await? {
            return Err(Lost::Closed);
        }
    }
}

/// The next packet, if it is there wholly.
fn take(wire: &mut Wire<Box<dyn Stream>>) -> Result<Option<FromBroker>, Lost> {
    let Some(found) = frame(&wire.input, PACKET_BYTES_MAX)? else {
        return Ok(None);
    };
    let body = wire.input.get(found.body.clone()).unwrap_or_default();
    let packet = packets::decode(found.head, body)?;
    wire.input.advance(found.body.end);
    Ok(Some(packet))
}

async fn in_time<T>(step: impl Future<Output = Result<T, Lost>>) -> Result<T, Lost> {
    timeout(STEP_MAX, step).await.unwrap_or(Err(Lost::Slow))
}

/// Whether with TLS, the host, and the port.
fn parts(url: &str) -> Option<(bool, &str, u16)> {
    let (scheme, authority) = url.split_once("://")?;
    let tls = scheme == "mqtts";
    let port = if tls { 8883 } else { 1883 };
    match authority.rsplit_once(':') {
        // The colons of an IPv6 address are within brackets.
        Some((host, digits)) if !digits.contains(']') => Some((tls, host, digits.parse().ok()?)),
        _ => Some((tls, authority, port)),
    }
}

/// Why there is no TLS: the operator can do something about a certificate that is not trusted.
fn no_tls(error: io::Error) -> Lost {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            Lost::Untrusted(error)
        }
        _ => Lost::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_their_usual_ports() {
        for (url, expected) in [
            ("mqtt://broker.example", (false, "broker.example", 1883)),
            ("mqtts://broker.example", (true, "broker.example", 8883)),
            ("mqtt://10.0.0.7:2883", (false, "10.0.0.7", 2883)),
            ("mqtt://[::1]", (false, "[::1]", 1883)),
            ("mqtts://[::1]:1", (true, "[::1]", 1)),
        ] {
            assert_eq!(parts(url), Some(expected), "{url}");
        }
    }
}
