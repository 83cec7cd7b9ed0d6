//! The file `node.json` in the store folder, by which commands find a running node.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tombolo_api::{Address, address};

/// The file of a running node; it is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct AddressFile(PathBuf);

impl AddressFile {
    /// Writes the file for the owner alone, whole or not at all.
    pub(crate) fn write(store: &Path, address: &Address) -> io::Result<Self> {
        let path = store.join(address::FILE);
        let beside = store.join(format!("{}.new", address::FILE));
        // What a crash left behind could have other permissions.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(&serde_json::to_vec_pretty(address)?)?;
        fs::rename(beside, &path)?;
        Ok(Self(path))
    }
}

impl Drop for AddressFile {
    fn drop(&mut self) {
        // It may be gone with its folder; nobody is left to tell.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_file_is_the_owners_and_goes_with_the_node() {
        let folder = tempfile::tempdir().unwrap();
        let address = Address {
            admin: "http://127.0.0.1:1".into(),
            token: "t".into(),
            pid: 7,
        };
        fs::write(folder.path().join("node.json.new"), "left by a crash").unwrap();
        let file = AddressFile::write(folder.path(), &address).unwrap();
        assert!(Address::read(folder.path()).unwrap() == address);
        let metadata = fs::metadata(folder.path().join("node.json")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        drop(file);
        assert!(Address::read(folder.path()).is_err());
    }
}
