//! A store on a simulated disk, random histories on it, and the model that they are compared with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tombolo_core::event::Event;
use tombolo_core::publish::CALLBACK;
use tombolo_core::{FunctionId, Publication, Publish as _, Published, QueueId};
use tombolo_store::disk::simulated::SimulatedDisk;
use tombolo_store::queue::{Callback, QueueSettings, TakeBounds};
use tombolo_store::{
    Answer, Cause, Clock, Delivery, Effects, INVOCATION_FAILED, Journal, KeyValue, Lease, Limits,
    Outcome, Scope, Selection, Settled, Store, StoreError, Taken, Transaction, Write,
};

const QUEUES: [&str; 2] = ["readings", "plans"];
/// Where what becomes of dead letters is told.
const CALLBACKS: &str = "callbacks";
const TAKE: TakeBounds = TakeBounds {
    events: 1,
    bytes: 1 << 20,
};

/// A reproducible sequence (SplitMix64), so that a failure can be found again.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) as usize % bound
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Publish,
    PublishMany,
    /// Several publications and an increment at once, each a transaction of its own.
    Together,
    Done,
    Retry,
    Bury,
    Redrive,
    Purge,
    /// Settle one event, publish another and write two keys.
    Transaction,
    /// What a transactional invocation does: count, write, publish and answer, with its event's acknowledgement;
    /// and again when somebody else counts meanwhile.
    Invocation,
    Write,
    Increment,
    Wait,
    Reopen,
}

/// What a user sees of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Events by queue, in order: id and failed attempts.
    pub queues: BTreeMap<String, Vec<(String, u16)>>,
    pub keys: BTreeMap<String, String>,
    /// Stored answers by their key.
    pub answers: BTreeMap<String, String>,
    /// Ids that were accepted.
    pub accepted: BTreeSet<(String, String)>,
}

impl State {
    fn events(&mut self, queue: &str) -> &mut Vec<(String, u16)> {
        self.queues.entry(queue.to_owned()).or_default()
    }

    fn publish(&mut self, queue: &str, id: &str) {
        self.events(queue).push((id.to_owned(), 0));
        self.accepted.insert((queue.to_owned(), id.to_owned()));
    }

    fn remove(&mut self, queue: &str, id: &str) {
        self.events(queue).retain(|(other, _)| other != id);
    }
}

/// A history that has run.
pub struct Run {
    pub disk: SimulatedDisk,
    /// The first call behind the making of the store.
    pub first_call: usize,
    /// The state after each step, and the calls before which it was asked for and answered.
    pub states: Vec<(State, usize, usize)>,
}

/// A clock that goes on when it is told to.
#[derive(Clone, Default)]
pub struct Hands(pub Arc<AtomicU64>);

impl Clock for Hands {
    fn elapsed_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn wall_ms(&self) -> u64 {
        1_700_000_000_000 + self.elapsed_ms()
    }
}

/// Small, so that a short history has many segments, checkpoints and moves.
pub const LIMITS: Limits = Limits {
    segment_bytes: 6 << 10,
    checkpoint_bytes: 3 << 10,
    slack_bytes: 8 << 10,
    step_bytes: 1 << 10,
    scrap_bytes: 1 << 10,
};

pub fn open_with(disk: &SimulatedDisk, clock: Hands) -> Store {
    let disk = Arc::new(disk.clone());
    Store::open_on(disk, Path::new("/store"), Box::new(clock), LIMITS).unwrap()
}

#[allow(dead_code, reason = "the tests of a failing disk use it")]
pub fn open_with_limits(disk: &SimulatedDisk, limits: Limits) -> Store {
    let (disk, clock) = (Arc::new(disk.clone()), Box::new(Hands::default()));
    Store::open_on(disk, Path::new("/store"), clock, limits).unwrap()
}

pub fn open(disk: &SimulatedDisk) -> Store {
    open_with(disk, Hands::default())
}

pub fn queue(name: &str) -> QueueId {
    QueueId {
        app: "app".parse().unwrap(),
        queue: name.parse().unwrap(),
    }
}

pub fn keys(store: &Store) -> KeyValue {
    store.key_value(&"app".parse().unwrap(), &"things".parse().unwrap())
}

