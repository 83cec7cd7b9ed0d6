//! What the operator says about the broker: listeners, users, permissions and bounds.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::acl::Rule;
use super::auth::User;

/// The broker's settings.
#[derive(Clone, Debug, Default)]
pub struct MqttConfig {
    pub listeners: Vec<MqttListener>,
    pub users: Vec<User>,
    /// What clients may do. What no rule allows is refused; with no rules, everything is.
    pub rules: Vec<Rule>,
    pub bounds: MqttBounds,
}

/// One address, plain or with TLS.
#[derive(Clone, Debug)]
pub struct MqttListener {
    pub address: SocketAddr,
    pub tls: Option<MqttTls>,
    /// Clients with neither password nor certificate may connect; they have no user.
    pub anonymous: bool,
}

/// The PEM files of a TLS listener. They are read again when they change.
#[derive(Clone, Debug)]
pub struct MqttTls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The authorities of client certificates. A client with one needs no password: its user is
    /// the certificate's first DNS name.
    pub client_authorities: Option<PathBuf>,
    /// A client without a certificate is turned away in the TLS handshake.
    pub client_certificate_required: bool,
}

/// No packet may be longer, so that each message fits into one value of the store.
pub const PACKET_BYTES_MAX: u32 = 3 << 20;

/// How much of everything the broker holds. What happens at the bound stands beside it.
#[derive(Clone, Debug)]
pub struct MqttBounds {
    /// Open connections; one more is closed at once.
    pub connections_max: usize,
    /// Sessions, connected or not; a client that would need one more is refused (server busy).
    pub sessions_max: usize,
    /// Subscriptions of a session; one more is refused.
    pub subscriptions_max: usize,
    /// The longest packet; a longer one ends the connection. At most [`PACKET_BYTES_MAX`].
    pub packet_bytes_max: u32,
    /// Published messages of a connection that are not accepted yet; the client is read from no
    /// further. MQTT 5 clients are told (receive maximum).
    pub arriving_max: u16,
    /// Messages that a client has not acknowledged; the following ones wait in its queue.
    pub unacknowledged_max: u16,
    /// Messages that wait for a session; the newest is dropped and counted.
    pub queue_messages_max: usize,
    /// Bytes that wait for a session; the newest message is dropped and counted.
    pub queue_bytes_max: usize,
    /// Bytes that wait for all sessions together; the newest message is dropped and counted.
    pub queues_bytes_max: usize,
    /// Retained messages; one more is delivered and not retained, and counted.
    pub retained_max: usize,
    /// Bytes of retained messages; the same.
    pub retained_bytes_max: usize,
    /// How long the session of a client that is away is kept, whatever the client asked for.
    pub session_expiry_max: Duration,
}

impl Default for MqttBounds {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            sessions_max: 50_000,
            subscriptions_max: 256,
            packet_bytes_max: 1 << 20,
            arriving_max: 128,
            unacknowledged_max: 64,
            queue_messages_max: 1000,
            queue_bytes_max: 4 << 20,
            queues_bytes_max: 128 << 20,
            retained_max: 50_000,
            retained_bytes_max: 64 << 20,
            session_expiry_max: Duration::from_secs(7 * 24 * 3600),
        }
    }
}
