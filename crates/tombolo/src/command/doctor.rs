//! `tombolo doctor`: what this machine has and lacks, and the command that helps.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tombolo_core::code::exit;
use tombolo_manifest::{Manifest, NodeConfig, format_size};

use crate::app;
use crate::arguments::{Doctor, Format, Global};
use crate::error::Error;
use crate::output::{Output, Row};
use crate::toolchain::{self, Tool};

/// Memory below which functions in JavaScript or Python hardly fit.
const MEMORY_SMALL_BYTES: u64 = 256 << 20;
/// Memory below which a node does not start.
const MEMORY_MIN_BYTES: u64 = 64 << 20;
/// Open files below which a busy listener runs out.
const FILES_SMALL: u64 = 4096;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
struct Finding {
    check: String,
    state: State,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

impl Finding {
    fn new(check: impl Into<String>, state: State, found: impl Into<String>, help: &str) -> Self {
        let help = (state != State::Ok && !help.is_empty()).then(|| help.to_owned());
        Self {
            check: check.into(),
            state,
            found: found.into(),
            help,
        }
    }
}

impl Row for Finding {
    const COLUMNS: &'static [&'static str] = &["STATE", "CHECK", "FOUND"];
    const WIDE: &'static [&'static str] = &["HELP"];

    fn name(&self) -> String {
        self.check.clone()
    }

    fn cells(&self) -> Vec<String> {
        let state = match self.state {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "fail",
        };
        let help = self.help.clone().unwrap_or_default();
        vec![state.into(), self.check.clone(), self.found.clone(), help]
    }
}

/// Checks the machine and, where there is an app in the folder, what the app needs.
pub async fn run(arguments: &Doctor, global: &Global, output: &Output) -> Result<u8, Error> {
    let folder = app::folder(global)?;
    let manifest = match app::manifest(&folder) {
        Ok(manifest) => Some(manifest),
        Err(_) if !folder.join(app::MANIFEST).exists() => None,
        Err(error) => return Err(error),
    };
    let config = app::node_config(&folder, &arguments.files)?;
    let mut findings: Vec<Finding> = Tool::ALL
        .into_iter()
        .map(|tool| toolchain_finding(tool, manifest.as_ref()))
        .collect();
    findings.extend([
        memory(),
        address_space(),
        open_files(),
        pagemap_scan(),
        swap(),
    ]);
    findings.push(store(&config.store));
    findings.extend(damage(&config).await?);
    findings.extend(ports(&config));
    output.list(&findings)?;
    if output.format == Format::Table {
        for finding in &findings {
            if let Some(help) = &finding.help {
                output.progress(format!("{}: {help}", finding.check));
            }
        }
    }
    let failed = findings.iter().any(|finding| finding.state == State::Fail);
    Ok(if failed { exit::FAILED } else { exit::DONE })
}

/// A tool that the app's build commands start must be there; of others it is only told.
fn toolchain_finding(tool: Tool, manifest: Option<&Manifest>) -> Finding {
    let needed = manifest.is_some_and(|manifest| {
        let builds = manifest
            .functions
            .values()
            .filter_map(|function| function.build.as_ref());
        builds
            .flat_map(|build| Tool::of_command(&build.command))
            .any(|needs| needs == tool)
    });
    let lacking = if needed { State::Fail } else { State::Warn };
    let (state, found) = match tool.version() {
        None => (lacking, "missing".into()),
        Some(version) => match tool.version_min() {
            Some(least) if !toolchain::is_at_least(&version, least) => {
                (lacking, format!("{version} is too old"))
            }
            _ => (State::Ok, version),
        },
    };
    Finding::new(tool.name(), state, found, tool.install())
}

/// The memory that is left: of the machine, or of the control group that bounds this process.
fn memory() -> Finding {
    let available =
        proc_kibibytes("/proc/meminfo", "MemAvailable:").map(|kibibytes| kibibytes * 1024);
    let bound = control_group_number("memory.max");
    let (bytes, whose) = match (available, bound) {
        (Some(available), Some(bound)) if bound < available => (bound, "of the control group"),
        (Some(available), _) => (available, "available"),
        (None, Some(bound)) => (bound, "of the control group"),
        (None, None) => return Finding::new("memory", State::Warn, "unknown", ""),
    };
    let state = match bytes {
        ..MEMORY_MIN_BYTES => State::Fail,
        MEMORY_MIN_BYTES..MEMORY_SMALL_BYTES => State::Warn,
        _ => State::Ok,
    };
    let found = format!("{} {whose}", format_size(bytes >> 20 << 20));
    Finding::new(
        "memory",
        state,
        found,
        "a node needs 64 MiB, functions in JavaScript or Python more; raise the bound",
    )
}

