//! Compiled machine code on disk: made once, authenticated each time it is mapped. The only module with unsafe code.

use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

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
            Ok(bytes) => <[u8; 32]>::try_from(bytes).map_err(|_| {
                io_error(
                    key_path,
                    io::Error::new(io::ErrorKind::InvalidData, "the key is not 32 bytes long"),
                )
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(key_path)?,
            Err(source) => return Err(io_error(key_path, source)),
        };
        Ok(Self {
            folder: folder.into(),
            key,
        })
    }

    /// Keeps the component itself, so that it can be compiled again without its first file.
    pub(crate) fn keep_source(&self, component: &[u8]) -> Result<Digest, CodeError> {
        let digest = Digest::of(component);
        let path = self.source_path(digest);
        if !path.exists() {
            write_whole(&path, &[component])?;
        }
        Ok(digest)
    }

    /// The compiled component, mapped from disk when it is there and genuine, else compiled now.
    /// Blocks for as long as compiling takes.
    pub(crate) fn load(&self, engine: &Engine, digest: Digest) -> Result<Component, CodeError> {
        let name = self.name(engine, digest);
        let path = self.folder.join(&name);
        match self.map(engine, &name, &path) {
            Ok(Some(component)) => return Ok(component),
            Ok(None) => {}
            Err(reason) => tracing::error!(
                security = true,
                file = %path.display(),
                reason,
                "compiled code was refused and is compiled again"
            ),
        }
        let source = fs::read(self.source_path(digest)).map_err(|_| CodeError::Source(digest))?;
        if Digest::of(&source) != digest {
            return Err(CodeError::Source(digest));
        }
        let component = Component::from_binary(engine, &source).map_err(CodeError::Compile)?;
        let code = component.serialize().map_err(CodeError::Compile)?;
        write_whole(&path, &[&code, self.mac(&name, &code).as_bytes()])?;
        Ok(component)
    }

    fn map(
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

    /// The file name says what the code was made from, by which version and with which settings.
    fn name(&self, engine: &Engine, digest: Digest) -> String {
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

    fn source_path(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{}.wasm", digest.hex()))
    }
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
        let digest = cache(folder.path()).keep_source(&empty()).unwrap();
        cache(folder.path()).load(&engine, digest).unwrap();
        let [path] = files(&folder.path().join("code"), "cwasm")
            .try_into()
            .unwrap();
        let good = fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        for position in [0, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[position] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert!(
                cache(folder.path()).map(&engine, &name, &path).is_err(),
                "bit in byte {position}"
            );
            cache(folder.path()).load(&engine, digest).unwrap();
            assert_eq!(fs::read(&path).unwrap(), good, "it was not made again");
        }
        let renamed = path.with_file_name("other.cwasm");
        fs::copy(&path, &renamed).unwrap();
        assert!(
            cache(folder.path())
                .map(&engine, "other.cwasm", &renamed)
                .is_err()
        );
        fs::write(&path, b"short").unwrap();
        assert!(cache(folder.path()).map(&engine, &name, &path).is_err());
    }

    #[test]
    fn code_of_another_node_is_refused() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let engine = Engine::default();
        let digest = cache(ours.path()).keep_source(&empty()).unwrap();
        cache(ours.path()).load(&engine, digest).unwrap();
        let [path] = files(&ours.path().join("code"), "cwasm")
            .try_into()
            .unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let foreign = cache(theirs.path());
        assert!(foreign.map(&engine, name, &path).is_err());
    }

    #[test]
    fn a_damaged_component_is_never_compiled() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let digest = cache.keep_source(&empty()).unwrap();
        fs::write(
            cache.source_path(digest),
            wat::parse_str("(component (core module))").unwrap(),
        )
        .unwrap();
        assert!(matches!(
            cache.load(&Engine::default(), digest),
            Err(CodeError::Source(_))
        ));
    }
}
