//! The invocation budget: what one invocation may use, and the names of the limits it can hit.

use std::fmt;
use std::time::Duration;

/// The limits of one invocation. Every one is finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Longest time from start to the end of the response.
    pub wall: Duration,
    /// Most CPU time of the thread while the guest is polled.
    pub cpu: Duration,
    /// Most linear memory of the instance.
    pub memory_bytes: u64,
    /// Most bytes that one host call may copy from guest to host.
    pub hostcall_bytes: u64,
    /// Longest response body.
    pub response_bytes: u64,
    /// Most log output (stdout, stderr and `wasi:logging` together).
    pub log_bytes: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            wall: Duration::from_secs(30),
            cpu: Duration::from_secs(5),
            memory_bytes: 128 << 20,
            hostcall_bytes: 1 << 20,
            response_bytes: 8 << 20,
            log_bytes: 64 << 10,
        }
    }
}

/// The limit that an invocation hit. Exceeding `log` cuts the log output and is no failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    Wall,
    Cpu,
    Memory,
    HostcallBytes,
    ResponseBytes,
    Concurrency,
}

impl Limit {
    /// The key of the limit in the manifest's `limits`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Wall => "wall",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::HostcallBytes => "hostcall",
            Self::ResponseBytes => "response",
            Self::Concurrency => "concurrency",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}
