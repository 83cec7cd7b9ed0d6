//! `tombolo serve`: serves one bare component, with what the flags grant it and nothing else.

use std::collections::BTreeMap;
use std::path::Path;

use tombolo_core::{Code, Name};
use tombolo_manifest::{App, HttpTarget, HttpTrigger, Manifest, NodeConfig, Route, Triggers};
use tombolo_node::{AppSource, NodeOptions};

use crate::app;
use crate::arguments::{Global, Serve};
use crate::bare;
use crate::error::Error;
use crate::output::Output;
use crate::server::{self, FunctionLog};

/// Serves until a signal comes.
pub async fn run(arguments: &Serve, global: &Global, output: &Output) -> Result<(), Error> {
    let folder = app::folder(global)?;
    let file = bare::file(&folder, &arguments.file)?;
    let manifest = manifest(arguments, &folder, &file)?;
    // Nothing of a bare component outlives the command, so neither does the store.
    let store =
        tempfile::tempdir().map_err(|error| Error::io("cannot make a store folder", &error))?;
    let mut config = NodeConfig {
        store: store.path().into(),
        ..NodeConfig::default()
    };
    config.http.listen = vec![arguments.listen];
    let log = server::start_log(&config, global)?;
    let options = NodeOptions {
        config,
        apps: vec![AppSource { folder, manifest }],
        dev: false,
    };
    let function_log = if output.quiet {
        FunctionLog::Kept
    } else {
        FunctionLog::Printed
    };
    // There is no manifest to point into.
    let outcome = server::serve(options, log, function_log, output).await;
    outcome.map_err(|error| {
        let ungranted = error.code() == Some(Code::ImportNotGranted);
        let error = error.place_instead(file.display());
        if ungranted {
            error.help("only a manifest can grant it: `tombolo new NAME` makes an app that has one")
        } else {
            error
        }
    })
}

/// An app of one function that answers every path.
fn manifest(arguments: &Serve, folder: &Path, file: &Path) -> Result<Manifest, Error> {
    let name: Name = match bare::name_of(file) {
        Some(name) => name,
        None => constant("component")?,
    };
    let route: Route = constant("/{*rest}")?;
    Ok(Manifest {
        app: App {
            name: name.clone(),
            version: semver::Version::new(0, 0, 0),
            description: None,
        },
        functions: BTreeMap::from([(name.clone(), arguments.bare.function(file.into(), folder)?)]),
        queues: BTreeMap::new(),
        triggers: Triggers {
            http: vec![HttpTrigger {
                route,
                target: HttpTarget::Function(name),
            }],
            ..Triggers::default()
        },
    })
}

fn constant<T: std::str::FromStr<Err: std::error::Error + 'static>>(
    text: &str,
) -> Result<T, Error> {
    text.parse()
        .map_err(|error| Error::new(Code::Failed, format!("`{text}` is not valid")).why(&error))
}
