//! The broker: its listeners' connections, and what all of them share.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tombolo_core::Code;
use tombolo_store::{KeyValue, StoreError};

use super::acl::{Permissions, Rule};
use super::auth::{PasswordError, Users};
use super::config::{MqttBounds, MqttConfig, MqttTls, PACKET_BYTES_MAX};
use super::handle::BrokerHandle;
use super::handshake::{self, HANDSHAKE_MAX, Origin};
use super::held::{Durable, written};
use super::keeping::{self, SessionWriter};
use super::listener::{Listener, accept, listen, pause, prepare};
use super::message::{Accept, Arrival, Message, Refusal};
use super::socket::Stream;
use super::stored::StoredState;
use super::switch::{SessionKey, Switch};
use super::tls::{self, Tls, TlsError};
use super::topic::TopicError;

/// How often sessions and wills are looked at.
const TICK: Duration = Duration::from_secs(1);

/// Why the broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot use the TLS files of {address}")]
    Tls {
        address: SocketAddr,
        #[source]
        source: TlsError,
    },
    #[error("the topics `{topics}` of a rule are no topic filter")]
    Rule {
        topics: String,
        #[source]
        source: TopicError,
    },
    #[error("cannot keep passwords")]
    Users(#[from] PasswordError),
    #[error("cannot read the retained messages")]
    Retained(#[from] StoreError),
    #[error("cannot read the sessions")]
    Sessions(#[source] StoreError),
}

impl BrokerError {
    /// The code that the command line shows.
    pub fn code(&self) -> Code {
        match self {
            Self::Listen { .. } => Code::AddressInUse,
            Self::Tls { .. } => Code::Tls,
            Self::Rule { .. } => Code::NodeConfig,
            Self::Users(PasswordError::Random) => Code::HostError,
            Self::Users(_) => Code::NodeConfig,
            Self::Retained(error) | Self::Sessions(error) => error.code(),
        }
    }
}

/// What all connections share.
pub struct Shared {
    pub accept: Arc<dyn Accept>,
    pub users: Users,
    pub rules: Vec<Rule>,
    /// A listener lets clients in that have no user.
    anonymous: bool,
    /// A listener takes certificates, which stand for users of any name.
    certificates: bool,
    pub bounds: MqttBounds,
    switch: Mutex<Switch>,
    /// How far the changes of kept sessions are on the disk.
    pub durable: watch::Sender<Durable>,
    pub connections: AtomicUsize,
    pub connections_refused: AtomicU64,
}

impl Shared {
    /// Never held across an await.
    pub fn switch(&self) -> MutexGuard<'_, Switch> {
        self.switch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a client may do; none when nobody can connect as this user.
    fn permissions(&self, user: Option<&str>, id: &str) -> Option<Permissions> {
        let connects = match user {
            None => self.anonymous,
            Some(user) => self.certificates || self.users.has(user),
        };
        connects.then(|| Permissions::of(&self.rules, user, id))
    }

    /// Resolves when a change of a kept session is on the disk, at once for none (0).
    pub async fn written(&self, change: u64) -> Result<(), Refusal> {
        written(&mut self.durable.subscribe(), change).await
    }

    /// Why the message cannot be taken now: it goes to a session that is kept, and those cannot be written.
    pub fn refusal(
        &self,
        switch: &Switch,
        message: &Message,
        from: Option<SessionKey>,
    ) -> Option<Refusal> {
        let failing = self.durable.borrow().refusal;
        let refusal = failing.or_else(|| switch.changes.overflows().then_some(Refusal::Full))?;
        switch.reaches_kept(message, from).then_some(refusal)
    }

    /// Resolves when the message was accepted and is in every kept session that it goes to.
    pub async fn publish(&self, arrival: Arrival) -> Result<(), Refusal> {
        let message = arrival.message.clone();
        // A function tries again, and would trigger others each time. A will comes once.
        let refusal = match &arrival.client {
            None => self.refusal(&self.switch(), &message, None),
            Some(_) => None,
        };
        let accepted = match refusal {
            None => self.accept.accept(arrival).await,
            Some(refusal) => Err(refusal),
        };
        let (accepted, after) = {
            let mut switch = self.switch();
            // It may have changed meanwhile.
            let refusal = self.refusal(&switch, &message, None);
            let accepted = accepted.and(refusal.map_or(Ok(()), Err));
            match accepted {
                Ok(()) => switch.route(&message, None, Instant::now()),
                Err(_) => switch.figures.refused += 1,
            }
            (accepted, switch.seal())
        };
        accepted?;
        self.written(after).await
    }

    /// Publishes for a client that cannot be told any more what came of it.
    pub async fn publish_will(&self, will: Arrival) {
        let topic = will.message.topic.clone();
        if let Err(error) = self.publish(will).await {
            tracing::warn!(%topic, %error, "mqtt will not accepted");
        }
    }
}

/// A broker whose addresses are bound. Clients can connect from now on; they are served once it runs.
pub struct Broker {
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
    addresses: Vec<SocketAddr>,
}

impl Broker {
    /// Opens every address of the config, reads the certificates and checks the rules.
    ///
    /// # Errors
    /// An address cannot be listened on, or something in the config cannot be used.
    pub fn bind(mut config: MqttConfig, accept: Arc<dyn Accept>) -> Result<Self, BrokerError> {
        let packet_bytes_max = &mut config.bounds.packet_bytes_max;
        *packet_bytes_max = PACKET_BYTES_MAX.min(*packet_bytes_max);
        for rule in &config.rules {
            rule.check().map_err(|source| BrokerError::Rule {
                topics: rule.topics.clone(),
                source,
            })?;
        }
        let mut listeners = Vec::with_capacity(config.listeners.len());
        let mut addresses = Vec::with_capacity(config.listeners.len());
        let anonymous = config.listeners.iter().any(|one| one.anonymous);
        let authorities = |one: &MqttTls| one.client_authorities.is_some();
        let mut tls = config.listeners.iter().flat_map(|one| &one.tls);
        let certificates = tls.any(authorities);
        for listener in config.listeners {
            let address = listener.address;
            let tls = listener.tls.map(Tls::load).transpose();
            let failed = |source| BrokerError::Listen { address, source };
            let socket = listen(address).map_err(failed)?;
            addresses.push(socket.local_addr().map_err(failed)?);
            listeners.push(Listener {
                socket,
                tls: tls.map_err(|source| BrokerError::Tls { address, source })?,
                anonymous: listener.anonymous,
            });
        }
        let shared = Shared {
            accept,
            users: Users::new(config.users)?,
            rules: config.rules,
            anonymous,
            certificates,
            switch: Mutex::new(Switch::new(config.bounds.clone())),
            bounds: config.bounds,
            durable: watch::Sender::default(),
            connections: AtomicUsize::new(0),
            connections_refused: AtomicU64::new(0),
        };
        Ok(Self {
            shared: Arc::new(shared),
            listeners,
            addresses,
        })
    }

    /// The addresses as bound, in the order of the config; port 0 has become a real one.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Retains what was retained before the restart.
    pub fn restore(&self, retained: Vec<Message>) {
        let (mut switch, now) = (self.shared.switch(), Instant::now());
        for message in retained {
            switch.retain(&Arc::new(message), now);
        }
    }

    /// Takes up the sessions that are in a store, and keeps them there from now on. What it returns has to run as
    /// long as anybody may publish: who has to wait for a session to be written waits for it.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn keep_sessions(&self, memory: KeyValue) -> Result<SessionWriter, BrokerError> {
        let stored = keeping::read(&memory).map_err(BrokerError::Sessions)?;
        let permissions =
            |one: &StoredState| self.shared.permissions(one.user.as_deref(), &one.client);
        let mut switch = self.shared.switch();
        switch.restore(stored.sessions, permissions, Instant::now());
        drop(switch);
        Ok(SessionWriter::new(self.shared.clone(), memory, stored.gone))
    }

    /// What publishes to this broker, now and while it runs.
    pub fn handle(&self) -> BrokerHandle {
        BrokerHandle(self.shared.clone())
    }

    /// Serves clients until shutdown; then says goodbye to each, waits until what they published
    /// has been accepted, and returns. Dropping the future cuts all connections at once.
    ///
    /// # Errors
    /// The listeners cannot be used with this async runtime.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), BrokerError> {
        let mut listeners = Vec::with_capacity(self.listeners.len());
        for (listener, address) in self.listeners.into_iter().zip(self.addresses) {
            let failed = |source| BrokerError::Listen { address, source };
            let socket = TcpListener::from_std(listener.socket).map_err(failed)?;
            listeners.push((socket, listener.tls.map(Arc::new), listener.anonymous));
        }
        // The tasks of connections and of wills; what is left of them ends with this future.
        let mut tasks = JoinSet::new();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut first = 0;
        loop {
            // Cancel safe: nothing is awaited between accepting a connection and spawning its task.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                _ = ticks.tick() => {
                    for will in self.shared.switch().tick(Instant::now()) {
                        let shared = self.shared.clone();
                        tasks.spawn(async move { shared.publish_will(will).await });
                    }
                }
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                (accepted, tls, anonymous) = accept(&listeners, &mut first) => match accepted {
                    Ok((stream, address)) => {
                        let origin = Origin { address, certificate: None, anonymous };
                        self.shared.clone().admit(&mut tasks, stream, tls, origin, &shutdown);
                    }
                    Err(error) => pause(&error).await,
                },
            }
        }
        drop(listeners);
        while tasks.join_next().await.is_some() {}
        Ok(())
    }
}

