//! Runs an embedded node for the commands that serve: start, announce, serve until a signal, drain.

use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tombolo_api::{Address, Client, LogQuery};
use tombolo_core::Code;
use tombolo_manifest::{LogFormat, NodeConfig};
use tombolo_node::{AppSource, DeployError, Node, NodeOptions, RunError, StartError};
use tombolo_telemetry::node_log;

use crate::arguments::{Format, Global, Up};
use crate::command::logs;
use crate::error::Error;
use crate::output::Output;
use crate::{app, arguments};

/// The signals that ask a server to stop.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on the signals are taken and do not end the process.
    pub fn take() -> Result<Self, Error> {
        let take = |kind| signal(kind).map_err(|error| Error::io("cannot take signals", &error));
        Ok(Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
        })
    }

    /// Waits until one of them comes.
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
        }
    }
}

/// The app of the folder and the config of its node, as the arguments of `up` change it.
pub fn app_and_config(arguments: &Up, global: &Global) -> Result<(AppSource, NodeConfig), Error> {
    let folder = app::folder(global)?;
    let manifest = app::manifest(&folder)?;
    let mut config = app::node_config(&folder, &arguments.files)?;
    if !arguments.listen.is_empty() {
        config.http.listen.clone_from(&arguments.listen);
    }
    Ok((AppSource { folder, manifest }, config))
}

/// Starts the log of the node itself, on stderr, where it comes out when the answer is dropped.
pub fn start_log(config: &NodeConfig, global: &Global) -> Result<node_log::HeldLog, Error> {
    let options = node_log::NodeLogOptions {
        format: match config.telemetry.log_format {
            LogFormat::Text => node_log::LogFormat::Text,
            LogFormat::Json => node_log::LogFormat::Json,
        },
        verbosity: i8::try_from(global.verbose).unwrap_or(i8::MAX) - i8::from(global.quiet),
        color: match global.color {
            arguments::Color::Auto => None,
            arguments::Color::Always => Some(true),
            arguments::Color::Never => Some(false),
        },
    };
    node_log::start(options)
        .map_err(|error| Error::new(Code::Failed, "cannot start the log").why(&error))
}

/// Starts a node.
pub async fn start(options: NodeOptions) -> Result<Node, Error> {
    Node::start(options)
        .await
        .map_err(|error| start_error(&error))
}

/// Tells where the node serves, then the routes. The first line is what other programs read.
pub fn announce(node: &Node, config: &NodeConfig, apps: &[AppSource], output: &Output) {
    let scheme = if config.http.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let origins: Vec<String> = node
        .http_addrs()
        .iter()
        .map(|address| format!("{scheme}://{address}"))
        .collect();
    output.say(format!("serving at {}", origins.join(" and ")));
    for source in apps {
        for trigger in &source.manifest.triggers.http {
            output.progress(format!("  {}  {}", trigger.route, target(&trigger.target)));
        }
    }
}

fn target(target: &tombolo_manifest::HttpTarget) -> String {
    match target {
        tombolo_manifest::HttpTarget::Function(function) => function.to_string(),
        tombolo_manifest::HttpTarget::Static(folder) => folder.display().to_string(),
    }
}

/// Who reads what functions log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionLog {
    /// Whoever asks for it with `tombolo logs`.
    Kept,
    /// Whoever started the server, on stderr.
    Printed,
}

/// Starts a node, announces it and serves until a signal comes; what runs then is finished.
pub async fn serve(
    options: NodeOptions,
    log: node_log::HeldLog,
    function_log: FunctionLog,
    output: &Output,
) -> Result<(), Error> {
    let mut signals = Signals::take()?;
    let (config, apps) = (options.config.clone(), options.apps.clone());
    let node = tokio::select! {
        node = start(options) => node?,
        () = signals.stop() => return Ok(()),
    };
    announce(&node, &config, &apps, output);
    drop(log);
    let running = Running::start(node);
    let mut printing = JoinSet::new();
    if function_log == FunctionLog::Printed {
        printing.spawn(print_log(config.store, *output));
    }
    running.until(signals.stop(), output).await
}

