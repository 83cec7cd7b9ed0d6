//! Random histories with power cuts: what was acknowledged is in every kept session, once and in order.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;
use tombolo_store::Write;

use super::*;
use crate::mqtt::acl::{Permissions, Rule};
use crate::mqtt::message::{Message, Properties, Qos};
use crate::mqtt::stored::{Moment, Reading, StoredState};

const SUBSCRIBERS: usize = 2;
const PUBLISHER: usize = SUBSCRIBERS;
/// The publisher uses one packet identifier again and again.
const PACKET: u16 = 1;

#[derive(Clone, Debug)]
enum Step {
    /// A client connects, or leaves.
    Toggle(usize),
    /// The publisher does what comes next in the exchange of its message.
    Publish,
    /// A client is sent what there is, about so many bytes.
    Take(usize, usize),
    /// A client answers one of the packets that it has got.
    Answer(usize, prop::sample::Index),
    /// So many changes get to the disk.
    Write(usize),
    Cut,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..=SUBSCRIBERS).prop_map(Step::Toggle),
        8 => Just(Step::Publish),
        6 => (0..SUBSCRIBERS, 1..2000usize).prop_map(|(client, bytes)| Step::Take(client, bytes)),
        8 => (0..SUBSCRIBERS, any::<prop::sample::Index>()).prop_map(
            |(client, nth)| Step::Answer(client, nth)),
        8 => (1..5usize).prop_map(Step::Write),
        1 => Just(Step::Cut),
    ];
    prop::collection::vec(step, 0..200)
}

/// What a client does next about a packet that it has got.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Reply {
    Acknowledged(u16),
    Received(u16),
    Complete(u16),
}

/// What is on its way to a client, with the change that it waits for.
#[derive(Debug)]
enum Sent {
    Message { packet: u16, qos: Qos, number: u64 },
    Release(u16),
}

#[derive(Default)]
struct Subscriber {
    key: Option<SessionKey>,
    wire: VecDeque<(u64, Sent)>,
    replies: Vec<Reply>,
    /// Identifiers of messages of QoS 2 that the broker has not released.
    holds: BTreeSet<u16>,
    /// The numbers of what it got.
    got: Vec<u64>,
}

/// Where the publisher is in the exchange of its message of QoS 2, with the change that the answer waits for.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Exchange {
    ToSend,
    Sent(u64),
    ToRelease,
    Released(u64),
}

struct World {
    bounds: MqttBounds,
    switch: Switch,
    disk: BTreeMap<String, Bytes>,
    unwritten: VecDeque<(u64, Vec<Write>)>,
    written: u64,
    now: Instant,
    subscribers: [Subscriber; SUBSCRIBERS],
    publisher: Option<SessionKey>,
    exchange: Exchange,
    number: u64,
    /// By QoS of the subscription.
    qos: [Qos; SUBSCRIBERS],
}

fn hello(client: usize) -> Hello {
    Hello {
        client: Arc::new(Client {
            id: client.to_string().into(),
            user: None,
            address: ([127, 0, 0, 1], 1).into(),
        }),
        clean: false,
        expiry: Duration::from_secs(600),
        window: 3,
    }
}

impl World {
    fn new(qos: [Qos; SUBSCRIBERS], bounds: MqttBounds) -> Self {
        let mut world = Self {
            switch: Switch::new(bounds.clone()),
            bounds,
            disk: BTreeMap::new(),
            unwritten: VecDeque::new(),
            written: 0,
            now: Instant::now(),
            subscribers: Default::default(),
            publisher: None,
            exchange: Exchange::ToSend,
            number: 0,
            qos,
        };
        world.start();
        for client in 0..SUBSCRIBERS {
            world.connect(client);
            let key = world.subscribers[client].key.unwrap();
            let options = Options {
                qos: world.qos[client],
                ..Options::default()
            };
            let filter = "a".parse().unwrap();
            world
                .switch
                .subscribe(key, filter, options, RetainedWanted::Never);
        }
        world.write(usize::MAX);
        world
    }

