//! Which files of an app's folder have changed, and which functions they matter to.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ignore::WalkBuilder;
use ignore::gitignore::Gitignore;
use ignore::overrides::{Override, OverrideBuilder};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tombolo_core::{Code, Name};
use tombolo_manifest::Manifest;

use crate::app::{MANIFEST, NODE_CONFIG};
use crate::error::Error;

/// Changes that come closer together than this are one.
const QUIET: Duration = Duration::from_millis(100);
/// Changed paths that may wait; when there are more, everything counts as changed.
const WAITING_MAX: usize = 1024;
/// Folders that no source is in.
const NEVER: [&str; 4] = [".git", ".tombolo", "node_modules", "target"];

/// What has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The manifest, or so much that it cannot be told.
    pub manifest: bool,
    /// The functions whose sources changed.
    pub functions: BTreeSet<Name>,
}

impl Changes {
    fn is_empty(&self) -> bool {
        !self.manifest && self.functions.is_empty()
    }
}

/// A watch on an app's folder.
pub struct Watch {
    folder: PathBuf,
    watcher: RecommendedWatcher,
    changed: mpsc::Receiver<PathBuf>,
    patterns: Patterns,
}

/// The patterns of each function, and what is never a source.
struct Patterns {
    functions: Vec<(Name, Override)>,
    ignored: Gitignore,
    outputs: BTreeSet<PathBuf>,
}

impl Watch {
    /// Watches the folders that sources of the app can be in.
    pub fn start(folder: &Path, manifest: Option<&Manifest>) -> Result<Self, Error> {
        let (sender, changed) = mpsc::channel(WAITING_MAX);
        let report = move |event: notify::Result<Event>| {
            let Ok(event) = event else { return };
            if matches!(event.kind, EventKind::Access(_)) {
                return;
            }
            for path in event.paths {
                // A full channel means the same as what is in it: something has changed.
                let _ = sender.try_send(path);
            }
        };
        let watcher = notify::recommended_watcher(report).map_err(|error| cannot(&error))?;
        let mut watch = Self {
            folder: folder.into(),
            watcher,
            changed,
            patterns: Patterns::new(folder, manifest)?,
        };
        watch.folders()?;
        Ok(watch)
    }

    /// The manifest as it is now.
    pub fn manifest(&self) -> Result<Manifest, Error> {
        crate::app::manifest(&self.folder)
    }

    /// Takes over the patterns of a new manifest, and folders that are new.
    pub fn renew(&mut self, manifest: Option<&Manifest>) -> Result<(), Error> {
        if manifest.is_some() {
            self.patterns = Patterns::new(&self.folder, manifest)?;
        }
        self.folders()
    }

    /// Waits until something that matters has changed and then nothing more for a moment.
    pub async fn changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        loop {
            let next = if changes.is_empty() {
                self.changed.recv().await
            } else {
                match tokio::time::timeout(QUIET, self.changed.recv()).await {
                    Ok(next) => next,
                    Err(_) => return changes,
                }
            };
            let Some(path) = next else { return changes };
            if self.changed.len() + 1 >= WAITING_MAX {
                changes.manifest = true;
            }
            self.patterns.sort(&self.folder, &path, &mut changes);
        }
    }

    /// Folders one by one: a recursive watch would take in every build's output.
    fn folders(&mut self) -> Result<(), Error> {
        let walk = WalkBuilder::new(&self.folder)
            .hidden(false)
            .require_git(false)
            .filter_entry(|entry| !NEVER.iter().any(|never| entry.file_name() == *never))
            .build();
        for entry in walk.flatten() {
            if entry.file_type().is_some_and(|kind| kind.is_dir()) {
                let watched = self
                    .watcher
                    .watch(entry.path(), RecursiveMode::NonRecursive);
                watched.map_err(|error| cannot(&error))?;
            }
        }
        Ok(())
    }
}

