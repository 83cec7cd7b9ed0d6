//! What the MQTT broker tells of itself when it is asked, and of the brokers elsewhere that apps subscribe to.

use tombolo_core::Name;

/// The state of the broker; counters are since the node started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerReading {
    /// Clients that are connected now.
    pub connections: u64,
    pub connections_refused: u64,
    /// Sessions, connected or not.
    pub sessions: u64,
    pub subscriptions: u64,
    /// Retained messages.
    pub retained: u64,
    pub retained_bytes: u64,
    /// Bytes that wait for clients.
    pub waiting_bytes: u64,
    /// Messages that were accepted.
    pub accepted: u64,
    /// Messages that were not, by reason.
    pub refused: [(&'static str, u64); 2],
    /// Copies sent to clients.
    pub sent: u64,
    /// Copies that clients did not get, by reason.
    pub dropped: [(&'static str, u64); 3],
    /// Messages that found no room to be retained.
    pub unretained: u64,
    /// Brokers elsewhere.
    pub remote: Vec<RemoteReading>,
}

/// Whether there is a connection to a broker elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteReading {
    pub app: Name,
    /// Its URL.
    pub broker: String,
    pub connected: bool,
}
