//! The broker's listeners: bound sockets, and connections taken from them in turn.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

use super::tls::Tls;

/// Connections that wait in the kernel to be accepted.
const BACKLOG: i32 = 1024;
/// How long accepting rests when the system has no file descriptor left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// The kernel asks after a silent peer, for clients that promise nothing themselves.
const PROBE_AFTER: Duration = Duration::from_secs(60);

/// A bound listener.
pub struct Listener {
    pub socket: StdTcpListener,
    pub tls: Option<Tls>,
    pub anonymous: bool,
}

/// The next connection of any listener, with what its listener says about it.
pub async fn accept(
    listeners: &[(TcpListener, Option<Arc<Tls>>, bool)],
    first: &mut usize,
) -> (io::Result<(TcpStream, SocketAddr)>, Option<Arc<Tls>>, bool) {
    std::future::poll_fn(|cx| {
        // Each time another one is asked first, so that a busy listener starves no other.
        let turn = *first % listeners.len().max(1);
        let (before, from) = listeners.split_at_checked(turn).unwrap_or((&[], listeners));
        for (socket, tls, anonymous) in from.iter().chain(before) {
            if let Poll::Ready(accepted) = socket.poll_accept(cx) {
                *first = turn + 1;
                return Poll::Ready((accepted, tls.clone(), *anonymous));
            }
        }
        Poll::Pending
    })
    .await
}

pub fn prepare(stream: &TcpStream) {
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER);
    let prepared = stream
        .set_nodelay(true)
        .and_then(|()| SockRef::from(stream).set_tcp_keepalive(&probes));
    if let Err(error) = prepared {
        tracing::debug!(%error, "mqtt connection without socket options");
    }
}

pub fn listen(address: SocketAddr) -> io::Result<StdTcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // A restarted node gets its port back although old connections linger in the kernel.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

pub async fn pause(error: &io::Error) {
    // These concern one client that has left already; anything else (no file descriptors, no
    // memory) will not be better at once.
    let of_client = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    );
    if !of_client {
        tracing::error!(%error, "cannot accept mqtt connections");
        tokio::time::sleep(EXHAUSTED_PAUSE).await;
    }
}
