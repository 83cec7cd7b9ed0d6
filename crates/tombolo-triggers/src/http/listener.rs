//! Binding: listeners on their addresses and the TLS certificate, before anything is accepted.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tombolo_core::Code;
use tombolo_manifest::HttpConfig;

use super::tls::server_config;
use crate::tls::TlsError;

/// Connections that wait in the kernel while accepting pauses.
const BACKLOG: i32 = 1024;

/// Why the listeners could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot use the TLS certificate")]
    Tls(#[from] TlsError),
}

impl BindError {
    /// The code that the command line and the API show.
    pub fn code(&self) -> Code {
        match self {
            Self::Listen { .. } => Code::AddressInUse,
            Self::Tls(_) => Code::Tls,
        }
    }
}

/// Bound listeners. Clients can connect from now on; they are served once the service runs.
#[derive(Debug)]
pub struct HttpServer {
    pub(super) listeners: Vec<TcpListener>,
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) config: HttpConfig,
    addresses: Vec<SocketAddr>,
}

impl HttpServer {
    /// Opens every address of the config and reads the certificate.
    ///
    /// # Errors
    /// An address cannot be listened on, or the certificate and key cannot be used.
    pub fn bind(config: &HttpConfig) -> Result<Self, BindError> {
        let tls = config.tls.as_ref().map(server_config).transpose()?;
        let mut listeners = Vec::with_capacity(config.listen.len());
        let mut addresses = Vec::with_capacity(config.listen.len());
        for &address in &config.listen {
            let failed = |source| BindError::Listen { address, source };
            let listener = listen(address).map_err(failed)?;
            addresses.push(listener.local_addr().map_err(failed)?);
            listeners.push(listener);
        }
        Ok(Self {
            listeners,
            tls,
            config: config.clone(),
            addresses,
        })
    }

    /// The addresses as bound, in the order of the config; port 0 has become a real one.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restarted node gets its port back although old connections linger in the kernel.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Each address stands for itself, so that `0.0.0.0` and `[::]` can stand side by side.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
