//! The lane of one consumer: takes batches while there are places, and has each delivered by a task of its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, RwLock, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tombolo_store::{StoreError, Taken};
use tombolo_telemetry::QueueMetrics;

use super::Consumer;
use super::exchange::deliver;
use super::service::Shared;

/// How long a lane rests after the store failed.
const PAUSE: Duration = Duration::from_secs(1);

/// A lane. Its tasks hold it while they deliver.
pub(super) struct Lane {
    pub(super) shared: Arc<Shared>,
    pub(super) consumer: Consumer,
    pub(super) metrics: Arc<QueueMetrics>,
    /// The one place that it always has.
    own: Arc<Semaphore>,
    /// Shared by the runs of a transactional function; one that lost to others what it had read has it alone the next
    /// time, so that it does not lose to its own kind again. Turns come in the order in which they are asked for.
    pub(super) turns: RwLock<()>,
}

impl Lane {
    pub(super) fn new(shared: Arc<Shared>, consumer: Consumer) -> Self {
        Self {
            metrics: shared.telemetry.queue(&consumer.queue),
            shared,
            consumer,
            own: Arc::new(Semaphore::new(1)),
            turns: RwLock::default(),
        }
    }

    /// Delivers until `stop`, then waits for what is under way. Dropping it cuts that off.
    pub(super) async fn run(self, stop: CancellationToken) {
        let lane = Arc::new(self);
        let mut deliveries = JoinSet::new();
        while !stop.is_cancelled() {
            let taken = lane.take_while_ready(&stop, &mut deliveries).await;
            // A queue may be retired while its lane stops.
            if let Err(error) = taken
                && !stop.is_cancelled()
            {
                let queue = &lane.consumer.queue;
                tracing::warn!(%queue, %error, "events cannot be taken");
                stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
            }
        }
        while let Some(ended) = deliveries.join_next().await {
            tell(ended);
        }
    }

    /// Takes until `stop` or until the store fails.
    async fn take_while_ready(
        self: &Arc<Self>,
        stop: &CancellationToken,
        deliveries: &mut JoinSet<()>,
    ) -> Result<(), StoreError> {
        let journal = &self.shared.journal;
        let mut ready = journal.ready(&self.consumer.queue)?;
        while let Some(place) = self.place(stop).await {
            // As many as the queue's concurrency are there at most: those that ended go first.
            while let Some(ended) = deliveries.try_join_next() {
                tell(ended);
            }
            ready.borrow_and_update();
            let taken = journal.take(&self.consumer.queue, self.consumer.batch);
            match taken.await? {
                Taken::Batch(batch) => {
                    // Its end settles the batch; if it is cut or panics, the lease ends by itself.
                    deliveries.spawn(deliver(self.clone(), batch, place));
                }
                Taken::Nothing { after } => {
                    drop(place);
                    wait(&mut ready, after, stop).await;
                }
            }
        }
        Ok(())
    }

    /// A place for one more delivery: the lane's own, or one of the node's when its turn comes.
    /// None when it is to stop.
    async fn place(&self, stop: &CancellationToken) -> Option<OwnedSemaphorePermit> {
        let own = self.own.clone().acquire_owned();
        let shared = self.shared.places.clone().acquire_owned();
        // A branch that is not chosen gives its turn back, and another is waited for next time.
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            place = own => place.ok(),
            place = shared => place.ok(),
        }
    }
}

/// Waits until there may be something to take.
async fn wait(ready: &mut watch::Receiver<()>, after: Option<Duration>, stop: &CancellationToken) {
    let time = async {
        match after {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = time => {}
        changed = ready.changed() => if changed.is_err() {
            // The store is gone; taking will say so.
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Tells of a delivery that has not ended by itself.
fn tell(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a delivery ended unexpectedly");
    }
}
