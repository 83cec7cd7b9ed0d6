//! Compiled machine code on disk: made once, authenticated each time it is mapped. The only module with unsafe code.

use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use tombolo_core::Digest;
use wasmtime::Engine;
use wasmtime::component::Component;

/// The folder of compiled code and of the components it was made from.
///
/// A compiled file is machine code that this process will run, and the disk may have been in a
/// stranger's hands while the node was off. Each file therefore ends with a MAC under the node's own
/// key over its name and its content; whatever does not pass is thrown away and compiled anew. A
/// hostile process beside us with our own rights is no part of this: it could change us directly.
#[derive(Debug)]
pub(crate) struct CodeCache {
    folder: PathBuf,
    key: [u8; 32],
    stored: Mutex<Vec<Weak<Stored>>>,
    /// Held while code is compiled that a request was waiting for: one at a time.
    pub(crate) recompiling: Arc<tokio::sync::Mutex<()>>,
}

/// A component in the cache. Its files stay for as long as anyone has this.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) digest: Digest,
    source_name: String,
    code_name: String,
}

/// Why compiled code is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    /// A file of the cache cannot be read or written.
    #[error("cannot use `{}`", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file of the key is not one.
    #[error("the key of compiled code `{}` is not 32 bytes long", .0.display())]
    Key(PathBuf),
    /// The component's own file is gone or is not what it was.
    #[error("the stored component {0} is missing or damaged")]
    Source(Digest),
    /// The compiler refused the component.
    #[error("the component does not compile")]
    Compile(#[source] wasmtime::Error),
}

const MAC_LENGTH: usize = 32;

