//! The ids of the events that a queue has accepted, remembered for as long as the queue keeps events: what makes a duplicate known.
//!
//! What came last is in memory, at most 65,536 ids; the log brings it back after a crash. From
//! there it goes to immutable *runs*: files of sorted 16-byte fingerprints. Eight neighbouring runs
//! of a similar size are merged into one, of 8 Mi ids at most. A run dies when its newest id is
//! older than the retention, and the ids of one run lie within an eighth of the retention: an id is
//! remembered for the retention, and at most an eighth of it longer. At most 64 Mi ids are
//! remembered for a queue; beyond that the oldest run goes early, which is counted.
//!
//! **Cost of an id** (a test compares with real files): 17.4 bytes on disk (16 of fingerprint, 1.27
//! of bloom filter, the rest checksums and fences), 1.3 bytes in memory (10 bits of bloom filter
//! and a quarter of a bit of fence), and, in the 65,536 that came last, about 50. At the bound of
//! 64 Mi ids that is 1.1 GiB on disk and 84 MiB of memory. Looking up an id that is new reads
//! nothing (for about one in a hundred and each run, one block of 4 KiB); one that is known costs
//! one block.
//!
//! Writing to disk is [`Work`] that the owner may do on any thread, beside looking up and
//! remembering.

mod block;
mod bloom;
mod run;
#[cfg(test)]
mod tests;
mod work;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tombolo_core::QueueId;

use crate::disk::Disk;
pub use run::RunError;
use run::{Header, Run};
use work::Task;
pub use work::{Finished, Work};

/// 128 bits of a keyed hash over what identifies an event.
pub type Fingerprint = [u8; 16];

/// Runs of a similar size that are merged into one.
const FAN_IN: usize = 8;
/// The part of the retention that the ids of one merged run may lie apart.
const SPANS: u64 = 8;
/// Most reports of damage that wait to be taken; those beyond are only counted.
const DAMAGES_MAX: usize = 100;

/// How much is remembered.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Ids in memory at which they are to be written.
    recent: usize,
    /// Ids of one merged run.
    run: u64,
    /// Ids in all.
    ids: u64,
}

const BOUNDS: Bounds = Bounds {
    recent: 65_536,
    run: 8 << 20,
    ids: 64 << 20,
};

/// Whether an id is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recall {
    /// It came within the retention.
    Known,
    /// It did not.
    New,
    /// It was not found, but the place where it would be is damaged. To be treated as new, and to
    /// be reported.
    Doubtful,
}

/// Damage that was found and isolated: some ids are not remembered any more.
#[derive(Debug)]
pub struct Damage {
    /// The file. A run that cannot be used at all has `.damaged` behind its name.
    pub path: PathBuf,
    /// At most so many ids are forgotten.
    pub ids_max: u64,
    /// What is wrong.
    pub reason: RunError,
}

/// What is remembered, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Ids, those in memory included.
    pub ids: u64,
    /// Files.
    pub runs: u64,
    /// Bytes of the files.
    pub disk_bytes: u64,
    /// Bytes that the runs hold in memory.
    pub memory_bytes: u64,
    /// Ids forgotten before their time because there were too many, since the store was opened.
    pub forgotten_early: u64,
    /// Places found damaged since the store was opened.
    pub damages: u64,
}

/// Ids that came last, and when they came.
#[derive(Debug, Default)]
struct Recent {
    ids: HashMap<Fingerprint, u64>,
    oldest_lived_ms: Option<u64>,
    /// The log positions of the first and of the last.
    positions: Option<(u64, u64)>,
}

/// The remembered ids of one queue.
pub struct Remembered {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    queue: QueueId,
    retention_ms: u64,
    bounds: Bounds,
    recent: Recent,
    /// What is being written, or waits to be after a failure.
    flushing: Option<Arc<Recent>>,
    flush_is_out: bool,
    /// Another task than a flush.
    task_is_out: bool,
    /// The oldest first.
    runs: Vec<Arc<Run>>,
    next_flush: u64,
    /// Damaged blocks that were reported, by the run's first flush and the block.
    broken: BTreeSet<(u64, u64)>,
    damage: Vec<Damage>,
    forgotten_early: u64,
    damages: u64,
}

