//! What is left after a power cut and after damaged bits: random outcomes, each opened and read in full.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use crate::contender::{self, Record};
use crate::load::{key_of, random};

const PAGE_BYTES: usize = 4096;
/// Every file with its content, without the zeros at its end, and its length.
type Image = BTreeMap<PathBuf, (Vec<u8>, u64)>;

/// How opening and reading a changed folder went.
#[derive(Default)]
struct Outcomes {
    whole: u32,
    refused: u32,
    detected: u32,
    lost: u32,
    wrong: u32,
    panicked: u32,
    /// What the engine said when it first refused to open.
    refusal: Option<String>,
}

impl Outcomes {
    fn json(&self) -> Value {
        json!({ "whole": self.whole, "refused_to_open": self.refused, "error_on_read": self.detected,
            "lost_silently": self.lost, "wrong_silently": self.wrong, "panicked": self.panicked, "first_refusal": self.refusal })
    }
}

/// A power cut during the last commit: of the pages that it changed, any set is on disk. And one
/// flipped bit anywhere in what is not zero, on a node that was stopped in order.
pub fn probe(name: &str, folder: &Path, trials: u32) -> Result<Value> {
    fastrand::seed(42);
    let base = folder.join("base");
    let engine = contender::open(name, &base)?;
    let mut records = Vec::new();
    for batch in 0..20 {
        let new: Vec<_> = (0..8).map(|each| made(batch * 8 + each)).collect();
        engine.commit(&new)?;
        records.extend(new);
        if batch == 9 {
            engine.settle()?;
        }
    }
    let before = read_image(&base)?;
    let last: Vec<_> = (160..168).map(made).collect();
    engine.commit(&last)?;
    let after = read_image(&base)?;
    drop(engine);
    let stopped = read_image(&base)?;
    records.extend(last);
    let committed_before = records.len() - 8;
    let (mut cuts, mut flips) = (Outcomes::default(), Outcomes::default());
    let scratch = folder.join("scratch");
    for _ in 0..trials {
        // Quick repair commits with two fsyncs, which this model of one does not describe.
        if name != "redb-quick" {
            write_image(&scratch, &cut(&before, &after))?;
            judge(name, &scratch, &records[..committed_before], &mut cuts);
        }
        write_image(&scratch, &flip(&stopped))?;
        judge(name, &scratch, &records, &mut flips);
    }
    Ok(json!({ "power_cut": cuts.json(), "flipped_bit": flips.json(), "trials": trials }))
}

fn made(sequence: u64) -> Record {
    Record {
        sequence,
        event: random(fastrand::usize(100..9000)),
        key: key_of(sequence),
        value: random(fastrand::usize(100..9000)),
    }
}

fn read_image(folder: &Path) -> Result<Image> {
    let mut image = Image::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.to_string_lossy().ends_with("-shm") {
                // SQLite's shared memory is no durable state.
                let mut content = fs::read(&path)?;
                let length = content.len() as u64;
                let end = content
                    .iter()
                    .rposition(|&byte| byte != 0)
                    .map_or(0, |last| last + 1);
                content.truncate(end);
                image.insert(path.strip_prefix(folder)?.to_path_buf(), (content, length));
            }
        }
    }
    Ok(image)
}

fn write_image(folder: &Path, image: &Image) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    for (path, (content, length)) in image {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(&path, content)?;
        fs::File::options()
            .write(true)
            .open(&path)?
            .set_len(*length)?;
    }
    // Empty folders are part of a state too.
    for empty in ["fjall/keyspaces"] {
        if image.keys().any(|path| path.starts_with("fjall")) {
            fs::create_dir_all(folder.join(empty))?;
        }
    }
    Ok(())
}

/// The state after, with some of the pages that differ as they were before.
fn cut(before: &Image, after: &Image) -> Image {
    let share = fastrand::f64();
    let mut image = after.clone();
    for (path, (content, _)) in &mut image {
        let old = before.get(path).map_or(&[][..], |(old, _)| old.as_slice());
        for (index, page) in content.chunks_mut(PAGE_BYTES).enumerate() {
            let start = (index * PAGE_BYTES).min(old.len());
            let mut was = old[start..(start + page.len()).min(old.len())].to_vec();
            was.resize(page.len(), 0);
            if page != was && fastrand::f64() < share {
                page.copy_from_slice(&was);
            }
        }
    }
    image
}

fn flip(after: &Image) -> Image {
    let mut image = after.clone();
    let total: usize = image.values().map(|(content, _)| content.len()).sum();
    loop {
        let mut at = fastrand::usize(0..total);
        for (content, _) in image.values_mut() {
            if at < content.len() {
                // Pages of zeros are free space.
                let page = at / PAGE_BYTES * PAGE_BYTES;
                let end = (page + PAGE_BYTES).min(content.len());
                if content[page..end].iter().any(|&byte| byte != 0) {
                    content[at] ^= 1 << fastrand::u8(0..8);
                    return image;
                }
                break;
            }
            at -= content.len();
        }
    }
}

fn judge(name: &str, folder: &Path, records: &[Record], outcomes: &mut Outcomes) {
    let (mut lost, mut wrong, mut detected) = (0, 0, 0);
    let judged = catch_unwind(AssertUnwindSafe(|| -> Result<()> {
        let engine = contender::open(name, folder)?;
        let mut reader = engine.reader()?;
        for record in records {
            for (read, written) in [
                (reader.event(record.sequence), &record.event),
                (reader.value(&record.key), &record.value),
            ] {
                match read {
                    Ok(Some(read)) if read == *written => {}
                    Ok(Some(_)) => wrong += 1,
                    Ok(None) => lost += 1,
                    Err(_) => detected += 1,
                }
            }
        }
        Ok(())
    }));
    if let Ok(Err(refusal)) = &judged {
        outcomes.refusal.get_or_insert_with(|| refusal.to_string());
    }
    let count = match (judged, wrong, lost, detected) {
        (Err(_), ..) => &mut outcomes.panicked,
        (Ok(Err(_)), ..) => &mut outcomes.refused,
        (_, 0, 0, 0) => &mut outcomes.whole,
        (_, 0, 0, _) => &mut outcomes.detected,
        (_, 0, _, _) => &mut outcomes.lost,
        _ => &mut outcomes.wrong,
    };
    *count += 1;
}
