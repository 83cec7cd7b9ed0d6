//! Builds a node from its config, and runs it from readiness to the last flush.

use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue};
use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tombolo_api::Address;
use tombolo_core::header::{NODE, TIER};
use tombolo_core::{Call, Code, Invoke, InvokeFuture, Name, Publish};
use tombolo_manifest::{NodeConfig, RuntimeConfig};
use tombolo_runtime::{CodeError, Runtime, RuntimeOptions};
use tombolo_store::{Journal, KeyValue, Store};
use tombolo_telemetry::{Telemetry, TelemetryOptions, TelemetryService};
use tombolo_triggers::cron::Cron;
use tombolo_triggers::delivery::{Deliveries, DeliveryConfig};
use tombolo_triggers::http::{BindError, HttpServer, HttpService, ServiceError};
use tombolo_triggers::idempotent::Idempotent;
use tombolo_triggers::mqtt::{Broker, BrokerError, RemoteBrokers, RemoteError, SessionWriter};

use crate::address::AddressFile;
use crate::admin::AdminServer;
use crate::app::AppSource;
use crate::control::Control;
use crate::deploy::{Apps, DeployError, Deployed, Events, RESERVED};
use crate::dispatcher::Dispatcher;
use crate::mqtt;
use crate::queues;
use crate::secrets::Secrets;
use crate::token::Token;

/// What a node is made from.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    pub config: NodeConfig,
    /// The apps to deploy at the start.
    pub apps: Vec<AppSource>,
    /// Whether answers carry backtraces and timings.
    pub dev: bool,
}