/// Counts a connection for as long as it lives.
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn admit(
        self: Arc<Self>,
        tasks: &mut JoinSet<()>,
        stream: TcpStream,
        tls: Option<Arc<Tls>>,
        origin: Origin,
        shutdown: &CancellationToken,
    ) {
        if self.connections.fetch_add(1, Ordering::Relaxed) >= self.bounds.connections_max {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            self.connections_refused.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(client = %origin.address, "as many mqtt connections as allowed");
            return;
        }
        let counted = Counted(self.clone());
        let shutdown = shutdown.clone();
        tasks.spawn(async move {
            prepare(&stream);
            match tls {
                None => serve(stream, self, origin, &shutdown).await,
                // On the heap, so that plain connections do not pay for its size.
                Some(tls) => Box::pin(serve_tls(stream, &tls, self, origin, &shutdown)).await,
            }
            drop(counted);
        });
    }
}

async fn serve<S: Stream>(
    stream: S,
    shared: Arc<Shared>,
    origin: Origin,
    shutdown: &CancellationToken,
) {
    if let Some(connection) = handshake::open(stream, shared, origin).await {
        connection.run(shutdown).await;
    }
}

async fn serve_tls(
    stream: TcpStream,
    tls: &Tls,
    shared: Arc<Shared>,
    mut origin: Origin,
    shutdown: &CancellationToken,
) {
    let handshake = TlsAcceptor::from(tls.config()).accept(stream);
    match timeout(HANDSHAKE_MAX, handshake).await {
        Ok(Ok(stream)) => {
            origin.certificate = tls::user(stream.get_ref().1.peer_certificates());
            serve(stream, shared, origin, shutdown).await;
        }
        Ok(Err(error)) => {
            tracing::debug!(client = %origin.address, %error, "no TLS with mqtt client");
        }
        Err(_) => tracing::debug!(client = %origin.address, "no TLS with mqtt client in time"),
    }
}