impl Remembered {
    /// Opens what is remembered for a queue; the folder is its alone, in one that is there. Runs that cannot be used are
    /// set aside and reported by [`Self::take_damage`].
    ///
    /// # Errors
    /// When the operating system refuses to list, read, rename or remove a file.
    pub fn open(
        disk: Arc<dyn Disk>,
        folder: &Path,
        queue: QueueId,
        retention_ms: u64,
    ) -> io::Result<Self> {
        Self::open_bounded(disk, folder, queue, retention_ms, BOUNDS)
    }

    fn open_bounded(
        disk: Arc<dyn Disk>,
        folder: &Path,
        queue: QueueId,
        retention_ms: u64,
        bounds: Bounds,
    ) -> io::Result<Self> {
        disk.create_folder(folder)?;
        disk.sync_folder(folder.parent().unwrap_or(folder))?;
        let mut remembered = Self {
            disk,
            folder: folder.to_owned(),
            queue,
            retention_ms,
            bounds,
            recent: Recent::default(),
            flushing: None,
            flush_is_out: false,
            task_is_out: false,
            runs: Vec::new(),
            next_flush: 1,
            broken: BTreeSet::new(),
            damage: Vec::new(),
            forgotten_early: 0,
            damages: 0,
        };
        remembered.open_runs()?;
        Ok(remembered)
    }

    /// Changes the retention.
    pub fn retain(&mut self, retention_ms: u64) {
        self.retention_ms = retention_ms;
    }

    /// Whether the id came within the retention.
    pub fn recall(&mut self, id: Fingerprint, lived_ms: u64) -> Recall {
        let retention_ms = self.retention_ms;
        let alive = |came_ms: u64| came_ms.saturating_add(retention_ms) > lived_ms;
        let flushing = self
            .flushing
            .as_ref()
            .and_then(|recent| recent.ids.get(&id));
        let recent = self.recent.ids.get(&id).or(flushing);
        if recent.is_some_and(|came_ms| alive(*came_ms)) {
            return Recall::Known;
        }
        let mut recall = Recall::New;
        for index in (0..self.runs.len()).rev() {
            let Some(run) = self.runs.get(index) else {
                break;
            };
            if !alive(run.header.newest_lived_ms) {
                continue;
            }
            match run.has(id) {
                Ok(true) => return Recall::Known,
                Ok(false) => {}
                Err(reason) => {
                    recall = Recall::Doubtful;
                    let run = Arc::clone(run);
                    self.report_block(&run, reason);
                }
            }
        }
        recall
    }

    /// Remembers an id that came now. `position` is where the log has it; positions do not go
    /// back. Ids whose position is not above [`Self::flushed_through`] need not be brought back
    /// after a restart.
    pub fn remember(&mut self, id: Fingerprint, lived_ms: u64, position: u64) {
        let recent = &mut self.recent;
        recent.ids.insert(id, lived_ms);
        recent.oldest_lived_ms.get_or_insert(lived_ms);
        let (first, _) = recent.positions.unwrap_or((position, position));
        recent.positions = Some((first, position));
    }

    /// Whether so much waits in memory to be written that nothing more may come before
    /// [`Self::work`] was done: twice the bound.
    pub fn is_full(&self) -> bool {
        self.recent.ids.len() >= self.bounds.recent && self.flushing.is_some()
    }

    /// The log position up to which everything is in files.
    pub fn flushed_through(&self) -> u64 {
        let through = self.runs.iter().map(|run| run.header.through);
        through.max().unwrap_or(0)
    }

    /// The log position of the first id that is in memory only: the log may not drop it before
    /// [`Self::work`] with `flush` was done.
    pub fn unflushed_from(&self) -> Option<u64> {
        let recents = self.flushing.as_deref().into_iter().chain([&self.recent]);
        recents
            .filter_map(|recent| recent.positions)
            .map(|(first, _)| first)
            .min()
    }

