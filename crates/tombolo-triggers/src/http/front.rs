//! What all connections of one worker thread share: the functions to call, the routes, the settings, and how far a drain has come.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use http::HeaderValue;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tombolo_core::Invoke;
use tombolo_manifest::HttpConfig;
use tombolo_telemetry::Telemetry;

use super::routes::Routes;

/// The shared part of a worker's connections.
pub struct Front {
    pub invoke: Arc<dyn Invoke>,
    pub telemetry: Telemetry,
    pub config: Arc<HttpConfig>,
    pub drain: Drain,
    pub node: HeaderValue,
    pub tier: HeaderValue,
    pub verbose: bool,
    pub http1: hyper::server::conn::http1::Builder,
    routes: RefCell<FollowedRoutes>,
}

/// The newest routing table. Requests share it by a counter of this thread alone: the one of the `Arc` would travel between the cores.
pub struct CurrentRoutes(pub Arc<Routes>);

struct FollowedRoutes {
    receiver: watch::Receiver<Arc<Routes>>,
    current: Rc<CurrentRoutes>,
}

/// What a front is made of.
pub struct FrontParts {
    pub invoke: Arc<dyn Invoke>,
    pub telemetry: Telemetry,
    pub config: Arc<HttpConfig>,
    pub drain: Drain,
    pub node: HeaderValue,
    pub tier: HeaderValue,
    pub verbose: bool,
    pub routes: watch::Receiver<Arc<Routes>>,
}

impl Front {
    pub fn new(mut parts: FrontParts) -> Self {
        let current = Rc::new(CurrentRoutes(parts.routes.borrow_and_update().clone()));
        Self {
            http1: super::limits::http1(&parts.config),
            invoke: parts.invoke,
            telemetry: parts.telemetry,
            config: parts.config,
            drain: parts.drain,
            node: parts.node,
            tier: parts.tier,
            verbose: parts.verbose,
            routes: RefCell::new(FollowedRoutes {
                receiver: parts.routes,
                current,
            }),
        }
    }

    /// The routes of the newest release. Costs one load of an atomic while they do not change.
    pub fn routes(&self) -> Rc<CurrentRoutes> {
        let mut routes = self.routes.borrow_mut();
        // Without a sender there will be no new table; the last one stays.
        if routes.receiver.has_changed().unwrap_or(false) {
            let newest = routes.receiver.borrow_and_update().clone();
            routes.current = Rc::new(CurrentRoutes(newest));
        }
        routes.current.clone()
    }
}

/// How far a shutdown has come. Each step has a token that wakes who waits, and a number that is cheap to read.
#[derive(Clone, Default)]
pub struct Drain {
    phase: Arc<AtomicU8>,
    /// Nothing new is accepted, and every answer tells its client to leave.
    pub began: CancellationToken,
    /// Connections without a request are closed.
    pub closing: CancellationToken,
    /// Whatever is still there is cut.
    pub cut: CancellationToken,
    /// Nothing needs the worker threads any more: not even what functions do after their answers.
    pub over: CancellationToken,
}

/// The steps of a shutdown that a connection looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Open,
    Draining,
    Closing,
}

impl Drain {
    pub fn new(cut: CancellationToken) -> Self {
        Self {
            cut,
            ..Self::default()
        }
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Open,
            1 => Phase::Draining,
            _ => Phase::Closing,
        }
    }

    pub fn begin(&self) {
        self.phase.store(1, Ordering::Relaxed);
        self.began.cancel();
    }

    pub fn close(&self) {
        self.phase.store(2, Ordering::Relaxed);
        self.closing.cancel();
    }
}
