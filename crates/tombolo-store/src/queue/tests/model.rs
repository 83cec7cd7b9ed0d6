//! Random histories: whatever a queue hands out, drops, keeps or forgets is what a list that is searched from end to end would.

use proptest::prelude::*;

use super::super::*;
use tombolo_core::Moment;

type Q = Queue<u32>;

/// What the model knows of an event.
#[derive(Clone, Debug)]
struct Known {
    entry: Entry<u32>,
    /// The batch that it is out with.
    batch: Option<u64>,
}

impl Known {
    fn is_scheduled(&self) -> bool {
        matches!(self.entry.due, Some(Due::Wall(_)))
    }
}

/// The naive queue: a list in order of sequence.
struct Model {
    settings: QueueSettings,
    known: Vec<Known>,
    /// Batches that are out: their number, their keys, and when their leases end.
    batches: Vec<(u64, Vec<u64>, u64)>,
    log: Vec<Operation<u32>>,
}

impl Model {
    fn events(&self) -> u64 {
        self.known.len() as u64
    }

    fn bytes(&self) -> u64 {
        self.known
            .iter()
            .map(|known| u64::from(known.entry.bytes))
            .sum()
    }

    fn apply(&mut self, operation: Operation<u32>) {
        self.log.push(operation);
        match operation {
            Operation::Enqueued(entry) => self.known.push(Known { entry, batch: None }),
            Operation::Removed { sequence, .. } => {
                self.known.retain(|known| known.entry.sequence != sequence);
            }
            Operation::Retried {
                sequence,
                attempts,
                due_lived_ms,
            } => {
                for known in &mut self.known {
                    if known.entry.sequence == sequence {
                        known.entry.attempts = attempts;
                        known.entry.due = Some(Due::Lived(due_lived_ms));
                        known.batch = None;
                    }
                }
            }
        }
        let known = &self.known;
        self.batches
            .retain(|(batch, ..)| known.iter().any(|known| known.batch == Some(*batch)));
    }

    /// Whether an event may go into a batch that has these events already.
    fn eligible(&self, candidate: &Known, members: &[u64]) -> bool {
        let sequence = candidate.entry.sequence;
        if candidate.batch.is_some() || candidate.entry.due.is_some() || members.contains(&sequence)
        {
            return false;
        }
        let Some(key) = candidate.entry.order else {
            return true;
        };
        let busy = self.batches.iter().any(|(_, keys, _)| keys.contains(&key));
        let passes = self.known.iter().any(|other| {
            other.entry.order == Some(key)
                && other.entry.sequence < sequence
                && !other.is_scheduled()
                && !members.contains(&other.entry.sequence)
        });
        !busy && !passes
    }

    fn form(&self, events_max: usize, bytes_max: u64) -> Vec<u64> {
        let (mut members, mut bytes) = (Vec::new(), 0);
        while members.len() < events_max {
            let eligible = self
                .known
                .iter()
                .filter(|known| self.eligible(known, &members));
            let best = eligible.min_by_key(|known| (known.entry.priority, known.entry.sequence));
            let Some(best) = best else { break };
            bytes += u64::from(best.entry.bytes);
            if !members.is_empty() && bytes > bytes_max {
                break;
            }
            members.push(best.entry.sequence);
        }
        members
    }

    fn take(&mut self, now: Moment) -> Vec<u64> {
        for known in &mut self.known {
            match known.entry.due {
                Some(Due::Wall(due)) if due <= now.wall_ms => known.entry.due = None,
                Some(Due::Lived(due)) if due <= now.lived_ms => known.entry.due = None,
                _ => {}
            }
        }
        if self.batches.len() >= self.settings.concurrency as usize {
            return Vec::new();
        }
        let batch = self.settings.batch;
        let all = self.form(usize::MAX, u64::MAX);
        let bytes: u64 = self
            .known
            .iter()
            .filter(|known| all.contains(&known.entry.sequence))
            .map(|known| u64::from(known.entry.bytes))
            .sum();
        let oldest = self.known.iter().find(|known| self.eligible(known, &[]));
        let waited = oldest
            .is_some_and(|known| known.entry.published_lived_ms + batch.wait_ms <= now.lived_ms);
        if waited || all.len() >= batch.events as usize || bytes >= u64::from(batch.bytes) {
            self.form(batch.events as usize, u64::from(batch.bytes))
        } else {
            Vec::new()
        }
    }

