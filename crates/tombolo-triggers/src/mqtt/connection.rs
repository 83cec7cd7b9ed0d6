//! One client's connection: reads its packets, answers them, and sends what waits for it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf as _;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::acl::Permissions;
use super::broker::Shared;
use super::encode::{self, Goodbye, Granted, Verdict};
use super::held::Held;
use super::inbound::{Arrived, Inbound};
use super::message::{Arrival, Client, Qos};
use super::session::{Attachment, Outgoing};
use super::socket::{self, Stream, Turn, Wire};
use super::switch::SessionKey;
use super::topic::{Selection, TopicError};
use super::wire::{self, Answer, Packet, Publish, Version, Wanted, Will};

/// A client that takes nothing of what it has to get for so long is gone.
const STALL_MAX: Duration = Duration::from_secs(30);
/// A client that says nothing for so long is quiet.
const RESTS_AFTER: Duration = Duration::from_secs(5);

/// Why a connection ended.
enum End {
    /// The client said so; with its will or without.
    Client {
        with_will: bool,
    },
    Lost,
    Broker(Goodbye),
}

/// What a client that was let in is served with.
pub struct Connection<S> {
    pub wire: Wire<S>,
    pub shared: Arc<Shared>,
    pub version: Version,
    pub client: Arc<Client>,
    pub permissions: Permissions,
    pub key: SessionKey,
    pub attachment: Attachment,
    pub will: Option<Will>,
    /// The longest packet that the client takes.
    pub packet_bytes_max: usize,
    /// The client says something at least this often; zero when it need not.
    pub keep_alive: Duration,
    pub inbound: Inbound,
    /// What must not be sent yet.
    pub held: Held,
    /// What the client said last about how long its session is kept.
    pub expiry: Option<Duration>,
    /// Something may wait for the client.
    pub waiting: bool,
    /// Kept between turns, so that they cost no allocation.
    pub outgoing: Vec<Outgoing>,
}

impl<S: Stream> Connection<S> {
    /// Serves the client until it goes, and then puts its affairs in order.
    pub async fn run(mut self, shutdown: &CancellationToken) {
        let end = self.serve(shutdown).await;
        if let End::Broker(goodbye) = &end {
            tracing::debug!(client = %self.client, reason = ?goodbye, "mqtt client turned away");
            encode::goodbye(&mut self.wire.output, self.version, *goodbye);
        }
        self.wire.flush().await;
        // What the client published is not undone by its going: a message of QoS 2 that the
        // journal has must be known as received when the client sends it again.
        while let Some(arrived) = self.inbound.next().await {
            self.wire.output.clear();
            // Why the connection would have to end does not matter any more.
            let _: Result<(), Goodbye> = self.conclude(arrived);
        }
        let with_will = match end {
            End::Client { with_will } => with_will,
            // The node goes, not the client: it will be back.
            End::Broker(Goodbye::ShuttingDown) => false,
            End::Lost | End::Broker(_) => true,
        };
        let now = Instant::now();
        let will = self.will.take().filter(|_| with_will).map(|will| {
            let mut message = will.message;
            message.expires = will.expiry.map(|expiry| now + will.delay + expiry);
            let arrival = Arrival {
                client: Some(self.client.clone()),
                message: Arc::new(message),
            };
            (will.delay, arrival)
        });
        let due = self
            .shared
            .switch()
            .detach(self.key, now, self.expiry, will);
        if let Some(arrival) = due {
            self.shared.publish_will(arrival).await;
        }
    }

