//! The admin listener: connections of health checks, scrapers and the API, few and bounded.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::control::Control;

/// Connections at once; more wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 256;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A pause after an accept that failed: it may be short of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound admin listener.
#[derive(Debug)]
pub(crate) struct AdminServer {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl AdminServer {
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Serves until the control's `shutdown`, then until the answers under way have ended or are `cut`.
    pub(crate) async fn run(self, control: Arc<Control>, cut: CancellationToken) {
        let shutdown = control.shutdown.clone();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(serve(stream, control.clone(), shutdown.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the admin listener cannot accept");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                // Only to make room: a connection tells its own errors.
                Some(_) = connections.join_next() => {}
                () = shutdown.cancelled() => break,
            }
        }
        drop(self.listener);
        let drained = async { while connections.join_next().await.is_some() {} };
        if cut.run_until_cancelled(drained).await.is_none() {
            tracing::warn!("admin connections were cut");
        }
    }
}

async fn serve(stream: TcpStream, control: Arc<Control>, shutdown: CancellationToken) {
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let control = control.clone();
        async move { Ok::<_, Infallible>(control.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection broke");
    }
}