    fn lease(&mut self, members: &[u64], batch: u64, ends: u64) {
        let mut keys = Vec::new();
        for known in &mut self.known {
            if members.contains(&known.entry.sequence) {
                known.batch = Some(batch);
                keys.extend(known.entry.order);
            }
        }
        self.batches.push((batch, keys, ends));
    }
}

#[derive(Clone, Debug)]
struct Wanted {
    bytes: u32,
    key: Option<u64>,
    priority: u8,
    delay_ms: Option<u64>,
}

/// One decision.
#[derive(Clone, Debug)]
enum Decision {
    Publish(Vec<Wanted>),
    Settle(prop::sample::Index, Outcome, u64),
    Sweep(u64),
    Purge(u64),
}

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    /// Decisions that go to disk together, and whether the disk took them.
    Group(Vec<Decision>, bool),
    Take,
    Advance(u64),
    /// The clock of the wall jumps.
    Jump(i64),
}

fn wanted() -> impl Strategy<Value = Wanted> {
    (
        1_u32..200,
        prop::option::weighted(0.7, 0_u64..4),
        0_u8..10,
        prop::option::weighted(0.1, 0_u64..5_000),
    )
        .prop_map(|(bytes, key, priority, delay_ms)| Wanted {
            bytes,
            key,
            priority,
            delay_ms,
        })
}

fn decision() -> impl Strategy<Value = Decision> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Done),
        3 => prop::option::of(0_u64..3_000).prop_map(|after_ms| Outcome::Retry { after_ms }),
        1 => prop::option::of(0_u64..3_000).prop_map(|after_ms| Outcome::Later { after_ms }),
        1 => Just(Outcome::Dead),
    ];
    prop_oneof![
        6 => prop::collection::vec(wanted(), 1..6).prop_map(Decision::Publish),
        6 => (any::<prop::sample::Index>(), outcome, any::<u64>())
            .prop_map(|(index, outcome, random)| Decision::Settle(index, outcome, random)),
        2 => any::<u64>().prop_map(Decision::Sweep),
        1 => (0_u64..5).prop_map(Decision::Purge),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (prop::collection::vec(decision(), 1..5), prop::bool::weighted(0.9))
            .prop_map(|(decisions, written)| Step::Group(decisions, written)),
        4 => Just(Step::Take),
        2 => (0_u64..2_000).prop_map(Step::Advance),
        1 => (-10_000_i64..10_000).prop_map(Step::Jump),
    ]
}

fn settings() -> impl Strategy<Value = QueueSettings> {
    let full = prop_oneof![
        Just(WhenFull::Refuse),
        Just(WhenFull::DropOldest),
        Just(WhenFull::Compact)
    ];
    let batch = (
        1_u32..6,
        50_u32..600,
        prop_oneof![Just(0_u64), 1_u64..2_000],
    );
    (
        full,
        5_u64..40,
        400_u64..4_000,
        batch,
        1_u32..5,
        1_u16..4,
        prop::option::of(500_u64..4_000),
    )
        .prop_map(
            |(full, events, bytes, batch, concurrency, attempts, age_ms)| QueueSettings {
                age_ms: 8_000,
                bytes,
                events,
                full,
                order_by: Some("subject".into()),
                concurrency,
                batch: BatchSettings {
                    events: batch.0,
                    bytes: batch.1,
                    wait_ms: batch.2,
                },
                retry: RetrySettings {
                    attempts,
                    backoff_ms: 100,
                    backoff_max_ms: 1_500,
                    age_ms,
                },
                lease_ms: 1_000,
                ..QueueSettings::default()
            },
        )
}

const WIDE: TakeBounds = TakeBounds {
    events: u32::MAX,
    bytes: u32::MAX,
};

struct Run {
    queue: Q,
    model: Model,
    now: Moment,
    /// Every lease that was ever given.
    leases: Vec<Lease>,
}

