//! Random histories: whatever happens in whatever order, the broker's books are right.

use proptest::prelude::*;

use super::*;
use crate::mqtt::message::{Message, Properties, Qos};

#[derive(Clone, Debug)]
enum Step {
    Connect {
        client: u8,
        clean: bool,
        expiry: u64,
        window: u16,
    },
    Detach {
        client: u8,
        will: Option<u64>,
    },
    Subscribe {
        client: u8,
        filter: &'static str,
        qos: Qos,
        wanted: RetainedWanted,
    },
    Unsubscribe {
        client: u8,
        filter: &'static str,
    },
    Route {
        topic: &'static str,
        bytes: usize,
        qos: Qos,
        retain: bool,
        expires: Option<u64>,
    },
    Take {
        client: u8,
        bytes: usize,
    },
    Acknowledge {
        client: u8,
        nth: prop::sample::Index,
        received: bool,
    },
    Wait {
        seconds: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = || 0..3u8;
    let filter = || prop::sample::select(vec!["a/#", "+/b", "a/b", "$share/g/a/+", "$share/g/#"]);
    let qos = || prop::sample::select(vec![Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]);
    let wanted = prop::sample::select(vec![
        RetainedWanted::Always,
        RetainedWanted::WhenNew,
        RetainedWanted::Never,
    ]);
    let step = prop_oneof![
        2 => (client(), any::<bool>(), 0..20u64, 1..4u16).prop_map(
            |(client, clean, expiry, window)| Step::Connect { client, clean, expiry, window }),
        1 => (client(), prop::option::of(0..9u64)).prop_map(
            |(client, will)| Step::Detach { client, will }),
        2 => (client(), filter(), qos(), wanted).prop_map(
            |(client, filter, qos, wanted)| Step::Subscribe { client, filter, qos, wanted }),
        1 => (client(), filter()).prop_map(
            |(client, filter)| Step::Unsubscribe { client, filter }),
        5 => (
            prop::sample::select(vec!["a", "a/b", "a/c", "x/b"]), 0..3000usize, qos(),
            any::<bool>(), prop::option::of(0..9u64),
        ).prop_map(|(topic, bytes, qos, retain, expires)|
            Step::Route { topic, bytes, qos, retain, expires }),
        3 => (client(), 0..5000usize).prop_map(|(client, bytes)| Step::Take { client, bytes }),
        3 => (client(), any::<prop::sample::Index>(), any::<bool>()).prop_map(
            |(client, nth, received)| Step::Acknowledge { client, nth, received }),
        1 => (0..5u64).prop_map(|seconds| Step::Wait { seconds }),
    ];
    prop::collection::vec(step, 0..120)
}

fn message(topic: &str, bytes: usize, qos: Qos, retain: bool) -> Message {
    Message {
        topic: topic.into(),
        payload: vec![0; bytes].into(),
        qos,
        retain,
        expires: None,
        properties: Properties::default(),
    }
}

fn bounds() -> MqttBounds {
    MqttBounds {
        sessions_max: 2,
        subscriptions_max: 3,
        queue_messages_max: 8,
        queue_bytes_max: 4000,
        queues_bytes_max: 6000,
        retained_max: 2,
        retained_bytes_max: 5000,
        ..MqttBounds::default()
    }
}

fn client(number: u8) -> Arc<Client> {
    Arc::new(Client {
        id: number.to_string().into(),
        user: None,
        address: ([127, 0, 0, 1], 1).into(),
    })
}

/// The switch with its clients, who keep what they have not acknowledged.
struct World {
    switch: Switch,
    keys: HashMap<u8, SessionKey>,
    unacknowledged: HashMap<u8, Vec<u16>>,
    now: Instant,
}

impl World {
    fn step(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Connect {
                client: number,
                clean,
                expiry,
                window,
            } => {
                let expiry = Duration::from_secs(expiry);
                let hello = Hello {
                    client: client(number),
                    clean,
                    expiry,
                    window,
                };
                if let Welcome::Attached { key, .. } = self.switch.connect(&hello) {
                    self.keys.insert(number, key);
                    self.unacknowledged.remove(&number);
                }
            }
            Step::Detach {
                client: number,
                will,
            } => {
                if let Some(key) = self.keys.remove(&number) {
                    let arrival = Arrival {
                        client: None,
                        message: Arc::new(message("a", 1, Qos::AtMostOnce, false)),
                    };
                    let will = will.map(|delay| (Duration::from_secs(delay), arrival));
                    self.switch.detach(key, now, None, will);
                }
            }
            Step::Subscribe {
                client,
                filter,
                qos,
                wanted,
            } => {
                if let Some(&key) = self.keys.get(&client) {
                    let options = Options {
                        qos,
                        ..Options::default()
                    };
                    self.switch
                        .subscribe(key, filter.parse().unwrap(), options, wanted);
                }
            }
            Step::Unsubscribe { client, filter } => {
                if let Some(&key) = self.keys.get(&client) {
                    self.switch.unsubscribe(key, &filter.parse().unwrap());
                }
            }
            Step::Route {
                topic,
                bytes,
                qos,
                retain,
                expires,
            } => {
                let mut message = message(topic, bytes, qos, retain);
                message.expires = expires.map(|seconds| now + Duration::from_secs(seconds));
                self.switch.route(&Arc::new(message), None, now);
            }
            Step::Take { client, bytes } => self.take(client, bytes),
            Step::Acknowledge {
                client,
                nth,
                received,
            } => {
                let waiting = self.unacknowledged.entry(client).or_default();
                if let (Some(&key), false) = (self.keys.get(&client), waiting.is_empty()) {
                    let packet = waiting[nth.index(waiting.len())];
                    if received {
                        self.switch.received_by_client(key, packet);
                    } else {
                        waiting.retain(|one| *one != packet);
                        self.switch.forget(key, packet);
                    }
                }
            }
            Step::Wait { seconds } => {
                self.now += Duration::from_secs(seconds);
                self.switch.tick(self.now);
            }
        }
    }