impl CodeCache {
    /// Opens the cache in `folder`, making the folder and the key when they are missing.
    pub(crate) fn open(folder: &Path, key_path: &Path) -> Result<Self, CodeError> {
        fs::create_dir_all(folder).map_err(|source| io_error(folder, source))?;
        let key = match fs::read(key_path) {
            Ok(bytes) => {
                <[u8; 32]>::try_from(bytes).map_err(|_| CodeError::Key(key_path.into()))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(key_path)?,
            Err(source) => return Err(io_error(key_path, source)),
        };
        Ok(Self {
            folder: folder.into(),
            key,
            stored: Mutex::default(),
            recompiling: Arc::default(),
        })
    }

    /// Keeps the component itself, so that it can be compiled again without its first file.
    pub(crate) fn keep_source(
        &self,
        engine: &Engine,
        component: &[u8],
    ) -> Result<Arc<Stored>, CodeError> {
        let digest = Digest::of(component);
        let stored = Arc::new(Stored {
            digest,
            source_name: format!("{}.wasm", digest.hex()),
            code_name: code_name(engine, digest),
        });
        self.stored().push(Arc::downgrade(&stored));
        let path = self.folder.join(&stored.source_name);
        // What is there may be damaged: it is replaced.
        if !fs::read(&path).is_ok_and(|bytes| Digest::of(&bytes) == digest) {
            write_whole(&path, &[component])?;
        }
        Ok(stored)
    }

    fn stored(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Stored>>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The compiled component, mapped from disk when it is there and genuine, else compiled now.
    /// Blocks for as long as compiling takes.
    pub(crate) fn load(&self, engine: &Engine, stored: &Stored) -> Result<Component, CodeError> {
        match self.map(engine, stored) {
            Some(component) => Ok(component),
            None => self.compile(engine, stored),
        }
    }

    /// The compiled component from disk, when it is there and genuine. What is not is thrown away.
    pub(crate) fn map(&self, engine: &Engine, stored: &Stored) -> Option<Component> {
        let path = self.folder.join(&stored.code_name);
        self.read(engine, &stored.code_name, &path)
            .unwrap_or_else(|reason| {
                tracing::error!(
                    security = true,
                    file = %path.display(),
                    reason,
                    "compiled code was refused and is compiled again"
                );
                if let Err(error) = fs::remove_file(&path) {
                    tracing::warn!(file = %path.display(), %error, "refused code cannot be removed");
                }
                None
            })
    }

    /// Compiles the component and keeps the code, where there is room for it.
    pub(crate) fn compile(&self, engine: &Engine, stored: &Stored) -> Result<Component, CodeError> {
        let digest = stored.digest;
        let source = fs::read(self.folder.join(&stored.source_name))
            .map_err(|_| CodeError::Source(digest))?;
        if Digest::of(&source) != digest {
            return Err(CodeError::Source(digest));
        }
        let component = Component::from_binary(engine, &source).map_err(CodeError::Compile)?;
        let code = component.serialize().map_err(CodeError::Compile)?;
        let path = self.folder.join(&stored.code_name);
        let mac = self.mac(&stored.code_name, &code);
        if let Err(error) = write_whole(&path, &[&code, mac.as_bytes()]) {
            let reason = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%error, reason, "compiled code cannot be kept and will be compiled again");
        }
        Ok(component)
    }

    /// Deletes what no function needs and was not written lately, until the rest is within the bound.
    /// Some of it stays, for a release that is taken back and for apps that are not deployed yet.
    pub(crate) fn sweep(&self, unneeded_bytes_max: u64) {
        let mut stored = self.stored();
        stored.retain(|stored| stored.strong_count() > 0);
        let needed: Vec<Arc<Stored>> = stored.iter().filter_map(Weak::upgrade).collect();
        drop(stored);
        let is_needed = |name: &std::ffi::OsStr| {
            let is = |kept: &str| name == kept;
            let mut needed = needed.iter();
            needed.any(|stored| is(&stored.source_name) || is(&stored.code_name))
        };
        let mut unneeded: Vec<(SystemTime, u64, PathBuf)> = fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| !is_needed(&entry.file_name()))
            .filter_map(|entry| {
                let metadata = entry.metadata().ok()?;
                Some((metadata.modified().ok()?, metadata.len(), entry.path()))
            })
            .collect();
        unneeded.sort_unstable_by(|one, other| other.cmp(one));
        let mut bytes = 0_u64;
        for (_, length, path) in unneeded {
            bytes = bytes.saturating_add(length);
            if bytes > unneeded_bytes_max
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::warn!(file = %path.display(), %error, "an old file of the code cache cannot be removed");
            }
        }
    }

    fn read(
        &self,
        engine: &Engine,
        name: &str,
        path: &Path,
    ) -> Result<Option<Component>, &'static str> {
        let mut bytes = Vec::new();
        match File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(_) => return Err("the file cannot be read"),
        }
        let Some((code, mac)) = bytes
            .len()
            .checked_sub(MAC_LENGTH)
            .map(|at| bytes.split_at(at))
        else {
            return Err("the file is too short");
        };
        let Ok(mac) = <[u8; MAC_LENGTH]>::try_from(mac) else {
            return Err("the file is too short");
        };
        // `blake3::Hash` compares in constant time.
        if self.mac(name, code) != blake3::Hash::from_bytes(mac) {
            return Err("the authentication code does not fit");
        }
        deserialize(engine, code).map(Some)
    }

    fn mac(&self, name: &str, code: &[u8]) -> blake3::Hash {
        let mut mac = blake3::Hasher::new_keyed(&self.key);
        mac.update(&(name.len() as u64).to_le_bytes());
        mac.update(name.as_bytes());
        mac.update(code);
        mac.finalize()
    }
}

/// The file name says what the code was made from, by which version and with which settings.
fn code_name(engine: &Engine, digest: Digest) -> String {
    struct Settings(blake3::Hasher);
    impl Hasher for Settings {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut settings = Settings(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut settings);
    let settings = settings.0.finalize().to_hex();
    format!(
        "{}-{}.cwasm",
        digest.hex(),
        settings.as_str().get(..16).unwrap_or_default()
    )
}

#[expect(
    unsafe_code,
    reason = "the one door through which compiled code comes in"
)]
fn deserialize(engine: &Engine, code: &[u8]) -> Result<Component, &'static str> {
    // SAFETY: `Component::deserialize` requires bytes that `Component::serialize` made. The caller has
    // just checked a MAC over exactly these bytes, in memory that no one else can change, under a key
    // that only this node has and uses for nothing but the output of `serialize`. The file's name is
    // under the MAC too, and with it the digest of the component and the engine's settings; wasmtime
    // itself checks its version and those settings again.
    unsafe { Component::deserialize(engine, code) }.map_err(|_| "it was made by another version")
}

fn make_key(path: &Path) -> Result<[u8; 32], CodeError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut key = [0; 32];
    let random = Path::new("/dev/urandom");
    File::open(random)
        .and_then(|mut file| file.read_exact(&mut key))
        .map_err(|source| io_error(random, source))?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|source| io_error(folder, source))?;
    }
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(&key).and_then(|()| file.sync_all()))
        .map_err(|source| io_error(path, source))?;
    Ok(key)
}

