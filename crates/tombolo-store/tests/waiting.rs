//! A disk that does not answer holds up those who write, and nobody who looks at queues.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says with a panic that something is wrong"
)]

#[allow(dead_code, reason = "other tests use the rest")]
mod simulation;

use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use simulation::{Hands, LIMITS, publication, queue};
use tombolo_core::Publish as _;
use tombolo_store::disk::simulated::SimulatedDisk;
use tombolo_store::disk::{Disk, File};
use tombolo_store::queue::{QueueSettings, TakeBounds};
use tombolo_store::{Cause, Outcome, Settled, Store, Taken};

/// How long anything that must happen may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether reads wait, and how many do.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, closed: bool) {
        self.state.lock().unwrap().0 = closed;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        while state.0 {
            state = self.changed.wait(state).unwrap();
        }
        state.1 -= 1;
    }

    fn until_somebody_waits(&self) {
        let state = self.state.lock().unwrap();
        let waited = self
            .changed
            .wait_timeout_while(state, PATIENCE, |(_, waiting)| *waiting == 0);
        assert!(!waited.unwrap().1.timed_out(), "nobody reads");
    }
}

/// A disk whose reads can be made to wait.
struct Stuck(SimulatedDisk, Arc<Gate>);

#[derive(Debug)]
struct StuckFile(Arc<dyn File>, Arc<Gate>);

impl File for StuckFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.pass();
        self.0.read_at(buffer, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
}

impl Stuck {
    fn file(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(StuckFile(file, Arc::clone(&self.1)))
    }
}

impl Disk for Stuck {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        self.0.create_folder(folder)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.0.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.0.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.0.list(folder)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.0.sync_folder(folder)
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        self.0.free_bytes(folder)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_is_looked_at_while_a_burial_waits_for_the_disk() {
    let gate = Arc::new(Gate::default());
    let disk = Arc::new(Stuck(SimulatedDisk::new(), Arc::clone(&gate)));
    let clock = Box::new(Hands::default());
    let store = Store::open_on(disk, Path::new("/store"), clock, LIMITS).unwrap();
    let (journal, readings) = (store.journal(), queue("readings"));
    let settings = QueueSettings::default();
    journal.configure(readings.clone(), settings).await.unwrap();
    journal
        .publish(vec![publication("readings", 1)])
        .await
        .unwrap();
    let bounds = TakeBounds {
        events: 1,
        bytes: 1 << 20,
    };
    let Taken::Batch(mut batch) = journal.take(&readings, bounds).await.unwrap() else {
        unreachable!("there is an event");
    };
    let lease = batch.deliveries.remove(0).lease;

    gate.set(true);
    let cause = Cause::new("refused");
    let settling = tokio::spawn({
        let journal = journal.clone();
        async move { journal.settle(vec![(lease, Outcome::Dead { cause })]).await }
    });
    gate.until_somebody_waits();
    let (told, figures) = mpsc::channel();
    let looking = std::thread::spawn({
        let (journal, readings) = (journal.clone(), readings.clone());
        move || {
            let figures = journal.figures(&readings).unwrap().figures;
            told.send(figures).unwrap();
        }
    });
    let seen = figures.recv_timeout(PATIENCE);
    gate.set(false);
    assert_eq!(seen.unwrap().leased, 1);
    looking.join().unwrap();
    assert_eq!(settling.await.unwrap().unwrap(), [Settled::Buried]);
    let dead = journal.figures(&readings.dead()).unwrap();
    assert_eq!(dead.figures.depth, 1);
}
