//! What must survive a power cut: durable key-value storage with group commit, behind an interface that shows nothing of the engine.
//!
//! One process owns a store folder ([`Store::open`] takes its lock). Reads run on the caller's
//! thread against the last commit. Writes go through one thread, which commits all that is queued
//! as one transaction with one fsync and then answers every caller: a future that resolves to
//! `Ok` means the write is on disk.

mod commit;
mod engine;
mod error;
mod key_value;
mod lock;
mod store;

pub use error::{OpenError, StoreError};
pub use key_value::{
    KEY_BYTES_MAX, KEYS_MAX, KeyValue, READ_BYTES_MAX, Swapped, VALUE_BYTES_MAX, WRITE_BYTES_MAX,
    Write,
};
pub use store::Store;