/// Writes a file so that it is there as a whole or not at all.
fn write_whole(path: &Path, parts: &[&[u8]]) -> Result<(), CodeError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file =
        tempfile::NamedTempFile::new_in(folder).map_err(|source| io_error(folder, source))?;
    parts
        .iter()
        .try_for_each(|part| file.write_all(part))
        .and_then(|()| file.as_file().sync_all())
        .map_err(|source| io_error(path, source))?;
    file.persist(path)
        .map_err(|error| io_error(path, error.error))?;
    Ok(())
}

fn io_error(path: &Path, source: io::Error) -> CodeError {
    CodeError::Io {
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Vec<u8> {
        wat::parse_str("(component)").unwrap()
    }

    fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        entries
            .filter(|path| path.extension().is_some_and(|e| e == extension))
            .collect()
    }

    fn cache(folder: &Path) -> CodeCache {
        CodeCache::open(&folder.join("code"), &folder.join("code.key")).unwrap()
    }

    #[test]
    fn a_flipped_bit_or_a_swapped_file_is_refused_and_compiled_again() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = cache(folder.path());
        let stored = cache.keep_source(&engine, &empty()).unwrap();
        cache.load(&engine, &stored).unwrap();
        let [path] = files(&cache.folder, "cwasm").try_into().unwrap();
        let good = fs::read(&path).unwrap();
        for position in [0, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[position] ^= 1;
            fs::write(&path, &bad).unwrap();
            let read = cache.read(&engine, &stored.code_name, &path);
            assert!(read.is_err(), "bit in byte {position}");
            cache.load(&engine, &stored).unwrap();
            assert_eq!(fs::read(&path).unwrap(), good, "it was not made again");
        }
        let renamed = path.with_file_name("other.cwasm");
        fs::copy(&path, &renamed).unwrap();
        assert!(cache.read(&engine, "other.cwasm", &renamed).is_err());
        fs::write(&path, b"short").unwrap();
        assert!(cache.read(&engine, &stored.code_name, &path).is_err());
    }

    #[test]
    fn code_of_another_node_is_refused() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let engine = Engine::default();
        let ours = cache(ours.path());
        let stored = ours.keep_source(&engine, &empty()).unwrap();
        ours.load(&engine, &stored).unwrap();
        let [path] = files(&ours.folder, "cwasm").try_into().unwrap();
        let foreign = cache(theirs.path());
        assert!(foreign.read(&engine, &stored.code_name, &path).is_err());
    }

    #[test]
    fn a_damaged_component_is_never_compiled_and_is_replaced_by_the_next_deployment() {
        let folder = tempfile::tempdir().unwrap();
        let (engine, cache) = (Engine::default(), cache(folder.path()));
        let stored = cache.keep_source(&engine, &empty()).unwrap();
        let other = wat::parse_str("(component (core module))").unwrap();
        fs::write(cache.folder.join(&stored.source_name), other).unwrap();
        assert!(matches!(
            cache.load(&engine, &stored),
            Err(CodeError::Source(_))
        ));
        let stored = cache.keep_source(&engine, &empty()).unwrap();
        assert!(cache.load(&engine, &stored).is_ok());
    }

    #[test]
    fn code_that_cannot_be_kept_is_had_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (engine, cache) = (Engine::default(), cache(folder.path()));
        let stored = cache.keep_source(&engine, &empty()).unwrap();
        // A folder in the place of the file, which not even root can write over.
        fs::create_dir_all(cache.folder.join(&stored.code_name).join("in the way")).unwrap();
        assert!(cache.load(&engine, &stored).is_ok());
    }

    #[test]
    fn what_no_function_needs_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let (engine, cache) = (Engine::default(), cache(folder.path()));
        let keep = |text: &str| {
            let binary = wat::parse_str(text).unwrap();
            let stored = cache.keep_source(&engine, &binary).unwrap();
            cache.load(&engine, &stored).unwrap();
            stored
        };
        let needed = keep("(component)");
        drop(keep("(component (core module))"));
        cache.sweep(u64::MAX);
        assert_eq!(files(&cache.folder, "cwasm").len(), 2);
        cache.sweep(0);
        let names = [&needed.source_name, &needed.code_name];
        let left = fs::read_dir(&cache.folder).unwrap().count();
        assert_eq!(left, names.len());
        assert!(names.iter().all(|name| cache.folder.join(name).exists()));
    }
}