pub async fn configure(journal: &Journal) {
    for name in QUEUES {
        let settings = QueueSettings {
            order_by: Some("subject".into()),
            concurrency: 1000,
            callback: Some(Callback {
                queue: queue(CALLBACKS),
                function: function(),
            }),
            ..QueueSettings::default()
        };
        journal.configure(queue(name), settings).await.unwrap();
    }
    let settings = QueueSettings::default();
    journal.configure(queue(CALLBACKS), settings).await.unwrap();
}

/// The data of an event, which its id tells; some is longer than a page.
pub fn data(id: &str) -> String {
    let number: usize = id.parse().unwrap();
    id.repeat(1 + number * 31 % 40 + if number.is_multiple_of(13) { 1500 } else { 0 })
}

pub fn publication(name: &str, id: usize) -> Publication {
    let id = id.to_string();
    let mut event = Event::new(id.clone(), "/test", "test").with_data("text/plain", data(&id));
    event.subject = Some(format!(
        "key-{}",
        id.len() * 7 + id.as_bytes()[id.len() - 1] as usize % 3
    ));
    if asks(&id) {
        event.set(CALLBACK, "https://done.example".into()).unwrap();
    }
    Publication::new(queue(name), event)
}

/// Whether an event asks to be told of when it becomes a dead letter.
fn asks(id: &str) -> bool {
    id.ends_with('3') || id.ends_with('8')
}

/// The id of an event, or of the one that it tells of; its content is checked.
pub fn known(event: Event, what: &str) -> String {
    if event.kind == INVOCATION_FAILED {
        let id = event.subject.unwrap();
        assert!(asks(&id), "{what}");
        return id;
    }
    let content = event.data.unwrap();
    assert_eq!(content, data(&event.id).as_bytes(), "{what} {}", event.id);
    event.id
}

/// The state of a store, as its interface shows it.
pub fn observe(store: &Store) -> State {
    let (journal, things) = (store.journal(), keys(store));
    let mut state = State::default();
    for figures in journal.queues().unwrap() {
        let name = figures.queue.queue.to_string();
        for listed in journal.list(&figures.queue, 0, 1000).unwrap() {
            let peeked = journal
                .peek(&figures.queue, listed.sequence)
                .unwrap()
                .unwrap();
            assert_eq!(peeked.history.len(), usize::from(listed.attempts));
            assert_eq!(peeked.dead.is_some(), name.ends_with(".dead"));
            let id = known(peeked.event, &name);
            state.events(&name).push((id, listed.attempts));
        }
    }
    for key in things.keys(None, 1000).unwrap() {
        let value = things.get(&key).unwrap().unwrap();
        state
            .keys
            .insert(key, String::from_utf8_lossy(&value).into_owned());
    }
    for key in ANSWERS {
        if let Some(answer) = journal.answer(&function(), key).unwrap() {
            let answer = String::from_utf8_lossy(&answer).into_owned();
            state.answers.insert(key.into(), answer);
        }
    }
    state.queues.retain(|_, events| !events.is_empty());
    state
}

/// The function whose answers are stored, and their keys.
fn function() -> FunctionId {
    FunctionId {
        app: "app".parse().unwrap(),
        function: "f".parse().unwrap(),
    }
}

const ANSWERS: [&str; 3] = ["once", "twice", "thrice"];

/// A history under way.
struct Actor {
    store: Store,
    clock: Hands,
    run: Run,
    state: State,
    next: usize,
}

/// Runs a random history on a new disk.
pub async fn history(random: &mut Random, weights: &[(u32, Step)], steps: usize) -> Run {
    history_on(SimulatedDisk::new(), random, weights, steps).await
}

/// Runs a random history.
pub async fn history_on(
    disk: SimulatedDisk,
    random: &mut Random,
    weights: &[(u32, Step)],
    steps: usize,
) -> Run {
    let clock = Hands::default();
    let store = open_with(&disk, clock.clone());
    configure(&store.journal()).await;
    let mut actor = Actor {
        store,
        clock,
        run: Run {
            first_call: disk.calls(),
            states: vec![(State::default(), 0, disk.calls())],
            disk,
        },
        state: State::default(),
        next: 0,
    };
    let total: u32 = weights.iter().map(|(weight, _)| weight).sum();
    for _ in 0..steps {
        let mut at = random.below(total as usize) as u32;
        let step = weights.iter().find(|(weight, _)| {
            let found = at < *weight;
            at = at.saturating_sub(*weight);
            found
        });
        actor.step(step.unwrap().1, random).await;
        assert_eq!(
            observe(&actor.store),
            actor.visible(),
            "{:?}",
            step.unwrap()
        );
    }
    let Actor {
        store,
        mut run,
        state,
        ..
    } = actor;
    store.close().await;
    let calls = run.disk.calls();
    run.states.push((state, calls, calls));
    run
}

