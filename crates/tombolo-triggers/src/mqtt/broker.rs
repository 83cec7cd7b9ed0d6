//! The broker: its listeners, what all connections share, and the handle that functions publish with.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tombolo_core::{Blame, Code, Failure, PublishTopic, TopicFuture, TopicPublication, TopicQos};

use super::acl::Rule;
use super::auth::{PasswordError, Users};
use super::config::{MqttBounds, MqttConfig};
use super::event;
use super::handshake::{self, HANDSHAKE_MAX, Origin};
use super::message::{Accept, Arrival, Message, Qos, Refusal};
use super::socket::Stream;
use super::switch::{MqttFigures, Switch};
use super::tls::{self, Tls, TlsError};
use super::topic::{TopicError, check_name};

/// Connections that wait in the kernel to be accepted.
const BACKLOG: i32 = 1024;
/// How often sessions and wills are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long accepting rests when the system has no file descriptor left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// The kernel asks after a silent peer, for clients that promise nothing themselves.
const PROBE_AFTER: Duration = Duration::from_secs(60);

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
        }
    }
}

/// Why a function's message was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("cannot publish to this topic")]
    Topic(#[from] TopicError),
    #[error("names that begin with `$` are the broker's own")]
    Reserved,
    #[error("a message has at most {bound_bytes} bytes, this one has {bytes}")]
    TooLong { bytes: usize, bound_bytes: usize },
    #[error("the message was refused")]
    Refused(#[from] Refusal),
}

/// What all connections share.
pub struct Shared {
    pub accept: Arc<dyn Accept>,
    pub users: Users,
    pub rules: Vec<Rule>,
    pub bounds: MqttBounds,
    switch: Mutex<Switch>,
    connections: AtomicUsize,
    connections_refused: AtomicU64,
}

impl Shared {
    /// Never held across an await.
    pub fn switch(&self) -> MutexGuard<'_, Switch> {
        self.switch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn publish(&self, arrival: Arrival) -> Result<(), Refusal> {
        let message = arrival.message.clone();
        let accepted = self.accept.accept(arrival).await;
        let mut switch = self.switch();
        match accepted {
            Ok(()) => switch.route(&message, None, Instant::now()),
            Err(_) => switch.figures.refused += 1,
        }
        accepted
    }

    /// Publishes for a client that cannot be told any more what came of it.
    pub async fn publish_will(&self, will: Arrival) {
        let topic = will.message.topic.clone();
        if let Err(error) = self.publish(will).await {
            tracing::warn!(%topic, %error, "mqtt will not accepted");
        }
    }
}

/// A bound listener.
struct Listener {
    socket: StdTcpListener,
    tls: Option<Tls>,
    anonymous: bool,
}

/// A broker whose addresses are bound. Clients can connect from now on; they are served once it runs.
pub struct Broker {
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
    addresses: Vec<SocketAddr>,
}

/// What publishes to a running broker and reads its figures.
#[derive(Clone)]
pub struct BrokerHandle(Arc<Shared>);

impl BrokerHandle {
    /// Publishes for a function. Resolves when the message was accepted, as for a client; then it
    /// is on its way to those who subscribed.
    ///
    /// # Errors
    /// The topic or the length is not allowed, or the message was not accepted.
    pub async fn publish(&self, message: Message) -> Result<(), PublishError> {
        check_name(&message.topic)?;
        if message.topic.starts_with('$') {
            return Err(PublishError::Reserved);
        }
        let (bytes, bound_bytes) = (
            message.weight_bytes(),
            self.0.bounds.packet_bytes_max as usize,
        );
        if bytes > bound_bytes {
            return Err(PublishError::TooLong { bytes, bound_bytes });
        }
        let arrival = Arrival {
            client: None,
            message: Arc::new(message),
        };
        Ok(self.0.publish(arrival).await?)
    }

    async fn publish_event(&self, publication: TopicPublication) -> Result<(), PublishError> {
        let (payload, properties) = event::into_message(publication.event, publication.trace);
        let message = Message {
            topic: publication.topic.into(),
            payload,
            qos: match publication.qos {
                TopicQos::AtMostOnce => Qos::AtMostOnce,
                TopicQos::AtLeastOnce => Qos::AtLeastOnce,
                TopicQos::ExactlyOnce => Qos::ExactlyOnce,
            },
            retain: publication.retain,
            expires: None,
            properties,
        };
        self.publish(message).await
    }

    /// What the broker counts.
    pub fn figures(&self) -> MqttFigures {
        MqttFigures {
            connections: self.0.connections.load(Ordering::Relaxed),
            connections_refused: self.0.connections_refused.load(Ordering::Relaxed),
            ..self.0.switch().figures()
        }
    }
}

impl PublishTopic for BrokerHandle {
    fn publish_topic(&self, publication: TopicPublication) -> TopicFuture {
        let handle = self.clone();
        Box::pin(async move { Ok(handle.publish_event(publication).await?) })
    }
}

/// When a function whose message found no room should try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let (code, blame) = match &error {
            PublishError::Topic(_) | PublishError::Reserved => (Code::BadRequest, Blame::Caller),
            PublishError::TooLong { .. } => (Code::EventTooLong, Blame::Caller),
            PublishError::Refused(Refusal::Invalid) => (Code::EventInvalid, Blame::Caller),
            PublishError::Refused(Refusal::Full) => (Code::QueueFull, Blame::Host),
            PublishError::Refused(Refusal::Failed) => (Code::PublishUnavailable, Blame::Host),
        };
        let detail = match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        let failure = Self::new(code, blame, detail);
        match error {
            PublishError::Refused(Refusal::Full) => failure.retry_after(RETRY_AFTER),
            _ => failure,
        }
    }
}

