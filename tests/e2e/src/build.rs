//! Finds the binary and the guests, building what is missing or old, once for each test process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder of the guests' workspace.
pub fn guests_folder() -> PathBuf {
    repository().join("tests/guests")
}

/// The `tombolo` binary: the one that `TOMBOLO` names, else one built now.
pub fn tombolo() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("TOMBOLO") {
            return path.into();
        }
        cargo(&repository(), &["build", "--package", "tombolo"]);
        // This process is `TARGET/PROFILE/deps/suite-…`.
        let own = std::env::current_exe().expect("this process has a path");
        let profile = own.ancestors().nth(2).expect("the path has a profile");
        profile.join("tombolo")
    })
}

/// The component (or core module) of a guest, by the guest's name.
pub fn guest(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let build = ["build", "--release", "--target", "wasm32-wasip2"];
        cargo(&guests_folder(), &build);
        let core = ["--package", "cli-p1", "--target", "wasm32-wasip1"];
        let build = ["build", "--release"];
        cargo(&guests_folder(), &[&build[..], &core[..]].concat());
    });
    let target = guests_folder().join("target");
    let path = match name {
        "cli-p1" => target.join("wasm32-wasip1/release/cli-p1.wasm"),
        "cli-p2" => target.join("wasm32-wasip2/release/cli-p2.wasm"),
        library => {
            let file = format!("wasm32-wasip2/release/{}.wasm", library.replace('-', "_"));
            target.join(file)
        }
    };
    assert!(path.exists(), "there is no guest at {}", path.display());
    path
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("this crate lies two folders deep")
        .into()
}

fn cargo(folder: &Path, arguments: &[&str]) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(arguments)
        .args(["--quiet", "--locked"])
        .current_dir(folder)
        .status()
        .expect("cargo can be started");
    assert!(status.success(), "cargo {} failed", arguments.join(" "));
}