/// Why a node did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the store cannot be opened")]
    Store(#[from] tombolo_store::OpenError),
    #[error("telemetry cannot be started")]
    Telemetry(#[from] tombolo_telemetry::StartError),
    #[error("the runtime cannot be started")]
    Runtime(#[from] tombolo_runtime::StartError),
    #[error("the HTTP listener cannot be started")]
    Http(#[from] BindError),
    #[error("the MQTT broker cannot be started")]
    Mqtt(#[from] BrokerError),
    #[error("brokers elsewhere cannot be subscribed to")]
    Remote(#[from] RemoteError),
    #[error("the admin listener cannot listen on {address}")]
    Admin {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the token of the API cannot be made")]
    Token(#[source] io::Error),
    #[error("the address of the API cannot be written into the store folder")]
    Address(#[source] io::Error),
    #[error("the app `{app}` cannot be deployed")]
    Deploy {
        app: Name,
        #[source]
        source: DeployError,
    },
    #[error("the start was cut short")]
    Interrupted(#[from] JoinError),
}

impl StartError {
    /// The error's place in the one table of codes.
    pub fn code(&self) -> Code {
        match self {
            Self::Store(error) => error.code(),
            Self::Telemetry(_) => Code::NodeConfig,
            Self::Runtime(tombolo_runtime::StartError::Cache(CodeError::Key(_))) => {
                Code::StoreDamaged
            }
            Self::Runtime(_) | Self::Interrupted(_) => Code::HostError,
            Self::Http(error) => error.code(),
            Self::Mqtt(error) => error.code(),
            Self::Remote(error) => error.code(),
            Self::Admin { .. } => Code::AddressInUse,
            Self::Token(_) | Self::Address(_) => Code::Io,
            Self::Deploy { source, .. } => source.code(),
        }
    }
}

/// Why a node stopped before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the HTTP listeners failed")]
    Http(#[from] ServiceError),
    #[error("the MQTT broker failed")]
    Mqtt(#[from] BrokerError),
    #[error("a part of the node ended unexpectedly")]
    Part(#[from] JoinError),
}

/// A node that is ready to run. It can be used like its [`NodeHandle`] before.
pub struct Node {
    handle: NodeHandle,
    store: Store,
    telemetry: Telemetry,
    telemetry_service: TelemetryService,
    http: Option<HttpService>,
    mqtt: Broker,
    sessions: SessionWriter,
    remote: RemoteBrokers,
    deliveries: Deliveries,
    cron: Cron,
    admin: AdminServer,
    drain_delay: Duration,
    drain_timeout: Duration,
    /// Cuts what a drain waits for, at its deadline or when it is told to.
    cut: CancellationToken,
    control: Arc<Control>,
    /// Removed when the node is gone.
    address: AddressFile,
}

/// How a node that runs is told to stop.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Takes nothing new and finishes what runs, within the drain's time.
    pub drain: CancellationToken,
    /// Finishes nothing more. What was written is on disk all the same.
    pub cut: CancellationToken,
}

/// What can be asked of a node while it runs; a clone is cheap and means the same node.
#[derive(Clone)]
pub struct NodeHandle {
    apps: Arc<Apps>,
    dispatcher: Arc<Idempotent>,
    http: Arc<[SocketAddr]>,
    mqtt: Arc<[SocketAddr]>,
    admin: SocketAddr,
}

impl Deref for Node {
    type Target = NodeHandle;

    fn deref(&self) -> &NodeHandle {
        &self.handle
    }
}

impl NodeHandle {
    /// Where functions are served; empty when the config names no listener.
    pub fn http_addrs(&self) -> &[SocketAddr] {
        &self.http
    }

    /// Where MQTT clients connect; empty when the config names no listener.
    pub fn mqtt_addrs(&self) -> &[SocketAddr] {
        &self.mqtt
    }

    /// Where health, metrics and the API are served.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// Deploys an app, or a new release of one. Requests that run finish on the old release; none is lost.
    ///
    /// # Errors
    /// Something of the app cannot be used. What ran before goes on running.
    pub async fn deploy(&self, app: AppSource) -> Result<Deployed, DeployError> {
        self.apps.deploy(app).await
    }

    /// Runs a function for one request.
    pub fn invoke(&self, call: Call) -> InvokeFuture {
        self.dispatcher.invoke(call)
    }
}

impl Node {
    /// Opens the store, binds the listeners and deploys the apps. Clients that connect wait until the node runs.
    ///
    /// # Errors
    /// A part cannot start, or an app cannot be deployed.
    pub async fn start(options: NodeOptions) -> Result<Self, StartError> {
        let NodeOptions {
            config,
            apps: sources,
            dev,
        } = options;
        let telemetry_options = TelemetryOptions {
            otlp: config.telemetry.otlp.clone(),
            sample_ratio: config.telemetry.sample_ratio,
        };
        let (telemetry, telemetry_service) =
            Telemetry::start(&telemetry_options, config.name.as_str())?;
        let (store, runtime) = open(&config, &telemetry).await?;
        let server = bind(&config)?;
        let admin = bind_admin(config.admin.listen).await?;
        let journal = store.journal();
        let dispatcher = Arc::new(Dispatcher::new(
            runtime.clone(),
            config.name.as_str(),
            &config.tier.to_string(),
        ));
        let dispatcher = Arc::new(Idempotent::new(dispatcher, journal.clone()));
        let weak: Weak<Idempotent> = Arc::downgrade(&dispatcher);
        runtime.connect(weak);
        runtime.connect_queues(Arc::new(journal.clone()));
        let read = journal.clone();
        telemetry.read_queues(move || queues::readings(&read));
        let read = journal.clone();
        telemetry.read_answers(move || queues::answers(&read));
        let publish: Arc<dyn Publish> = Arc::new(journal.clone());
        let authorities = config.mqtt.remote_authorities.clone();
        let remote = RemoteBrokers::new(publish.clone(), memory(&store, "mqtt"), authorities)?;
        let kept = mqtt::Kept {
            retained: memory(&store, "retained"),
            sessions: memory(&store, "sessions"),
        };
        let broker = mqtt::broker(&config.mqtt, publish, kept, remote.handle(), &telemetry);
        let (mqtt, sessions, subscriptions) = broker.await?;
        runtime.connect_topics(Arc::new(mqtt.handle()));
        let deliveries = deliveries(&config, &journal, &dispatcher, &runtime, &telemetry, dev);
        let cron = Cron::new(journal.clone(), memory(&store, "cron"));
        let events = Events {
            journal,
            deliveries: deliveries.handle(),
            cron: cron.handle(),
            subscriptions,
            remote: remote.handle(),
            listens: !config.mqtt.listeners.is_empty(),
        };
        let secrets = Secrets {
            folder: config.secrets.clone(),
        };
        let apps = Arc::new(Apps::new(runtime, events, secrets, cores(&config)));
        for source in sources {
            let app = source.manifest.app.name.clone();
            let deployed = apps.deploy(source).await;
            deployed.map_err(|source| StartError::Deploy { app, source })?;
        }
        let addresses = server.as_ref().map(HttpServer::local_addrs);
        let handle = NodeHandle {
            apps,
            dispatcher,
            http: addresses.unwrap_or_default().into(),
            mqtt: mqtt.local_addrs().into(),
            admin: admin.address,
        };
        let token = Token::generate().map_err(StartError::Token)?;
        let address = write_address(&config, admin.address, &token)?;
        let cut = CancellationToken::new();
        let http =
            server.map(|server| service(server, &config, &handle, &telemetry, dev, cut.clone()));
        Ok(Self {
            control: control(&config, &handle, &store, &telemetry, token, dev),
            http,
            handle,
            store,
            telemetry,
            telemetry_service,
            mqtt,
            sessions,
            remote,
            deliveries,
            cron,
            admin,
            drain_delay: config.http.drain_delay,
            drain_timeout: config.http.drain_timeout,
            cut,
            address,
        })
    }

    /// What can be asked of the node while it runs.
    pub fn handle(&self) -> NodeHandle {
        self.handle.clone()
    }

    /// The telemetry of the node.
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Serves until told to stop, then drains. What was accepted is answered, what was written is on disk.
    ///
    /// # Errors
    /// A part of the node failed; everything else was drained all the same.
    pub async fn run(self, stop: Stop) -> Result<(), RunError> {
        let Self {
            handle,
            store,
            telemetry: _,
            telemetry_service,
            http,
            mqtt,
            sessions,
            remote,
            deliveries,
            cron,
            admin,
            drain_delay,
            drain_timeout,
            cut,
            control,
            address,
        } = self;
        let stop_http = CancellationToken::new();
        let (stop_sessions, stop_telemetry) = (CancellationToken::new(), CancellationToken::new());
        control.ready.store(true, Ordering::Release);
        let telemetry_task = spawn(telemetry_service.run(stop_telemetry.clone()));
        let admin_task = spawn(admin.run(control.clone(), cut.clone()));
        let sessions_task = spawn(sessions.run(stop_sessions.clone()));
        let mqtt_task = spawn(mqtt.run(stop_http.clone()));
        let remote_task = spawn(remote.run(stop_http.clone()));
        let deliveries_task = spawn(deliveries.run(stop_http.clone()));
        let cron_task = spawn(cron.run(stop_http.clone()));
        let resting = rest(handle.apps.clone());
        let resting = spawn(stop_http.clone().run_until_cancelled_owned(resting));
        let serving = serve(http, stop_http.clone(), cut.clone());
        tokio::pin!(serving);
        tracing::info!(http = ?handle.http_addrs(), mqtt = ?handle.mqtt_addrs(), admin = %handle.admin_addr(), "node ready");

        let early = told_to_stop(&stop, &control.ready, drain_delay, serving.as_mut()).await;
        let cutting = cut_at(
            Instant::now() + drain_timeout,
            stop.cut.clone(),
            cut.clone(),
        );
        let cutting = spawn(cutting);
        stop_http.cancel();
        let http_ended = match early {
            Some(ended) => ended,
            None => serving.await,
        };
        let rest_ended = resting.await;
        let cron_ended = cron_task.await;
        let mqtt_ended = cut.run_until_cancelled(mqtt_task).await;
        let remote_ended = cut.run_until_cancelled(remote_task).await;
        let deliveries_ended = cut.run_until_cancelled(deliveries_task).await;
        control.shutdown.cancel();
        let admin_ended = admin_task.await;
        // Again, for what came by the API, or all of it where there is no listener.
        let drained = async {
            handle.dispatcher.drain().await;
            handle.apps.runtime.drain().await;
        };
        if cut.run_until_cancelled(drained).await.is_none() {
            tracing::warn!("functions that were at work after their answers were cut");
        }
        drop(cutting);
        // Last, because functions publish to topics until they have ended.
        stop_sessions.cancel();
        let sessions_ended = sessions_task.await;
        stop_telemetry.cancel();
        let telemetry_ended = stop.cut.run_until_cancelled(telemetry_task).await;
        store.close().await;
        drop(address);
        http_ended?;
        rest_ended?;
        cron_ended?;
        mqtt_ended.transpose()?.transpose()?;
        sessions_ended?;
        remote_ended.transpose()?;
        deliveries_ended.transpose()?;
        admin_ended?;
        telemetry_ended.transpose()?;
        Ok(())
    }
}

/// Waits until the node is told to stop, and on while the world is told that it is not ready. Not empty when the
/// listeners ended before.
async fn told_to_stop<T>(
    stop: &Stop,
    ready: &AtomicBool,
    drain_delay: Duration,
    mut serving: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    let early = tokio::select! {
        () = stop.drain.cancelled() => None,
        () = stop.cut.cancelled() => None,
        ended = &mut serving => Some(ended),
    };
    tracing::info!("node drains");
    ready.store(false, Ordering::Release);
    if early.is_some() || drain_delay.is_zero() {
        return early;
    }
    tokio::select! {
        () = tokio::time::sleep(drain_delay) => None,
        () = stop.cut.cancelled() => None,
        ended = serving => Some(ended),
    }
}

/// A task of the node, which ends with the node.
fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> AbortOnDropHandle<T> {
    AbortOnDropHandle::new(tokio::spawn(work))
}

/// Cuts what is still drained at the deadline, or as soon as it is told to.
async fn cut_at(deadline: Instant, told: CancellationToken, cut: CancellationToken) {
    // Either way.
    let _ = tokio::time::timeout_at(deadline, told.cancelled()).await;
    cut.cancel();
}

/// Runs the HTTP listeners, which have threads of their own; without any, waits.
async fn serve(
    http: Option<HttpService>,
    stop: CancellationToken,
    cut: CancellationToken,
) -> Result<(), RunError> {
    match http {
        Some(service) => {
            // Threads do not end with whoever waits for them: they are told.
            let forsaken = [stop.clone().drop_guard(), cut.drop_guard()];
            let ended = tokio::task::spawn_blocking(move || service.run(&stop)).await;
            for guard in forsaken {
                guard.disarm();
            }
            Ok(ended??)
        }
        None => {
            stop.cancelled().await;
            Ok(())
        }
    }
}

/// How often functions are looked at for whether they rest, or can leave.
const REST_INTERVAL: Duration = Duration::from_secs(1);

/// Lets functions that are not used go from memory.
async fn rest(apps: Arc<Apps>) {
    loop {
        tokio::time::sleep(REST_INTERVAL).await;
        apps.settle();
        apps.runtime.rest();
    }
}

/// The key of compiled code: the service manager's credential `code.key`, which a stranger with the
/// store's disk does not have, or else a file of the store.
fn code_key(store: &Path) -> PathBuf {
    let credential = std::env::var_os("CREDENTIALS_DIRECTORY")
        .map(|folder| Path::new(&folder).join("code.key"))
        .filter(|file| file.is_file());
    credential.unwrap_or_else(|| store.join("code.key"))
}

/// Opens the store and starts the runtime, both of which block.
async fn open(config: &NodeConfig, telemetry: &Telemetry) -> Result<(Store, Runtime), StartError> {
    let folder = config.store.clone();
    let app_bytes_max = config.keyvalue.app_bytes_max;
    let RuntimeConfig {
        concurrency,
        waiting,
        memory_bytes_max,
        pooling,
        idle_after,
        ..
    } = config.runtime;
    let options = RuntimeOptions {
        code_key: code_key(&folder),
        folder: folder.clone(),
        threads: cores(config),
        concurrency,
        waiting,
        pooling,
        memory_bytes_max,
        idle_after,
    };
    let telemetry = telemetry.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let store = Store::open(&folder)?;
        store.bound_keys(app_bytes_max);
        let read = store.clone();
        // Nothing can be read of a store that is closed.
        telemetry.read_key_values(move || read.key_bytes().unwrap_or_default());
        let runtime = Runtime::start(&options, store.clone(), telemetry)?;
        Ok::<_, StartError>((store, runtime))
    });
    opened.await?
}

/// Deliveries at once, besides one of each queue.
const DELIVERIES_MAX: usize = 256;

/// What delivers events to functions.
fn deliveries(
    config: &NodeConfig,
    journal: &Journal,
    dispatcher: &Arc<Idempotent>,
    runtime: &Runtime,
    telemetry: &Telemetry,
    dev: bool,
) -> Deliveries {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (NODE, config.name.to_string()),
        (TIER, config.tier.to_string()),
    ] {
        // Names and tiers are words of lower-case letters.
        headers.extend(HeaderValue::try_from(value).ok().map(|value| (name, value)));
    }
    let options = DeliveryConfig {
        concurrency: DELIVERIES_MAX.min(usize::try_from(config.runtime.concurrency).unwrap_or(1)),
        drain_timeout: config.http.drain_timeout,
        headers,
        log: dev,
    };
    Deliveries::new(
        journal.clone(),
        dispatcher.clone(),
        Arc::new(runtime.callbacks()),
        telemetry.clone(),
        options,
    )
}

/// A store of the host's own, under a name that no app may have. Who writes it bounds it.
#[expect(clippy::expect_used, reason = "both texts are names")]
fn memory(store: &Store, name: &str) -> KeyValue {
    let host = RESERVED.parse().expect("a name");
    let store = store.key_value(&host, &name.parse().expect("a name"));
    store.unbounded()
}

/// The HTTP listeners, when the config names any.
fn bind(config: &NodeConfig) -> Result<Option<HttpServer>, BindError> {
    if config.http.listen.is_empty() {
        return Ok(None);
    }
    HttpServer::bind(&config.http).map(Some)
}

/// The cores that serve requests: the config's, else all that the machine offers.
fn cores(config: &NodeConfig) -> usize {
    let available = || std::thread::available_parallelism().map_or(1, NonZero::get);
    config
        .runtime
        .cores
        .map_or_else(available, |cores| usize::try_from(cores).unwrap_or(1))
}

async fn bind_admin(address: SocketAddr) -> Result<AdminServer, StartError> {
    let bound = AdminServer::bind(address).await;
    bound.map_err(|source| StartError::Admin { address, source })
}

fn write_address(
    config: &NodeConfig,
    admin: SocketAddr,
    token: &Token,
) -> Result<AddressFile, StartError> {
    let address = Address {
        admin: format!("http://{admin}"),
        token: token.as_str().to_owned(),
        pid: std::process::id(),
    };
    AddressFile::write(&config.store, &address).map_err(StartError::Address)
}

fn service(
    server: HttpServer,
    config: &NodeConfig,
    handle: &NodeHandle,
    telemetry: &Telemetry,
    dev: bool,
    cut: CancellationToken,
) -> HttpService {
    let (runtime, dispatcher) = (handle.apps.runtime.clone(), handle.dispatcher.clone());
    HttpService {
        server,
        routes: handle.apps.routes(),
        invoke: handle.dispatcher.clone(),
        telemetry: telemetry.clone(),
        node: config.name.clone(),
        tier: config.tier,
        verbose: dev,
        cores: cores(config),
        cut,
        afterwards: Box::pin(async move {
            dispatcher.drain().await;
            runtime.drain().await;
        }),
    }
}

fn control(
    config: &NodeConfig,
    handle: &NodeHandle,
    store: &Store,
    telemetry: &Telemetry,
    token: Token,
    dev: bool,
) -> Arc<Control> {
    let damages = store.damages().iter().map(ToString::to_string);
    Arc::new(Control {
        node: describe(config, handle, damages.collect(), dev),
        token,
        apps: handle.apps.clone(),
        invoke: handle.dispatcher.clone(),
        journal: store.journal(),
        telemetry: telemetry.clone(),
        ready: AtomicBool::new(false),
        shutdown: CancellationToken::new(),
    })
}

fn describe(
    config: &NodeConfig,
    handle: &NodeHandle,
    damages: Vec<String>,
    dev: bool,
) -> tombolo_api::Node {
    tombolo_api::Node {
        name: config.name.clone(),
        tier: config.tier.to_string(),
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        started: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        dev,
        http: handle.http_addrs().to_vec(),
        mqtt: handle.mqtt_addrs().to_vec(),
        admin: handle.admin_addr(),
        damages,
    }
}
