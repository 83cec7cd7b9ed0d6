//! `tombolo up`: serves the app in the folder on an embedded node, and takes over a new release on SIGHUP.

use sd_notify::NotifyState;
use tombolo_core::{Code, Name};
use tombolo_node::{AppSource, Deployed, NodeHandle, NodeOptions};

use crate::app;
use crate::arguments::{Global, Up};
use crate::error::Error;
use crate::output::Output;
use crate::server::{self, HangUp, Running, Signals};

/// Serves until a signal comes.
pub async fn run(arguments: &Up, global: &Global, output: &Output) -> Result<(), Error> {
    let mut signals = Signals::take()?;
    let mut hang_up = HangUp::take()?;
    let (source, config) = server::app_and_config(arguments, global)?;
    let log = server::start_log(&config, global)?;
    let app = source.manifest.app.name.clone();
    let options = NodeOptions {
        config,
        apps: vec![source],
        dev: false,
    };
    let Some(node) = server::start_and_announce(options, &mut signals, output).await? else {
        return Ok(());
    };
    output.progress("`tombolo logs -f` in this folder shows what the functions log");
    drop(log);
    let handle = node.handle();
    let following = async {
        while hang_up.asks_to_reload().await {
            reload(&app, &handle, global, output).await;
        }
    };
    Running::start(node)
        .until(&mut signals, following, output)
        .await
}

/// Deploys what the folder has now beside what runs, and takes it over; what cannot be used changes nothing.
async fn reload(app: &Name, handle: &NodeHandle, global: &Global, output: &Output) {
    // systemd relates the answer to its question by the time.
    let notes = [
        Some(NotifyState::Reloading),
        NotifyState::monotonic_usec_now().ok(),
    ];
    let notes: Vec<NotifyState> = notes.into_iter().flatten().collect();
    // Without a service manager there is nobody to notify.
    let _ = sd_notify::notify(&notes);
    match deploy(app, handle, global).await {
        Ok(deployed) => output.say(format!("serving version {}", deployed.version)),
        Err(error) => {
            output.error(&error);
            output.say("still serving the release from before");
        }
    }
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

async fn deploy(app: &Name, handle: &NodeHandle, global: &Global) -> Result<Deployed, Error> {
    let folder = app::folder(global)?;
    let manifest = app::manifest(&folder)?;
    let name = &manifest.app.name;
    if name != app {
        let what = format!("the app is called `{name}` now, and `{app}` runs");
        return Err(Error::new(Code::ManifestValue, what)
            .place(format!("{} [app]", app::MANIFEST))
            .help("an app is renamed by a restart"));
    }
    let source = AppSource {
        folder,
        manifest: manifest.clone(),
    };
    let deployed = handle.deploy(source).await;
    deployed.map_err(|error| server::deploy_error(&error, Some(&manifest)))
}
