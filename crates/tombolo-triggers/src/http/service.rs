//! The listener's life: workers started, connections accepted, and at the end a drain that loses no request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;
use tombolo_core::{Invoke, Name};
use tombolo_manifest::Tier;
use tombolo_telemetry::Telemetry;

use super::accept::Acceptor;
use super::clients::Clients;
use super::front::{Drain, FrontParts};
use super::listener::HttpServer;
use super::routes::Routes;
use super::worker::Worker;

/// The longest time that an HTTP/1.1 connection without a request stays open in a drain, for a
/// request that may be on its way.
const IDLE_GRACE_MAX: Duration = Duration::from_secs(1);
/// The part of the drain's time that this may take at most.
const IDLE_GRACE_SHARE: u32 = 10;

/// Why the service could not run.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("cannot start a worker thread")]
    Worker(#[source] io::Error),
    #[error("cannot start accepting")]
    Accept(#[source] io::Error),
}

/// The HTTP listeners of a node, ready to run.
pub struct HttpService {
    /// The bound listeners.
    pub server: HttpServer,
    /// The routing table; a new one is taken over with the next request.
    pub routes: watch::Receiver<Arc<Routes>>,
    /// Where functions run.
    pub invoke: Arc<dyn Invoke>,
    pub telemetry: Telemetry,
    /// What functions are told about the node in `x-tombolo-node`.
    pub node: Name,
    /// And in `x-tombolo-tier`.
    pub tier: Tier,
    /// Tells callers more than strangers should know: backtraces and `Server-Timing`.
    pub verbose: bool,
    /// How many worker threads; at least one.
    pub cores: usize,
    /// Cuts what a drain still waits for.
    pub cut: CancellationToken,
    /// What functions still do when the last connection has ended. The worker threads, which run it, stay until it is
    /// done or cut.
    pub afterwards: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl HttpService {
    /// Serves until `shutdown` is cancelled, then drains. Blocks: call it on a thread of its own.
    ///
    /// The drain closes the listeners, finishes what was begun and, after `drain_timeout`, cuts what is left.
    ///
    /// # Errors
    /// A thread or a runtime could not be started; nothing was served then.
    pub fn run(mut self, shutdown: &CancellationToken) -> Result<(), ServiceError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ServiceError::Accept)?;
        let drain = Drain::new(self.cut.clone());
        // However this ends, the threads end with it.
        let over = drain.over.clone().drop_guard();
        let (workers, threads) = self.start_workers(&drain).map_err(ServiceError::Worker)?;
        let afterwards = std::mem::replace(&mut self.afterwards, Box::pin(async {}));
        let served = runtime.block_on(async {
            self.serve(workers, &drain, shutdown).await?;
            drain.cut.run_until_cancelled(afterwards).await;
            Ok(())
        });
        if served.is_err() {
            drain.cut.cancel();
        }
        drop(over);
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
        served
    }

    fn start_workers(
        &self,
        drain: &Drain,
    ) -> io::Result<(Vec<Worker>, Vec<std::thread::JoinHandle<()>>)> {
        let config = Arc::new(self.server.config.clone());
        let node = HeaderValue::try_from(self.node.as_str()).map_err(io::Error::other)?;
        let tier = HeaderValue::try_from(self.tier.to_string()).map_err(io::Error::other)?;
        let start = |index| {
            let front = FrontParts {
                invoke: self.invoke.clone(),
                telemetry: self.telemetry.clone(),
                config: config.clone(),
                drain: drain.clone(),
                node: node.clone(),
                tier: tier.clone(),
                verbose: self.verbose,
                routes: self.routes.clone(),
            };
            Worker::start(index, front, self.server.tls.clone())
        };
        // When one cannot be started, the others end with their handles.
        (0..self.cores.max(1)).map(start).collect()
    }

    async fn serve(
        self,
        workers: Vec<Worker>,
        drain: &Drain,
        shutdown: &CancellationToken,
    ) -> Result<(), ServiceError> {
        let HttpServer {
            listeners, config, ..
        } = self.server;
        let listeners = listeners
            .into_iter()
            .map(TcpListener::from_std)
            .collect::<io::Result<_>>()
            .map_err(ServiceError::Accept)?;
        let permits = Arc::new(Semaphore::new(config.connections_max as usize));
        let acceptor = Acceptor {
            listeners,
            workers,
            permits: permits.clone(),
            clients: Clients::new(config.connections_per_client_max),
            telemetry: self.telemetry,
            first: 0,
        };
        acceptor.run(shutdown).await;
        let idle_grace = (config.drain_timeout / IDLE_GRACE_SHARE).min(IDLE_GRACE_MAX);
        finish(
            drain,
            &permits,
            config.connections_max,
            idle_grace,
            config.drain_timeout,
        )
        .await;
        Ok(())
    }
}

/// Waits until every connection has ended, in three steps that each ask more firmly.
async fn finish(
    drain: &Drain,
    permits: &Semaphore,
    connections_max: u32,
    idle_grace: Duration,
    drain_timeout: Duration,
) {
    let start = tokio::time::Instant::now();
    // Every permit is back when every connection has ended.
    let mut all_ended = std::pin::pin!(permits.acquire_many(connections_max));
    drain.begin();
    tracing::info!("listeners closed, draining");
    let at_once = timeout_at(start + idle_grace, all_ended.as_mut());
    match drain.cut.run_until_cancelled(at_once).await {
        Some(Err(_)) => {}
        Some(Ok(_)) | None => return,
    }
    drain.close();
    let in_time = timeout_at(start + drain_timeout, all_ended);
    if let Some(Err(_)) = drain.cut.run_until_cancelled(in_time).await {
        drain.cut.cancel();
    }
}
