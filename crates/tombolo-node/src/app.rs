//! An app as the node takes it: a folder, its manifest, and the paths in it resolved.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use tombolo_core::{FunctionId, Name, QueueId};
use tombolo_manifest::{Function, HttpTarget, Manifest};
use tombolo_triggers::http::{RouteEntry, RouteTarget};
use tombolo_triggers::ingress::{Entrance, Ingress, Token};

/// An app to deploy: the folder of its manifest, which relative paths start from, and the manifest.
#[derive(Clone, Debug)]
pub struct AppSource {
    pub folder: PathBuf,
    pub manifest: Manifest,
}

/// An app whose paths are absolute.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) folder: PathBuf,
    pub(crate) manifest: Manifest,
    /// What opens the app's queues to senders, by secret; known when it is deployed.
    pub(crate) tokens: BTreeMap<Name, Token>,
}

impl App {
    pub(crate) fn resolve(source: AppSource) -> io::Result<Self> {
        let folder = std::path::absolute(&source.folder)?;
        let mut manifest = source.manifest;
        let resolve = |path: &mut PathBuf| *path = join(&folder, path);
        for function in manifest.functions.values_mut() {
            resolve(&mut function.component);
            for directory in &mut function.grants.directories {
                resolve(&mut directory.host);
            }
        }
        for trigger in &mut manifest.triggers.http {
            if let HttpTarget::Static(path) = &mut trigger.target {
                resolve(path);
            }
        }
        Ok(Self {
            folder,
            manifest,
            tokens: BTreeMap::new(),
        })
    }

    pub(crate) fn name(&self) -> &Name {
        &self.manifest.app.name
    }

    pub(crate) fn functions(&self) -> &BTreeMap<Name, Function> {
        &self.manifest.functions
    }

    pub(crate) fn id(&self, function: &Name) -> FunctionId {
        FunctionId {
            app: self.name().clone(),
            function: function.clone(),
        }
    }

    /// How many triggers lead to its functions and files.
    pub(crate) fn trigger_count(&self) -> usize {
        let triggers = &self.manifest.triggers;
        triggers.http.len()
            + triggers.cron.len()
            + triggers.queue.len()
            + triggers.mqtt.len()
            + triggers.change.len()
    }

    /// The secrets that open its queues to senders.
    pub(crate) fn token_names(&self) -> Vec<Name> {
        let triggers = self.manifest.triggers.http.iter();
        let tokens = triggers.filter_map(|trigger| match &trigger.target {
            HttpTarget::Queue { token, .. } => Some(token.clone()),
            _ => None,
        });
        tokens.collect()
    }

    /// Its routes; those to queues go in by the ingress. A queue whose token is not known has none.
    pub(crate) fn routes(&self, ingress: &Ingress) -> impl Iterator<Item = RouteEntry> {
        let triggers = self.manifest.triggers.http.iter();
        triggers.filter_map(|trigger| {
            let target = match &trigger.target {
                HttpTarget::Function(function) => RouteTarget::Function(self.id(function)),
                HttpTarget::Static(folder) => RouteTarget::Static(folder.clone()),
                HttpTarget::Queue { queue, token } => {
                    let queue = QueueId {
                        app: self.name().clone(),
                        queue: queue.clone().into(),
                    };
                    let token = self.tokens.get(token)?.clone();
                    RouteTarget::Queue(Box::new(Entrance::new(ingress.clone(), queue, token)))
                }
            };
            Some(RouteEntry {
                route: trigger.route.clone(),
                app: self.name().clone(),
                target,
            })
        })
    }
}

/// `path` below `folder`, without the `.` components that would show in messages.
fn join(folder: &Path, path: &Path) -> PathBuf {
    folder.join(path).components().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn relative_paths_start_from_the_manifests_folder_and_absolute_ones_stay() {
        let text = r#"
            [app]
            name = "demo"
            version = "1.0.0"
            [functions.a]
            component = "./a.wasm"
            grants = { directories = ["data::/data"] }
            [functions.b]
            component = "/elsewhere/b.wasm"
            [[triggers.http]]
            route = "/{*rest}"
            static = "public/"
        "#;
        let manifest = Manifest::parse(text, "tombolo.toml").unwrap();
        let app = App::resolve(AppSource {
            folder: "/apps/demo".into(),
            manifest,
        })
        .unwrap();
        let functions: Vec<&Function> = app.functions().values().collect();
        assert_eq!(functions[0].component, Path::new("/apps/demo/a.wasm"));
        assert_eq!(
            functions[0].grants.directories[0].host,
            Path::new("/apps/demo/data")
        );
        assert_eq!(functions[1].component, Path::new("/elsewhere/b.wasm"));
        let site = tempfile::tempdir().unwrap();
        let store = tombolo_store::Store::open(site.path()).unwrap();
        let bounds = tombolo_core::event::Bounds::default();
        let ingress = Ingress::new(Arc::new(store.journal()), Arc::new(|_, _| Ok(())), bounds);
        let RouteTarget::Static(folder) = &app.routes(&ingress).next().unwrap().target else {
            panic!("not static");
        };
        assert_eq!(folder, Path::new("/apps/demo/public"));
    }
}
