//! The seam between the store and what it is written on: files and folders, on the operating system or simulated with power cuts.

use std::fmt::Debug;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::Path;
use std::sync::Arc;

pub mod simulated;

/// Where a store's files are. What is written is certain only after [`File::sync`], and a name
/// that was made, changed or removed only after [`Disk::sync_folder`].
pub trait Disk: Send + Sync + 'static {
    /// Makes a folder and those above it; one that is there is no error.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;
    /// Makes an empty file, or empties the one that is there, for reading and writing.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Renames a file, over the one of that name when there is one.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names of what is in a folder, in no order.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Bytes that can still be written on the disk that has this folder.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;
}

/// An open file.
pub trait File: Send + Sync + Debug + 'static {
    /// Writes all of the bytes at an offset; a gap before it is zeros.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reads what there is at an offset, up to the length of the buffer; less only at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Makes content and length durable.
    fn sync(&self) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Sets the length; what is added is zeros.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Writes all of the bytes at the end. For files with one writer.
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.write_at(bytes, self.len()?)
    }
}

/// Reads a whole file.
pub(crate) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let mut content = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX)];
    let read = file.read_at(&mut content, 0)?;
    content.truncate(read);
    Ok(content)
}

/// Writes a file so that a power cut leaves the whole of it or what was there before: beside it,
/// synced, renamed, and the folder synced.
pub(crate) fn replace(disk: &dyn Disk, path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_added_extension("new");
    let file = disk.create(&beside)?;
    file.write_at(content, 0)?;
    file.sync()?;
    disk.rename(&beside, path)?;
    disk.sync_folder(path.parent().unwrap_or(path))
}

/// The operating system's files.
#[derive(Clone, Copy, Debug)]
pub struct OperatingSystem;

impl Disk for OperatingSystem {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        // What functions keep is nobody else's to read.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        Ok(Arc::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(folder)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        fs::File::open(folder)?.sync_all()
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(folder)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

impl File for fs::File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match std::os::unix::fs::FileExt::read_at(self, rest, offset + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}