    /// What is to be written or removed now, if anything is; `flush` asks for what is in memory to
    /// be written even if it is little. Do it with [`Work::run`], on any thread, and bring back
    /// what it gives to [`Self::finish`]. A flush and one other task may be out at once; ask until
    /// there is none.
    pub fn work(&mut self, lived_ms: u64, flush: bool) -> Option<Work> {
        let task = match self.next_flush(lived_ms, flush) {
            Some(task) => {
                self.flush_is_out = true;
                task
            }
            None if self.task_is_out => return None,
            None => {
                let task = self.next_discard(lived_ms).or_else(|| self.next_merge())?;
                self.task_is_out = true;
                task
            }
        };
        Some(Work {
            disk: Arc::clone(&self.disk),
            folder: self.folder.clone(),
            queue: self.queue.clone(),
            task,
        })
    }

    /// Takes in what was done.
    ///
    /// # Errors
    /// What kept the work from being done. Nothing is forgotten then; [`Self::work`] gives it again
    /// at once, so wait a little before asking.
    pub fn finish(&mut self, finished: Finished) -> io::Result<()> {
        match finished.task {
            Task::Flush { .. } => self.flush_is_out = false,
            Task::Merge { .. } | Task::Discard { .. } => self.task_is_out = false,
        }
        for (run, reason) in finished.damage {
            self.report_block(&run, reason);
        }
        let run = finished.result?.map(Arc::new);
        match finished.task {
            Task::Flush { .. } => {
                self.flushing = None;
                self.runs.extend(run);
            }
            Task::Merge { runs } => {
                let merged = |one: &Run| runs.iter().any(|run| run.path == one.path);
                let place = self.runs.iter().position(|one| merged(one)).unwrap_or(0);
                self.runs.retain(|one| !merged(one));
                if let Some(run) = run {
                    self.runs.insert(place.min(self.runs.len()), run);
                }
                let first = |run: &Arc<Run>| run.header.flushes.0;
                let gone: BTreeSet<u64> = runs.iter().map(first).collect();
                self.broken.retain(|(run, _)| !gone.contains(run));
            }
            Task::Discard { .. } => {}
        }
        Ok(())
    }

    /// Damage that was found since this was called last.
    pub fn take_damage(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.damage)
    }

    /// What is remembered, in numbers.
    pub fn figures(&self) -> Figures {
        let flushing = self.flushing.as_ref().map_or(0, |recent| recent.ids.len());
        let recent = (self.recent.ids.len() + flushing) as u64;
        Figures {
            ids: recent + self.ids_in_runs(),
            runs: self.runs.len() as u64,
            disk_bytes: self.runs.iter().map(|run| run.file_bytes()).sum(),
            memory_bytes: self.runs.iter().map(|run| run.memory_bytes()).sum(),
            forgotten_early: self.forgotten_early,
            damages: self.damages,
        }
    }

    fn ids_in_runs(&self) -> u64 {
        self.runs.iter().map(|run| run.header.ids).sum()
    }

    fn next_flush(&mut self, lived_ms: u64, wanted: bool) -> Option<Task> {
        if self.flush_is_out {
            return None;
        }
        if self.flushing.is_none() {
            let oldest = self.recent.oldest_lived_ms?;
            let span_ms = lived_ms.saturating_sub(oldest);
            let due =
                self.recent.ids.len() >= self.bounds.recent || span_ms >= self.retention_ms / SPANS;
            if !due && !wanted {
                return None;
            }
            self.flushing = Some(Arc::new(std::mem::take(&mut self.recent)));
        }
        let recent = Arc::clone(self.flushing.as_ref()?);
        let flush = self.next_flush;
        self.next_flush += 1;
        let header = Header {
            flushes: (flush, flush),
            through: recent.positions.map_or(0, |(_, last)| last),
            ..Header::default()
        };
        let dead_ms = lived_ms.checked_sub(self.retention_ms);
        Some(Task::Flush {
            recent,
            header,
            dead_ms,
        })
    }

    /// Runs that are too old, or one too many.
    fn next_discard(&mut self, lived_ms: u64) -> Option<Task> {
        let dead = |run: &Run| {
            let newest_ms = run.header.newest_lived_ms;
            newest_ms.saturating_add(self.retention_ms) <= lived_ms
        };
        let (mut gone, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.runs)
            .into_iter()
            .partition(|run| dead(run));
        self.runs = rest;
        while self.ids_in_runs() > self.bounds.ids {
            let oldest = self.runs.remove(0);
            if self.forgotten_early == 0 {
                tracing::warn!(
                    queue = %self.queue,
                    bound = self.bounds.ids,
                    "more ids than are remembered: the oldest are forgotten before the retention is over"
                );
            }
            self.forgotten_early += oldest.header.ids;
            gone.push(oldest);
        }
        let paths: Vec<_> = gone.iter().map(|run| run.path.clone()).collect();
        (!paths.is_empty()).then_some(Task::Discard { paths })
    }

    /// The smallest neighbours of a similar size that may become one.
    fn next_merge(&self) -> Option<Task> {
        let tier = |run: &Run| run.header.ids.checked_ilog2().unwrap_or(0) / FAN_IN.ilog2();
        let mergeable = |runs: &&[Arc<Run>]| {
            let ids: u64 = runs.iter().map(|run| run.header.ids).sum();
            let oldest = runs.iter().map(|run| run.header.oldest_lived_ms).min();
            let newest = runs.iter().map(|run| run.header.newest_lived_ms).max();
            let span_ms = newest.unwrap_or(0).saturating_sub(oldest.unwrap_or(0));
            ids <= self.bounds.run && span_ms <= self.retention_ms / SPANS
        };
        let highest = |runs: &&[Arc<Run>]| runs.iter().map(|run| tier(run)).max();
        let windows = self.runs.windows(FAN_IN).filter(mergeable);
        let runs = windows.min_by_key(highest)?.to_vec();
        Some(Task::Merge { runs })
    }

    fn report_block(&mut self, run: &Run, reason: RunError) {
        let block = match &reason {
            RunError::Block(block) => *block,
            RunError::Read(_) | RunError::Foreign => 0,
        };
        let known = !self.broken.insert((run.header.flushes.0, block));
        if !known {
            self.report(run.path.clone(), run::BLOCK_IDS, reason);
        }
    }

    fn report(&mut self, path: PathBuf, ids_max: u64, reason: RunError) {
        self.damages += 1;
        if self.damage.len() < DAMAGES_MAX {
            self.damage.push(Damage {
                path,
                ids_max,
                reason,
            });
        }
    }
}

