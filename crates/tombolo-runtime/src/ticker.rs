//! One thread that advances the epoch of every engine while anything runs, and sleeps otherwise.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::{Engine, EngineWeak};

/// How long a guest may hold its core before its neighbours get a turn.
const TICK: Duration = Duration::from_millis(1);
/// After so many ticks with nothing running the thread parks, so that an idle node causes no wake-ups.
const IDLE_TICKS_MAX: u32 = 100;

/// A handle to the ticking thread; the thread ends when the last handle is gone.
#[derive(Clone, Debug)]
pub(crate) struct Ticker(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    thread: OnceLock<Thread>,
    running: AtomicUsize,
    parked: AtomicBool,
    engines: Mutex<Vec<WeakEngine>>,
}

struct WeakEngine(EngineWeak);

impl std::fmt::Debug for WeakEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WeakEngine")
    }
}

/// While it lives, the epoch advances.
#[derive(Debug)]
pub(crate) struct Ticking(Arc<Shared>);

impl Ticker {
    pub(crate) fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let weak = Arc::downgrade(&shared);
        let handle = thread::Builder::new().name("epoch".into()).spawn(move || {
            let mut idle_ticks = 0;
            while let Some(shared) = weak.upgrade() {
                shared.tick(&mut idle_ticks);
                let park = idle_ticks >= IDLE_TICKS_MAX && shared.park();
                drop(shared);
                if park {
                    thread::park();
                    idle_ticks = 0;
                } else {
                    thread::sleep(TICK);
                }
            }
        })?;
        let _ = shared.thread.set(handle.thread().clone());
        Ok(Self(shared))
    }

    /// Lets the epoch of `engine` advance from now on.
    pub(crate) fn add(&self, engine: &Engine) {
        let mut engines = self
            .0
            .engines
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        engines.push(WeakEngine(engine.weak()));
    }

    /// Says that a guest is about to run.
    pub(crate) fn begin(&self) -> Ticking {
        self.0.running.fetch_add(1, Ordering::SeqCst);
        if self.0.parked.load(Ordering::SeqCst) && self.0.parked.swap(false, Ordering::SeqCst) {
            self.0.unpark();
        }
        Ticking(Arc::clone(&self.0))
    }
}

impl Shared {
    fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn tick(&self, idle_ticks: &mut u32) {
        let engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        for engine in engines.iter().filter_map(|weak| weak.0.upgrade()) {
            engine.increment_epoch();
        }
        if self.running.load(Ordering::SeqCst) == 0 {
            *idle_ticks += 1;
        } else {
            *idle_ticks = 0;
        }
    }

    /// Announces that the thread is about to park; false when a guest has begun meanwhile.
    fn park(&self) -> bool {
        self.parked.store(true, Ordering::SeqCst);
        if self.running.load(Ordering::SeqCst) == 0 {
            return true;
        }
        self.parked.store(false, Ordering::SeqCst);
        false
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The thread ends by itself when `Shared` is gone; it must be awake to see that.
        self.unpark();
    }
}
