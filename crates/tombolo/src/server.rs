//! Runs an embedded node for the commands that serve: start, announce, serve until a signal, drain.

use std::io::IsTerminal as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tombolo_api::{Address, Client, LogQuery};
use tombolo_core::code::exit;
use tombolo_core::{Code, Name};
use tombolo_manifest::{
    BrokerConfig, BrokerListener, BrokerRule, LogFormat, Manifest, NodeConfig, Triggers,
};
use tombolo_node::{
    AppSource, DeployError, LoadError, Node, NodeOptions, RunError, StartError, Stop,
};
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

/// The signal that asks a server for another release.
pub struct HangUp {
    signal: Signal,
    /// Whether there was a terminal at the start.
    on_terminal: bool,
}

impl HangUp {
    /// From now on the signal is taken and does not end the process.
    pub fn take() -> Result<Self, Error> {
        let signal = signal(SignalKind::hangup());
        Ok(Self {
            signal: signal.map_err(|error| Error::io("cannot take signals", &error))?,
            on_terminal: std::io::stderr().is_terminal(),
        })
    }

    /// Waits for the signal. `false`: it came because the terminal was closed, which ends what runs on it.
    pub async fn asks_to_reload(&mut self) -> bool {
        self.signal.recv().await;
        !self.on_terminal || std::io::stderr().is_terminal()
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
    listen_to_mqtt(&mut config.mqtt, arguments.mqtt_listen, &manifest);
    Ok((AppSource { folder, manifest }, config))
}

/// Where MQTT clients of a developer's machine expect a broker.
const MQTT_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1883);

/// Has the broker listen where it was told to, or on this machine when the app uses MQTT and the config names no
/// address. Where the config names neither users nor rules, everybody may do everything.
fn listen_to_mqtt(config: &mut BrokerConfig, told: Option<SocketAddr>, manifest: &Manifest) {
    let address = match told {
        Some(address) => address,
        None if config.listeners.is_empty() && uses_mqtt(manifest) => MQTT_DEFAULT,
        None => return,
    };
    let is_open = config.users.is_empty() && config.rules.is_empty();
    config.listeners = vec![BrokerListener {
        address,
        anonymous: config.users.is_empty(),
        tls: None,
    }];
    if is_open {
        config.rules.push(BrokerRule {
            user: None,
            topics: "#".to_owned(),
            publish: true,
            subscribe: true,
        });
    }
}

/// Whether the app's functions get messages of the node's own broker, or may publish to it.
fn uses_mqtt(manifest: &Manifest) -> bool {
    let mut triggers = manifest.triggers.mqtt.iter();
    let mut functions = manifest.functions.values();
    triggers.any(|trigger| trigger.broker.is_none())
        || functions.any(|function| !function.grants.topics.is_empty())
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
    let apps = options.apps.clone();
    Node::start(options)
        .await
        .map_err(|error| start_error(&error, &apps))
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
    for (address, listener) in node.mqtt_addrs().iter().zip(&config.mqtt.listeners) {
        let scheme = if listener.tls.is_some() {
            "mqtts"
        } else {
            "mqtt"
        };
        output.say(format!("broker at {scheme}://{address}"));
    }
    for source in apps {
        for trigger in &source.manifest.triggers.http {
            output.progress(format!("  {}  {}", trigger.route, target(&trigger.target)));
        }
        if source.manifest.triggers == Triggers::default() {
            output.say(app::NO_TRIGGER);
        }
    }
}

