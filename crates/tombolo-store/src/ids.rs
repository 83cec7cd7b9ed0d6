//! The ids that each queue remembers, and the thread that writes them to their files.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};

use tombolo_core::QueueId;

use crate::disk::Disk;
use crate::remembered::{Figures, Fingerprint, Finished, Recall, Remembered, Work};

/// Ids that a queue in memory remembers.
const VOLATILE_MAX: usize = 65_536;

/// How long nothing is written after that has failed, unless it stands in the way.
const PAUSE_MS: u64 = 60_000;

/// What all queues remember, by the queue's slot.
pub(crate) struct Ids {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    durable: HashMap<usize, Remembered>,
    volatile: HashMap<usize, Volatile>,
    /// Queues that may have something to write.
    touched: BTreeSet<usize>,
    /// Until when nothing is written.
    paused_until_ms: u64,
    scribe: Option<Scribe>,
}

/// The ids of a queue in memory: a crash that loses its events has to forget their ids.
struct Volatile {
    queue: QueueId,
    retention_ms: u64,
    came_ms: HashMap<Fingerprint, u64>,
    by_age: VecDeque<Fingerprint>,
    forgotten_early: u64,
}

/// The thread that writes, with one task at a time.
struct Scribe {
    tasks: Option<SyncSender<(usize, Work)>>,
    done: Receiver<(usize, Finished)>,
    is_out: bool,
    thread: Option<JoinHandle<()>>,
}

impl Volatile {
    fn of(queue: QueueId) -> Self {
        Self {
            queue,
            retention_ms: 0,
            came_ms: HashMap::new(),
            by_age: VecDeque::new(),
            forgotten_early: 0,
        }
    }
}

impl Ids {
    /// Opens the folder of all queues' ids, or makes it.
    pub(crate) fn open(disk: Arc<dyn Disk>, folder: &Path) -> io::Result<Self> {
        disk.create_folder(folder)?;
        disk.sync_folder(folder.parent().unwrap_or(folder))?;
        Ok(Self {
            disk,
            folder: folder.to_owned(),
            durable: HashMap::new(),
            volatile: HashMap::new(),
            touched: BTreeSet::new(),
            paused_until_ms: 0,
            scribe: None,
        })
    }

    /// Makes a queue remember, for so long.
    pub(crate) fn retain(
        &mut self,
        slot: usize,
        queue: &QueueId,
        retention_ms: u64,
        durable: bool,
    ) -> io::Result<()> {
        if !durable {
            let volatile = self.volatile.entry(slot);
            let volatile = volatile.or_insert_with(|| Volatile::of(queue.clone()));
            volatile.retention_ms = retention_ms;
            return Ok(());
        }
        self.volatile.remove(&slot);
        if let Some(remembered) = self.durable.get_mut(&slot) {
            remembered.retain(retention_ms);
            return Ok(());
        }
        // An app's name has no dot, so no two queues share a folder.
        let folder = self.folder.join(format!("{}.{}", queue.app, queue.queue));
        let disk = Arc::clone(&self.disk);
        let remembered = Remembered::open(disk, &folder, queue.clone(), retention_ms)?;
        self.disk.sync_folder(&self.folder)?;
        self.durable.insert(slot, remembered);
        Ok(())
    }

    /// Whether a queue remembers an id. One that damage made doubtful counts as new.
    pub(crate) fn recalls(&mut self, slot: usize, id: Fingerprint, lived_ms: u64) -> bool {
        if let Some(volatile) = self.volatile.get(&slot)
            && let Some(came_ms) = volatile.came_ms.get(&id)
            && came_ms.saturating_add(volatile.retention_ms) > lived_ms
        {
            return true;
        }
        // Also of a queue in memory that was durable before.
        let remembered = self.durable.get_mut(&slot);
        remembered.is_some_and(|remembered| remembered.recall(id, lived_ms) == Recall::Known)
    }

    /// Makes a queue remember an id that the log has at a position.
    pub(crate) fn remember(&mut self, slot: usize, id: Fingerprint, lived_ms: u64, position: u64) {
        if let Some(volatile) = self.volatile.get_mut(&slot) {
            if volatile.came_ms.insert(id, lived_ms).is_none() {
                volatile.by_age.push_back(id);
            }
            if volatile.by_age.len() > VOLATILE_MAX
                && let Some(oldest) = volatile.by_age.pop_front()
                && let Some(came_ms) = volatile.came_ms.remove(&oldest)
                && came_ms.saturating_add(volatile.retention_ms) > lived_ms
            {
                if volatile.forgotten_early == 0 {
                    tracing::warn!(
                        queue = %volatile.queue,
                        bound = VOLATILE_MAX,
                        "a queue in memory accepts more ids than it remembers: the oldest are forgotten before the retention is over"
                    );
                }
                volatile.forgotten_early += 1;
            }
        } else if let Some(remembered) = self.durable.get_mut(&slot) {
            remembered.remember(id, lived_ms, position);
            self.touched.insert(slot);
        }
    }

    /// The position in the log up to which a queue's ids are in files.
    pub(crate) fn flushed_through(&self, slot: usize) -> Option<u64> {
        self.durable.get(&slot).map(Remembered::flushed_through)
    }

