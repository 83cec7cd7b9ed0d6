//! MQTT brokers elsewhere: one connection for each that an app subscribes to, and the service that keeps them up.

mod packets;
mod subscriber;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::{ClientConfig, RootCertStore};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tombolo_core::{Code, Name, Publish, QueueId};
use tombolo_store::{KeyValue, Write};

use super::auth::{PasswordError, random_name};
use super::message::Qos;
use super::subscriptions::Intake;
use super::topic::TopicFilter;
use crate::tls::{Followed, TlsError, trust};
use subscriber::Subscriber;

pub use packets::read_any_of_broker;

/// Where the memory has what the store is called.
const IDENTITY: &str = "identity";

/// A broker elsewhere, and what an app wants of it.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteBroker {
    pub app: Name,
    /// `mqtt://HOST[:PORT]`, or `mqtts` for TLS.
    pub url: String,
    pub username: Option<String>,
    pub password: Option<String>,
    /// What to subscribe to, how surely, and the queue that gets what comes.
    pub subscriptions: Vec<(TopicFilter, Qos, QueueId)>,
}

impl fmt::Debug for RemoteBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteBroker({} for {})", self.url, self.app)
    }
}

/// Whether there is a connection to a broker now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteStatus {
    pub app: Name,
    pub url: String,
    pub connected: bool,
}

type Wanted = BTreeMap<Name, Vec<RemoteBroker>>;

/// What the connections tell of themselves.
#[derive(Clone, Default)]
struct Statuses(Arc<Mutex<BTreeMap<(Name, String), bool>>>);

impl Statuses {
    fn set(&self, broker: &RemoteBroker, connected: bool) {
        let key = (broker.app.clone(), broker.url.clone());
        let mut statuses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        statuses.insert(key, connected);
    }

    fn remove(&self, broker: &RemoteBroker) {
        let key = (broker.app.clone(), broker.url.clone());
        let mut statuses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        statuses.remove(&key);
    }
}

/// Why nothing can be had of brokers elsewhere.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("cannot make names")]
    Random(#[from] PasswordError),
    #[error("cannot use `mqtt.remote_authorities`")]
    Authorities(#[from] TlsError),
}

impl RemoteError {
    /// The code that the command line shows.
    pub fn code(&self) -> Code {
        match self {
            Self::Random(_) => Code::HostError,
            Self::Authorities(_) => Code::Tls,
        }
    }
}

/// Whose certificates are trusted.
type Trusted = Followed<Arc<ClientConfig>>;

/// The part that runs.
pub struct RemoteBrokers {
    trusted: Arc<Trusted>,
    intake: Arc<Intake>,
    memory: KeyValue,
    wanted: watch::Receiver<Wanted>,
    handle: RemoteHandle,
}

/// Says what is wanted of brokers elsewhere; a clone means the same.
#[derive(Clone)]
pub struct RemoteHandle {
    wanted: Arc<watch::Sender<Wanted>>,
    statuses: Statuses,
}

impl RemoteHandle {
    /// Replaces what an app wants. A connection that stays the same goes on.
    pub fn replace(&self, app: &Name, brokers: Vec<RemoteBroker>) {
        self.wanted.send_modify(|wanted| {
            wanted.insert(app.clone(), brokers);
        });
    }

    /// Every broker that is wanted, and whether there is a connection.
    pub fn statuses(&self) -> Vec<RemoteStatus> {
        let statuses = self.statuses.0.lock();
        let statuses = statuses.unwrap_or_else(PoisonError::into_inner);
        let statuses = statuses.iter();
        statuses
            .map(|((app, url), connected)| RemoteStatus {
                app: app.clone(),
                url: url.clone(),
                connected: *connected,
            })
            .collect()
    }
}

/// A connection that is kept up.
struct Kept {
    broker: RemoteBroker,
    stop: CancellationToken,
    /// Cancelled when it has ended.
    ended: CancellationToken,
}

impl RemoteBrokers {
    /// Connects to nothing before it runs. The memory knows what the sessions at the brokers are subscribed to;
    /// the authorities are trusted beside the public ones.
    ///
    /// # Errors
    /// The system has no random numbers, or the file of authorities cannot be used.
    pub fn new(
        publish: Arc<dyn Publish>,
        memory: KeyValue,
        authorities: Option<PathBuf>,
    ) -> Result<Self, RemoteError> {
        let files = authorities.clone();
        let trusted = Followed::new(files, move || client_config(authorities.as_deref()))?;
        let (sender, wanted) = watch::channel(Wanted::new());
        Ok(Self {
            trusted: Arc::new(trusted),
            intake: Arc::new(Intake::new(publish)?),
            memory,
            wanted,
            handle: RemoteHandle {
                wanted: Arc::new(sender),
                statuses: Statuses::default(),
            },
        })
    }

    /// Says what is wanted, before and while it runs.
    pub fn handle(&self) -> RemoteHandle {
        self.handle.clone()
    }

    /// Keeps the connections up until shutdown, then says goodbye on each.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let store = self.identity().await;
        let mut tasks = JoinSet::new();
        let mut kept: Vec<Kept> = Vec::new();
        loop {
            let wanted: Vec<RemoteBroker> = {
                let wanted = self.wanted.borrow_and_update();
                wanted.values().flatten().cloned().collect()
            };
            let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(&mut kept)
                .into_iter()
                .partition(|one| wanted.contains(&one.broker));
            kept = stay;
            // Two connections of one name would throw each other out: the old ones end first.
            for one in &go {
                one.stop.cancel();
            }
            for one in go {
                one.ended.cancelled().await;
            }
            for broker in wanted {
                if kept.iter().all(|one| one.broker != broker) {
                    kept.push(self.start(broker, &store, &shutdown, &mut tasks));
                }
            }
            while tasks.try_join_next().is_some() {}
            tokio::select! {
                () = shutdown.cancelled() => break,
                // The sender is in our own handle, so the channel stays open.
                _ = self.wanted.changed() => {}
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// What tells this store from all others, so that no two nodes take each other's sessions.
    async fn identity(&self) -> String {
        let known = self.memory.get(IDENTITY).ok().flatten();
        if let Some(known) = known.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok()) {
            return known;
        }
        let made = random_name().unwrap_or_default();
        let write = Write::Set {
            key: IDENTITY.to_owned(),
            value: made.clone().into(),
        };
        if let Err(error) = self.memory.write(vec![write]).await {
            tracing::warn!(%error, "sessions at mqtt brokers will not survive a restart");
        }
        made
    }

    fn start(
        &self,
        broker: RemoteBroker,
        store: &str,
        shutdown: &CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> Kept {
        let (stop, ended) = (shutdown.child_token(), CancellationToken::new());
        let subscriber = Subscriber::new(
            broker.clone(),
            store,
            self.trusted.clone(),
            self.intake.clone(),
            self.memory.clone(),
        );
        let (statuses, told) = (self.handle.statuses.clone(), broker.clone());
        statuses.set(&broker, false);
        let (stopped, end) = (stop.clone(), ended.clone().drop_guard());
        tasks.spawn(async move {
            let tell = |connected| statuses.set(&told, connected);
            subscriber.run(&stopped, tell).await;
            statuses.remove(&told);
            drop(end);
        });
        Kept {
            broker,
            stop,
            ended,
        }
    }
}

/// Trusts the public authorities, and those of the file.
fn client_config(authorities: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(file) = authorities {
        trust(&mut roots, file)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Version)?;
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::new(config))
}