impl Actor {
    fn visible(&self) -> State {
        let mut state = self.state.clone();
        state.queues.retain(|_, events| !events.is_empty());
        state.accepted.clear();
        state
    }

    /// Notes a step that began before a call and is answered.
    fn note(&mut self, began: usize) {
        let state = (self.state.clone(), began, self.run.disk.calls());
        self.run.states.push(state);
    }

    fn id(&mut self) -> usize {
        self.next += 1;
        self.next
    }

    async fn step(&mut self, step: Step, random: &mut Random) {
        let began = self.run.disk.calls();
        let name = QUEUES[random.below(QUEUES.len())];
        match step {
            Step::Publish => {
                let id = self.id();
                self.publish(&[(name, id)]).await;
            }
            Step::PublishMany => {
                let events: Vec<_> = (0..2 + random.below(6))
                    .map(|_| (QUEUES[random.below(QUEUES.len())], self.id()))
                    .collect();
                self.publish(&events).await;
            }
            Step::Together => return self.together(random).await,
            Step::Done | Step::Retry | Step::Bury => return self.settle(step, name).await,
            Step::Transaction => return self.transaction(name, random).await,
            Step::Invocation => return self.invocation(name, random).await,
            Step::Redrive | Step::Purge => {
                let name = if step == Step::Redrive {
                    format!("{name}.dead")
                } else {
                    name.into()
                };
                return self.operate(step, &name).await;
            }
            Step::Write => {
                let (key, value) = (format!("k{}", random.below(8)), self.id().to_string());
                let value = value.repeat(1 + random.below(30) * random.below(30));
                let write = set(&key, &value);
                keys(&self.store).write(vec![write]).await.unwrap();
                self.state.keys.insert(key, value);
            }
            Step::Increment => {
                let sum = keys(&self.store).increment("count", 3).await.unwrap();
                self.state.keys.insert("count".into(), sum.to_string());
            }
            Step::Wait => {
                self.clock.0.fetch_add(400_000, Ordering::SeqCst);
                return;
            }
            Step::Reopen => {
                let store = std::mem::replace(&mut self.store, open(&SimulatedDisk::new()));
                store.close().await;
                self.store = open_with(&self.run.disk, Hands::default());
                self.clock = Hands::default();
                configure(&self.store.journal()).await;
                return;
            }
        }
        self.note(began);
    }

    async fn publish(&mut self, events: &[(&str, usize)]) {
        let publications = events.iter().map(|(name, id)| publication(name, *id));
        let publications: Vec<_> = publications.collect();
        let journal = self.store.journal();
        let published = journal.publish(publications.clone()).await.unwrap();
        assert!(
            published
                .iter()
                .all(|one| matches!(one, Published::Accepted(_)))
        );
        for (name, id) in events {
            self.state.publish(name, &id.to_string());
        }
        let again = journal.publish(publications).await.unwrap();
        assert!(again.iter().all(|one| *one == Published::Duplicate));
    }

    async fn together(&mut self, random: &mut Random) {
        let began = self.run.disk.calls();
        let (mut tasks, mut states) = (Vec::new(), Vec::new());
        for _ in 0..2 + random.below(5) {
            let (name, id) = (QUEUES[random.below(QUEUES.len())], self.id());
            let journal = self.store.journal();
            let event = vec![publication(name, id)];
            tasks.push(tokio::spawn(async move {
                journal.publish(event).await.unwrap();
            }));
            self.state.publish(name, &id.to_string());
            states.push(self.state.clone());
        }
        let things = keys(&self.store);
        let count = self
            .state
            .keys
            .get("count")
            .map_or(0, |count| count.parse().unwrap());
        tasks.push(tokio::spawn(async move {
            assert_eq!(things.increment("count", 3).await.unwrap(), count + 3);
        }));
        self.state
            .keys
            .insert("count".into(), (count + 3).to_string());
        states.push(self.state.clone());
        for task in tasks {
            task.await.unwrap();
        }
        let calls = self.run.disk.calls();
        self.run
            .states
            .extend(states.into_iter().map(|state| (state, began, calls)));
    }

