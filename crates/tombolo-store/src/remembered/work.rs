//! Writing runs, merging them and removing them: what may happen on another thread.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tombolo_core::QueueId;

use super::run::{self, Header, Run, RunError, RunWriter};
use super::{Fingerprint, Recent};
use crate::disk::Disk;
use crate::log::RESERVE_BYTES;

/// How the names of runs end.
pub(super) const EXTENSION: &str = ".run";

/// Something to write or to remove.
pub struct Work {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) folder: PathBuf,
    pub(super) queue: QueueId,
    pub(super) task: Task,
}

/// What was done, or kept from being done.
pub struct Finished {
    pub(super) task: Task,
    pub(super) result: io::Result<Option<Run>>,
    /// Blocks that could not be merged.
    pub(super) damage: Vec<(Arc<Run>, RunError)>,
}

pub(super) enum Task {
    Flush {
        recent: Arc<Recent>,
        header: Header,
        /// Ids that came at this time or before are too old to be written.
        dead_ms: Option<u64>,
    },
    Merge {
        runs: Vec<Arc<Run>>,
    },
    Discard {
        paths: Vec<PathBuf>,
    },
}

impl Work {
    /// Does it. Blocks the thread for the time of writing, sorting and syncing: some milliseconds
    /// for a flush, up to some seconds for the largest merge.
    pub fn run(self) -> Finished {
        let mut damage = Vec::new();
        let result = match &self.task {
            Task::Flush {
                recent,
                header,
                dead_ms,
            } => self.flush(recent, *header, *dead_ms).map(Some),
            Task::Merge { runs } => {
                let merged = self.has_room(runs);
                let merged = merged.and_then(|()| self.merge(runs, &mut damage));
                merged.map(Some)
            }
            Task::Discard { paths } => self.discard(paths).map(|()| None),
        };
        Finished {
            task: self.task,
            result,
            damage,
        }
    }

    fn flush(&self, recent: &Recent, header: Header, dead_ms: Option<u64>) -> io::Result<Run> {
        let alive = |came_ms: u64| dead_ms.is_none_or(|dead_ms| came_ms > dead_ms);
        let recent = recent.ids.iter().filter(|(_, came_ms)| alive(**came_ms));
        let (mut ids, times): (Vec<Fingerprint>, Vec<u64>) = recent.unzip();
        ids.sort_unstable();
        let header = Header {
            oldest_lived_ms: times.iter().copied().min().unwrap_or(0),
            newest_lived_ms: times.iter().copied().max().unwrap_or(0),
            ..header
        };
        let mut writer = self.writer(header, ids.len() as u64)?;
        let written = ids.into_iter().try_for_each(|id| writer.push(id));
        written
            .and_then(|()| writer.finish(&self.queue))
            .inspect_err(|_| self.clean(header))
    }

    /// Removes what was written of a run that is not to be finished: it takes room.
    fn clean(&self, header: Header) {
        // If that fails too, the next start does it.
        let _ = self.disk.remove(&run::beside(&self.path(header)));
    }

    fn merge(&self, runs: &[Arc<Run>], damage: &mut Vec<(Arc<Run>, RunError)>) -> io::Result<Run> {
        let headers = || runs.iter().map(|run| run.header);
        let header = Header {
            flushes: (
                headers().map(|header| header.flushes.0).min().unwrap_or(0),
                headers().map(|header| header.flushes.1).max().unwrap_or(0),
            ),
            oldest_lived_ms: headers().map(|one| one.oldest_lived_ms).min().unwrap_or(0),
            newest_lived_ms: headers().map(|one| one.newest_lived_ms).max().unwrap_or(0),
            through: headers().map(|header| header.through).max().unwrap_or(0),
            ..Header::default()
        };
        let mut writer = self.writer(header, headers().map(|header| header.ids).sum())?;
        let mut sources: Vec<_> = runs.iter().map(Source::new).collect();
        let mut next: BinaryHeap<_> = sources
            .iter_mut()
            .enumerate()
            .filter_map(|(index, source)| Some(Reverse((source.next(damage)?, index))))
            .collect();
        let mut last = None;
        while let Some(mut least) = next.peek_mut() {
            let Reverse((id, index)) = *least;
            if last != Some(id) {
                writer.push(id).inspect_err(|_| self.clean(header))?;
                last = Some(id);
            }
            match sources
                .get_mut(index)
                .and_then(|source| source.next(damage))
            {
                Some(id) => *least = Reverse((id, index)),
                None => {
                    PeekMut::pop(least);
                }
            }
        }
        let merged = writer.finish(&self.queue);
        let merged = merged.inspect_err(|_| self.clean(header))?;
        // The files stay readable to those who have them open.
        for run in runs {
            self.remove(&run.path)?;
        }
        Ok(merged)
    }

    /// A merge takes as much as its runs until they are removed, which nobody needs so urgently
    /// that it might use up what is kept for making room.
    fn has_room(&self, runs: &[Arc<Run>]) -> io::Result<()> {
        let bytes: u64 = runs.iter().map(|run| run.file_bytes()).sum();
        let wanted = bytes.saturating_add(2 * RESERVE_BYTES);
        match self.disk.free_bytes(&self.folder)? >= wanted {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn discard(&self, paths: &[PathBuf]) -> io::Result<()> {
        paths.iter().try_for_each(|path| self.remove(path))
    }

    /// Removes a file that an attempt that failed half-way may have removed.
    fn remove(&self, path: &Path) -> io::Result<()> {
        match self.disk.remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn writer(&self, header: Header, ids_max: u64) -> io::Result<RunWriter<'_>> {
        RunWriter::create(&*self.disk, self.path(header), header, ids_max)
    }

    fn path(&self, header: Header) -> PathBuf {
        let (first, last) = header.flushes;
        let name = format!("{first:016x}-{last:016x}{EXTENSION}");
        self.folder.join(name)
    }
}

/// The flushes that a file of that name has the ids of.
pub(super) fn flushes_of(name: &str) -> Option<(u64, u64)> {
    let (flushes, _) = name.split_once('.')?;
    let (first, last) = flushes.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some((number(first)?, number(last)?))
}

/// The ids of one run, block by block.
struct Source<'a> {
    run: &'a Arc<Run>,
    block: u64,
    ids: std::vec::IntoIter<Fingerprint>,
}

impl<'a> Source<'a> {
    fn new(run: &'a Arc<Run>) -> Self {
        Self {
            run,
            block: 0,
            ids: Vec::new().into_iter(),
        }
    }

    fn next(&mut self, damage: &mut Vec<(Arc<Run>, RunError)>) -> Option<Fingerprint> {
        loop {
            if let Some(id) = self.ids.next() {
                return Some(id);
            }
            if self.block >= self.run.id_blocks() {
                return None;
            }
            match self.run.ids(self.block) {
                Ok(ids) => self.ids = ids.into_iter(),
                Err(reason) => damage.push((Arc::clone(self.run), reason)),
            }
            self.block += 1;
        }
    }
}
