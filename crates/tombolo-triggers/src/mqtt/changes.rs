//! What has to be written of the sessions that outlive the process: changes in their order, numbered.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::session::{Delivery, Options, StillToGet};
use super::switch::SessionKey;
use super::topic::Selection;

/// With more than this to write, who waits for the disk already is read from no further, and no session that
/// would have to be kept begins.
const WAITING_BYTES_MAX: usize = 16 << 20;
/// With more than this, nothing is taken for a session that is kept: what is on its way to many of them at once was
/// read before anybody could stop.
const WAITING_BYTES_END: usize = 4 * WAITING_BYTES_MAX;
/// What a change is reckoned with beside its message or its filter.
const OVERHEAD_BYTES: usize = 128;

/// Something that happened to a session that is kept.
#[derive(Clone, Debug)]
pub struct Change {
    pub session: SessionKey,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    /// It began, or somebody connected to it or left it.
    Set {
        client: Arc<str>,
        user: Option<Arc<str>>,
        expiry: Duration,
        /// When it ends; none while its client is connected.
        expires: Option<Instant>,
    },
    /// It is over, and so is all that it had.
    Ended {
        selections: Vec<Selection>,
        sequences: Vec<u64>,
        received: Vec<u16>,
    },
    Subscribed {
        selection: Selection,
        options: Options,
        retained: StillToGet,
    },
    Unsubscribed(Selection),
    /// A message waits for the client.
    Queued(Delivery),
    /// The client has the message; its identifier is still to be released.
    Releasing(u64),
    /// The client has the message for good.
    Forgotten(u64),
    /// The client sent a message of QoS 2, which was accepted.
    Received(u16),
    /// The client knows that.
    Released(u16),
}

impl What {
    fn bytes(&self) -> usize {
        OVERHEAD_BYTES
            + match self {
                Self::Queued(delivery) => delivery.message.weight_bytes(),
                Self::Subscribed { selection, .. } => selection.filter.as_str().len(),
                Self::Ended { sequences, .. } => sequences.len() * size_of::<u64>(),
                _ => 0,
            }
    }
}

/// The changes that nobody has taken to the disk yet.
#[derive(Debug, Default)]
pub struct Changes {
    kept: bool,
    waiting: Vec<(u64, Change)>,
    waiting_bytes: usize,
    sealed: u64,
    open: bool,
    wake: Arc<Notify>,
}

impl Changes {
    /// From now on sessions are kept, and somebody writes what changes.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    pub fn are_kept(&self) -> bool {
        self.kept
    }

    /// Something is there to be written.
    pub fn wake(&self) -> Arc<Notify> {
        self.wake.clone()
    }

    pub fn is_full(&self) -> bool {
        self.waiting_bytes >= WAITING_BYTES_MAX
    }

    /// There is no room even for what was on its way already.
    pub fn overflows(&self) -> bool {
        self.waiting_bytes >= WAITING_BYTES_END
    }

    /// The number of what changes now.
    pub fn number(&self) -> u64 {
        self.sealed + 1
    }

    pub fn push(&mut self, session: SessionKey, what: What) {
        if !self.open {
            self.open = true;
            self.wake.notify_one();
        }
        self.waiting_bytes += what.bytes();
        let change = Change { session, what };
        self.waiting.push((self.number(), change));
    }

    /// Ends what is written in one piece. Returns its number; 0 when nothing has changed since the last.
    pub fn seal(&mut self) -> u64 {
        if !self.open {
            return 0;
        }
        self.open = false;
        self.sealed += 1;
        self.sealed
    }

    /// All changes, in their order, with their numbers.
    pub fn take(&mut self) -> Vec<(u64, Change)> {
        self.seal();
        self.waiting_bytes = 0;
        std::mem::take(&mut self.waiting)
    }
}
