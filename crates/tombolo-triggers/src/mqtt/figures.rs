//! What the broker counts.

/// What the broker counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MqttFigures {
    /// Clients that are connected now.
    pub connections: usize,
    /// Connections that were closed at once, because there were as many as allowed.
    pub connections_refused: u64,
    /// Sessions, with a connection or without.
    pub sessions: usize,
    pub subscriptions: usize,
    pub retained: usize,
    pub retained_bytes: usize,
    /// Messages that wait for their clients or for their acknowledgement, in bytes.
    pub queued_bytes: usize,
    /// Messages that clients and functions published and that were accepted.
    pub accepted: u64,
    /// Messages that were not accepted.
    pub refused: u64,
    /// Messages that clients may not publish.
    pub forbidden: u64,
    /// Copies sent to clients.
    pub delivered: u64,
    /// Copies that found no room in a client's queue.
    pub dropped_full: u64,
    /// Copies whose time was over before their client took them.
    pub dropped_expired: u64,
    /// Copies that are longer than their client takes.
    pub dropped_long: u64,
    /// Messages that were not retained, because there was no room.
    pub unretained: u64,
}