    /// Begins with what is on the disk.
    fn start(&mut self) {
        self.unwritten.clear();
        self.written = 0;
        self.publisher = None;
        let mut reading = Reading::new(Moment::new());
        for (key, value) in &self.disk {
            reading.record(key.clone(), Some(value));
        }
        assert!(reading.gone.is_empty(), "{:?}", reading.gone);
        self.switch = Switch::new(self.bounds.clone());
        let everything = Rule {
            user: None,
            publish: true,
            subscribe: true,
            topics: "#".into(),
        };
        let permissions = |one: &StoredState| {
            Some(Permissions::of(
                std::slice::from_ref(&everything),
                None,
                &one.client,
            ))
        };
        self.switch.restore(reading.sessions, permissions, self.now);
        assert_eq!(self.switch.figures.dropped_full, 0);
        for subscriber in &mut self.subscribers {
            subscriber.lose();
        }
        self.exchange = self.exchange.lost();
    }

    fn write(&mut self, count: usize) {
        for (number, change) in self.switch.changes.take() {
            let mut writes = Vec::new();
            change.writes(Moment::new(), &mut writes);
            match self.unwritten.back_mut() {
                Some((last, all)) if *last == number => all.extend(writes),
                _ => self.unwritten.push_back((number, writes)),
            }
        }
        for (number, writes) in self.unwritten.drain(..count.min(self.unwritten.len())) {
            assert!(number > self.written);
            self.written = number;
            for write in writes {
                match write {
                    Write::Set { key, value } => drop(self.disk.insert(key, value)),
                    Write::Delete { key } => drop(self.disk.remove(&key)),
                }
            }
        }
        for subscriber in &mut self.subscribers {
            subscriber.receive(self.written);
        }
        match self.exchange {
            Exchange::Sent(after) if after <= self.written => self.exchange = Exchange::ToRelease,
            Exchange::Released(after) if after <= self.written => {
                self.number += 1;
                self.exchange = Exchange::ToSend;
            }
            _ => {}
        }
    }

    fn attach(&mut self, client: usize) -> SessionKey {
        let welcome = self.switch.connect(&hello(client));
        let after = self.switch.seal();
        // Its CONNACK waits for that.
        while self.written < after {
            self.write(1);
        }
        match welcome {
            Welcome::Attached { key, .. } => key,
            other => panic!("{other:?}"),
        }
    }

    fn connect(&mut self, client: usize) {
        let key = self.attach(client);
        self.subscribers[client].key = Some(key);
    }

    fn toggle(&mut self, client: usize) {
        let held = if client == PUBLISHER {
            self.publisher.take()
        } else {
            self.subscribers[client].key.take()
        };
        match held {
            Some(key) => {
                self.switch.detach(key, self.now, None, None);
                if client == PUBLISHER {
                    self.exchange = self.exchange.lost();
                } else {
                    self.subscribers[client].lose();
                }
            }
            None if client == PUBLISHER => self.publisher = Some(self.attach(client)),
            None => self.connect(client),
        }
    }

    fn publish(&mut self) {
        let Some(key) = self.publisher else {
            return;
        };
        match self.exchange {
            Exchange::ToSend => {
                if !self.switch.has_received(key, PACKET) {
                    let message = Message {
                        topic: "a".into(),
                        payload: self.number.to_string().into(),
                        qos: Qos::ExactlyOnce,
                        retain: false,
                        expires: None,
                        properties: Properties::default(),
                    };
                    self.switch.receive(key, PACKET);
                    self.switch.route(&Arc::new(message), Some(key), self.now);
                }
                self.exchange = Exchange::Sent(self.switch.seal());
            }
            Exchange::ToRelease => {
                self.switch.release(key, PACKET);
                self.exchange = Exchange::Released(self.switch.seal());
            }
            Exchange::Sent(_) | Exchange::Released(_) => {}
        }
        self.write(0);
    }

    fn take(&mut self, client: usize, bytes: usize) {
        let Some(key) = self.subscribers[client].key else {
            return;
        };
        let mut out = Vec::new();
        self.switch.take(key, self.now, bytes, &mut out);
        let wire = &mut self.subscribers[client].wire;
        wire.extend(out.into_iter().map(|one| match one {
            Outgoing::Release(packet) => (0, Sent::Release(packet)),
            Outgoing::Publish {
                delivery, packet, ..
            } => {
                let text = std::str::from_utf8(&delivery.message.payload).unwrap();
                let sent = Sent::Message {
                    packet: packet.unwrap(),
                    qos: delivery.qos,
                    number: text.parse().unwrap(),
                };
                (delivery.change, sent)
            }
        }));
        self.write(0);
    }