fn target(target: &tombolo_manifest::HttpTarget) -> String {
    match target {
        tombolo_manifest::HttpTarget::Function(function) => function.to_string(),
        tombolo_manifest::HttpTarget::Static(folder) => folder.display().to_string(),
        tombolo_manifest::HttpTarget::Queue { queue, .. } => format!("queue {queue}"),
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

/// Starts a node and announces it; none when a signal comes first.
pub async fn start_and_announce(
    options: NodeOptions,
    signals: &mut Signals,
    output: &Output,
) -> Result<Option<Node>, Error> {
    let (config, apps) = (options.config.clone(), options.apps.clone());
    let node = tokio::select! {
        node = start(options) => node?,
        () = signals.stop() => return Ok(None),
    };
    announce(&node, &config, &apps, output);
    Ok(Some(node))
}

/// Starts a node, announces it and serves until a signal comes; what runs then is finished.
pub async fn serve(
    options: NodeOptions,
    log: node_log::HeldLog,
    function_log: FunctionLog,
    output: &Output,
) -> Result<(), Error> {
    let mut signals = Signals::take()?;
    let store = options.config.store.clone();
    let Some(node) = start_and_announce(options, &mut signals, output).await? else {
        return Ok(());
    };
    drop(log);
    let running = Running::start(node);
    let mut printing = JoinSet::new();
    if function_log == FunctionLog::Printed {
        printing.spawn(print_log(store, *output));
    }
    running
        .until(&mut signals, std::future::pending(), output)
        .await
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
        match logs::format_entry(&entry, Format::Table) {
            Ok(line) if !line.is_empty() => output.say(line.trim_end()),
            _ => (),
        }
    }
}

/// A node that runs.
pub struct Running {
    stop: Stop,
    task: JoinSet<Result<(), RunError>>,
}

impl Running {
    /// Runs the node, and tells the service manager, if there is one, that it is ready.
    pub fn start(node: Node) -> Self {
        let stop = Stop::default();
        let mut task = JoinSet::new();
        task.spawn(node.run(stop.clone()));
        // Without a service manager there is nobody to notify.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        Self { stop, task }
    }

    /// Serves until a signal comes, `work` is done or the node ends by itself, then drains. Another signal ends the
    /// drain.
    pub async fn until(
        mut self,
        signals: &mut Signals,
        work: impl Future<Output = ()>,
        output: &Output,
    ) -> Result<(), Error> {
        tokio::select! {
            ended = self.task.join_next() => return outcome(ended),
            () = work => (),
            () = signals.stop() => (),
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        output.progress("draining; another signal ends at once");
        self.stop.drain.cancel();
        tokio::select! {
            ended = self.task.join_next() => return outcome(ended),
            () = signals.stop() => (),
        }
        self.stop.cut.cancel();
        outcome(self.task.join_next().await)?;
        output.say("what was still running was cut");
        Err(Error::Told(exit::INTERRUPTED))
    }

    /// Takes nothing new, finishes what runs, and ends the node.
    pub async fn drain(mut self) -> Result<(), Error> {
        self.stop.drain.cancel();
        outcome(self.task.join_next().await)
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

/// The error of a start with these apps.
pub fn start_error(error: &StartError, apps: &[AppSource]) -> Error {
    if let StartError::Deploy { app, source } = error {
        let mut manifests = apps.iter().map(|source| &source.manifest);
        return deploy_error(source, manifests.find(|manifest| manifest.app.name == *app));
    }
    let report = Error::new(error.code(), error.to_string());
    let report = match std::error::Error::source(error) {
        Some(cause) => report.why(cause),
        None => report,
    };
    match error.code() {
        Code::AddressInUse if matches!(error, StartError::Mqtt(_)) => {
            report.help("`--mqtt-listen 127.0.0.1:0` picks a free port")
        }
        Code::AddressInUse => report.help("`--listen 127.0.0.1:0` picks a free port"),
        Code::StoreLocked => {
            report.help("stop the other process, or use a folder of its own with `--store DIR`")
        }
        Code::StoreDamaged if matches!(error, StartError::Runtime(_)) => {
            report.help("remove the file: a new key is made, and code is compiled again")
        }
        Code::StoreDamaged => report.help(
            "restore the folder from a copy, or move it away to start with an empty store; `--store DIR` names another",
        ),
        Code::StoreFormat => report.help(
            "use the version that wrote it; where `format` itself was damaged, restore the folder from a copy",
        ),
        Code::Io => report.help("see that the folder can be written to, or name another with `--store DIR`"),
        _ => report,
    }
}

/// The error of a deployment, with its place in the manifest.
pub fn deploy_error(error: &DeployError, manifest: Option<&Manifest>) -> Error {
    let report = Error::new(error.code(), error.to_string());
    let report = match std::error::Error::source(error) {
        Some(cause) => report.why(cause),
        None => report,
    };
    let function = |name: &Name| manifest.and_then(|manifest| manifest.functions.get(name));
    let report = match error {
        DeployError::ComponentMissing { function: name, .. }
        | DeployError::ComponentRead { function: name, .. }
        | DeployError::Load { function: name, .. } => {
            let component = function(name).map_or_else(String::new, |function| {
                format!(" component = \"{}\"", function.component.display())
            });
            report.place(format!("{} [functions.{name}]{component}", app::MANIFEST))
        }
        DeployError::Secret { function: name, .. }
        | DeployError::Directory { function: name, .. } => {
            report.place(format!("{} [functions.{name}] grants", app::MANIFEST))
        }
        DeployError::Routes(_) | DeployError::Token(_) => {
            report.place(format!("{} [[triggers.http]]", app::MANIFEST))
        }
        DeployError::Reserved(_) => report.place(format!("{} [app]", app::MANIFEST)),
        DeployError::Topic(_) | DeployError::BrokerPassword { .. } => {
            report.place(format!("{} [[triggers.mqtt]]", app::MANIFEST))
        }
        DeployError::Consume(_) => report.place(format!("{} [[triggers.queue]]", app::MANIFEST)),
        DeployError::Folder { .. } | DeployError::Queues(_) | DeployError::Interrupted(_) => report,
    };
    match error {
        DeployError::ComponentMissing { function: name, .. } => {
            let builds = function(name).is_some_and(|function| function.build.is_some());
            report.help(if builds {
                "`tombolo build` makes it"
            } else {
                "correct `component`, or add `build = { command = \"…\" }`, which makes the file"
            })
        }
        DeployError::Load {
            source: LoadError::ImportNotGranted { line, .. },
            function: name,
        } => report.help(format!("add `{line}` to [functions.{name}]")),
        DeployError::Directory { .. } => {
            report.help("make the folder, or correct HOST in `HOST::GUEST`")
        }
        _ => report.help(format!("`tombolo explain {}` tells more", error.code())),
    }
}