    async fn serve(&mut self, shutdown: &CancellationToken) -> End {
        let (kick, wake) = (self.attachment.kick.clone(), self.attachment.wake.clone());
        let patience = self.keep_alive.mul_f32(1.5);
        let mut checks = pin!(interval(check_every(patience)));
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut heard, mut wrote) = (Instant::now(), Instant::now());
        loop {
            if let Err(end) = self.handle_input() {
                return end;
            }
            self.fetch();
            let reads = self.takes_input();
            let mut notified = pin!(wake.notified());
            // Every branch is cancel safe: what it did is recorded in `self` when it is done.
            tokio::select! {
                biased;
                () = kick.cancelled() => return End::Broker(Goodbye::TakenOver),
                () = shutdown.cancelled() => return End::Broker(Goodbye::ShuttingDown),
                Some(arrived) = self.inbound.next(), if !self.inbound.is_empty() => {
                    if let Err(goodbye) = self.conclude(arrived) {
                        return End::Broker(goodbye);
                    }
                }
                released = self.held.wait(), if !self.held.is_empty() => match released {
                    Ok(()) => self.held.release(&mut self.wire.output),
                    // Nothing was acknowledged, so that the client keeps what it has.
                    Err(_) => return End::Broker(Goodbye::Refused),
                },
                turn = self.wire.turn(reads), if reads || self.wire.has_output() => match turn {
                    Ok(Turn::Read) => heard = Instant::now(),
                    Ok(Turn::Wrote) => wrote = Instant::now(),
                    Ok(Turn::Ended) | Err(_) => return End::Lost,
                },
                () = notified.as_mut(), if !self.waiting => self.waiting = true,
                _ = checks.tick() => {
                    let now = Instant::now();
                    if now - heard >= RESTS_AFTER {
                        self.wire.rest();
                    }
                    if !reads {
                        // It is the broker that does not listen.
                        heard = now;
                    }
                    if !self.wire.has_output() {
                        wrote = now;
                    }
                    let silent = !patience.is_zero() && now - heard > patience;
                    if silent || now - wrote > STALL_MAX {
                        return End::Broker(Goodbye::Silent);
                    }
                }
            }
        }
    }

    fn takes_input(&self) -> bool {
        let is_behind = || !self.held.is_empty() && self.shared.switch().changes.is_full();
        self.inbound.has_room() && self.takes_output() && !is_behind()
    }

    fn takes_output(&self) -> bool {
        !self.wire.is_full() && self.held.has_room()
    }

    /// Where output goes that must not leave before the change (0: none) is on the disk.
    fn output(&mut self, after: u64) -> &mut Vec<u8> {
        self.held.place(after).unwrap_or(&mut self.wire.output)
    }

    /// Handles the packets that have been read, as far as there is room for what they cause.
    fn handle_input(&mut self) -> Result<(), End> {
        let bytes_max = self.shared.bounds.packet_bytes_max as usize;
        let broken = |error: wire::WireError| End::Broker(Goodbye::from(&error));
        while self.takes_input()
            && let Some(frame) = wire::frame(&self.wire.input, bytes_max).map_err(broken)?
        {
            let body = self.wire.input.get(frame.body.clone()).unwrap_or_default();
            let packet = wire::decode(self.version, frame.head, body, Instant::now());
            self.wire.input.advance(frame.body.end);
            match packet.map_err(broken)? {
                Packet::Publish(publish) => self.publish(publish).map_err(End::Broker)?,
                Packet::Answer {
                    answer,
                    packet,
                    success,
                } => self.answer(answer, packet, success),
                Packet::Subscribe { packet, wanted } => self.subscribe(packet, wanted),
                Packet::Unsubscribe { packet, selections } => {
                    self.unsubscribe(packet, selections);
                }
                Packet::Ping => encode::pong(self.output(0)),
                Packet::Disconnect { with_will, expiry } => {
                    self.expiry = expiry;
                    return Err(End::Client { with_will });
                }
            }
        }
        Ok(())
    }

    fn publish(&mut self, mut publish: Publish) -> Result<(), Goodbye> {
        self.inbound.resolve(&mut publish)?;
        let (message, packet) = (Arc::new(publish.message), publish.packet);
        if let Some(packet) = packet
            && message.qos == Qos::ExactlyOnce
        {
            if self.inbound.holds(packet) {
                return Ok(());
            }
            if self.shared.switch().has_received(self.key, packet) {
                let version = self.version;
                encode::answer(self.output(0), version, Answer::Received, packet, 0);
                return Ok(());
            }
        }
        // A message that comes again is known, and takes no more room than it has.
        let arriving = match (self.version, message.qos) {
            (_, Qos::AtMostOnce) | (Version::V3, Qos::AtLeastOnce) => None,
            (Version::V5, _) => Some(self.inbound.len()),
            // It was told of no window, but what the broker remembers is bounded for it as well.
            (Version::V3, Qos::ExactlyOnce) => Some(self.inbound.exactly_once()),
        };
        if let Some(arriving) = arriving {
            let unreleased = self.shared.switch().unreleased(self.key);
            if arriving + unreleased >= usize::from(self.shared.bounds.arriving_max) {
                return Err(Goodbye::Window);
            }
        }
        // Names that begin with `$` are the broker's own.
        if message.topic.starts_with('$') || !self.permissions.may_publish(&message.topic) {
            self.inbound
                .push_decided(message, packet, Verdict::Forbidden);
            return Ok(());
        }
        // It would be handed on to nobody, and the functions would get it each time that it comes again.
        let refusal = {
            let switch = self.shared.switch();
            self.shared.refusal(&switch, &message, Some(self.key))
        };
        if let Some(refusal) = refusal {
            let refused = Verdict::Refused(refusal);
            self.inbound.push_decided(message, packet, refused);
            return Ok(());
        }
        let accept = self.shared.accept.accept(Arrival {
            client: Some(self.client.clone()),
            message: message.clone(),
        });
        self.inbound.push(message, packet, accept);
        Ok(())
    }

    /// A verdict is there: the message is handed on, and the client gets its answer.
    fn conclude(&mut self, arrived: Arrived) -> Result<(), Goodbye> {
        let Arrived {
            message,
            packet,
            mut verdict,
        } = arrived;
        let after = {
            let mut switch = self.shared.switch();
            if verdict == Verdict::Accepted
                && let Some(refusal) = self.shared.refusal(&switch, &message, Some(self.key))
            {
                verdict = Verdict::Refused(refusal);
            }
            match verdict {
                Verdict::Accepted => {
                    if message.qos == Qos::ExactlyOnce
                        && let Some(packet) = packet
                    {
                        switch.receive(self.key, packet);
                    }
                    switch.route(&message, Some(self.key), Instant::now());
                }
                Verdict::Forbidden => switch.figures.forbidden += 1,
                Verdict::Refused(_) => switch.figures.refused += 1,
            }
            switch.seal()
        };
        let Some(packet) = packet else {
            return Ok(());
        };
        // MQTT 3.1.1 has no answer that says no. Without any, the client keeps the message. One
        // that it may not send is answered all the same: it would come again for ever.
        if self.version == Version::V3 && matches!(verdict, Verdict::Refused(_)) {
            return Err(Goodbye::Refused);
        }
        let version = self.version;
        encode::verdict(self.output(after), version, message.qos, packet, verdict);
        Ok(())
    }

    fn answer(&mut self, answer: Answer, packet: u16, success: bool) {
        let version = self.version;
        let missing = if version == Version::V5 { 0x92 } else { 0 };
        let mut switch = self.shared.switch();
        let (reply, known) = match answer {
            Answer::Received if success => {
                let known = switch.received_by_client(self.key, packet);
                (Answer::Release, known)
            }
            Answer::Release => (Answer::Complete, switch.release(self.key, packet)),
            Answer::Acknowledged | Answer::Complete | Answer::Received => {
                switch.forget(self.key, packet);
                drop(switch);
                self.waiting = true;
                return;
            }
        };
        let after = switch.seal();
        drop(switch);
        let code = if known { 0 } else { missing };
        encode::answer(self.output(after), version, reply, packet, code);
    }

    fn subscribe(&mut self, packet: u16, wanted: Vec<Result<Wanted, TopicError>>) {
        let mut granted = Vec::with_capacity(wanted.len());
        let mut switch = self.shared.switch();
        for one in wanted {
            let Ok(Wanted {
                selection,
                options,
                retained,
            }) = one
            else {
                granted.push(Granted::Invalid);
                continue;
            };
            if !self.permissions.may_subscribe(&selection.filter) {
                granted.push(Granted::Forbidden);
                continue;
            }
            let room = switch.subscribe(self.key, selection, options, retained);
            granted.push(if room {
                Granted::Yes(options.qos)
            } else {
                Granted::TooMany
            });
        }
        let (after, version) = (switch.seal(), self.version);
        drop(switch);
        self.waiting = true;
        encode::granted(self.output(after), version, packet, &granted);
    }

    fn unsubscribe(&mut self, packet: u16, selections: Vec<Result<Selection, TopicError>>) {
        let mut switch = self.shared.switch();
        let existed = selections.iter().map(|selection| match selection {
            Ok(selection) => switch.unsubscribe(self.key, selection),
            Err(_) => false,
        });
        let existed: Vec<bool> = existed.collect();
        let (after, version) = (switch.seal(), self.version);
        drop(switch);
        encode::unsubscribed(self.output(after), version, packet, &existed);
    }

    /// Fetches what waits for the client, as far as there is room to write it.
    fn fetch(&mut self) {
        let now = Instant::now();
        while self.waiting && self.takes_output() {
            let mut outgoing = std::mem::take(&mut self.outgoing);
            self.waiting =
                self.shared
                    .switch()
                    .take(self.key, now, socket::WRITE_BYTES, &mut outgoing);
            for one in outgoing.drain(..) {
                self.send(&one, now);
            }
            self.outgoing = outgoing;
        }
    }

    fn send(&mut self, outgoing: &Outgoing, now: Instant) {
        let (version, bytes_max) = (self.version, self.packet_bytes_max);
        match outgoing {
            Outgoing::Release(packet) => {
                encode::answer(self.output(0), version, Answer::Release, *packet, 0);
            }
            Outgoing::Publish {
                delivery,
                packet,
                again,
            } => {
                let output = self.output(delivery.change);
                if !encode::publish(output, version, delivery, *packet, *again, now, bytes_max) {
                    let mut switch = self.shared.switch();
                    switch.figures.dropped_long += 1;
                    if let Some(packet) = packet {
                        switch.forget(self.key, *packet);
                        // There is room in the client's window, and nothing that it will say about that.
                        self.waiting = true;
                    }
                }
            }
        }
    }
}

/// Silence is looked for often enough to notice it in time, and seldom enough to cost nothing.
fn check_every(patience: Duration) -> Duration {
    const LONGEST: Duration = Duration::from_secs(15);
    if patience.is_zero() {
        return LONGEST;
    }
    (patience / 4).clamp(Duration::from_millis(500), LONGEST)
}