impl Broker {
    /// Opens every address of the config, reads the certificates and checks the rules.
    ///
    /// # Errors
    /// An address cannot be listened on, or something in the config cannot be used.
    pub fn bind(config: MqttConfig, accept: Arc<dyn Accept>) -> Result<Self, BrokerError> {
        for rule in &config.rules {
            rule.check().map_err(|source| BrokerError::Rule {
                topics: rule.topics.clone(),
                source,
            })?;
        }
        let mut listeners = Vec::with_capacity(config.listeners.len());
        let mut addresses = Vec::with_capacity(config.listeners.len());
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
            switch: Mutex::new(Switch::new(config.bounds.clone())),
            bounds: config.bounds,
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

/// The next connection of any listener, with what its listener says about it.
async fn accept(
    listeners: &[(TcpListener, Option<Arc<Tls>>, bool)],
    first: &mut usize,
) -> (io::Result<(TcpStream, SocketAddr)>, Option<Arc<Tls>>, bool) {
    std::future::poll_fn(|cx| {
        // Each time another one is asked first, so that a busy listener starves no other.
        let turn = *first % listeners.len().max(1);
        let (before, from) = listeners.split_at_checked(turn).unwrap_or((&[], listeners));
        for (socket, tls, anonymous) in from.iter().chain(before) {
            if let Poll::Ready(accepted) = socket.poll_accept(cx) {
                *first = turn + 1;
                return Poll::Ready((accepted, tls.clone(), *anonymous));
            }
        }
        Poll::Pending
    })
    .await
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

fn prepare(stream: &TcpStream) {
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER);
    let prepared = stream
        .set_nodelay(true)
        .and_then(|()| SockRef::from(stream).set_tcp_keepalive(&probes));
    if let Err(error) = prepared {
        tracing::debug!(%error, "mqtt connection without socket options");
    }
}

fn listen(address: SocketAddr) -> io::Result<StdTcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // A restarted node gets its port back although old connections linger in the kernel.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn pause(error: &io::Error) {
    // These concern one client that has left already; anything else (no file descriptors, no
    // memory) will not be better at once.
    let of_client = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    );
    if !of_client {
        tracing::error!(%error, "cannot accept mqtt connections");
        tokio::time::sleep(EXHAUSTED_PAUSE).await;
    }
}
