//! The beginning of a connection: who the client is, whether it may come in, and which session is its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf as _;
use tokio::time::{Instant, timeout_at};

use super::acl::Permissions;
use super::auth;
use super::broker::Shared;
use super::connection::Connection;
use super::encode::{self, Denial};
use super::held::Held;
use super::inbound::Inbound;
use super::message::{Arrival, Client};
use super::session::Attachment;
use super::socket::{Stream, Wire};
use super::switch::{Hello, SessionKey, Welcome};
use super::wire::{self, Connect, Version, WireError};

/// How long a client has from its connection to its CONNECT, and then to its session.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Who is not known yet may not send a longer packet. Its longest part is the will.
const CONNECT_BYTES_MAX: usize = 128 << 10;

/// What the listener knows about a connection.
pub struct Origin {
    pub address: SocketAddr,
    /// The user of a verified client certificate.
    pub certificate: Option<Arc<str>>,
    /// Clients without a user are let in.
    pub anonymous: bool,
}

/// Lets a client in, or turns it away.
pub async fn open<S: Stream>(
    stream: S,
    shared: Arc<Shared>,
    origin: Origin,
) -> Option<Connection<S>> {
    let mut wire = Wire::new(stream);
    let deadline = Instant::now() + HANDSHAKE_MAX;
    let connect = match timeout_at(deadline, read_connect(&mut wire, &shared)).await {
        Ok(Ok(connect)) => connect?,
        Ok(Err(error)) => {
            tracing::debug!(client = %origin.address, %error, "mqtt client said no hello");
            if matches!(error, WireError::Version) {
                encode::denial(&mut wire.output, Version::V3, Denial::Version);
                wire.flush().await;
            }
            return None;
        }
        Err(_) => return None,
    };
    let version = connect.version;
    let admitted = timeout_at(deadline, admit(&shared, origin, connect)).await;
    match admitted.unwrap_or(Err(Denial::Busy)) {
        Ok(admitted) => enter(wire, shared, version, admitted, deadline).await,
        Err(denial) => {
            refuse(wire, version, denial).await;
            None
        }
    }
}

async fn refuse<S: Stream>(mut wire: Wire<S>, version: Version, denial: Denial) {
    tracing::info!(reason = ?denial, "mqtt client refused");
    encode::denial(&mut wire.output, version, denial);
    wire.flush().await;
}

/// None when the client went without a word.
async fn read_connect<S: Stream>(
    wire: &mut Wire<S>,
    shared: &Shared,
) -> Result<Option<Connect>, WireError> {
    let bytes_max = CONNECT_BYTES_MAX.min(shared.bounds.packet_bytes_max as usize);
    loop {
        if let Some(frame) = wire::frame(&wire.input, bytes_max)? {
            let body = wire.input.get(frame.body.clone()).unwrap_or_default();
            let connect = wire::decode_connect(frame.head, body)?;
            wire.input.advance(frame.body.end);
            return Ok(Some(connect));
        }
        if !matches!(wire.read().await, Ok(true)) {
            return Ok(None);
        }
    }
}

/// A client that may come in, with its session.
struct Admitted {
    connect: Connect,
    client: Arc<Client>,
    permissions: Permissions,
    /// The broker gave the client its identifier.
    assigned: bool,
    key: SessionKey,
    present: bool,
    attachment: Attachment,
    /// The change that makes it so; 0 for none.
    after: u64,
    /// The will of an earlier session that ended here.
    old_will: Option<Arrival>,
}

async fn admit(shared: &Shared, origin: Origin, connect: Connect) -> Result<Admitted, Denial> {
    if connect.extended {
        return Err(Denial::Extended);
    }
    let user = identify(shared, &origin, &connect).await?;
    let assigned = connect.id.is_empty();
    let id = match assigned {
        false => connect.id.clone(),
        // MQTT 3.1.1, 3.1.3.1: nobody could come back to such a session.
        true if connect.version == Version::V3 && !connect.clean => {
            return Err(Denial::Identifier);
        }
        true => auth::random_name().ok_or(Denial::Busy)?.into(),
    };
    let client = Arc::new(Client {
        id,
        user,
        address: origin.address,
    });
    let permissions = Permissions::of(&shared.rules, client.user.as_deref(), &client.id);
    if let Some(will) = &connect.will
        && (will.message.topic.starts_with('$') || !permissions.may_publish(&will.message.topic))
    {
        return Err(Denial::Forbidden);
    }
    let hello = Hello {
        client: client.clone(),
        clean: connect.clean,
        expiry: connect.expiry,
        window: connect.window,
    };
    loop {
        let (welcome, after) = {
            let mut switch = shared.switch();
            (switch.connect(&hello), switch.seal())
        };
        match welcome {
            Welcome::Wait(ended) => ended.cancelled().await,
            Welcome::OtherUser => return Err(Denial::Identifier),
            Welcome::Busy => return Err(Denial::Busy),
            Welcome::Attached {
                key,
                present,
                attachment,
                will,
            } => {
                return Ok(Admitted {
                    connect,
                    client,
                    permissions,
                    assigned,
                    key,
                    present,
                    attachment,
                    after,
                    old_will: will,
                });
            }
        }
    }
}

/// The user: the certificate's, else the one whose password the client knows.
async fn identify(
    shared: &Shared,
    origin: &Origin,
    connect: &Connect,
) -> Result<Option<Arc<str>>, Denial> {
    if let Some(user) = &origin.certificate {
        return Ok(Some(user.clone()));
    }
    let password = connect.password.as_deref().unwrap_or_default();
    match &connect.user {
        Some(user) if shared.users.verify(user, password).await => Ok(Some(user.clone())),
        Some(_) => Err(Denial::Credentials),
        None if origin.anonymous => Ok(None),
        None => Err(Denial::Forbidden),
    }
}

async fn enter<S: Stream>(
    mut wire: Wire<S>,
    shared: Arc<Shared>,
    version: Version,
    admitted: Admitted,
    deadline: Instant,
) -> Option<Connection<S>> {
    let Admitted {
        connect,
        client,
        permissions,
        assigned,
        key,
        present,
        attachment,
        after,
        old_will,
    } = admitted;
    if let Some(will) = old_will {
        shared.publish_will(will).await;
    }
    // What is said about the session is true whatever happens to the node.
    let written = timeout_at(deadline, shared.written(after)).await;
    if !matches!(written, Ok(Ok(()))) {
        shared.switch().detach(key, Instant::now(), None, None);
        refuse(wire, version, Denial::Busy).await;
        return None;
    }
    let kept = connect.expiry.min(shared.bounds.session_expiry_max);
    // The client is told when its session is kept for a shorter time than it wants.
    let expiry = (kept < connect.expiry).then(|| u32::try_from(kept.as_secs()).unwrap_or(u32::MAX));
    let id = assigned.then_some(&*client.id);
    encode::welcome(
        &mut wire.output,
        version,
        present,
        id,
        expiry,
        &shared.bounds,
    );
    tracing::debug!(%client, user = client.user.as_deref(), present, "mqtt client connected");
    let inbound = Inbound::new(shared.bounds.arriving_max);
    let held = Held::new(shared.durable.subscribe());
    Some(Connection {
        wire,
        shared,
        version,
        client,
        permissions,
        key,
        attachment,
        will: connect.will,
        packet_bytes_max: connect.packet_bytes_max,
        keep_alive: connect.keep_alive,
        inbound,
        held,
        expiry: None,
        waiting: true,
        outgoing: Vec::new(),
    })
}
