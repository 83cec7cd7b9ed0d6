//! One worker: a thread with a runtime of its own, and the connections that were handed to it.

use std::io;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet, LocalSet};
use tombolo_telemetry::Telemetry;

use super::clients::Permit;
use super::connection;
use super::front::{Front, FrontParts};

/// Connections that were accepted and wait for a worker that is busy.
const HANDOFFS_MAX: usize = 64;
/// Threads of one worker that read static files and look up names; of these look-ups there are few at once.
const BLOCKING_THREADS_MAX: usize = 16;

/// An accepted connection on its way to a worker.
pub struct Handoff {
    pub stream: StdTcpStream,
    pub client: SocketAddr,
    pub slot: Slot,
}

/// One of the connections that the node may have, given back when dropped.
pub struct Slot {
    _permit: Permit,
    open: Arc<AtomicUsize>,
    telemetry: Telemetry,
}

impl Slot {
    fn take(permit: Permit, worker: &Worker, telemetry: &Telemetry) -> Self {
        worker.open.fetch_add(1, Ordering::Relaxed);
        telemetry.http().connection_opened();
        Self {
            _permit: permit,
            open: worker.open.clone(),
            telemetry: telemetry.clone(),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.telemetry.http().connection_closed();
    }
}

/// The acceptor's side of a worker.
pub struct Worker {
    sender: mpsc::Sender<Handoff>,
    open: Arc<AtomicUsize>,
}

impl Worker {
    /// Starts the thread. It ends when this handle is dropped and its connections have ended, or when they are cut.
    pub fn start(
        index: usize,
        front: FrontParts,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .build()?;
        let (sender, receiver) = mpsc::channel(HANDOFFS_MAX);
        let thread = std::thread::Builder::new()
            .name(format!("http-{index}"))
            .spawn(move || serve(runtime, front, tls, receiver))?;
        Ok((
            Self {
                sender,
                open: Arc::default(),
            },
            thread,
        ))
    }

    /// How many connections it has.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Hands it a connection; waits while the worker is too busy to take any.
    pub async fn hand(
        &self,
        stream: StdTcpStream,
        client: SocketAddr,
        permit: Permit,
        telemetry: &Telemetry,
    ) {
        let slot = Slot::take(permit, self, telemetry);
        if self
            .sender
            .send(Handoff {
                stream,
                client,
                slot,
            })
            .await
            .is_err()
        {
            tracing::error!("a worker thread is gone, connection dropped");
        }
    }
}

fn serve(
    runtime: Runtime,
    front: FrontParts,
    tls: Option<Arc<rustls::ServerConfig>>,
    receiver: mpsc::Receiver<Handoff>,
) {
    let front = Rc::new(Front::new(front));
    let over = front.drain.over.clone();
    LocalSet::new().block_on(&runtime, async {
        take_connections(front, tls, receiver).await;
        // What functions do after their answers has its timers and sockets on this runtime.
        over.cancelled().await;
    });
    // A look-up of a name cannot be cancelled and must not hold up the end.
    runtime.shutdown_background();
}

async fn take_connections(
    front: Rc<Front>,
    tls: Option<Arc<rustls::ServerConfig>>,
    mut receiver: mpsc::Receiver<Handoff>,
) {
    let mut connections = JoinSet::new();
    let cut = front.drain.cut.clone();
    let mut accepting = true;
    while accepting || !connections.is_empty() {
        // Every branch is cancel safe: by tokio's documentation of these three.
        tokio::select! {
            () = cut.cancelled() => break,
            Some(ended) = connections.join_next() => report_panic(ended),
            handoff = receiver.recv(), if accepting => match handoff {
                Some(handoff) => {
                    connections.spawn_local(serve_one(front.clone(), tls.clone(), handoff));
                }
                None => accepting = false,
            },
        }
    }
    if !connections.is_empty() {
        tracing::warn!(
            connections = connections.len(),
            "the drain has ended, connections cut"
        );
    }
    connections.shutdown().await;
}

async fn serve_one(front: Rc<Front>, tls: Option<Arc<rustls::ServerConfig>>, handoff: Handoff) {
    let Handoff {
        stream,
        client,
        slot,
    } = handoff;
    match TcpStream::from_std(stream) {
        Ok(stream) => connection::serve(front, stream, client, tls).await,
        Err(error) => tracing::warn!(%error, "connection not registered"),
    }
    drop(slot);
}

fn report_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task panicked");
    }
}
