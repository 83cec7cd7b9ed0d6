//! A disk in memory that remembers what was synced, for tests: it can lose power after any call, and fail at any call.
//!
//! It records every call that changes something. [`SimulatedDisk::cut`] makes the disk that a
//! power cut before a given call could have left behind: of what was not synced, each sector of
//! each write, each change of a length and each folder's latest names may or may not be there. So
//! one run of a scenario yields as many power cuts as it has calls, times as many seeds as wanted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, File};

/// What a disk writes as a whole or not at all. A store must not count on more.
const SECTOR_BYTES: usize = 512;
/// What a file takes of the disk at once.
const PAGE_BYTES: u64 = 4096;

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What was durable in the beginning.
    base: Image,
    /// What has been changed since, in order.
    calls: Vec<Call>,
    /// What a reader sees now.
    now: Image,
    /// Which calls fail, and how.
    failure: Option<Failure>,
    /// Which syncs do nothing.
    lies: Option<Lie>,
    /// Sectors that cannot be read: a file's name and an offset.
    broken: Vec<(usize, u64)>,
    /// What is left; `None` is plenty.
    free_bytes: Option<u64>,
    /// Pages of files that take room, by the file's number. Those of `base` are not among them.
    taken: BTreeSet<(usize, u64)>,
}

/// What a disk only pretends to sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Contents and lengths.
    Files,
    /// Names.
    Folders,
}

type Failure = (Box<dyn Fn(usize) -> bool + Send>, io::ErrorKind);

/// Names and contents.
#[derive(Clone, Default)]
struct Image {
    names: BTreeMap<PathBuf, Node>,
    contents: HashMap<usize, Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

#[derive(Clone)]
enum Call {
    Name(NameChange),
    Content(usize, ContentChange),
    Sync(usize),
    /// A sync that failed: the system has written what it liked and will not try the rest again.
    SyncFailed(usize),
    SyncFolder(PathBuf),
    /// A call that did nothing.
    Nothing,
}

#[derive(Clone)]
enum NameChange {
    Make(PathBuf, Node),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Clone)]
enum ContentChange {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

impl NameChange {
    fn folder(&self) -> PathBuf {
        let (Self::Make(path, _) | Self::Rename(path, _) | Self::Remove(path)) = self;
        path.parent().unwrap_or(path).to_owned()
    }
}

impl Image {
    fn rename(&mut self, change: &NameChange) {
        match change {
            NameChange::Make(path, node) => {
                self.names.insert(path.clone(), *node);
            }
            NameChange::Rename(from, to) => {
                if let Some(node) = self.names.remove(from) {
                    self.names.insert(to.clone(), node);
                }
            }
            NameChange::Remove(path) => {
                self.names.remove(path);
            }
        }
    }

    fn change(&mut self, file: usize, change: &ContentChange) {
        let content = self.contents.entry(file).or_default();
        match change {
            ContentChange::Truncate(len) => content.resize(index(*len), 0),
            ContentChange::Write(offset, bytes) => {
                let (start, end) = (index(*offset), index(*offset) + bytes.len());
                if content.len() < end {
                    content.resize(end, 0);
                }
                if let Some(place) = content.get_mut(start..end) {
                    place.copy_from_slice(bytes);
                }
            }
        }
    }