impl Patterns {
    fn new(folder: &Path, manifest: Option<&Manifest>) -> Result<Self, Error> {
        let (ignored, _) = Gitignore::new(folder.join(".gitignore"));
        let functions = manifest.iter().flat_map(|manifest| &manifest.functions);
        let outputs = functions
            .clone()
            .map(|(_, function)| folder.join(&function.component));
        let patterns = functions
            .clone()
            .filter_map(|(name, function)| Some((name, function.build.as_ref()?)))
            .map(|(name, build)| {
                let mut patterns = OverrideBuilder::new(folder);
                for pattern in &build.watch {
                    patterns
                        .add(pattern)
                        .map_err(|error| invalid(name, &error))?;
                }
                Ok((
                    name.clone(),
                    patterns.build().map_err(|error| invalid(name, &error))?,
                ))
            });
        Ok(Self {
            functions: patterns.collect::<Result<_, Error>>()?,
            ignored,
            outputs: outputs.collect(),
        })
    }

    /// Adds what the change of a path means.
    fn sort(&self, folder: &Path, path: &Path, changes: &mut Changes) {
        if path == folder.join(MANIFEST) || path == folder.join(NODE_CONFIG) {
            changes.manifest = true;
        }
        let Ok(relative) = path.strip_prefix(folder) else {
            return;
        };
        let never = relative
            .components()
            .any(|part| NEVER.iter().any(|never| part.as_os_str() == *never));
        let is_folder = path.is_dir();
        if never || is_folder || self.outputs.contains(path) {
            return;
        }
        for (name, patterns) in &self.functions {
            let matters = if patterns.is_empty() {
                !self
                    .ignored
                    .matched_path_or_any_parents(relative, is_folder)
                    .is_ignore()
            } else {
                patterns.matched(relative, is_folder).is_whitelist()
            };
            if matters {
                changes.functions.insert(name.clone());
            }
        }
    }
}

fn cannot(error: &notify::Error) -> Error {
    Error::new(Code::Io, "cannot watch the app's folder")
        .why(error)
        .help("`sysctl fs.inotify.max_user_watches=524288` allows more folders to be watched")
}

fn invalid(name: &Name, error: &ignore::Error) -> Error {
    Error::new(Code::ManifestValue, "a pattern of `watch` is not valid")
        .place(format!("{MANIFEST} [functions.{name}] build"))
        .why(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        [app]
        name = "a"
        version = "1.0.0"
        [functions.patterned]
        component = "dist/patterned.wasm"
        build = { command = "true", watch = ["src/**", "*.toml"] }
        [functions.whole]
        component = "whole.wasm"
        build = { command = "true" }
    "#;

    fn names(folder: &Path, path: &str) -> Vec<String> {
        let manifest = Manifest::parse(TEXT, MANIFEST).unwrap();
        let patterns = Patterns::new(folder, Some(&manifest)).unwrap();
        let mut changes = Changes::default();
        patterns.sort(folder, &folder.join(path), &mut changes);
        let functions = changes.functions.iter().map(ToString::to_string);
        functions
            .chain(changes.manifest.then(|| "manifest".into()))
            .collect()
    }

    #[test]
    fn a_path_matters_to_the_functions_whose_patterns_it_matches() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(".gitignore"), "/dist\n").unwrap();
        let names = |path| names(folder.path(), path);
        assert_eq!(names("src/deep/lib.rs"), ["patterned", "whole"]);
        assert_eq!(names("Cargo.toml"), ["patterned", "whole"]);
        assert_eq!(names("README.md"), ["whole"]);
        assert_eq!(names("tombolo.toml"), ["patterned", "whole", "manifest"]);
        for output in [
            "dist/patterned.wasm",
            "dist/x",
            "whole.wasm",
            "target/x",
            ".tombolo/x",
        ] {
            assert!(names(output).is_empty(), "{output}");
        }
    }

    #[tokio::test]
    async fn a_change_is_told_after_it_happened() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("src")).unwrap();
        let manifest = Manifest::parse(TEXT, MANIFEST).unwrap();
        let mut watch = Watch::start(&root, Some(&manifest)).unwrap();
        std::fs::write(root.join("src/lib.rs"), "x").unwrap();
        let changes = watch.changes().await;
        assert!(!changes.manifest);
        assert_eq!(changes.functions.len(), 2);
    }
}