    /// What a queue remembers, in numbers.
    pub(crate) fn figures(&self, slot: usize) -> Figures {
        let volatile = self.volatile.get(&slot).map(|ids| Figures {
            ids: ids.came_ms.len() as u64,
            forgotten_early: ids.forgotten_early,
            ..Figures::default()
        });
        let durable = || self.durable.get(&slot).map(Remembered::figures);
        volatile.or_else(durable).unwrap_or_default()
    }

    /// Has all queues looked at, for what is too old.
    pub(crate) fn touch_all(&mut self) {
        self.touched.extend(self.durable.keys());
    }

    /// Takes in what was written, and gives out what is to be. Waits only when a queue has too
    /// much in memory. After a failure it pauses: what is not written is in memory and in the log.
    pub(crate) fn tend(&mut self, lived_ms: u64) -> io::Result<()> {
        if let Some(done) = self.scribe.as_mut().and_then(Scribe::take) {
            self.finish_or_pause(done, lived_ms);
        }
        if lived_ms < self.paused_until_ms {
            return Ok(());
        }
        while let Some(slot) = self.touched.first().copied() {
            let Some(remembered) = self.durable.get_mut(&slot) else {
                self.touched.remove(&slot);
                continue;
            };
            report(remembered);
            let full = remembered.is_full();
            if self.scribe.as_ref().is_some_and(|scribe| scribe.is_out) {
                if !full {
                    return Ok(());
                }
                self.wait(lived_ms);
                continue;
            }
            match remembered.work(lived_ms, false) {
                Some(work) if full => {
                    self.finish_or_pause((slot, work.run()), lived_ms);
                    if lived_ms < self.paused_until_ms {
                        return Ok(());
                    }
                }
                Some(work) => self.give(slot, work)?,
                None => {
                    self.touched.remove(&slot);
                }
            }
        }
        Ok(())
    }

    /// Writes all ids that the log has before a position, so that it may drop them.
    pub(crate) fn flush(&mut self, before: u64, lived_ms: u64) -> io::Result<()> {
        self.wait(lived_ms);
        let slots: Vec<usize> = self.durable.keys().copied().collect();
        for slot in slots {
            while let Some(remembered) = self.durable.get_mut(&slot)
                && remembered
                    .unflushed_from()
                    .is_some_and(|from| from < before)
                && let Some(work) = remembered.work(lived_ms, true)
            {
                let finished = work.run();
                self.finish((slot, finished))?;
            }
        }
        Ok(())
    }

    fn wait(&mut self, lived_ms: u64) {
        let done = match &mut self.scribe {
            Some(scribe) if scribe.is_out => scribe.done.recv().ok(),
            _ => None,
        };
        if let Some(scribe) = &mut self.scribe {
            scribe.is_out = false;
        }
        if let Some(done) = done {
            self.finish_or_pause(done, lived_ms);
        }
    }

    fn finish_or_pause(&mut self, done: (usize, Finished), lived_ms: u64) {
        if let Err(error) = self.finish(done) {
            tracing::warn!(%error, "remembered ids cannot be written now");
            self.paused_until_ms = lived_ms.saturating_add(PAUSE_MS);
        }
    }

    fn finish(&mut self, (slot, finished): (usize, Finished)) -> io::Result<()> {
        match self.durable.get_mut(&slot) {
            Some(remembered) => remembered.finish(finished),
            None => Ok(()),
        }
    }

    fn give(&mut self, slot: usize, work: Work) -> io::Result<()> {
        let scribe = match &mut self.scribe {
            Some(scribe) => scribe,
            none => none.insert(Scribe::start()?),
        };
        scribe.give(slot, work);
        Ok(())
    }
}

fn report(remembered: &mut Remembered) {
    for damage in remembered.take_damage() {
        tracing::error!(
            file = %damage.path.display(),
            ids = damage.ids_max,
            error = %damage.reason,
            "remembered ids are damaged: duplicates of these events would be accepted"
        );
    }
}

impl Scribe {
    fn start() -> io::Result<Self> {
        let (tasks, to_do) = mpsc::sync_channel::<(usize, Work)>(1);
        let (finished, done) = mpsc::sync_channel(1);
        let thread = thread::Builder::new()
            .name("store-ids".into())
            .spawn(move || {
                while let Ok((slot, work)) = to_do.recv() {
                    if finished.send((slot, work.run())).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            tasks: Some(tasks),
            done,
            is_out: false,
            thread: Some(thread),
        })
    }

    fn give(&mut self, slot: usize, work: Work) {
        let tasks = self.tasks.as_ref();
        self.is_out = tasks.is_some_and(|tasks| tasks.send((slot, work)).is_ok());
    }

    fn take(&mut self) -> Option<(usize, Finished)> {
        let done = self.done.try_recv().ok()?;
        self.is_out = false;
        Some(done)
    }
}

impl Drop for Scribe {
    fn drop(&mut self) {
        self.tasks = None;
        // Room for its last result: nobody takes it any more.
        let _ = self.done.try_recv();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