    async fn take(&self, name: &str) -> Option<Delivery> {
        match self.store.journal().take(&queue(name), TAKE).await.unwrap() {
            Taken::Batch(mut batch) => batch.deliveries.pop(),
            Taken::Nothing { .. } => None,
        }
    }

    async fn settle(&mut self, step: Step, name: &str) {
        let Some(delivery) = self.take(name).await else {
            return;
        };
        let began = self.run.disk.calls();
        let id = delivery.event.id.clone();
        let cause = Cause::new("it failed");
        let outcome = match step {
            Step::Done => Outcome::Done,
            Step::Retry => Outcome::Retry {
                cause,
                after_ms: None,
            },
            _ => Outcome::Dead { cause },
        };
        let journal = self.store.journal();
        let settled = journal
            .settle(vec![(delivery.lease, outcome)])
            .await
            .unwrap();
        match settled[0] {
            Settled::Done => self.state.remove(name, &id),
            Settled::Retried { attempts, .. } => {
                for event in self.state.events(name) {
                    if event.0 == id {
                        event.1 = attempts;
                    }
                }
            }
            Settled::Buried => {
                self.state.remove(name, &id);
                if asks(&id) {
                    self.state.events(CALLBACKS).push((id.clone(), 0));
                }
                self.state.events(&format!("{name}.dead")).push((id, 0));
            }
            Settled::Stale => unreachable!("nobody else takes"),
        }
        self.note(began);
    }

    async fn operate(&mut self, step: Step, name: &str) {
        let journal = self.store.journal();
        let listed = journal.list(&queue(name), 0, 1).unwrap();
        let Some(first) = listed.first() else { return };
        let began = self.run.disk.calls();
        let one = Selection::One(first.sequence);
        let count = match step {
            Step::Redrive => journal.redrive(&queue(name), &one, false).await.unwrap(),
            _ => journal.purge(&queue(name), &one, false).await.unwrap(),
        };
        if count == 1 {
            let (id, _) = self.state.events(name).remove(0);
            if step == Step::Redrive {
                let living = name.strip_suffix(".dead").unwrap();
                self.state.events(living).push((id, 0));
            }
        }
        self.note(began);
    }

    async fn invocation(&mut self, name: &str, random: &mut Random) {
        let Some(delivery) = self.take(name).await else {
            return;
        };
        let journal = self.store.journal();
        let (id, key) = (self.id(), ANSWERS[random.below(ANSWERS.len())]);
        let other = QUEUES[random.below(QUEUES.len())];
        let mut meddled = random.below(4) != 0;
        loop {
            let effects = Effects::default();
            let things = keys(&self.store).within(Scope {
                effects: Some(effects.clone()),
                ..Scope::default()
            });
            let sum = things.increment("count", 3).await.unwrap();
            let last = set("last", &id.to_string());
            things.write(vec![last]).await.unwrap();
            effects.publish(vec![publication(other, id)]).await.unwrap();
            let answer = Answer {
                function: function(),
                key: key.into(),
                answer: id.to_string().into(),
            };
            effects.answer(answer).unwrap();
            if !meddled {
                meddled = true;
                Box::pin(self.step(Step::Increment, random)).await;
            }
            let began = self.run.disk.calls();
            let transaction = Transaction {
                settlements: vec![(delivery.lease.clone(), Outcome::Done)],
                ..effects.seal()
            };
            match journal.commit(transaction).await {
                Err(StoreError::Conflict { key }) => assert_eq!(key, "count"),
                committed => {
                    committed.unwrap();
                    self.state.keys.insert("count".into(), sum.to_string());
                    self.state.keys.insert("last".into(), id.to_string());
                    self.state.answers.insert(key.into(), id.to_string());
                    self.state.remove(name, &delivery.event.id);
                    self.state.publish(other, &id.to_string());
                    return self.note(began);
                }
            }
        }
    }

