//! Admission: how many invocations run at once and how many wait, for a function and for the node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tombolo_core::{Blame, Code, Failure, Limit};

/// A bound on what runs at once, with a bounded queue before it.
#[derive(Debug)]
pub(crate) struct Gate {
    what: &'static str,
    semaphore: Arc<Semaphore>,
    running_max: u32,
    waiting: AtomicU32,
    waiting_max: u32,
}

/// What a caller is told to wait before it tries again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Gate {
    pub(crate) fn new(what: &'static str, running_max: u32, waiting_max: u32) -> Self {
        let permits = usize::try_from(running_max)
            .unwrap_or(usize::MAX)
            .min(Semaphore::MAX_PERMITS);
        Self {
            what,
            semaphore: Arc::new(Semaphore::new(permits)),
            running_max,
            waiting: AtomicU32::new(0),
            waiting_max,
        }
    }

    /// A place to run, at once or not at all.
    pub(crate) fn try_enter(&self) -> Result<OwnedSemaphorePermit, Failure> {
        Arc::clone(&self.semaphore)
            .try_acquire_owned()
            .map_err(|_| self.busy())
    }

    /// A place to run, waiting for it until the deadline; refused when as many wait as may.
    pub(crate) async fn enter(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, Failure> {
        if let Ok(permit) = Arc::clone(&self.semaphore).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::begin(self).ok_or_else(|| self.busy())?;
        let permit = Arc::clone(&self.semaphore).acquire_owned();
        match tokio::time::timeout_at(deadline.into(), permit).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(self.busy()),
        }
    }

    fn busy(&self) -> Failure {
        let detail = format!(
            "{} runs {} invocations, as many as it may, and {} wait",
            self.what,
            self.running_max,
            self.waiting.load(Relaxed),
        );
        Failure::new(Code::Busy, Blame::Host, detail)
            .limit(Limit::Concurrency)
            .retry_after(RETRY_AFTER)
    }
}

/// One place in the queue; given back on drop, also when the caller gives up.
struct Waiting<'a>(&'a Gate);

impl<'a> Waiting<'a> {
    fn begin(gate: &'a Gate) -> Option<Self> {
        let take = |waiting| (waiting < gate.waiting_max).then_some(waiting + 1);
        gate.waiting.fetch_update(Relaxed, Relaxed, take).ok()?;
        Some(Self(gate))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;
    use std::pin::pin;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_places_are_handed_on() {
        let gate = Gate::new("the function", 1, 1);
        let running = gate.enter(later()).await.unwrap();
        let mut second = pin!(gate.enter(later()));
        assert!(poll!(&mut second).is_pending());
        let refused = gate.enter(later()).await.unwrap_err();
        assert_eq!(
            (refused.code, refused.limit),
            (Code::Busy, Some(Limit::Concurrency))
        );
        assert!(refused.retry_after.is_some());
        drop(running);
        let _second = second.await.unwrap();
        assert!(gate.try_enter().is_err());
    }

    #[tokio::test]
    async fn who_gives_up_waiting_gives_back_the_place_in_the_queue() {
        let gate = Gate::new("the function", 1, 1);
        let running = gate.enter(later()).await.unwrap();
        {
            let mut gone = pin!(gate.enter(later()));
            assert!(poll!(&mut gone).is_pending());
        }
        let mut next = pin!(gate.enter(later()));
        assert!(poll!(&mut next).is_pending());
        drop(running);
        let _next = next.await.unwrap();
    }

    #[tokio::test]
    async fn a_deadline_that_passed_is_a_refusal() {
        let gate = Gate::new("the function", 1, 1);
        let _running = gate.enter(later()).await.unwrap();
        assert_eq!(
            gate.enter(Instant::now()).await.unwrap_err().code,
            Code::Busy
        );
    }
}
