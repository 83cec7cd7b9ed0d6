//! Moves bytes between several pairs of streams at once, so that no pair holds up another.

use wasip2::io::poll;
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

/// One pair of streams; empty as soon as the input has ended or the output takes no more.
pub struct Pump(Option<(InputStream, OutputStream)>);

enum Step {
    Moved,
    NothingToRead,
    NoRoom,
    Ended,
}

impl Pump {
    pub fn new(from: InputStream, to: OutputStream) -> Self {
        Self(Some((from, to)))
    }

    /// Moves what can be moved without waiting; true when both streams are gone.
    pub fn run(&mut self) -> bool {
        while let Some((from, to)) = &self.0 {
            match step(from, to) {
                Step::Moved => {}
                Step::NothingToRead | Step::NoRoom => return false,
                Step::Ended => self.0 = None,
            }
        }
        true
    }

    /// What to wait for when [`Pump::run`] has returned false.
    pub fn waits_for(&self) -> Option<poll::Pollable> {
        let (from, to) = self.0.as_ref()?;
        match to.check_write() {
            Ok(0) => Some(to.subscribe()),
            _ => Some(from.subscribe()),
        }
    }
}

fn step(from: &InputStream, to: &OutputStream) -> Step {
    let room = match to.check_write() {
        Ok(0) => return Step::NoRoom,
        Ok(room) => room.min(64 * 1024),
        Err(_) => return Step::Ended,
    };
    match from.read(room) {
        Ok(bytes) if bytes.is_empty() => Step::NothingToRead,
        Ok(bytes) => match to.write(&bytes) {
            Ok(()) => Step::Moved,
            Err(_) => Step::Ended,
        },
        Err(StreamError::Closed) => {
            to.blocking_flush().ok();
            Step::Ended
        }
        Err(StreamError::LastOperationFailed(_)) => Step::Ended,
    }
}
