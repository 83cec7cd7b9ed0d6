//! The service: keeps one lane running for each consumer, as the handle says which there are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tombolo_core::{Invoke, Name, QueueId};
use tombolo_store::Journal;
use tombolo_telemetry::Telemetry;

use super::lane::Lane;
use super::{ConsumeError, Consumer, DeliveryConfig};

/// How often events grow older in queues that nobody takes from.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// The consumers of each app.
type Consumers = BTreeMap<Name, Vec<Consumer>>;

/// What lanes share.
pub(super) struct Shared {
    pub(super) journal: Journal,
    pub(super) invoke: Arc<dyn Invoke>,
    pub(super) telemetry: Telemetry,
    pub(super) config: DeliveryConfig,
    /// The places of the node. Waiters are served in the order in which they came.
    pub(super) places: Arc<Semaphore>,
}

/// The part that runs.
pub struct Deliveries {
    shared: Arc<Shared>,
    consumers: watch::Receiver<Consumers>,
    handle: DeliveriesHandle,
}

/// Says who consumes what; a clone is cheap and means the same deliveries.
#[derive(Clone)]
pub struct DeliveriesHandle {
    consumers: Arc<watch::Sender<Consumers>>,
}

impl DeliveriesHandle {
    /// Whether a set of consumers is possible.
    ///
    /// # Errors
    /// Two want one queue.
    pub fn check(consumers: &[Consumer]) -> Result<(), ConsumeError> {
        for (place, consumer) in consumers.iter().enumerate() {
            let queue = &consumer.queue;
            let mut before = consumers.iter().take(place);
            if before.any(|other| other.queue == *queue) {
                return Err(ConsumeError::Twice(queue.clone()));
            }
        }
        Ok(())
    }

    /// Replaces the consumers of an app, all at once. Those that stay the same go on undisturbed;
    /// those that are gone take nothing more and finish what they have.
    ///
    /// # Errors
    /// The set is not possible ([`Self::check`]); then nothing has changed.
    pub fn consume(&self, app: &Name, consumers: Vec<Consumer>) -> Result<(), ConsumeError> {
        Self::check(&consumers)?;
        self.consumers.send_modify(|all| {
            if consumers.is_empty() {
                all.remove(app);
            } else {
                all.insert(app.clone(), consumers);
            }
        });
        Ok(())
    }
}

/// A lane that takes.
struct Running {
    consumer: Consumer,
    task: Id,
    /// Ends its taking.
    stop: CancellationToken,
}

impl Deliveries {
    /// Deliveries from a journal, to whatever runs functions. Nothing is taken before they run.
    pub fn new(
        journal: Journal,
        invoke: Arc<dyn Invoke>,
        telemetry: Telemetry,
        config: DeliveryConfig,
    ) -> Self {
        let (sender, consumers) = watch::channel(Consumers::new());
        let places = Arc::new(Semaphore::new(config.concurrency));
        Self {
            shared: Arc::new(Shared {
                journal,
                invoke,
                telemetry,
                config,
                places,
            }),
            consumers,
            handle: DeliveriesHandle {
                consumers: Arc::new(sender),
            },
        }
    }

    /// Says who consumes what, before and while it runs.
    pub fn handle(&self) -> DeliveriesHandle {
        self.handle.clone()
    }

    /// Delivers until `shutdown`; then takes nothing more, and waits for the deliveries under way as
    /// long as the config allows.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self {
            shared,
            mut consumers,
            // Kept until the end, so that the channel stays open.
            handle: _handle,
        } = self;
        let mut lanes = JoinSet::new();
        let mut running = HashMap::new();
        let mut sweeps = tokio::time::interval(SWEEP_INTERVAL);
        // One at a time, beside the rest: it may be long. What it has not come to at shutdown, the next start does.
        let mut sweeping = JoinSet::new();
        reconcile(
            &shared,
            &consumers.borrow_and_update(),
            &mut running,
            &mut lanes,
        );
        loop {
            // Each branch is cancel-safe: nothing is taken out before its branch is chosen.
            tokio::select! {
                () = shutdown.cancelled() => break,
                Ok(()) = consumers.changed() => {
                    reconcile(&shared, &consumers.borrow_and_update(), &mut running, &mut lanes);
                }
                Some(ended) = lanes.join_next_with_id() => reap(ended, &mut running),
                _ = sweeps.tick(), if sweeping.is_empty() => {
                    sweeping.spawn(sweep(shared.journal.clone()));
                }
                Some(swept) = sweeping.join_next() => if let Err(error) = swept {
                    tracing::error!(%error, "a sweep ended unexpectedly");
                },
            }
        }
        drop(sweeping);
        for lane in running.values() {
            lane.stop.cancel();
        }
        let drained = async { while lanes.join_next().await.is_some() {} };
        if tokio::time::timeout(shared.config.drain_timeout, drained)
            .await
            .is_err()
        {
            tracing::warn!("deliveries were cut; their events are delivered again");
        }
    }
}

/// Stops the lanes of consumers that are gone or changed, and starts those that are new.
fn reconcile(
    shared: &Arc<Shared>,
    consumers: &Consumers,
    running: &mut HashMap<QueueId, Running>,
    lanes: &mut JoinSet<()>,
) {
    let wanted: HashMap<&QueueId, &Consumer> = consumers
        .values()
        .flatten()
        .map(|consumer| (&consumer.queue, consumer))
        .collect();
    running.retain(|queue, lane| {
        let stays = wanted
            .get(queue)
            .is_some_and(|wanted| **wanted == lane.consumer);
        if !stays {
            lane.stop.cancel();
        }
        stays
    });
    for (queue, consumer) in wanted {
        if running.contains_key(queue) {
            continue;
        }
        let stop = CancellationToken::new();
        let lane = Lane::new(shared.clone(), consumer.clone());
        // Cancelled by `stop` it ends when its deliveries have; if it panics, `reap` tells.
        let task = lanes.spawn(lane.run(stop.clone())).id();
        let consumer = consumer.clone();
        running.insert(
            queue.clone(),
            Running {
                consumer,
                task,
                stop,
            },
        );
    }
}

/// A lane ended: one that was stopped, or one with a bug, whose queue then waits for the next release.
fn reap(ended: Result<(Id, ()), JoinError>, running: &mut HashMap<QueueId, Running>) {
    let Err(error) = ended else { return };
    let task = error.id();
    running.retain(|queue, lane| {
        if lane.task == task {
            tracing::error!(%queue, %error, "a queue is no longer delivered");
        }
        lane.task != task
    });
}

async fn sweep(journal: Journal) {
    if let Err(error) = journal.sweep().await {
        tracing::warn!(%error, "queues cannot be aged");
    }
}