impl Run {
    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Take => self.take(),
            Step::Group(decisions, written) => self.group(decisions, *written),
            Step::Advance(by_ms) => self.advance(*by_ms),
            Step::Jump(by_ms) => {
                self.now.wall_ms = self.now.wall_ms.saturating_add_signed(*by_ms);
                Ok(())
            }
        }
    }

    fn take(&mut self) -> Result<(), TestCaseError> {
        let expected = self.model.take(self.now);
        let taken = self.queue.take(self.now, WIDE);
        let events = taken.as_ref().map_or(&[][..], |batch| &batch.events);
        let found: Vec<u64> = events.iter().map(|event| event.lease.sequence).collect();
        prop_assert_eq!(&found, &expected);
        if let Some(batch) = taken {
            for event in &batch.events {
                let mut known = self.model.known.iter();
                let known = known.find(|known| known.entry.sequence == event.lease.sequence);
                let entry = known.unwrap().entry;
                prop_assert_eq!(event.attempt, entry.attempts + 1);
                prop_assert_eq!(event.place, entry.place);
            }
            self.model
                .lease(&found, batch.events[0].lease.batch, batch.ends_lived_ms);
            self.leases
                .extend(batch.events.iter().map(|event| event.lease));
        }
        Ok(())
    }

    fn group(&mut self, decisions: &[Decision], written: bool) -> Result<(), TestCaseError> {
        let mut plan = Plan::default();
        let mut operations = Vec::new();
        // What the model would be if the group is written.
        let mut then = Model {
            settings: self.model.settings.clone(),
            known: self.model.known.clone(),
            batches: self.model.batches.clone(),
            log: Vec::new(),
        };
        for decision in decisions {
            let more = match decision {
                Decision::Publish(wanted) => self.publish(&mut plan, &then, wanted)?,
                Decision::Settle(index, outcome, random) => {
                    self.settle(&mut plan, &then, *index, *outcome, *random)?
                }
                Decision::Sweep(random) => self.sweep(&mut plan, &then, *random)?,
                Decision::Purge(rest) => {
                    let odd = |entry: &Entry<u32>| entry.sequence % 5 == *rest;
                    let operations = self.queue.purge(&mut plan, 3, 4, odd);
                    prop_assert!(operations.len() <= 4);
                    operations
                }
            };
            for operation in &more {
                then.apply(*operation);
            }
            operations.extend(more);
        }
        if written {
            for operation in operations {
                self.queue.apply(operation);
                self.model.apply(operation);
            }
        }
        Ok(())
    }

    fn publish(
        &self,
        plan: &mut Plan,
        then: &Model,
        wanted: &[Wanted],
    ) -> Result<Vec<Operation<u32>>, TestCaseError> {
        let due = |one: &Wanted| one.delay_ms.map(|delay| self.now.wall_ms + delay);
        let arrivals: Vec<Arrival> = wanted
            .iter()
            .map(|one| Arrival {
                bytes: one.bytes,
                order: one.key,
                due_wall_ms: due(one),
            })
            .collect();
        let bytes: u64 = wanted.iter().map(|one| u64::from(one.bytes)).sum();
        let settings = &then.settings;
        let fits = |model: &Model| {
            model.events() + wanted.len() as u64 <= settings.events
                && model.bytes() + bytes <= settings.bytes
        };
        // What may make room, the oldest first.
        let newest = |known: &Known| {
            let mut later = then.known.iter().filter(|other| {
                other.entry.sequence > known.entry.sequence
                    && other.batch.is_none()
                    && !plan.has_decided(other.entry.sequence)
            });
            let arrives = wanted
                .iter()
                .any(|one| one.delay_ms.is_none() && one.key == known.entry.order);
            !arrives
                && !later
                    .any(|other| !other.is_scheduled() && other.entry.order == known.entry.order)
        };
        let removable: Vec<u64> = then
            .known
            .iter()
            .filter(|known| known.batch.is_none())
            // What was retried by this very group is settled only now.
            .filter(|known| !plan.has_decided(known.entry.sequence))
            .filter(|known| match settings.full {
                WhenFull::Refuse => false,
                WhenFull::DropOldest => true,
                WhenFull::Compact => {
                    known.entry.order.is_some() && !known.is_scheduled() && !newest(known)
                }
            })
            .map(|known| known.entry.sequence)
            .collect();
        let mut rest = Model {
            settings: settings.clone(),
            known: then.known.clone(),
            batches: Vec::new(),
            log: Vec::new(),
        };
        let mut expected = Vec::new();
        for sequence in removable {
            if fits(&rest) {
                break;
            }
            rest.known.retain(|known| known.entry.sequence != sequence);
            expected.push(sequence);
        }
        let before = plan.clone();
        let admission = match self.queue.admit(plan, self.now, &arrivals) {
            Ok(admission) => admission,
            Err(refusal) => {
                prop_assert!(!fits(&rest), "{refusal}");
                prop_assert_eq!(format!("{before:?}"), format!("{plan:?}"));
                return Ok(Vec::new());
            }
        };
        prop_assert!(fits(&rest));
        let removed: Vec<u64> = admission.removals.iter().map(removed).collect();
        prop_assert_eq!(removed, expected);
        let mut operations = admission.removals;
        for (sequence, one) in (admission.first_sequence..).zip(wanted) {
            operations.push(Operation::Enqueued(Entry {
                sequence,
                place: one.bytes ^ 77,
                bytes: one.bytes,
                attempts: 0,
                due: due(one).map(Due::Wall),
                priority: one.priority,
                order: one.key,
                published_lived_ms: self.now.lived_ms,
            }));
        }
        Ok(operations)
    }

    fn settle(
        &self,
        plan: &mut Plan,
        then: &Model,
        index: prop::sample::Index,
        outcome: Outcome,
        random: u64,
    ) -> Result<Vec<Operation<u32>>, TestCaseError> {
        if self.leases.is_empty() {
            return Ok(Vec::new());
        }
        let lease = *index.get(&self.leases);
        let mut known = then.known.iter();
        let known = known.find(|known| {
            known.entry.sequence == lease.sequence && known.batch == Some(lease.batch)
        });
        let settled = self.queue.settle(plan, lease, outcome, self.now, random);
        prop_assert_eq!(settled.is_ok(), known.is_some());
        let (Ok(operation), Some(known)) = (settled, known) else {
            return Ok(Vec::new());
        };
        self.check_settled(operation, &known.entry, outcome)?;
        Ok(vec![operation])
    }

    fn check_settled(
        &self,
        operation: Operation<u32>,
        entry: &Entry<u32>,
        outcome: Outcome,
    ) -> Result<(), TestCaseError> {
        let retry = &self.model.settings.retry;
        let last = entry.attempts + 1 >= retry.attempts;
        let age_ms = self.now.lived_ms - entry.published_lived_ms;
        let old = retry.age_ms.is_some_and(|max| age_ms >= max);
        let expected = match outcome {
            Outcome::Done => Reason::Done,
            Outcome::Dead => Reason::Buried(Burial::Refused),
            Outcome::Retry { .. } if last => Reason::Buried(Burial::Attempts),
            Outcome::Retry { .. } | Outcome::Later { .. } if old => Reason::Buried(Burial::Age),
            Outcome::Retry { after_ms } | Outcome::Later { after_ms } => {
                let Operation::Retried {
                    sequence,
                    attempts,
                    due_lived_ms,
                } = operation
                else {
                    return Err(TestCaseError::fail("it is not tried again"));
                };
                let tried = u16::from(matches!(outcome, Outcome::Retry { .. }));
                prop_assert_eq!(
                    (sequence, attempts),
                    (entry.sequence, entry.attempts + tried)
                );
                let wait_ms = due_lived_ms - self.now.lived_ms;
                let kept_ms = self.model.settings.age_ms;
                let lives_ms = retry.age_ms.unwrap_or(u64::MAX).min(kept_ms);
                let asked_ms = after_ms.unwrap_or(0).min(lives_ms.saturating_sub(age_ms));
                prop_assert!(wait_ms >= asked_ms);
                prop_assert!(wait_ms <= asked_ms.max(retry.backoff_max_ms));
                return Ok(());
            }
        };
        let sequence = entry.sequence;
        let reason = expected;
        prop_assert_eq!(operation, Operation::Removed { sequence, reason });
        Ok(())
    }

    fn sweep(
        &self,
        plan: &mut Plan,
        then: &Model,
        random: u64,
    ) -> Result<Vec<Operation<u32>>, TestCaseError> {
        let mut due: Vec<u64> = then
            .known
            .iter()
            .filter(|known| match known.batch {
                Some(out) => {
                    let ended = then.batches.iter().find(|(batch, ..)| *batch == out);
                    ended.is_some_and(|(_, _, ends)| *ends <= self.now.lived_ms)
                }
                None => {
                    let known = &known.entry;
                    known.published_lived_ms + then.settings.age_ms <= self.now.lived_ms
                        && !plan.has_decided(known.sequence)
                        && known.sequence < self.queue.next_sequence()
                }
            })
            .map(|known| known.entry.sequence)
            .collect();
        let operations = self.queue.sweep(plan, self.now, usize::MAX, || random);
        let mut swept: Vec<u64> = operations.iter().map(removed).collect();
        swept.sort_unstable();
        due.sort_unstable();
        prop_assert_eq!(swept, due);
        Ok(operations)
    }

    /// Goes on in time; where the queue says that nothing happens before some instant, it does not.
    fn advance(&mut self, by_ms: u64) -> Result<(), TestCaseError> {
        let wakeup = self.queue.next_wakeup(self.now);
        let then = self.now.after(by_ms);
        let quiet_until = |due: Option<u64>, then: u64| due.is_none_or(|due| due > then);
        let quiet = quiet_until(wakeup.lived_ms, then.lived_ms)
            && quiet_until(wakeup.wall_ms, then.wall_ms);
        self.now = then;
        if quiet {
            prop_assert_eq!(self.queue.take(then, WIDE), None);
            let mut plan = Plan::default();
            prop_assert_eq!(self.queue.sweep(&mut plan, then, usize::MAX, || 0), vec![]);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let settings = self.queue.settings();
        prop_assert!(self.queue.depth() <= settings.events);
        prop_assert!(self.queue.bytes() <= settings.bytes);
        prop_assert_eq!(self.queue.bytes(), self.model.bytes());
        let listed = self.queue.list(0, usize::MAX);
        let leased = listed.iter().map(|one| one.standing == Standing::Leased);
        let out = self.model.known.iter().map(|known| known.batch.is_some());
        prop_assert!(leased.eq(out));
        let entries: Vec<_> = listed.iter().map(|one| facts(&one.entry)).collect();
        let known: Vec<_> = self
            .model
            .known
            .iter()
            .map(|known| facts(&known.entry))
            .collect();
        prop_assert_eq!(entries, known);
        Ok(())
    }

    /// What a restart finds: the same events, with nothing handed out.
    fn check_restart(&self) -> Result<(), TestCaseError> {
        let mut again = Q::new(self.queue.settings().clone());
        for operation in &self.model.log {
            again.apply(*operation);
        }
        again.recovered(0);
        let entries = |queue: &Q| -> Vec<_> {
            let listed = queue.list(0, usize::MAX);
            listed.iter().map(|one| facts(&one.entry)).collect()
        };
        prop_assert_eq!(entries(&again), entries(&self.queue));
        prop_assert_eq!(again.bytes(), self.queue.bytes());
        prop_assert_eq!(again.next_sequence(), self.queue.next_sequence());
        prop_assert_eq!(again.figures(self.now).leased, 0);
        Ok(())
    }

    /// With a function that always answers, everything is handed out in the end.
    fn drain(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..10_000 {
            if self.queue.depth() == 0 {
                return Ok(());
            }
            let mut plan = Plan::default();
            let operations = match self.queue.take(self.now, WIDE) {
                Some(batch) => batch
                    .events
                    .iter()
                    .map(|event| {
                        self.queue
                            .settle(&mut plan, event.lease, Outcome::Done, self.now, 0)
                    })
                    .collect::<Result<_, _>>()
                    .unwrap(),
                None => self.queue.sweep(&mut plan, self.now, usize::MAX, || 0),
            };
            if operations.is_empty() {
                let wakeup = self.queue.next_wakeup(self.now);
                prop_assert!(wakeup != Wakeup::default(), "it sleeps for ever");
                self.now.lived_ms = self.now.lived_ms.max(wakeup.lived_ms.unwrap_or(0));
                self.now.wall_ms = self.now.wall_ms.max(wakeup.wall_ms.unwrap_or(0));
            }
            for operation in operations {
                self.queue.apply(operation);
            }
        }
        Err(TestCaseError::fail("it does not drain"))
    }
}

fn removed(operation: &Operation<u32>) -> u64 {
    match operation {
        Operation::Enqueued(entry) => entry.sequence,
        Operation::Removed { sequence, .. } | Operation::Retried { sequence, .. } => *sequence,
    }
}

/// What survives a restart; that a time came due is found out again.
fn facts(entry: &Entry<u32>) -> Entry<u32> {
    Entry {
        due: None,
        ..*entry
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]
    #[test]
    fn a_queue_does_what_the_model_does(
        settings in settings(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let model = Model {
            settings: settings.clone(),
            known: Vec::new(),
            batches: Vec::new(),
            log: Vec::new(),
        };
        let now = Moment { lived_ms: 0, wall_ms: 1_000_000 };
        let mut run = Run { queue: Q::new(settings), model, now, leases: Vec::new() };
        for step in &steps {
            run.step(step)?;
            run.check()?;
        }
        run.check_restart()?;
        run.drain()?;
    }
}
