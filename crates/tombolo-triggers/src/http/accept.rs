//! Accepting: connections go to the worker with the fewest, and wait in the kernel while there are as many as allowed.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, TcpStream as StdTcpStream};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tombolo_telemetry::Telemetry;

use super::clients::Clients;
use super::worker::Worker;

/// How long accepting rests when the system has no file descriptor left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Takes connections from the listeners and hands them to the workers.
pub struct Acceptor {
    pub listeners: Vec<TcpListener>,
    pub workers: Vec<Worker>,
    /// One permit for each connection that may be open.
    pub permits: Arc<Semaphore>,
    pub clients: Clients,
    pub telemetry: Telemetry,
    /// The listener that is asked first, so that a busy one does not starve the others.
    pub first: usize,
}

impl Acceptor {
    /// Accepts until shutdown, then what clients have begun already, and closes the listeners.
    pub async fn run(mut self, shutdown: &CancellationToken) {
        // Cancel safe: a connection that is cut off between accepting and handing over would be
        // one whose client is reset; the loop is left only while it waits for a permit or a client.
        while let Some(permit) = self.permit(shutdown).await {
            tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = std::future::poll_fn(|cx| self.poll_accept(cx)) => match accepted {
                    Ok((stream, client)) => self.hand(stream.into_std(), client, permit).await,
                    Err(error) => pause(&error).await,
                },
            }
        }
        self.sweep().await;
    }

    async fn permit(&self, shutdown: &CancellationToken) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Some(permit);
        }
        tracing::warn!("as many connections as allowed, accepting pauses");
        tokio::select! {
            () = shutdown.cancelled() => None,
            permit = self.permits.clone().acquire_owned() => permit.ok(),
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let count = self.listeners.len();
        for step in 0..count {
            let index = (self.first + step) % count;
            if let Some(listener) = self.listeners.get(index)
                && let Poll::Ready(accepted) = listener.poll_accept(cx)
            {
                self.first = index + 1;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }

    async fn hand(
        &self,
        stream: io::Result<StdTcpStream>,
        client: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) {
        match stream {
            Ok(stream) => {
                let Some(permit) = self.clients.enter(client.ip(), permit) else {
                    self.telemetry.http().connection_refused();
                    tracing::debug!(%client, "a client with as many connections as allowed opened one more");
                    return;
                };
                if let Some(worker) = self.workers.iter().min_by_key(|worker| worker.open()) {
                    worker.hand(stream, client, permit, &self.telemetry).await;
                }
            }
            Err(error) => tracing::warn!(%error, "connection lost between accept and worker"),
        }
    }

    /// Closing a listener resets the connections that wait in the kernel, with whatever their
    /// clients have sent. So they are taken first, as far as there are permits.
    async fn sweep(mut self) {
        for listener in std::mem::take(&mut self.listeners) {
            let Ok(listener) = listener.into_std() else {
                continue;
            };
            while let Some((stream, client, permit)) = self.next_waiting(&listener) {
                self.hand(stream, client, permit).await;
            }
        }
    }

    fn next_waiting(
        &self,
        listener: &StdTcpListener,
    ) -> Option<(io::Result<StdTcpStream>, SocketAddr, OwnedSemaphorePermit)> {
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        let (stream, client) = listener.accept().ok()?;
        Some((
            stream.set_nonblocking(true).map(|()| stream),
            client,
            permit,
        ))
    }
}

async fn pause(error: &io::Error) {
    // These concern one client that has left already; anything else (no file descriptors, no
    // memory) will not be better at once.
    let of_client = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    );
    if !of_client {
        tracing::error!(%error, "cannot accept connections");
        tokio::time::sleep(EXHAUSTED_PAUSE).await;
    }
}
