//! `tombolo dev`: builds, serves, and does so again whenever a file changes; the last good build stays.

use std::path::{Path, PathBuf};

use tokio::task::JoinSet;
use tombolo_core::Name;
use tombolo_manifest::{Manifest, NodeConfig};
use tombolo_node::{AppSource, NodeHandle, NodeOptions};

use crate::app;
use crate::arguments::{Dev, Global};
use crate::command::build;
use crate::error::Error;
use crate::output::Output;
use crate::server::{self, Running, Signals};
use crate::watch::{Changes, Watch};

/// Serves until a signal comes.
pub async fn run(arguments: &Dev, global: &Global, output: &Output) -> Result<(), Error> {
    let mut signals = Signals::take()?;
    let folder = app::folder(global)?;
    // Without a manifest there is nothing to wait for.
    let manifest = app::manifest(&folder)?;
    let mut watch = Watch::start(&folder, Some(&manifest))?;
    let (source, config) = tokio::select! {
        first = first_build(arguments, global, &mut watch, output) => first?,
        () = signals.stop() => return Ok(()),
    };
    // What is built is told before there is an address.
    drop(server::start_log(&config, global)?);
    let node = tokio::select! {
        node = first_start(arguments, global, source, config, &mut watch, output) => node?,
        () = signals.stop() => return Ok(()),
    };
    let Started {
        handle,
        running,
        store,
    } = node;
    let mut log = JoinSet::new();
    log.spawn(server::print_log(store, *output));
    let changing = follow(&folder, &handle, &mut watch, output);
    running.until(&mut signals, changing, output).await
}

/// A node that serves the app.
struct Started {
    handle: NodeHandle,
    running: Running,
    store: PathBuf,
}

/// Builds until it succeeds once.
async fn first_build(
    arguments: &Dev,
    global: &Global,
    watch: &mut Watch,
    output: &Output,
) -> Result<(AppSource, NodeConfig), Error> {
    loop {
        let tried = async {
            let (source, config) = server::app_and_config(&arguments.up, global)?;
            build::build_app(&source.folder, &source.manifest, output).await?;
            Ok((source, config))
        };
        match tried.await {
            Ok(built) => return Ok(built),
            Err(error) => wait_for_change(&error, watch, output).await?,
        }
    }
}

/// Starts the node; what is wrong with the app can be mended and tried again, other errors cannot.
async fn first_start(
    arguments: &Dev,
    global: &Global,
    mut source: AppSource,
    mut config: NodeConfig,
    watch: &mut Watch,
    output: &Output,
) -> Result<Started, Error> {
    loop {
        let options = NodeOptions {
            config: config.clone(),
            apps: vec![source.clone()],
            dev: true,
        };
        tell_loading(&source.manifest, output);
        match tombolo_node::Node::start(options).await {
            Ok(node) => {
                server::announce(&node, &config, &[source], output);
                return Ok(Started {
                    handle: node.handle(),
                    running: Running::start(node),
                    store: config.store,
                });
            }
            Err(tombolo_node::StartError::Deploy { source: error, .. }) => {
                let error = server::deploy_error(&error, Some(&source.manifest));
                wait_for_change(&error, watch, output).await?;
                (source, config) = first_build(arguments, global, watch, output).await?;
            }
            Err(error) => return Err(server::start_error(&error, &[source])),
        }
    }
}

/// Machine code is made of a component that is new, which takes seconds in silence where it is a large one.
fn tell_loading(manifest: &Manifest, output: &Output) {
    output.progress(format!(
        "loading {}, compiling what is new",
        manifest.app.name
    ));
}

async fn wait_for_change(error: &Error, watch: &mut Watch, output: &Output) -> Result<(), Error> {
    output.error(error);
    output.say("nothing is served yet; waiting for a change");
    let changes = watch.changes().await;
    renew(watch, &changes)
}

fn renew(watch: &mut Watch, changes: &Changes) -> Result<(), Error> {
    // A manifest that is broken keeps the patterns it had.
    let manifest = if changes.manifest {
        watch.manifest().ok()
    } else {
        None
    };
    watch.renew(manifest.as_ref())
}

/// Builds and deploys after each change, for ever.
async fn follow(folder: &Path, handle: &NodeHandle, watch: &mut Watch, output: &Output) {
    loop {
        let changes = watch.changes().await;
        let outcome = async {
            renew(watch, &changes)?;
            rebuild(folder, handle, &changes, output).await
        };
        match outcome.await {
            Ok(()) => output.say("serving the new build"),
            Err(error) => {
                output.error(&error);
                output.say("still serving the last good build");
            }
        }
    }
}

/// Builds what has changed and deploys the app.
async fn rebuild(
    folder: &Path,
    handle: &NodeHandle,
    changes: &Changes,
    output: &Output,
) -> Result<(), Error> {
    let manifest: Manifest = app::manifest(folder)?;
    if changes.manifest {
        build::build_app(folder, &manifest, output).await?;
    } else {
        let changed: Vec<Name> = changes.functions.iter().cloned().collect();
        build::build_functions(folder, &manifest, &changed, output).await?;
    }
    let source = AppSource {
        folder: folder.into(),
        manifest: manifest.clone(),
    };
    tell_loading(&manifest, output);
    handle
        .deploy(source)
        .await
        .map_err(|error| server::deploy_error(&error, Some(&manifest)))?;
    Ok(())
}