    fn take(&mut self, client: u8, bytes: usize) {
        let Some(&key) = self.keys.get(&client) else {
            return;
        };
        let mut out = Vec::new();
        self.switch.take(key, self.now, bytes, &mut out);
        let waiting = self.unacknowledged.entry(client).or_default();
        for one in out {
            let (Outgoing::Release(packet)
            | Outgoing::Publish {
                packet: Some(packet),
                ..
            }) = one
            else {
                continue;
            };
            assert!(!waiting.contains(&packet), "an identifier is used twice");
            waiting.push(packet);
        }
    }

    fn check(&self) {
        let switch = &self.switch;
        let bytes = switch
            .sessions
            .values()
            .map(|session| session.bytes)
            .sum::<usize>();
        assert_eq!(switch.figures.queued_bytes, bytes);
        assert!(bytes <= switch.bounds.queues_bytes_max);
        for session in switch.sessions.values() {
            assert!(session.bytes <= switch.bounds.queue_bytes_max);
            assert!(session.queued() <= switch.bounds.queue_messages_max);
        }
        let subscriptions = switch.sessions.values().map(|one| one.subscriptions.len());
        assert_eq!(switch.figures.subscriptions, subscriptions.sum::<usize>());
        let retained = switch
            .retained
            .values()
            .map(|message| message.weight_bytes());
        assert_eq!(switch.figures.retained_bytes, retained.sum::<usize>());
        assert!(switch.retained.len() <= 2 && switch.sessions.len() <= 2);
        assert_eq!(switch.keys.len(), switch.sessions.len());
        let due = switch
            .sessions
            .values()
            .flat_map(Session::due)
            .collect::<BTreeSet<_>>();
        assert!(switch.timers.iter().all(|(at, _)| due.contains(at)));
        assert!(
            due.iter()
                .all(|due| switch.timers.iter().any(|(at, _)| at == due))
        );
    }
}

proptest! {
    #[test]
    fn the_books_are_right_after_any_history(steps in steps(), kept in any::<bool>()) {
        let mut world = World {
            switch: Switch::new(bounds()),
            keys: HashMap::new(),
            unacknowledged: HashMap::new(),
            now: Instant::now(),
        };
        if kept {
            world.switch.restore(vec![], |_| None, world.now);
        }
        for step in steps {
            world.step(step);
            world.check();
        }
        // When everybody has gone for good, nothing is left.
        for (_, key) in std::mem::take(&mut world.keys) {
            world.switch.detach(key, world.now, None, None);
        }
        world.now += Duration::from_secs(8 * 24 * 3600);
        world.switch.tick(world.now);
        prop_assert_eq!(world.switch.sessions.len(), 0);
        prop_assert_eq!(world.switch.figures.queued_bytes, 0);
        let mut left = 0;
        world.switch.filters.select("a/b", |_, _| left += 1);
        prop_assert_eq!(left, 0);
    }
}