/// Opening.
impl Remembered {
    fn open_runs(&mut self) -> io::Result<()> {
        let mut found = Vec::new();
        for name in self.disk.list(&self.folder)? {
            let path = self.folder.join(&name);
            if name.ends_with(".new") {
                self.disk.remove(&path)?;
                continue;
            }
            let Some(flushes) = work::flushes_of(&name) else {
                continue;
            };
            self.next_flush = self.next_flush.max(flushes.1.saturating_add(1));
            if name.ends_with(work::EXTENSION) {
                found.push((flushes, path));
            }
        }
        // The widest first: a run has what the runs within it have, which a merge that was cut
        // short did not come to remove.
        found.sort_by_key(|((first, last), _)| std::cmp::Reverse(last.saturating_sub(*first)));
        for (flushes, path) in found {
            let within = |run: &Arc<Run>| {
                let (first, last) = run.header.flushes;
                first <= flushes.0 && flushes.1 <= last
            };
            if self.runs.iter().any(within) {
                self.disk.remove(&path)?;
                continue;
            }
            match Run::open(&*self.disk, &path, &self.queue, flushes) {
                Ok(run) => self.runs.push(Arc::new(run)),
                Err(RunError::Read(error)) if !is_damage(&error) => return Err(error),
                Err(reason) => self.set_aside(&path, reason)?,
            }
        }
        self.runs.sort_by_key(|run| run.header.flushes);
        Ok(())
    }

    fn set_aside(&mut self, path: &Path, reason: RunError) -> io::Result<()> {
        let bytes = self
            .disk
            .open(path)
            .and_then(|file| file.len())
            .unwrap_or(0);
        let aside = path.with_added_extension("damaged");
        self.disk.rename(path, &aside)?;
        self.disk.sync_folder(&self.folder)?;
        self.report(aside, bytes / size_of::<Fingerprint>() as u64, reason);
        Ok(())
    }
}

/// Whether an error is about the disk's surface, and not about how we ask.
fn is_damage(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}