    fn answer(&mut self, client: usize, nth: &prop::sample::Index) {
        let count = self.subscribers[client].replies.len();
        if count > 0 {
            self.answer_nth(client, nth.index(count));
        }
    }

    fn answer_nth(&mut self, client: usize, nth: usize) {
        let subscriber = &mut self.subscribers[client];
        let Some(key) = subscriber.key else {
            return;
        };
        let reply = subscriber.replies.remove(nth);
        match reply {
            Reply::Acknowledged(packet) | Reply::Complete(packet) => {
                self.switch.forget(key, packet);
            }
            Reply::Received(packet) => {
                assert!(self.switch.received_by_client(key, packet));
                let after = self.switch.seal();
                subscriber.wire.push_back((after, Sent::Release(packet)));
            }
        }
        self.write(0);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Toggle(client) => self.toggle(*client),
            Step::Publish => self.publish(),
            Step::Take(client, bytes) => self.take(*client, *bytes),
            Step::Answer(client, nth) => self.answer(*client, nth),
            Step::Write(count) => self.write(*count),
            Step::Cut => self.start(),
        }
    }

    /// Everything that is on its way arrives.
    fn settle(&mut self) {
        if self.publisher.is_none() {
            self.toggle(PUBLISHER);
        }
        let next = self.number + 1;
        while self.number < next {
            self.publish();
            self.write(usize::MAX);
        }
        for client in 0..SUBSCRIBERS {
            if self.subscribers[client].key.is_none() {
                self.connect(client);
            }
            loop {
                self.take(client, usize::MAX);
                self.write(usize::MAX);
                if self.subscribers[client].replies.is_empty() {
                    break;
                }
                self.answer_nth(client, 0);
            }
        }
        self.write(usize::MAX);
    }

    fn check(&self) {
        let all: Vec<u64> = (0..self.number).collect();
        for (subscriber, qos) in self.subscribers.iter().zip(self.qos) {
            let mut got = subscriber.got.clone();
            if qos == Qos::AtLeastOnce {
                // What comes again comes later, but nothing comes first before what was published before it.
                let mut seen = BTreeSet::new();
                got.retain(|number| seen.insert(*number));
            }
            assert_eq!(got, all, "{qos:?}");
            assert!(subscriber.holds.is_empty());
        }
        assert_eq!(self.switch.figures.queued_bytes, 0);
        // Sessions and subscriptions, and nothing that is done.
        assert_eq!(self.disk.len(), SUBSCRIBERS + 1 + SUBSCRIBERS);
    }
}

impl Exchange {
    /// What the publisher does when it is back.
    fn lost(self) -> Self {
        match self {
            Self::ToSend | Self::Sent(_) => Self::ToSend,
            Self::ToRelease | Self::Released(_) => Self::ToRelease,
        }
    }
}

impl Subscriber {
    /// The connection is lost, with what was on its way.
    fn lose(&mut self) {
        self.key = None;
        self.wire.clear();
        self.replies.clear();
    }

    /// What may have left has arrived.
    fn receive(&mut self, written: u64) {
        let arrives = |(after, _): &(u64, Sent)| *after <= written;
        while self.wire.front().is_some_and(arrives) {
            match self.wire.pop_front().unwrap().1 {
                Sent::Message {
                    packet,
                    qos: Qos::ExactlyOnce,
                    number,
                } => {
                    if self.holds.insert(packet) {
                        self.got.push(number);
                    }
                    self.replies.push(Reply::Received(packet));
                }
                Sent::Message { packet, number, .. } => {
                    self.got.push(number);
                    self.replies.push(Reply::Acknowledged(packet));
                }
                Sent::Release(packet) => {
                    self.holds.remove(&packet);
                    self.replies.push(Reply::Complete(packet));
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn nothing_acknowledged_is_lost_and_nothing_comes_twice(steps in steps()) {
        let qos = [Qos::ExactlyOnce, Qos::AtLeastOnce];
        let mut world = World::new(qos, MqttBounds::default());
        for step in &steps {
            world.step(step);
        }
        world.settle();
        world.check();
    }

    #[test]
    fn what_was_taken_within_the_bounds_fits_into_them_again(steps in steps()) {
        let bounds = MqttBounds { queue_messages_max: 1, unacknowledged_max: 3, ..MqttBounds::default() };
        let mut world = World::new([Qos::ExactlyOnce, Qos::AtLeastOnce], bounds);
        for step in &steps {
            world.step(step);
        }
        world.start();
    }
}