    async fn transaction(&mut self, name: &str, random: &mut Random) {
        let Some(delivery) = self.take(name).await else {
            return;
        };
        let began = self.run.disk.calls();
        let (id, things) = (self.id(), keys(&self.store));
        let both = format!("t{}", random.below(4));
        let other = QUEUES[random.below(QUEUES.len())];
        let value = id.to_string();
        let transaction = Transaction {
            writes: vec![
                (things.clone(), set(&format!("{both}-left"), &value)),
                (things, set(&format!("{both}-right"), &value)),
            ],
            publications: vec![publication(other, id)],
            settlements: vec![(delivery.lease, Outcome::Done)],
            ..Transaction::default()
        };
        self.store.journal().commit(transaction).await.unwrap();
        self.state.remove(name, &delivery.event.id);
        self.state.publish(other, &value);
        for side in ["left", "right"] {
            self.state
                .keys
                .insert(format!("{both}-{side}"), value.clone());
        }
        self.note(began);
    }
}

fn set(key: &str, value: &str) -> Write {
    Write::Set {
        key: key.into(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

/// Opens what a cut has left, and compares.
pub async fn check(run: &Run, call: usize, seed: u64, disk: SimulatedDisk) {
    let store = open(&disk);
    let lost = store.damages().iter();
    let lost: Vec<_> = lost
        .filter(|one| matches!(one, tombolo_store::Damage::Lost { .. }))
        .collect();
    assert!(lost.is_empty(), "call {call}, seed {seed}: {lost:?}");
    configure(&store.journal()).await;
    let found = observe(&store);
    let answered = run
        .states
        .iter()
        .rposition(|(.., answered)| *answered <= call);
    let asked = run.states.iter().rposition(|(_, began, _)| *began <= call);
    let (answered, asked) = (answered.unwrap_or(0), asked.unwrap_or(0));
    let state = run.states[answered..=asked.max(answered)]
        .iter()
        .find(|(state, ..)| {
            let events = state.queues.iter().filter(|(_, events)| !events.is_empty());
            let keys = state.keys == found.keys && state.answers == found.answers;
            events.eq(found.queues.iter()) && keys
        });
    let Some((state, ..)) = state else {
        let expected = &run.states[answered..=asked.max(answered)];
        unreachable!("call {call}, seed {seed}: found {found:#?}, expected one of {expected:#?}");
    };
    let journal = store.journal();
    for (name, id) in &state.accepted {
        let again = publication(name, id.parse().unwrap());
        let published = journal.publish(vec![again]).await.unwrap();
        assert_eq!(
            published,
            [Published::Duplicate],
            "call {call}, seed {seed}: {name} {id}"
        );
    }
    if (call + seed as usize).is_multiple_of(5) {
        drain(store, disk, state).await;
    }
}

/// Works everything off: each event comes once, those of a key in their order, and none comes back.
async fn drain(store: Store, disk: SimulatedDisk, state: &State) {
    // Backoffs and ended leases are behind.
    let clock = Hands::default();
    clock.0.store(10_000_000, Ordering::SeqCst);
    store.close().await;
    let store = open_with(&disk, clock);
    let journal = store.journal();
    configure(&journal).await;
    for name in QUEUES {
        let mut expected: Vec<String> = Vec::new();
        if let Some(events) = state.queues.get(name) {
            expected.extend(events.iter().map(|(id, _)| id.clone()));
        }
        let mut taken = Vec::new();
        let mut leases: Vec<(Lease, Outcome)> = Vec::new();
        loop {
            match journal.take(&queue(name), TAKE).await.unwrap() {
                Taken::Batch(batch) => {
                    for delivery in batch.deliveries {
                        taken.push((delivery.event.subject.unwrap(), delivery.event.id));
                        leases.push((delivery.lease, Outcome::Done));
                    }
                }
                Taken::Nothing { .. } if leases.is_empty() => break,
                Taken::Nothing { .. } => {
                    let settled = journal.settle(std::mem::take(&mut leases)).await.unwrap();
                    assert!(settled.iter().all(|one| *one == Settled::Done));
                }
            }
        }
        let place = |id: &String| expected.iter().position(|one| one == id);
        for (index, (key, id)) in taken.iter().enumerate() {
            let later = taken[index + 1..].iter().filter(|(other, _)| other == key);
            for (_, other) in later {
                assert!(place(id) < place(other), "{name}: {other} before {id}");
            }
        }
        let mut ids: Vec<_> = taken.into_iter().map(|(_, id)| id).collect();
        ids.sort();
        expected.sort();
        assert_eq!(ids, expected, "{name}");
    }
    store.close().await;
    let store = open(&disk);
    let left = observe(&store).queues;
    let stays = |name: &String| name.ends_with(".dead") || name == CALLBACKS;
    assert!(left.keys().all(stays), "{left:?}");
}
