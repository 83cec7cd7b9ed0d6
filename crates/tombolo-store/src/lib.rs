//! What must survive a power cut: durable queues and key-value storage with group commit, behind an interface that shows nothing of the engine.
//!
//! One process owns a store folder ([`Store::open`] takes its lock). Writes go through one thread,
//! which decides all that is queued, appends it to the log with one fsync, applies it and then
//! answers every caller: a future that resolves to `Ok` means that it is on disk. Reads run on the
//! caller's thread against what was applied last.

mod clock;
mod commit;
pub mod disk;
mod effects;
mod engine;
mod error;
mod ids;
mod journal;
mod key_value;
mod lock;
mod log;
mod operation;
pub mod queue;
mod queues;
mod remembered;
mod replay;
mod store;
mod stored;
mod transaction;

#[doc(hidden)]
pub use clock::{Clock, SystemClock};
pub use commit::callback::INVOCATION_FAILED;
pub use commit::changes::CHANGED;
pub use effects::{EFFECTS_BYTES_MAX, EFFECTS_MAX, Effects, Scope};
pub use error::{OpenError, StoreError};
pub use journal::{
    AnswerFigures, Batch, Delivery, EventFilter, Journal, Listed, Peeked, QueueFigures, Selection,
    Taken,
};
pub use key_value::{
    KEY_BYTES_MAX, KEYS_MAX, KeyValue, READ_BYTES_MAX, Swapped, VALUE_BYTES_MAX, WRITE_BYTES_MAX,
    Write,
};
pub use log::Damage;
pub use queues::{DROPS_MAX, Dropped};
pub use remembered::Figures as RememberedFigures;
#[doc(hidden)]
pub use store::Limits;
pub use store::Store;
pub use stored::{ATTEMPTS_MAX, Attempt, Cause, DETAIL_BYTES_MAX, DeadLetter};
pub use transaction::{
    ANSWER_BYTES_MAX, Answer, Changes, Committed, EVENT_BYTES_MAX, Expectation, Lease, Outcome,
    Settled, Transaction,
};