/// Instances are laid out in reserved address space; without it they are made one by one, slower.
fn address_space() -> Finding {
    let limit = process_limit("Max address space");
    let strict = number("/proc/sys/vm/overcommit_memory") == Some(2);
    match limit {
        Some(bytes) => Finding::new(
            "address space",
            State::Warn,
            format!("bounded to {}", format_size(bytes >> 20 << 20)),
            "`ulimit -v unlimited` lets instances be pooled; without it they are made on demand",
        ),
        None if strict => Finding::new(
            "address space",
            State::Warn,
            "vm.overcommit_memory is 2",
            "`sysctl vm.overcommit_memory=0` lets instances be pooled; without it they are made on demand",
        ),
        None => Finding::new("address space", State::Ok, "unbounded", ""),
    }
}

fn open_files() -> Finding {
    match process_limit("Max open files") {
        Some(files) if files < FILES_SMALL => Finding::new(
            "open files",
            State::Warn,
            format!("at most {files}"),
            "`ulimit -n 65536` allows as many connections",
        ),
        Some(files) => Finding::new("open files", State::Ok, format!("at most {files}"), ""),
        None => Finding::new("open files", State::Ok, "unbounded", ""),
    }
}

/// Since Linux 6.7 the kernel tells which pages of an instance were written, so that only those are reset.
fn pagemap_scan() -> Finding {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let state = if toolchain::is_at_least(&release.replace('-', " "), (6, 7)) {
        State::Ok
    } else {
        State::Warn
    };
    Finding::new(
        "pagemap scan",
        state,
        format!("Linux {release}"),
        "Linux 6.7 or later resets the memory of instances faster",
    )
}

/// What functions hold in memory, secrets among it, can reach a disk where there is swap.
fn swap() -> Finding {
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let bound = control_group_number("memory.swap.max");
    if swaps.lines().count() <= 1 || bound == Some(0) {
        return Finding::new("swap", State::Ok, "none", "");
    }
    Finding::new(
        "swap",
        State::Warn,
        "in use",
        "memory of functions may be written to disk; `swapoff -a` or `MemorySwapMax=0` keeps it off",
    )
}

fn store(folder: &Path) -> Finding {
    let check = "store folder";
    // The folder is made by the first start; until then its nearest ancestor must allow that.
    let there = folder.ancestors().find(|ancestor| ancestor.is_dir());
    let there = there.unwrap_or(Path::new("/"));
    match tempfile::tempfile_in(there) {
        Ok(_) => Finding::new(check, State::Ok, folder.display().to_string(), ""),
        Err(error) => Finding::new(
            check,
            State::Fail,
            format!("{}: {error}", there.display()),
            "`--store DIR` names another folder",
        ),
    }
}

/// What the node that runs here, if one does, has found damaged in its store.
async fn damage(config: &NodeConfig) -> Result<Option<Finding>, Error> {
    let Some(client) = app::running_node(config)? else {
        return Ok(None);
    };
    // What was left behind by a node that was killed leads nowhere.
    let Ok(node) = client.node().await else {
        return Ok(None);
    };
    let state = match node.damages.is_empty() {
        true => State::Ok,
        false => State::Warn,
    };
    let found = match node.damages.is_empty() {
        true => "none was found".to_owned(),
        false => node.damages.join("; "),
    };
    Ok(Some(Finding::new(
        "damage of the store",
        state,
        found,
        "`tombolo queue list -o wide` tells what each queue lost; copy the folder to another disk before this one fails",
    )))
}

/// Whether the addresses of the config are free, unless the folder's own node has them.
fn ports(config: &NodeConfig) -> Vec<Finding> {
    let address = tombolo_api::Address::read(&config.store).ok();
    let running =
        address.filter(|address| PathBuf::from(format!("/proc/{}", address.pid)).exists());
    let listen = config.http.listen.iter();
    listen
        .map(|address| {
            let check = format!("address {address}");
            match (TcpListener::bind(address), &running) {
                (Ok(_), _) => Finding::new(check, State::Ok, "free", ""),
                (Err(_), Some(node)) => Finding::new(
                    check,
                    State::Ok,
                    format!("used by the node here (pid {})", node.pid),
                    "",
                ),
                (Err(error), None) => {
                    let help = "`tombolo up --listen 127.0.0.1:0` picks a free port";
                    Finding::new(check, State::Fail, error.to_string(), help)
                }
            }
        })
        .collect()
}

/// The number after a name in a file of lines such as `MemAvailable:  123 kB`.
fn proc_kibibytes(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The soft limit of this process; none where it is unlimited.
fn process_limit(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A number of this process's control group; none where it is unbounded.
fn control_group_number(file: &str) -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let path = root.join(group);
    // A bound of an ancestor binds as well, so the least one counts.
    path.ancestors()
        .take_while(|folder| folder.starts_with(root))
        .filter_map(|folder| number(folder.join(file)))
        .min()
}

fn number(file: impl AsRef<Path>) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}
