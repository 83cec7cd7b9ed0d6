//! What is remembered against a naive model, through damage and power cuts, and what an id costs.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::block::BLOCK_BYTES;
use super::*;
use crate::disk::simulated::SimulatedDisk;
use crate::disk::{File, OperatingSystem};

const RETENTION_MS: u64 = 80_000;
const SMALL: Bounds = Bounds {
    recent: 20,
    run: 2_000,
    ids: 3_000,
};

fn queue() -> QueueId {
    QueueId {
        app: "shop".parse().unwrap(),
        queue: "orders.dead".parse().unwrap(),
    }
}

/// A fingerprint of a number, spread evenly as a hash is (SplitMix64 of Steele et al.).
fn id(number: u64) -> Fingerprint {
    let mix = |seed: u64| {
        let z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let high = u128::from(mix(number * 2 + 1));
    (high << 64 | u128::from(mix(number * 2 + 2))).to_be_bytes()
}

fn open(disk: &(impl Disk + Clone), bounds: Bounds) -> Remembered {
    let disk = Arc::new(disk.clone());
    Remembered::open_bounded(disk, Path::new("/ids"), queue(), RETENTION_MS, bounds).unwrap()
}

fn work(remembered: &mut Remembered, lived_ms: u64, flush: bool) -> io::Result<()> {
    let mut flush = flush;
    while let Some(work) = remembered.work(lived_ms, flush) {
        remembered.finish(work.run())?;
        flush = false;
    }
    Ok(())
}

/// Remembers numbers as if they came in that order, a millisecond apart, and does all the work.
fn fill(remembered: &mut Remembered, numbers: std::ops::Range<u64>) {
    let mut last = 0;
    for number in numbers {
        remembered.remember(id(number), number, number);
        work(remembered, number, false).unwrap();
        last = number;
    }
    work(remembered, last, true).unwrap();
}

fn unknown(remembered: &mut Remembered, numbers: std::ops::Range<u64>, lived_ms: u64) -> Vec<u64> {
    let mut unknown = Vec::new();
    for number in numbers {
        if remembered.recall(id(number), lived_ms) != Recall::Known {
            unknown.push(number);
        }
    }
    unknown
}

#[test]
fn what_finds_no_room_leaves_nothing_behind_and_is_done_later() {
    let disk = SimulatedDisk::new();
    let mut remembered = open(&disk, SMALL);
    fill(&mut remembered, 0..7 * 20);
    for number in 140..160 {
        remembered.remember(id(number), number, number);
    }
    let files = disk.files();
    disk.set_free_bytes(8 << 10);
    let flush = work(&mut remembered, 160, true);
    assert_eq!(flush.unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.files(), files);
    // Enough for the merge, but not beside what is kept for others.
    disk.set_free_bytes(16 << 20);
    let merge = work(&mut remembered, 160, true);
    assert_eq!(merge.unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.files().len(), files.len() + 1, "the flush");
    disk.set_free_bytes(1 << 40);
    work(&mut remembered, 160, false).unwrap();
    assert!(disk.files().len() < files.len());
    assert!(unknown(&mut remembered, 0..160, 160).is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Remember(u64),
    Advance(u64),
    Work(bool),
    Restart,
    Recall(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0_u64..500).prop_map(Step::Remember),
        2 => (0_u64..20_000).prop_map(Step::Advance),
        6 => any::<bool>().prop_map(Step::Work),
        1 => Just(Step::Restart),
        8 => (0_u64..700).prop_map(Step::Recall),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn an_id_is_known_for_the_retention_and_not_much_longer(
        steps in prop::collection::vec(step(), 1..600),
    ) {
        let disk = SimulatedDisk::new();
        let mut remembered = open(&disk, SMALL);
        // When each number came, and where the log has it.
        let mut model: HashMap<u64, (u64, u64)> = HashMap::new();
        let (mut lived_ms, mut position) = (0, 0);
        for step in steps {
            match step {
                Step::Remember(number) => {
                    position += 1;
                    if remembered.recall(id(number), lived_ms) == Recall::New && !remembered.is_full() {
                        remembered.remember(id(number), lived_ms, position);
                        model.insert(number, (lived_ms, position));
                    }
                }
                Step::Advance(by_ms) => {
                    lived_ms += by_ms;
                    work(&mut remembered, lived_ms, false).unwrap();
                }
                Step::Work(flush) => work(&mut remembered, lived_ms, flush).unwrap(),
                Step::Restart => {
                    remembered = open(&disk, SMALL);
                    let through = remembered.flushed_through();
                    let mut log: Vec<_> = model.iter().collect();
                    log.sort_by_key(|(_, (_, position))| *position);
                    for (number, (came_ms, position)) in log {
                        if *position > through {
                            remembered.remember(id(*number), *came_ms, *position);
                        }
                    }
                }
                Step::Recall(number) => {
                    let recall = remembered.recall(id(number), lived_ms);
                    match model.get(&number) {
                        None => prop_assert_eq!(recall, Recall::New),
                        Some((came_ms, _)) => {
                            let age_ms = lived_ms - came_ms;
                            if age_ms < RETENTION_MS {
                                prop_assert_eq!(recall, Recall::Known);
                            } else if age_ms >= RETENTION_MS + RETENTION_MS / SPANS + 20_000 {
                                // The last term: time goes on by that before work is done.
                                prop_assert_eq!(recall, Recall::New);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn runs_are_merged_and_the_oldest_goes_when_there_are_too_many() {
    let disk = SimulatedDisk::new();
    let mut remembered = open(&disk, SMALL);
    fill(&mut remembered, 0..2_900);
    assert_eq!(unknown(&mut remembered, 0..2_900, 2_900), [0; 0]);
    let figures = remembered.figures();
    assert!(figures.runs <= 20, "{figures:?}");
    assert_eq!(disk.files().len() as u64, figures.runs);
    fill(&mut remembered, 2_900..4_000);
    let figures = remembered.figures();
    assert!(figures.ids <= SMALL.ids);
    assert_eq!(figures.ids + figures.forgotten_early, 4_000);
    let forgotten = unknown(&mut remembered, 0..4_000, 4_000);
    assert!(forgotten.iter().copied().eq(0..figures.forgotten_early));
}

#[test]
fn what_grew_too_old_leaves_the_disk() {
    let disk = SimulatedDisk::new();
    let mut remembered = open(&disk, SMALL);
    fill(&mut remembered, 0..1_000);
    work(&mut remembered, 999 + RETENTION_MS, false).unwrap();
    assert_eq!(disk.files(), Vec::<PathBuf>::new());
    assert_eq!(remembered.figures().runs, 0);
}

#[test]
fn a_full_disk_forgets_nothing() {
    let disk = SimulatedDisk::new();
    let mut remembered = open(&disk, SMALL);
    for number in 0..20 {
        remembered.remember(id(number), number, number);
    }
    disk.fail(.., io::ErrorKind::StorageFull);
    for number in 20..40 {
        let failed = work(&mut remembered, 20, false).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::StorageFull);
        assert!(!remembered.is_full());
        remembered.remember(id(number), number, number);
    }
    assert!(remembered.is_full());
    assert_eq!(remembered.unflushed_from(), Some(0));
    assert_eq!(unknown(&mut remembered, 0..40, 40), [0; 0]);
    disk.repair();
    work(&mut remembered, 40, false).unwrap();
    assert_eq!(remembered.unflushed_from(), None);
    assert_eq!(remembered.flushed_through(), 39);
    assert_eq!(unknown(&mut open(&disk, SMALL), 0..40, 40), [0; 0]);
}

#[test]
fn a_power_cut_at_any_call_forgets_nothing() {
    let disk = SimulatedDisk::new();
    let mut remembered = open(&disk, SMALL);
    // After how many calls, what was in files.
    let mut marks = vec![(disk.calls(), 0)];
    for number in 1..=400 {
        remembered.remember(id(number), number, number);
        work(&mut remembered, number, number % 7 == 0).unwrap();
        marks.push((disk.calls(), remembered.flushed_through()));
    }
    let mut cuts = 0;
    for call in 0..=disk.calls() {
        for seed in 0..8 {
            cuts += 1;
            let mut again = open(&disk.cut(call, seed), SMALL);
            let before = marks.iter().rev().find(|(calls, _)| *calls <= call);
            let (_, through) = before.copied().unwrap_or_default();
            assert!(again.flushed_through() >= through);
            assert_eq!(again.take_damage().len(), 0);
            let through = again.flushed_through();
            assert_eq!(unknown(&mut again, 1..through + 1, 400), [0; 0]);
            assert_eq!(again.recall(id(1_000), 400), Recall::New);
        }
    }
    assert!(cuts > 1_000);
}

#[test]
fn damage_is_isolated_told_and_never_makes_a_new_id_known() {
    let bounds = Bounds {
        recent: 4_000,
        ..BOUNDS
    };
    let disk = SimulatedDisk::new();
    fill(&mut open(&disk, bounds), 0..4_000);
    let path = disk.files().pop().unwrap();
    let mut blocks = 0;
    disk.damaged(&path, |content| blocks = content.len() / BLOCK_BYTES);
    // The header, the ids, the fences, the bloom filter.
    assert_eq!(blocks, 1 + 16 + 1 + 2);
    for block in 0..blocks {
        let damaged = disk.damaged(&path, |content| {
            content[block * BLOCK_BYTES + 1_234 % (40 + block)] ^= 4;
        });
        let mut remembered = open(&damaged, bounds);
        let forgotten = unknown(&mut remembered, 0..4_000, 4_000).len();
        for number in 4_000..8_000 {
            assert_ne!(remembered.recall(id(number), 4_000), Recall::Known);
        }
        let damages = remembered.take_damage();
        match block {
            0 => {
                assert_eq!((forgotten, damages.len()), (4_000, 1));
                assert!(damages[0].path.to_string_lossy().ends_with(".run.damaged"));
            }
            1..=16 => {
                assert!((1..=255).contains(&forgotten), "{forgotten}");
                assert_eq!((damages.len(), damages[0].ids_max), (1, 255));
            }
            _ => assert_eq!(
                (forgotten, damages.len()),
                (0, 0),
                "made again from the ids"
            ),
        }
    }
    for len in [0, 1, BLOCK_BYTES, 3 * BLOCK_BYTES + 7] {
        let cut = disk.damaged(&path, |content| content.truncate(len));
        let mut remembered = open(&cut, bounds);
        assert_eq!(remembered.take_damage().len(), 1, "{len} bytes left");
        assert_eq!(remembered.recall(id(1), 4_000), Recall::New);
    }
}

#[test]
fn a_merge_takes_what_can_be_read() {
    let bounds = Bounds {
        recent: 1_000,
        ..BOUNDS
    };
    let disk = SimulatedDisk::new();
    let mut remembered = open(&disk, bounds);
    for number in 0..7_999 {
        remembered.remember(id(number), number, number);
        work(&mut remembered, number, false).unwrap();
    }
    let path = disk.files().pop().unwrap();
    let damaged = disk.damaged(&path, |content| content[2 * BLOCK_BYTES] ^= 1);
    let mut remembered = open(&damaged, bounds);
    for number in remembered.flushed_through() + 1..8_000 {
        remembered.remember(id(number), number, number);
    }
    work(&mut remembered, 8_000, true).unwrap();
    assert_eq!(damaged.files().len(), 1);
    assert_eq!(unknown(&mut remembered, 0..8_000, 8_000).len(), 255);
    assert_eq!(remembered.take_damage().len(), 1);
}

/// The operating system's files in a folder of the test, with what is read counted.
#[derive(Clone)]
struct Counted {
    folder: PathBuf,
    reads: Arc<AtomicU64>,
}

struct CountedFile(Arc<dyn File>, Arc<AtomicU64>);

impl fmt::Debug for CountedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl File for CountedFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        assert_eq!(buffer.len(), BLOCK_BYTES);
        self.1.fetch_add(1, Ordering::Relaxed);
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

impl Counted {
    fn place(&self, path: &Path) -> PathBuf {
        self.folder.join(path.strip_prefix("/").unwrap())
    }

    fn counted(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(CountedFile(file, Arc::clone(&self.reads)))
    }
}

impl Disk for Counted {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        OperatingSystem.create_folder(&self.place(folder))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.counted(OperatingSystem.create(&self.place(path))?))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.counted(OperatingSystem.open(&self.place(path))?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OperatingSystem.rename(&self.place(from), &self.place(to))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        OperatingSystem.remove(&self.place(path))
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        OperatingSystem.list(&self.place(folder))
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        OperatingSystem.sync_folder(&self.place(folder))
    }
    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        OperatingSystem.free_bytes(&self.place(folder))
    }
}

#[test]
fn an_id_costs_what_the_documentation_says() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Counted {
        folder: folder.path().to_owned(),
        reads: Arc::default(),
    };
    let ids = (BOUNDS.recent * FAN_IN) as u64;
    let mut remembered = open(&disk, BOUNDS);
    for number in 0..ids {
        remembered.remember(id(number), 0, number);
        if remembered.recent.ids.len() == BOUNDS.recent {
            work(&mut remembered, 0, false).unwrap();
        }
    }
    let mut remembered = open(&disk, BOUNDS);
    let figures = remembered.figures();
    assert_eq!((figures.ids, figures.runs), (ids, 1));
    let file = std::fs::read_dir(folder.path().join("ids")).unwrap().next();
    let bytes = file.unwrap().unwrap().metadata().unwrap().len();
    assert_eq!(figures.disk_bytes, bytes);
    let each = |total: u64| total as f64 / ids as f64;
    println!(
        "{:.3} bytes on disk, {:.3} in memory",
        each(bytes),
        each(figures.memory_bytes)
    );
    assert!(each(bytes) <= 17.4);
    assert!(each(figures.memory_bytes) <= 1.3);

    let reads_of = |remembered: &mut Remembered, numbers: std::ops::Range<u64>| {
        let before = disk.reads.load(Ordering::Relaxed);
        let unknown = unknown(remembered, numbers, 0).len() as u64;
        (disk.reads.load(Ordering::Relaxed) - before, unknown)
    };
    assert_eq!(reads_of(&mut remembered, 0..10_000), (10_000, 0));
    let (reads, unknown) = reads_of(&mut remembered, ids..ids + 100_000);
    println!("{reads} reads for 100,000 new ids");
    assert_eq!(unknown, 100_000);
    assert!(reads <= 1_500);
}