    fn after_last_file(&self) -> usize {
        self.contents.keys().max().map_or(0, |last| last + 1)
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.names.get(path) {
            Some(Node::File(file)) => Ok(*file),
            Some(Node::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl SimulatedDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many calls have changed something, or tried to.
    pub fn calls(&self) -> usize {
        self.state().calls.len()
    }

    /// The disk as it may be after the power was cut before the call of this number. The same
    /// seed gives the same disk.
    pub fn cut(&self, call: usize, seed: u64) -> Self {
        let state = self.state();
        let mut cut = Cut::new(state.base.clone(), seed);
        for call in state.calls.iter().take(call) {
            cut.apply(call);
        }
        let image = cut.finish();
        Self {
            state: Arc::new(Mutex::new(State {
                base: image.clone(),
                now: image,
                ..State::default()
            })),
        }
    }

    /// Lets the calls of these numbers fail. A write then writes the first half, but for
    /// `StorageFull` and `ReadOnlyFilesystem`, where it writes nothing; a sync writes what it likes.
    pub fn fail(&self, calls: impl RangeBounds<usize> + Send + 'static, kind: io::ErrorKind) {
        self.state().failure = Some((Box::new(move |call| calls.contains(&call)), kind));
    }

    /// Lets calls succeed again.
    pub fn repair(&self) {
        self.state().failure = None;
    }

    /// From now on says that it has synced, and has not.
    pub fn lie(&self, lie: Lie) {
        self.state().lies = Some(lie);
    }

    /// Lets reads that touch a byte of a file fail.
    pub fn break_sector(&self, path: &Path, offset: u64) {
        let mut state = self.state();
        if let Ok(file) = state.now.file(path) {
            state.broken.push((file, offset));
        }
    }

    /// Sets what is left of the disk, as if somebody else had written or removed something. From
    /// now on it is counted: a write without room fails.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.state().free_bytes = Some(bytes);
    }

    /// The files that there are.
    pub fn files(&self) -> Vec<PathBuf> {
        let state = self.state();
        let files = state.now.names.iter();
        files
            .filter(|(_, node)| matches!(node, Node::File(_)))
            .map(|(path, _)| path.clone())
            .collect()
    }

    /// Changes a file's content behind the store's back.
    pub fn damage(&self, path: &Path, damage: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        if let Ok(file) = state.now.file(path) {
            damage(state.now.contents.entry(file).or_default());
        }
    }

    /// A copy with one file's content changed behind the store's back.
    pub fn damaged(&self, path: &Path, damage: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut image = self.state().now.clone();
        if let Ok(file) = image.file(path) {
            damage(image.contents.entry(file).or_default());
        }
        Self {
            state: Arc::new(Mutex::new(State {
                base: image.clone(),
                now: image,
                ..State::default()
            })),
        }
    }
}

impl State {
    /// Takes room for the pages of a file that a write touches first.
    fn take(&mut self, file: usize, offset: u64, len: u64) -> io::Result<()> {
        let there = self.base.contents.get(&file).map_or(0, Vec::len) as u64;
        let first = (offset / PAGE_BYTES).max(there.div_ceil(PAGE_BYTES));
        let pages = first..(offset + len).div_ceil(PAGE_BYTES);
        let new: Vec<_> = pages
            .map(|page| (file, page))
            .filter(|page| !self.taken.contains(page))
            .collect();
        if let Some(free) = &mut self.free_bytes {
            let left = free.checked_sub(new.len() as u64 * PAGE_BYTES);
            *free = left.ok_or(io::ErrorKind::StorageFull)?;
        }
        self.taken.extend(new);
        Ok(())
    }

    /// Gives back the pages of a file from a length on.
    fn give_back(&mut self, file: usize, len: u64) {
        let from = (file, len.div_ceil(PAGE_BYTES));
        let gone: Vec<_> = self.taken.range(from..(file + 1, 0)).copied().collect();
        for page in &gone {
            self.taken.remove(page);
        }
        if let Some(free) = &mut self.free_bytes {
            *free += gone.len() as u64 * PAGE_BYTES;
        }
    }

    /// Records a call, or fails as was asked for.
    fn call(&mut self, call: Call) -> io::Result<()> {
        let number = self.calls.len();
        match &call {
            Call::Content(file, ContentChange::Write(offset, bytes)) => {
                let (file, offset, len) = (*file, *offset, bytes.len() as u64);
                if let Err(error) = self.take(file, offset, len) {
                    self.calls.push(Call::Nothing);
                    return Err(error);
                }
            }
            Call::Content(file, ContentChange::Truncate(len)) => self.give_back(*file, *len),
            Call::Name(NameChange::Remove(path)) => {
                if let Ok(file) = self.now.file(path) {
                    self.give_back(file, 0);
                }
            }
            _ => {}
        }
        let failed = match &self.failure {
            Some((fails, kind)) if fails(number) => Some(*kind),
            _ => None,
        };
        let Some(kind) = failed else {
            let call = match call {
                Call::Sync(_) if self.lies == Some(Lie::Files) => Call::Nothing,
                Call::SyncFolder(_) if self.lies == Some(Lie::Folders) => Call::Nothing,
                call => call,
            };
            self.see(&call);
            self.calls.push(call);
            return Ok(());
        };
        let nothing = matches!(
            kind,
            io::ErrorKind::StorageFull | io::ErrorKind::ReadOnlyFilesystem
        );
        let half = match call {
            Call::Sync(file) => Call::SyncFailed(file),
            Call::Content(file, ContentChange::Write(offset, mut bytes)) if !nothing => {
                bytes.truncate(bytes.len() / 2);
                Call::Content(file, ContentChange::Write(offset, bytes))
            }
            _ => Call::Nothing,
        };
        self.see(&half);
        self.calls.push(half);
        Err(kind.into())
    }

    fn see(&mut self, call: &Call) {
        match call {
            Call::Name(change) => self.now.rename(change),
            Call::Content(file, change) => self.now.change(*file, change),
            Call::Sync(_) | Call::SyncFailed(_) | Call::SyncFolder(_) | Call::Nothing => {}
        }
    }
}

/// The reckoning of a power cut: what is durable, and what is under way.
struct Cut {
    durable: Image,
    names: BTreeMap<PathBuf, Vec<NameChange>>,
    contents: HashMap<usize, Vec<ContentChange>>,
    random: u64,
    /// Of 100 changes that were not synced, about so many are there.
    chance: u64,
}

impl Cut {
    fn new(base: Image, seed: u64) -> Self {
        let mut cut = Self {
            durable: base,
            names: BTreeMap::new(),
            contents: HashMap::new(),
            random: seed,
            chance: 0,
        };
        // Nothing and everything are outcomes that a fair coin for each sector would never show.
        cut.chance = match cut.next(4) {
            0 => 0,
            1 => 100,
            _ => cut.next(101),
        };
        cut
    }

    /// SplitMix64 (Steele, Lea, Flood 2014), below a bound.
    fn next(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.random;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % below.max(1)
    }

    fn happens(&mut self) -> bool {
        self.next(100) < self.chance
    }

    fn apply(&mut self, call: &Call) {
        match call {
            Call::Name(change) => {
                let changes = self.names.entry(change.folder()).or_default();
                changes.push(change.clone());
            }
            Call::Content(file, change) => {
                let changes = self.contents.entry(*file).or_default();
                changes.push(change.clone());
            }
            Call::Sync(file) => {
                for change in self.contents.remove(file).unwrap_or_default() {
                    self.durable.change(*file, &change);
                }
            }
            Call::SyncFailed(file) => self.settle(*file),
            Call::SyncFolder(folder) => {
                for change in self.names.remove(folder).unwrap_or_default() {
                    self.durable.rename(&change);
                }
            }
            Call::Nothing => {}
        }
    }

    /// Lets some of what was not synced of a file be there.
    fn settle(&mut self, file: usize) {
        let mut longest = 0;
        for change in self.contents.remove(&file).unwrap_or_default() {
            match change {
                ContentChange::Truncate(_) => {
                    if self.happens() {
                        self.durable.change(file, &change);
                    }
                }
                ContentChange::Write(offset, bytes) => {
                    longest = longest.max(index(offset) + bytes.len());
                    self.tear(file, offset, &bytes);
                }
            }
        }
        // The new length can be there without the content.
        let content = self.durable.contents.entry(file).or_default();
        if content.len() < longest && self.happens() {
            let content = self.durable.contents.entry(file).or_default();
            content.resize(longest, 0);
        }
    }

    fn tear(&mut self, file: usize, offset: u64, bytes: &[u8]) {
        let mut rest = bytes;
        let mut offset = offset;
        while !rest.is_empty() {
            let room = SECTOR_BYTES - index(offset) % SECTOR_BYTES;
            let (sector, behind) = rest.split_at(room.min(rest.len()));
            if self.happens() {
                let write = ContentChange::Write(offset, sector.to_vec());
                self.durable.change(file, &write);
            }
            offset += sector.len() as u64;
            rest = behind;
        }
    }

    fn finish(mut self) -> Image {
        let mut files: Vec<usize> = self.contents.keys().copied().collect();
        files.sort_unstable();
        for file in files {
            self.settle(file);
        }
        for (_, changes) in std::mem::take(&mut self.names) {
            let happened = if self.chance == 100 {
                changes.len()
            } else {
                index(self.next(changes.len() as u64 + 1))
            };
            for change in changes.iter().take(happened) {
                self.durable.rename(change);
            }
        }
        self.drop_orphans();
        self.durable
    }

    /// What is in a folder whose name is not durable cannot be reached.
    fn drop_orphans(&mut self) {
        loop {
            let names = &self.durable.names;
            let orphan = |path: &&PathBuf| {
                path.parent().is_some_and(|folder| {
                    folder.parent().is_some() && names.get(folder) != Some(&Node::Folder)
                })
            };
            let Some(path) = names.keys().find(orphan).cloned() else {
                return;
            };
            self.durable.names.remove(&path);
        }
    }
}

impl Disk for SimulatedDisk {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        let above: Vec<&Path> = folder.ancestors().collect();
        for folder in above.into_iter().rev() {
            if folder.parent().is_some() && !state.now.names.contains_key(folder) {
                let make = NameChange::Make(folder.to_owned(), Node::Folder);
                state.call(Call::Name(make))?;
            }
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        let number = if let Ok(number) = state.now.file(path) {
            state.call(Call::Content(number, ContentChange::Truncate(0)))?;
            number
        } else {
            // Unique: each file that is made is a call of its own.
            let number = state.base.after_last_file() + state.calls.len();
            let make = NameChange::Make(path.to_owned(), Node::File(number));
            state.call(Call::Name(make))?;
            number
        };
        Ok(self.handle(number))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let number = self.state().now.file(path)?;
        Ok(self.handle(number))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.now.file(from)?;
        state.call(Call::Name(NameChange::Rename(from.into(), to.into())))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.now.file(path)?;
        state.call(Call::Name(NameChange::Remove(path.into())))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        if state.now.names.get(folder) != Some(&Node::Folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.now.names.keys();
        Ok(inside
            .filter(|path| path.parent() == Some(folder))
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.state().call(Call::SyncFolder(folder.into()))
    }

    fn free_bytes(&self, _folder: &Path) -> io::Result<u64> {
        Ok(self.state().free_bytes.unwrap_or(1 << 40))
    }
}

impl SimulatedDisk {
    fn handle(&self, number: usize) -> Arc<dyn File> {
        Arc::new(SimulatedFile {
            disk: self.clone(),
            number,
        })
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    number: usize,
}

impl fmt::Debug for SimulatedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulated file {}", self.number)
    }
}

impl File for SimulatedFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let write = ContentChange::Write(offset, bytes.to_vec());
        self.disk.state().call(Call::Content(self.number, write))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let range = offset..offset.saturating_add(buffer.len() as u64);
        let is_broken = |(file, at): &(usize, u64)| *file == self.number && range.contains(at);
        if state.broken.iter().any(is_broken) {
            return Err(io::Error::other("the sector cannot be read"));
        }
        let content = state.now.contents.get(&self.number);
        let rest = content.and_then(|content| content.get(index(offset)..));
        let read = rest.map_or(0, |rest| rest.len().min(buffer.len()));
        if let (Some(to), Some(from)) = (
            buffer.get_mut(..read),
            rest.and_then(|rest| rest.get(..read)),
        ) {
            to.copy_from_slice(from);
        }
        Ok(read)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.state().call(Call::Sync(self.number))
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state();
        Ok(state
            .now
            .contents
            .get(&self.number)
            .map_or(0, |content| content.len() as u64))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let truncate = ContentChange::Truncate(len);
        self.disk.state().call(Call::Content(self.number, truncate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(disk: &SimulatedDisk, path: &str) -> Option<Vec<u8>> {
        super::super::read(disk, Path::new(path)).ok()
    }

    #[test]
    fn what_was_synced_is_there_and_the_rest_may_be() {
        let disk = SimulatedDisk::new();
        disk.create_folder(Path::new("/s")).unwrap();
        disk.sync_folder(Path::new("/")).unwrap();
        let file = disk.create(Path::new("/s/a")).unwrap();
        file.write_at(&[1; 2000], 0).unwrap();
        file.sync().unwrap();
        let unnamed = disk.calls();
        disk.sync_folder(Path::new("/s")).unwrap();
        file.write_at(&[2; 2000], 1000).unwrap();
        let outcomes: std::collections::BTreeSet<_> = (0..200)
            .map(|seed| content(&disk.cut(disk.calls(), seed), "/s/a").unwrap())
            .collect();
        assert!(outcomes.len() > 20, "{}", outcomes.len());
        assert!(outcomes.iter().all(|content| content[..1000] == [1; 1000]));
        assert!(outcomes.contains(&vec![1; 2000]));
        let named = |seed| content(&disk.cut(unnamed, seed), "/s/a");
        assert!((0..20).any(|seed| named(seed).is_none()));
        assert!((0..20).any(|seed| named(seed) == Some(vec![1; 2000])));
    }
}
