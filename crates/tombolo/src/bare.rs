//! A component without a manifest: what the flags of `serve` and `run` grant and limit.

use std::collections::BTreeMap;

use tombolo_core::Name;
use tombolo_manifest::{Function, Grants, Limits, parse_duration, parse_size};

use crate::arguments::Bare;
use crate::error::Error;

impl Bare {
    /// The limits that the flags set.
    pub fn limits(&self, default: Limits) -> Result<Limits, Error> {
        self.limits.iter().try_fold(default, |limits, pair| {
            set_limit(limits, pair).map_err(|reason| {
                Error::usage(format!("`--limits {pair}` is not valid"))
                    .why(&LimitError(reason))
                    .help("for example `--limits memory=64MiB,wall=2s,cpu=500ms`")
            })
        })
    }

    /// The function that the flags describe.
    pub fn function(&self, component: std::path::PathBuf) -> Result<Function, Error> {
        Ok(Function {
            component,
            build: None,
            limits: self.limits(Limits::default())?,
            isolation: self.isolation,
            grants: Grants {
                http: self.grant_http.clone(),
                directories: self.dir.clone(),
                sockets: self.grant_sockets.clone(),
                ..Grants::default()
            },
            env: self.env.iter().cloned().collect(),
            config: BTreeMap::new(),
        })
    }
}

/// Why a limit cannot be set.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct LimitError(String);

fn set_limit(mut limits: Limits, pair: &str) -> Result<Limits, String> {
    let (key, value) = pair
        .split_once('=')
        .ok_or("a limit is given as KEY=VALUE")?;
    let size = || parse_size(value).map_err(|error| error.to_string());
    let duration = || {
        let duration = parse_duration(value).map_err(|error| error.to_string())?;
        if duration.is_zero() {
            Err("it is zero".to_owned())
        } else {
            Ok(duration)
        }
    };
    let count = || value.parse::<u32>().map_err(|error| error.to_string());
    match key {
        "memory" => limits.budget.memory_bytes = size()?,
        "wall" => limits.budget.wall = duration()?,
        "cpu" => limits.budget.cpu = duration()?,
        "hostcall" => limits.budget.hostcall_bytes = size()?,
        "response" => limits.budget.response_bytes = size()?,
        "logs" => limits.budget.log_bytes = size()?,
        "concurrency" => limits.concurrency = count()?.max(1),
        "waiting" => limits.waiting = count()?,
        other => {
            return Err(format!(
                "there is no limit `{other}`; the limits are memory, wall, cpu, hostcall, response, logs, concurrency and waiting"
            ));
        }
    }
    Ok(limits)
}

/// A name made from a file's: its letters, digits and hyphens, in lower case.
pub fn name_of(file: &std::path::Path) -> Option<Name> {
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
    use std::path::Path;

    #[test]
    fn limits_are_set_by_key_and_others_stay() {
        let limits = set_limit(Limits::default(), "memory=64MiB").unwrap();
        let limits = set_limit(limits, "wall=2s").unwrap();
        assert_eq!(limits.budget.memory_bytes, 64 << 20);
        assert_eq!(limits.budget.wall.as_secs(), 2);
        assert_eq!(limits.budget.cpu, Limits::default().budget.cpu);
        for bad in ["memory", "memory=", "wall=0s", "wall=-1s", "colour=red"] {
            assert!(set_limit(Limits::default(), bad).is_err(), "{bad}");
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
