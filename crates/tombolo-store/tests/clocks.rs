//! What the journal makes of time that passes while it works, and of clocks that jump.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says with a panic that something is wrong"
)]

#[allow(dead_code, reason = "other tests use the rest")]
mod simulation;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use simulation::{LIMITS, open, publication, queue};
use tombolo_core::Publish as _;
use tombolo_store::disk::simulated::SimulatedDisk;
use tombolo_store::queue::{QueueSettings, TakeBounds};
use tombolo_store::{Clock, Store, Taken};

const MANY: TakeBounds = TakeBounds {
    events: 1000,
    bytes: 1 << 24,
};

/// Clocks of which each look takes a second.
#[derive(Default)]
struct Slow(AtomicU64);

impl Clock for Slow {
    fn elapsed_ms(&self) -> u64 {
        self.0.fetch_add(1000, Ordering::SeqCst)
    }

    fn wall_ms(&self) -> u64 {
        1_767_225_600_000 + self.elapsed_ms()
    }
}

#[tokio::test]
async fn a_lease_is_told_as_it_is_when_the_events_are_read() {
    let (disk, clock) = (Arc::new(SimulatedDisk::new()), Box::new(Slow::default()));
    let store = Store::open_on(disk, Path::new("/store"), clock, LIMITS).unwrap();
    let journal = store.journal();
    let settings = QueueSettings::default();
    let lease_ms = settings.lease_ms;
    journal
        .configure(queue("readings"), settings)
        .await
        .unwrap();
    journal
        .publish(vec![publication("readings", 0)])
        .await
        .unwrap();
    let taken = journal.take(&queue("readings"), MANY).await.unwrap();
    assert!(matches!(taken, Taken::Batch(batch) if batch.lease_ms < lease_ms));
}

#[tokio::test]
async fn a_scheduled_event_is_looked_for_each_minute_because_clocks_jump() {
    let store = open(&SimulatedDisk::new());
    let journal = store.journal();
    let settings = QueueSettings::default();
    journal
        .configure(queue("readings"), settings)
        .await
        .unwrap();
    let mut scheduled = publication("readings", 1);
    let day_ms = 24 * 60 * 60 * 1000;
    scheduled.due_wall_ms = Some(journal.now().unwrap().wall_ms + day_ms);
    journal.publish(vec![scheduled]).await.unwrap();
    let taken = journal.take(&queue("readings"), MANY).await.unwrap();
    let minute = Duration::from_secs(60);
    assert!(matches!(taken, Taken::Nothing { after: Some(after) } if after <= minute));
}
