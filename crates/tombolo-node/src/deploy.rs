//! Deploys an app: every function loaded before anything of the old release is touched, then taken over without losing a request.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, watch};
use tokio::task::{JoinError, JoinSet};
use tombolo_core::{Code, FunctionId, Name, QueueId};
use tombolo_manifest::Function;
use tombolo_runtime::{FunctionSpec, LoadError, LoadedFunction, Runtime};
use tombolo_store::{Changes, Journal, StoreError};
use tombolo_triggers::cron::CronHandle;
use tombolo_triggers::delivery::{ConsumeError, Consumer, DeliveriesHandle};
use tombolo_triggers::http::{RouteConflict, RouteEntry, Routes};
use tombolo_triggers::ingress::{Ingress, Token};
use tombolo_triggers::mqtt::{RemoteBroker, RemoteHandle, Subscription, Subscriptions, TopicError};

use crate::app::{App, AppSource};
use crate::events::{self, AppQueue};
use crate::secrets::{SecretError, Secrets};
use crate::{mqtt, queues};

/// Why an app was not deployed. What ran before goes on running.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    #[error("the app's folder {folder} cannot be used")]
    Folder {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the component of function `{function}` is missing: {path}")]
    ComponentMissing { function: Name, path: PathBuf },
    #[error("the component of function `{function}` cannot be read: {path}")]
    ComponentRead {
        function: Name,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("function `{function}` cannot have a secret that it was granted")]
    Secret {
        function: Name,
        #[source]
        source: SecretError,
    },
    #[error("a token of the app's routes to queues cannot be had")]
    Token(#[source] SecretError),
    #[error("function `{function}` is granted {folder}, which is no folder of this machine")]
    Directory { function: Name, folder: PathBuf },
    #[error("function `{function}` cannot be loaded")]
    Load {
        function: Name,
        #[source]
        source: LoadError,
    },
    #[error("the routes of the app cannot be added")]
    Routes(#[from] RouteConflict),
    #[error("the app's name `{0}` is the host's own")]
    Reserved(Name),
    #[error("a topic of the app's MQTT triggers cannot be subscribed to")]
    Topic(#[from] TopicError),
    #[error("the password of the MQTT broker {url} cannot be had")]
    BrokerPassword {
        url: String,
        #[source]
        source: SecretError,
    },
    #[error("the triggers of the app cannot be started")]
    Consume(#[from] ConsumeError),
    #[error("the queues of the app cannot be used")]
    Queues(#[from] StoreError),
    #[error("loading was cut short")]
    Interrupted(#[from] JoinError),
}

impl DeployError {
    /// The error's place in the one table of codes.
    pub fn code(&self) -> Code {
        match self {
            Self::Folder { .. } | Self::ComponentRead { .. } => Code::Io,
            Self::ComponentMissing { .. } => Code::ComponentMissing,
            Self::Directory { .. } => Code::NotFound,
            Self::Secret { source, .. }
            | Self::BrokerPassword { source, .. }
            | Self::Token(source) => source.code(),
            Self::Load { source, .. } => source.code(),
            Self::Routes(_) | Self::Reserved(_) | Self::Topic(_) | Self::Consume(_) => {
                Code::ManifestValue
            }
            Self::Queues(error) => error.code(),
            Self::Interrupted(_) => Code::HostError,
        }
    }
}

/// What is deployed now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployed {
    pub app: Name,
    pub version: String,
    pub functions: Vec<FunctionId>,
    /// How many triggers lead to them.
    pub triggers: usize,
}

/// One app that runs here.
struct Release {
    app: Arc<App>,
    functions: Vec<LoadedFunction>,
    queues: BTreeMap<QueueId, AppQueue>,
    /// Functions of old releases that this one does not have, and since when.
    leaving: Vec<(LoadedFunction, Instant)>,
}

/// Far longer than a thread takes from a route to its function.
const LEAVING_TIME: Duration = Duration::from_secs(5);

impl Release {
    /// Every function that a request may be led to.
    fn all(&self) -> Vec<LoadedFunction> {
        let leaving = self.leaving.iter().map(|(function, _)| function);
        self.functions.iter().chain(leaving).cloned().collect()
    }
}

/// What events come and go by.
pub(crate) struct Events {
    pub(crate) journal: Journal,
    pub(crate) deliveries: DeliveriesHandle,
    pub(crate) cron: CronHandle,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) remote: RemoteHandle,
    /// Whether clients can connect to the node's own broker.
    pub(crate) listens: bool,
}

/// What an app's triggers want of brokers: the node's own, and others.
struct Topics {
    own: Vec<Subscription>,
    remote: Vec<RemoteBroker>,
}

/// The name that no app may have: what the host itself keeps is under it.
pub(crate) const RESERVED: &str = "tombolo";

/// The apps of a node, and how a new release gets there.
pub(crate) struct Apps {
    pub(crate) runtime: Runtime,
    secrets: Secrets,
    /// How many functions are compiled at once.
    cores: usize,
    releases: RwLock<BTreeMap<Name, Release>>,
    routes: watch::Sender<Arc<Routes>>,
    /// What takes events by HTTP, at the API and at routes to queues.
    pub(crate) ingress: Ingress,
    events: Events,
    /// One deployment at a time: routes of two could conflict with each other unseen.
    deploying: Mutex<()>,
}

impl Apps {
    pub(crate) fn new(runtime: Runtime, events: Events, secrets: Secrets, cores: usize) -> Self {
        Self {
            ingress: queues::ingress(&events.journal, runtime.clone()),
            runtime,
            secrets,
            cores,
            releases: RwLock::default(),
            routes: watch::Sender::new(Arc::new(Routes::default())),
            events,
            deploying: Mutex::default(),
        }
    }

    pub(crate) fn routes(&self) -> watch::Receiver<Arc<Routes>> {
        self.routes.subscribe()
    }

    /// Every app, by name.
    pub(crate) fn list(&self) -> Vec<Arc<App>> {
        let releases = self.releases.read().unwrap_or_else(PoisonError::into_inner);
        releases
            .values()
            .map(|release| release.app.clone())
            .collect()
    }

    /// The app of this name.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<App>> {
        self.list()
            .into_iter()
            .find(|app| app.name().as_str() == name)
    }

    /// The function that receives the events of a queue.
    pub(crate) fn consumer(&self, queue: &QueueId) -> Option<Name> {
        let releases = self.releases.read().unwrap_or_else(PoisonError::into_inner);
        let queue = releases.get(&queue.app)?.queues.get(queue)?;
        Some(queue.consumer.as_ref()?.function.function.clone())
    }

    pub(crate) async fn deploy(
        self: &Arc<Self>,
        source: AppSource,
    ) -> Result<Deployed, DeployError> {
        let _only_one = self.deploying.lock().await;
        let folder = source.folder.clone();
        let mut app =
            App::resolve(source).map_err(|source| DeployError::Folder { folder, source })?;
        let tokens = self.secrets.read(&app.token_names());
        let tokens = tokens.map_err(DeployError::Token)?.into_iter();
        app.tokens = tokens
            .map(|(name, text)| (name, Token::new(text)))
            .collect();
        let app = Arc::new(app);
        if app.name().as_str() == RESERVED {
            return Err(DeployError::Reserved(app.name().clone()));
        }
        let functions = self.load_all(&app).await?;
        let routes = self.routes_with(&app)?;
        let queues = events::queues(&app);
        let topics = Topics {
            own: events::subscriptions(&app)?,
            remote: mqtt::remote_brokers(&app, &self.secrets)?,
        };
        let consumers = consumers(&queues);
        DeliveriesHandle::check(&consumers)?;
        for (queue, AppQueue { settings, .. }) in &queues {
            let configured = self
                .events
                .journal
                .configure(queue.clone(), settings.clone());
            configured.await?;
        }
        if !topics.own.is_empty() && !self.events.listens {
            let app = app.name();
            tracing::warn!(%app, "the node has no listener for mqtt clients: only functions reach the app's mqtt triggers");
        }
        let deployed = Deployed {
            app: app.name().clone(),
            version: app.manifest.app.version.to_string(),
            functions: app
                .functions()
                .keys()
                .map(|function| app.id(function))
                .collect(),
            triggers: app.trigger_count(),
        };
        let gone = self.gone(app.name(), &queues);
        self.take_over(app, functions, routes, queues, topics)?;
        self.events
            .journal
            .configure_changes(self.changes())
            .await?;
        for queue in gone {
            self.events.journal.retire(&queue).await?;
        }
        tracing::info!(app = %deployed.app, version = %deployed.version, "app deployed");
        Ok(deployed)
    }

    /// Swaps releases. A request may have been led by the old routes to a function that the new release
    /// does not have, and not have reached it yet; so these leave later.
    fn take_over(
        &self,
        app: Arc<App>,
        functions: Vec<LoadedFunction>,
        routes: Routes,
        queues: BTreeMap<QueueId, AppQueue>,
        topics: Topics,
    ) -> Result<(), ConsumeError> {
        let name = app.name().clone();
        let mut releases = self
            .releases
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let mut leaving = Vec::new();
        if let Some(old) = releases.remove(&name) {
            let now = Instant::now();
            leaving = old.leaving;
            leaving.extend(old.functions.into_iter().map(|function| (function, now)));
            leaving.retain(|(old, _)| functions.iter().all(|new| new.id() != old.id()));
        }
        let release = Release {
            app,
            functions,
            queues,
            leaving,
        };
        self.runtime.install(&name, release.all());
        self.routes.send_replace(Arc::new(routes));
        self.events
            .cron
            .schedule(&name, events::schedules(&release.app));
        self.events.subscriptions.replace(&name, topics.own);
        self.events.remote.replace(&name, topics.remote);
        let consumed = self
            .events
            .deliveries
            .consume(&name, consumers(&release.queues));
        releases.insert(name, release);
        consumed
    }

    /// The queues of an app's present release that its next one does not have.
    fn gone(&self, app: &Name, queues: &BTreeMap<QueueId, AppQueue>) -> Vec<QueueId> {
        let releases = self.releases.read().unwrap_or_else(PoisonError::into_inner);
        let before = releases.get(app).map(|release| release.queues.keys());
        let before = before.into_iter().flatten();
        before
            .filter(|queue| !queues.contains_key(queue))
            .cloned()
            .collect()
    }

    /// The stores of all apps whose changes are events.
    fn changes(&self) -> Vec<Changes> {
        let apps = self.list();
        apps.iter().flat_map(|app| events::changes(app)).collect()
    }

    /// Lets the functions go that no release has and no request can be on its way to. To be called now and then.
    pub(crate) fn settle(&self) {
        let mut releases = self
            .releases
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for (name, release) in releases.iter_mut() {
            let before = release.leaving.len();
            release
                .leaving
                .retain(|(_, since)| since.elapsed() < LEAVING_TIME);
            if release.leaving.len() < before {
                self.runtime.install(name, release.all());
            }
        }
    }

    /// The routes of the node with this app's in place of those of its old release.
    fn routes_with(&self, app: &App) -> Result<Routes, RouteConflict> {
        let others = self.list();
        let others = others.iter().filter(|other| other.name() != app.name());
        let entries: Vec<RouteEntry> = others
            .flat_map(|other| other.routes(&self.ingress))
            .chain(app.routes(&self.ingress))
            .collect();
        Routes::new(entries)
    }

    /// Loads every function of an app, as many at once as there are cores; the first error ends it.
    async fn load_all(
        self: &Arc<Self>,
        app: &Arc<App>,
    ) -> Result<Vec<LoadedFunction>, DeployError> {
        let mut waiting = app.functions().keys().cloned();
        let mut loading = JoinSet::new();
        let mut loaded = Vec::new();
        loop {
            while loading.len() < self.cores
                && let Some(function) = waiting.next()
            {
                let (apps, app) = (self.clone(), app.clone());
                loading.spawn_blocking(move || apps.load(&app, function));
            }
            match loading.join_next().await {
                Some(result) => loaded.push(result??),
                None => return Ok(loaded),
            }
        }
    }

    /// Reads and loads one function; blocks.
    fn load(&self, app: &App, name: Name) -> Result<LoadedFunction, DeployError> {
        let Some(function) = app.functions().get(&name) else {
            let path = app.folder.clone();
            return Err(DeployError::ComponentMissing {
                function: name,
                path,
            });
        };
        let directories = &function.grants.directories;
        if let Some(missing) = directories.iter().find(|grant| !grant.host.is_dir()) {
            let folder = missing.host.clone();
            return Err(DeployError::Directory {
                function: name,
                folder,
            });
        }
        let spec = FunctionSpec {
            id: app.id(&name),
            component: read_component(&name, function)?,
            secrets: self
                .secrets
                .read(&function.grants.secrets)
                .map_err(|source| DeployError::Secret {
                    function: name.clone(),
                    source,
                })?,
            function: function.clone(),
        };
        self.runtime.load(spec).map_err(|source| DeployError::Load {
            function: name,
            source,
        })
    }
}

fn consumers(queues: &BTreeMap<QueueId, AppQueue>) -> Vec<Consumer> {
    let consumers = queues.values().filter_map(|queue| queue.consumer.clone());
    consumers.collect()
}

fn read_component(name: &Name, function: &Function) -> Result<Vec<u8>, DeployError> {
    let path = &function.component;
    std::fs::read(path).map_err(|source| {
        let (function, path) = (name.clone(), path.clone());
        if source.kind() == io::ErrorKind::NotFound {
            DeployError::ComponentMissing { function, path }
        } else {
            DeployError::ComponentRead {
                function,
                path,
                source,
            }
        }
    })
}
