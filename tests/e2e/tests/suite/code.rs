//! Compiled code on disk: a cache that is believed only when it is genuine.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tombolo_e2e::App;

/// The files of compiled code below a folder.
fn compiled(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            compiled(&path, found)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "cwasm")
        {
            found.push(path);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_flipped_bit_leads_to_recompilation_and_a_right_answer() -> Result<()> {
    let app = App::new("http-hello", "")?;
    let mut server = app.up()?;
    assert_eq!(server.client().get("/").await?.text(), "hello, world");
    server.terminate()?;
    assert_eq!(server.wait()?.code(), Some(0));

    let mut files = Vec::new();
    compiled(&app.folder().join(".tombolo"), &mut files)?;
    assert!(!files.is_empty(), "there is no compiled code in the store");
    for file in &files {
        let mut bytes = std::fs::read(file)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0b100;
        std::fs::write(file, bytes)?;
    }
    let flipped: Vec<_> = files.iter().map(std::fs::read).collect::<Result<_, _>>()?;

    let server = app.up()?;
    server.wait_for_log("compiled code was refused")?;
    assert_eq!(server.client().get("/").await?.text(), "hello, world");
    for (file, flipped) in files.iter().zip(flipped) {
        assert_ne!(std::fs::read(file)?, flipped, "{}", file.display());
    }
    Ok(())
}

#[tokio::test]
async fn a_key_from_the_service_manager_is_not_on_the_stores_disk() -> Result<()> {
    let app = App::new("http-hello", "")?;
    let credentials = app.folder().join("credentials");
    std::fs::create_dir(&credentials)?;
    std::fs::write(credentials.join("code.key"), [7; 32])?;
    let mut command = tombolo_e2e::command();
    command
        .current_dir(app.folder())
        .env("CREDENTIALS_DIRECTORY", &credentials)
        .args(["up", "--listen", "127.0.0.1:0"]);
    let server = tombolo_e2e::Server::start(&mut command)?;
    assert_eq!(server.client().get("/").await?.status, 200);
    assert!(!app.folder().join(".tombolo/code.key").exists());
    assert!(app.folder().join(".tombolo/code").is_dir());
    Ok(())
}
