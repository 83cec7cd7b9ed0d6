//! A full disk: writes are refused with a clear answer, reads go on, and space makes writes work again.

#![allow(
    clippy::unwrap_used,
    reason = "a test says with a panic that something is wrong"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use tombolo_core::Code;
use tombolo_store::{KeyValue, Store, StoreError, Write};

const FOLDER: &str = "TOMBOLO_STORE_TEST_SMALL_DISK";

async fn set(things: &KeyValue, key: &str) -> Result<(), StoreError> {
    let write = Write::Set {
        key: key.into(),
        value: Bytes::from(vec![7; 512 << 10]),
    };
    things.write(vec![write]).await
}

/// The child: runs on a disk of 40 MiB.
#[tokio::test]
#[ignore = "the child process of the next test"]
async fn on_a_small_disk() {
    let folder = std::env::var_os(FOLDER).unwrap();
    let folder = Path::new(&folder);
    let ballast = folder.join("ballast");
    fs::write(&ballast, vec![1; 8 << 20]).unwrap();
    let store = Store::open(&folder.join("store")).unwrap();
    let things = store.key_value(&"app".parse().unwrap(), &"things".parse().unwrap());
    let mut written = 0;
    let refused = loop {
        match set(&things, &written.to_string()).await {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 200, "40 MiB were never full");
    };
    assert!(matches!(refused, StoreError::Full), "{refused:?}");
    assert_eq!(refused.code(), Code::StoreFull);
    assert!(written > 0);
    for key in 0..written {
        assert!(things.get(&key.to_string()).unwrap().is_some());
    }
    fs::remove_file(ballast).unwrap();
    set(&things, "later").await.unwrap();
    assert!(things.exists("later").unwrap());
}

#[test]
fn a_full_disk_refuses_writes_and_serves_reads() {
    let folder = tempfile::tempdir().unwrap();
    let child = "mount -t tmpfs -o size=40m tmpfs \"$0\" && exec \"$1\" --exact on_a_small_disk --ignored --nocapture";
    let namespace = |command: &mut Command| {
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    };
    let mut probe = Command::new("unshare");
    namespace(&mut probe);
    probe
        .args(["mount -t tmpfs tmpfs \"$0\""])
        .arg(folder.path());
    if !probe.output().is_ok_and(|output| output.status.success()) {
        eprintln!(
            "skipped: this machine does not let a test mount a small disk (unshare --user --mount)"
        );
        return;
    }
    let mut command = Command::new("unshare");
    namespace(&mut command);
    let output = command
        .arg(child)
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}
