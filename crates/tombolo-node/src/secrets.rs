//! Where a node finds the secrets that manifests grant: one file for each in a folder, else the environment.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use tombolo_core::{Code, Name};

/// Why a secret cannot be given to a function. No message contains a value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the secret `{name}` is missing: there is neither {} nor the environment variable `{variable}`", place(folder.as_deref(), name))]
    Missing {
        name: Name,
        folder: Option<PathBuf>,
        variable: String,
    },
    #[error("the secret `{name}` in {path} cannot be read")]
    Read {
        name: Name,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the secret `{name}` in the environment variable `{variable}` is not UTF-8")]
    Encoding { name: Name, variable: String },
}

impl SecretError {
    pub fn code(&self) -> Code {
        match self {
            Self::Missing { .. } => Code::SecretMissing,
            Self::Read { .. } | Self::Encoding { .. } => Code::Io,
        }
    }
}

fn place(folder: Option<&Path>, name: &Name) -> String {
    match folder {
        Some(folder) => format!("the file {}", folder.join(name.as_str()).display()),
        None => format!("a file `{name}` (the node's config names no `secrets` folder)"),
    }
}

/// The secrets of a node.
#[derive(Clone, Debug)]
pub(crate) struct Secrets {
    pub(crate) folder: Option<PathBuf>,
}

impl Secrets {
    /// The values of these secrets, by name.
    pub(crate) fn read(&self, names: &[Name]) -> Result<BTreeMap<Name, String>, SecretError> {
        let values = names
            .iter()
            .map(|name| Ok((name.clone(), self.read_one(name)?)));
        values.collect()
    }

    /// The value of one.
    pub(crate) fn read_one(&self, name: &Name) -> Result<String, SecretError> {
        if let Some(folder) = &self.folder {
            let path = folder.join(name.as_str());
            match std::fs::read_to_string(&path) {
                Ok(text) => return Ok(without_line_end(text)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(SecretError::Read {
                        name: name.clone(),
                        path,
                        source,
                    });
                }
            }
        }
        let variable = variable(name);
        match std::env::var(&variable) {
            Ok(value) => Ok(value),
            Err(std::env::VarError::NotPresent) => Err(SecretError::Missing {
                name: name.clone(),
                folder: self.folder.clone(),
                variable,
            }),
            Err(std::env::VarError::NotUnicode(_)) => Err(SecretError::Encoding {
                name: name.clone(),
                variable,
            }),
        }
    }
}

/// The environment variable of a secret: `weather-key` is in `TOMBOLO_SECRET_WEATHER_KEY`.
fn variable(name: &Name) -> String {
    format!(
        "TOMBOLO_SECRET_{}",
        name.as_str().to_ascii_uppercase().replace('-', "_")
    )
}

/// Editors end files with a line end that is no part of the secret.
fn without_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_its_file_without_the_last_line_end() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("weather-key"), "one\ntwo\r\n").unwrap();
        let secrets = Secrets {
            folder: Some(folder.path().into()),
        };
        let name: Name = "weather-key".parse().unwrap();
        let values = secrets.read(std::slice::from_ref(&name)).unwrap();
        assert_eq!(values[&name], "one\ntwo");
    }

    #[test]
    fn a_missing_secret_names_both_places() {
        let name: Name = "weather-key".parse().unwrap();
        let secrets = Secrets {
            folder: Some("/nowhere".into()),
        };
        let error = secrets.read(std::slice::from_ref(&name)).unwrap_err();
        assert_eq!(error.code(), Code::SecretMissing);
        let text = error.to_string();
        assert!(text.contains("/nowhere/weather-key"), "{text}");
        assert!(text.contains("TOMBOLO_SECRET_WEATHER_KEY"), "{text}");
        let text = Secrets { folder: None }
            .read(&[name])
            .unwrap_err()
            .to_string();
        assert!(text.contains("no `secrets` folder"), "{text}");
    }
}
