//! A component without a manifest: what the flags of `serve` and `run` grant and limit.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tombolo_core::{Code, Name};
use tombolo_manifest::{DirectoryGrant, Function, Grants, Limits, parse_duration, parse_size};

use crate::arguments::Bare;
use crate::error::Error;

impl Bare {
    /// The limits that the flags set.
    pub fn limits(&self, default: Limits, longest: Duration) -> Result<Limits, Error> {
        self.limits.iter().try_fold(default, |limits, pair| {
            set_limit(limits, pair, longest).map_err(|reason| {
                Error::usage(format!("`--limits {pair}` is not valid"))
                    .why(&LimitError(reason))
                    .help("for example `--limits memory=64MiB,wall=2s,cpu=500ms`")
            })
        })
    }

    /// The folders that the flags grant, seen from the folder that the command works in.
    pub fn directories(&self, folder: &Path) -> Result<Vec<DirectoryGrant>, Error> {
        let directories = self.dir.iter().cloned().map(|mut directory| {
            directory.host = folder.join(&directory.host);
            if directory.host.is_dir() {
                return Ok(directory);
            }
            let (host, there) = (directory.host.display(), directory.host.exists());
            Err(if there {
                Error::usage(format!("`{host}` of `--dir` is no folder"))
            } else {
                let what = format!("the folder `{host}` of `--dir` does not exist");
                Error::new(Code::NotFound, what)
            }
            .help(
                "`--dir HOST::GUEST` shows the folder HOST of this machine to the guest as GUEST",
            ))
        });
        directories.collect()
    }

    /// The function that the flags describe.
    pub fn function(&self, component: PathBuf, folder: &Path) -> Result<Function, Error> {
        Ok(Function {
            component,
            build: None,
            limits: self.limits(Limits::default(), LONGEST_INVOCATION)?,
            isolation: self.isolation,
            grants: Grants {
                http: self.grant_http.clone(),
                directories: self.directories(folder)?,
                sockets: self.grant_sockets.clone(),
                ..Grants::default()
            },
            env: self.env.iter().cloned().collect(),
            config: BTreeMap::new(),
        })
    }
}

/// The file that `serve` or `run` was given.
pub fn file(folder: &Path, named: &Path) -> Result<PathBuf, Error> {
    let file = folder.join(named);
    let what = if file.is_dir() {
        "this is a folder, not a component"
    } else if !file.exists() {
        "the component file is missing"
    } else {
        return Ok(file);
    };
    Err(Error::new(Code::ComponentMissing, what).place(file.display()))
}

/// Why a limit cannot be set.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct LimitError(String);

/// The longest time of an invocation, as in a manifest.
const LONGEST_INVOCATION: Duration = Duration::from_secs(15 * 60);
/// The sizes that a manifest accepts for memory.
const MEMORY_BYTES: RangeInclusive<u64> = 64 << 10..=4 << 30;

fn set_limit(mut limits: Limits, pair: &str, longest: Duration) -> Result<Limits, String> {
    let (key, value) = pair
        .split_once('=')
        .ok_or("a limit is given as KEY=VALUE")?;
    let size = |bounds: RangeInclusive<u64>| {
        let size = parse_size(value).map_err(|error| error.to_string())?;
        if bounds.contains(&size) {
            Ok(size)
        } else {
            let (least, most) = bounds.into_inner();
            Err(format!("it has to be between {least} and {most} bytes"))
        }
    };
    let duration = || {
        let duration = parse_duration(value).map_err(|error| error.to_string())?;
        if (Duration::from_millis(1)..=longest).contains(&duration) {
            Ok(duration)
        } else {
            let longest = humantime::format_duration(longest);
            Err(format!("it has to be between 1ms and {longest}"))
        }
    };
    let count = || value.parse::<u32>().map_err(|error| error.to_string());
    match key {
        "memory" => limits.budget.memory_bytes = size(MEMORY_BYTES)?,
        "wall" => limits.budget.wall = duration()?,
        "cpu" => limits.budget.cpu = duration()?,
        "hostcall" => limits.budget.hostcall_bytes = size(4 << 10..=1 << 30)?,
        "response" => limits.budget.response_bytes = size(1 << 10..=64 << 30)?,
        "logs" => limits.budget.log_bytes = size(0..=64 << 20)?,
        "concurrency" => limits.concurrency = count()?.clamp(1, 100_000),
        "waiting" => limits.waiting = count()?.min(1_000_000),
        other => {
            return Err(format!(
                "there is no limit `{other}`; the limits are memory, wall, cpu, hostcall, response, logs, concurrency and waiting"
            ));
        }
    }
    Ok(limits)
}

/// A name made from a file's: its letters, digits and hyphens, in lower case.
pub fn name_of(file: &Path) -> Option<Name> {
    let stem = file.file_stem()?.to_string_lossy().to_lowercase();
    let words: Vec<&str> = stem
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    let name: String = words.join("-").chars().take(63).collect();
    name.trim_start_matches(|c: char| !c.is_ascii_lowercase())
        .trim_end_matches('-')
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_set_by_key_and_others_stay() {
        let set = |limits, pair| set_limit(limits, pair, LONGEST_INVOCATION);
        let limits = set(Limits::default(), "memory=64MiB").unwrap();
        let limits = set(limits, "wall=2s").unwrap();
        assert_eq!(limits.budget.memory_bytes, 64 << 20);
        assert_eq!(limits.budget.wall.as_secs(), 2);
        assert_eq!(limits.budget.cpu, Limits::default().budget.cpu);
        for bad in [
            "memory",
            "memory=",
            "memory=0",
            "memory=5GiB",
            "wall=0s",
            "wall=-1s",
            "wall=300000000000y",
            "colour=red",
        ] {
            assert!(set(Limits::default(), bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_gives_its_name_where_it_can() {
        let name = |file: &str| name_of(Path::new(file)).map(|name| name.to_string());
        assert_eq!(
            name("/a/Hello_World.component.wasm").as_deref(),
            Some("hello-world-component")
        );
        assert_eq!(name("2nd.wasm").as_deref(), Some("nd"));
        assert_eq!(name("1.wasm"), None);
    }
}