/// Prints what functions log, as `tombolo logs -f` would, on stderr.
pub async fn print_log(store: PathBuf, output: Output) {
    let Ok(address) = Address::read(&store) else {
        return;
    };
    let query = LogQuery {
        follow: true,
        ..LogQuery::default()
    };
    let Ok(mut stream) = Client::new(address).logs(&query).await else {
        return;
    };
    while let Ok(Some(entry)) = stream.next().await {
        if let Ok(line) = logs::format_entry(&entry, Format::Table) {
            output.say(line.trim_end());
        }
    }
}

/// A node that runs.
pub struct Running {
    shutdown: CancellationToken,
    task: JoinSet<Result<(), RunError>>,
}

impl Running {
    /// Runs the node, and tells the service manager, if there is one, that it is ready.
    pub fn start(node: Node) -> Self {
        let shutdown = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(node.run(shutdown.clone()));
        // Without a service manager there is nobody to notify.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        Self { shutdown, task }
    }

    /// Serves until `stop` is done or the node ends by itself, then drains.
    pub async fn until(
        mut self,
        stop: impl Future<Output = ()>,
        output: &Output,
    ) -> Result<(), Error> {
        tokio::select! {
            ended = self.task.join_next() => return outcome(ended),
            () = stop => (),
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        output.progress("draining");
        self.drain().await
    }

    /// Takes nothing new, finishes what runs, and ends the node.
    pub async fn drain(mut self) -> Result<(), Error> {
        self.shutdown.cancel();
        let ended = self.task.join_next().await;
        outcome(ended)
    }
}

fn outcome(
    ended: Option<Result<Result<(), RunError>, tokio::task::JoinError>>,
) -> Result<(), Error> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Error::new(Code::HostError, "the node stopped").why(error)
    };
    match ended {
        None | Some(Ok(Ok(()))) => Ok(()),
        Some(Ok(Err(error))) => Err(failed(&error)),
        Some(Err(error)) => Err(failed(&error)),
    }
}

/// The error of a start.
pub fn start_error(error: &StartError) -> Error {
    if let StartError::Deploy { source, .. } = error {
        return deploy_error(source);
    }
    let report = Error::new(error.code(), error.to_string());
    let report = match std::error::Error::source(error) {
        Some(cause) => report.why(cause),
        None => report,
    };
    match error.code() {
        Code::AddressInUse => report.help("`--listen 127.0.0.1:0` picks a free port"),
        Code::StoreLocked => {
            report.help("stop the other process, or use a folder of its own with `--store DIR`")
        }
        _ => report,
    }
}

/// The error of a deployment, with its place in the manifest.
pub fn deploy_error(error: &DeployError) -> Error {
    let report = Error::new(error.code(), error.to_string());
    let report = match std::error::Error::source(error) {
        Some(cause) => report.why(cause),
        None => report,
    };
    let report = match error {
        DeployError::ComponentMissing { function, .. }
        | DeployError::ComponentRead { function, .. }
        | DeployError::Secret { function, .. }
        | DeployError::Load { function, .. } => {
            report.place(format!("{} [functions.{function}]", app::MANIFEST))
        }
        DeployError::Routes(_) => report.place(format!("{} [[triggers.http]]", app::MANIFEST)),
        DeployError::Reserved(_) => report.place(format!("{} [app]", app::MANIFEST)),
        DeployError::Consume(_) => report.place(format!("{} [[triggers.queue]]", app::MANIFEST)),
        DeployError::Folder { .. } | DeployError::Queues(_) | DeployError::Interrupted(_) => report,
    };
    match error.code() {
        Code::ComponentMissing => report.help("`tombolo build` makes it"),
        code => report.help(format!("`tombolo explain {code}` tells more")),
    }
}
