//! `tombolo check`: the problems of the app, all of them, without serving it.

use serde::Serialize;
use tombolo_core::code::exit;
use tombolo_manifest::{Manifest, Triggers};
use tombolo_node::{AppSource, DeployError, NodeOptions};

use crate::app;
use crate::arguments::{Check, Global, NodeFiles};
use crate::error::Error;
use crate::output::Output;
use crate::server;

/// What was checked, for programs.
#[derive(Serialize)]
struct Checked {
    app: String,
    functions: Vec<String>,
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct Problem {
    code: String,
    message: String,
}

/// Loads each function as a node would, and tells what it would refuse.
pub async fn run(arguments: Check, global: &Global, output: &Output) -> Result<u8, Error> {
    let folder = app::folder(global)?;
    let manifest = app::manifest(&folder)?;
    let files = NodeFiles {
        config: arguments.config,
        store: None,
    };
    let mut config = app::node_config(&folder, &files)?;
    // A node may run in the folder and hold its store.
    let store =
        tempfile::tempdir().map_err(|error| Error::io("cannot make a store folder", &error))?;
    config.store = store.path().into();
    config.http.listen.clear();
    let node = server::start(NodeOptions {
        config,
        apps: Vec::new(),
        dev: false,
    })
    .await?;
    let mut problems: Vec<DeployError> = Vec::new();
    for part in parts(&manifest) {
        let source = AppSource {
            folder: folder.clone(),
            manifest: part,
        };
        problems.extend(node.deploy(source).await.err());
    }
    server::Running::start(node).drain().await?;
    report(&manifest, &problems, output)?;
    // The first problem decides, as everywhere.
    Ok(problems
        .first()
        .map_or(exit::DONE, |problem| problem.code().exit_code()))
}

/// The app in parts that can be refused one by one: each function, then the routes.
fn parts(manifest: &Manifest) -> impl Iterator<Item = Manifest> {
    let functions = manifest.functions.keys().map(|name| {
        let mut part = manifest.clone();
        part.functions.retain(|other, _| other == name);
        part.triggers.http.clear();
        part
    });
    let mut routes = manifest.clone();
    routes.functions.clear();
    functions.chain([routes])
}

fn report(manifest: &Manifest, problems: &[DeployError], output: &Output) -> Result<(), Error> {
    for problem in problems {
        output.error(&server::deploy_error(problem, Some(manifest)));
    }
    let checked = Checked {
        app: manifest.app.name.to_string(),
        functions: manifest.functions.keys().map(ToString::to_string).collect(),
        problems: problems.iter().map(Problem::from).collect(),
    };
    let count = checked.functions.len();
    output.one(&checked, || checked.app.clone(), String::new)?;
    if manifest.triggers == Triggers::default() {
        output.progress(app::NO_TRIGGER);
    }
    if problems.is_empty() {
        output.progress(format!("{}: no problems ({count} checked)", checked.app));
    }
    Ok(())
}

impl From<&DeployError> for Problem {
    fn from(error: &DeployError) -> Self {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            message += &format!(": {error}");
            cause = error.source();
        }
        Self {
            code: error.code().to_string(),
            message,
        }
    }
}
