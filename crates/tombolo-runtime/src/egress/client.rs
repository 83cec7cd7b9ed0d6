//! The HTTP client of functions: resolves once, checks every address, and connects to the address it checked.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::FusedFuture as _;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsConnector;
use tombolo_core::FunctionId;
use tombolo_manifest::HttpGrant;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::policy::{Destination, Refusal};

/// A connection, whatever carries it.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

type Answer<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// The network as functions reach it. The other implementation is that of tests, which shows what would
/// have been connected to, so that a refusal is proven without a packet.
pub(crate) trait Network: Send + Sync {
    /// Every address of a host.
    fn resolve(&self, host: &str, port: u16) -> Answer<Vec<IpAddr>>;
    /// A connection to an address.
    fn connect(&self, address: SocketAddr) -> Answer<Box<dyn Connection>>;
}

/// The network of this machine.
#[derive(Debug)]
pub(crate) struct Machine {
    lookups: Arc<Semaphore>,
}

/// Names that are looked up at once. The system's resolver holds a thread until its own time-out,
/// which comes late when the uplink is down; files and code need those threads too.
const LOOKUPS_MAX: usize = 4;

impl Machine {
    pub(crate) fn new() -> Self {
        Self {
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }
}

impl Network for Machine {
    fn resolve(&self, host: &str, port: u16) -> Answer<Vec<IpAddr>> {
        let (host, lookups) = (host.to_string(), Arc::clone(&self.lookups));
        Box::pin(async move {
            let permit = lookups.acquire_owned().await.map_err(io::Error::other)?;
            let lookup = tokio::task::spawn_blocking(move || {
                // Given back when the resolver is done, also when nobody waits for it any more.
                let _permit = permit;
                let addresses = (host.as_str(), port).to_socket_addrs()?;
                Ok(addresses.map(|address| address.ip()).collect())
            });
            lookup.await.map_err(io::Error::other)?
        })
    }

    fn connect(&self, address: SocketAddr) -> Answer<Box<dyn Connection>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Connection>)
        })
    }
}

/// The client that every function of a node shares.
#[derive(Clone)]
pub(crate) struct Client {
    network: Arc<dyn Network>,
    tls: TlsConnector,
    connections: Connections,
}

/// Outgoing connections that one function may have at once.
const FUNCTION_CONNECTIONS_MAX: usize = 128;
/// Outgoing connections that all functions of a node may have at once.
const NODE_CONNECTIONS_MAX: usize = 1024;

/// The places for outgoing connections: every connection holds a file descriptor of the node.
#[derive(Clone)]
struct Connections {
    node: Arc<Semaphore>,
    functions: Arc<Mutex<HashMap<FunctionId, Weak<Semaphore>>>>,
}

/// A place among a function's connections and one among the node's.
type Place = (OwnedSemaphorePermit, OwnedSemaphorePermit, Arc<Semaphore>);

impl Connections {
    fn new() -> Self {
        Self {
            node: Arc::new(Semaphore::new(NODE_CONNECTIONS_MAX)),
            functions: Arc::default(),
        }
    }

    /// A place at once, or none.
    fn take(&self, function: &FunctionId) -> Option<Place> {
        let own = self.of(function);
        let place = Arc::clone(&own).try_acquire_owned().ok()?;
        let of_node = Arc::clone(&self.node).try_acquire_owned().ok()?;
        Some((place, of_node, own))
    }

    /// The places of a function, which are there as long as it has a connection.
    fn of(&self, function: &FunctionId) -> Arc<Semaphore> {
        let mut functions = self
            .functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = functions.get(function).and_then(Weak::upgrade) {
            return places;
        }
        functions.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(FUNCTION_CONNECTIONS_MAX));
        functions.insert(function.clone(), Arc::downgrade(&places));
        places
    }
}

/// A response and what keeps its connection going.
pub(crate) type Exchange = (
    Response<WasiBody>,
    Box<dyn Future<Output = Result<(), Error>> + Send>,
);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(600);

impl Client {
    pub(crate) fn new(network: Arc<dyn Network>) -> Self {
        let roots = rustls::RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_root_certificates(roots).with_no_client_auth());
        #[expect(clippy::expect_used, reason = "ring offers TLS 1.2 and 1.3")]
        let config = config.expect("the provider has the default protocol versions");
        Self {
            network,
            tls: TlsConnector::from(Arc::new(config)),
            connections: Connections::new(),
        }
    }

    /// Sends a request of `function` to where the grants allow; `refused` is told what they do not. No
    /// redirect is followed: the function sees it and asks anew, and is checked anew.
    pub(crate) async fn send(
        &self,
        function: &FunctionId,
        mut request: Request<WasiBody>,
        options: Option<RequestOptions>,
        grants: &[HttpGrant],
        refused: impl Fn(&Refusal),
    ) -> Result<Exchange, Error> {
        let refused = |refusal: Refusal| {
            refused(&refusal);
            error_of(&refusal)
        };
        let destination = Destination::of(request.uri()).map_err(refused)?;
        let address_granted = destination.check_granted(grants).map_err(refused)?;
        let options = options.unwrap_or(RequestOptions {
            connect_timeout: None,
            first_byte_timeout: None,
            between_bytes_timeout: None,
        });
        let place = self
            .connections
            .take(function)
            .ok_or(Error::ConnectionLimitReached)?;
        let connect = self.connect(&destination, address_granted, &refused);
        let connect_timeout = options.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        let stream = tokio::time::timeout(connect_timeout, connect)
            .await
            .map_err(|_| Error::ConnectionTimeout)??;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(Error::Hyper)?;
        origin_form(&mut request);
        let exchange = async { sender.send_request(request).await.map_err(Error::Hyper) };
        let mut connection = Box::pin(async move { connection.await.map_err(Error::Hyper) }.fuse());
        let first_byte_timeout = options.first_byte_timeout.unwrap_or(FIRST_BYTE_TIMEOUT);
        let answer = tokio::time::timeout(first_byte_timeout, async {
            tokio::pin!(exchange);
            tokio::select! {
                biased;
                answer = &mut exchange => answer,
                // The connection may end first when the answer is already in hand.
                ended = &mut connection => { ended?; exchange.await }
            }
        })
        .await
        .map_err(|_| Error::ConnectionReadTimeout)??;
        let between = options.between_bytes_timeout;
        let answer = answer.map(|body| {
            let body = body.map_err(Error::Hyper);
            match between {
                Some(timeout) => super::idle::IdleTimeout::new(body, timeout).boxed_unsync(),
                None => body.boxed_unsync(),
            }
        });
        let driver = async move {
            let _place = place;
            if connection.is_terminated() {
                Ok(())
            } else {
                connection.await
            }
        };
        Ok((answer, Box::new(driver)))
    }

    async fn connect(
        &self,
        destination: &Destination,
        address_granted: bool,
        refused: &impl Fn(Refusal) -> Error,
    ) -> Result<Box<dyn Connection>, Error> {
        let addresses = match destination.address() {
            Some(address) => vec![address],
            None => self
                .network
                .resolve(&destination.host, destination.port)
                .await
                .map_err(|error| Error::DnsError {
                    rcode: Some(error.to_string()),
                    info_code: None,
                })?,
        };
        if !address_granted {
            for address in &addresses {
                destination.check_address(*address).map_err(refused)?;
            }
        }
        let mut last = Error::DestinationNotFound;
        for address in addresses {
            match self
                .network
                .connect(SocketAddr::new(address, destination.port))
                .await
            {
                Ok(stream) if destination.scheme == "https" => {
                    return self.encrypt(destination, stream).await;
                }
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    last = Error::ConnectionRefused;
                }
                Err(error) => last = Error::Connect(error),
            }
        }
        Err(last)
    }

    async fn encrypt(
        &self,
        destination: &Destination,
        stream: Box<dyn Connection>,
    ) -> Result<Box<dyn Connection>, Error> {
        let name = ServerName::try_from(destination.host.clone())
            .map_err(|_| Error::TlsCertificateError)?;
        let stream = self.tls.connect(name, stream).await.map_err(Error::Tls)?;
        Ok(Box::new(stream))
    }
}

fn error_of(refusal: &Refusal) -> Error {
    match refusal {
        Refusal::Host | Refusal::Scheme => Error::HttpRequestUriInvalid,
        Refusal::NotGranted(_) => Error::HttpRequestDenied,
        Refusal::Address { .. } => Error::DestinationIpProhibited,
    }
}

/// HTTP/1.1 names the origin in `Host` and only the path in the request line.
fn origin_form(request: &mut Request<WasiBody>) {
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| http::Uri::from_static("/"), http::Uri::from);
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Empty;
    use std::sync::Mutex;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Resolves every name to fixed addresses and notes what would be connected to.
    struct Noted {
        addresses: Vec<IpAddr>,
        connects: Mutex<Vec<SocketAddr>>,
        resolves: Mutex<u32>,
    }

    impl Network for Noted {
        fn resolve(&self, _: &str, _: u16) -> Answer<Vec<IpAddr>> {
            *self.resolves.lock().unwrap() += 1;
            let addresses = self.addresses.clone();
            Box::pin(async move { Ok(addresses) })
        }

        fn connect(&self, address: SocketAddr) -> Answer<Box<dyn Connection>> {
            self.connects.lock().unwrap().push(address);
            Box::pin(async {
                let (ours, mut theirs) = tokio::io::duplex(4096);
                tokio::spawn(async move {
                    let mut buffer = [0; 1024];
                    let read = theirs.read(&mut buffer).await.unwrap();
                    assert!(buffer[..read].starts_with(b"GET /path?query HTTP/1.1\r\n"));
                    theirs
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                        .await
                        .unwrap();
                });
                Ok(Box::new(ours) as Box<dyn Connection>)
            })
        }
    }

    fn noted(addresses: &[&str]) -> Arc<Noted> {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        Arc::new(Noted {
            addresses,
            connects: Mutex::default(),
            resolves: Mutex::default(),
        })
    }

    async fn send(network: &Arc<Noted>, url: &str, grants: &[&str]) -> Result<Exchange, Error> {
        let body: WasiBody = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let host = url
            .parse::<http::Uri>()
            .unwrap()
            .host()
            .unwrap()
            .to_string();
        let request = Request::get(url).header("host", host).body(body).unwrap();
        let grants: Vec<HttpGrant> = grants.iter().map(|g| g.parse().unwrap()).collect();
        let function = FunctionId {
            app: "app".parse().unwrap(),
            function: "function".parse().unwrap(),
        };
        Client::new(network.clone())
            .send(&function, request, None, &grants, |_| ())
            .await
    }

    #[tokio::test]
    async fn what_no_grant_covers_is_refused_before_it_is_resolved() {
        let network = noted(&["8.8.8.8"]);
        let answer = send(
            &network,
            "http://other.example/",
            &["http://granted.example"],
        )
        .await;
        assert!(matches!(answer, Err(Error::HttpRequestDenied)));
        assert_eq!(*network.resolves.lock().unwrap(), 0);
        assert!(network.connects.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_granted_name_with_one_special_address_is_refused_before_any_connect() {
        for addresses in [
            &["127.0.0.1"][..],
            &["8.8.8.8", "169.254.169.254"],
            &["::ffff:10.0.0.1"],
        ] {
            let network = noted(addresses);
            let answer = send(
                &network,
                "http://granted.example/",
                &["http://granted.example"],
            )
            .await;
            assert!(
                matches!(answer, Err(Error::DestinationIpProhibited)),
                "{addresses:?}"
            );
            assert!(network.connects.lock().unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn a_special_address_in_the_url_is_refused_even_under_a_wildcard() {
        for url in [
            "http://2130706433/",
            "http://[::ffff:127.0.0.1]/",
            "http://0x7f.1/",
        ] {
            let network = noted(&[]);
            assert!(
                matches!(
                    send(&network, url, &["*"]).await,
                    Err(Error::DestinationIpProhibited)
                ),
                "{url}"
            );
            assert!(network.connects.lock().unwrap().is_empty());
        }
    }

    #[test]
    fn a_function_has_its_own_places_and_gets_them_back() {
        let connections = Connections::new();
        let id = |name: &str| FunctionId {
            app: "app".parse().unwrap(),
            function: name.parse().unwrap(),
        };
        let taken: Vec<_> = (0..FUNCTION_CONNECTIONS_MAX)
            .map(|_| connections.take(&id("greedy")).unwrap())
            .collect();
        assert!(connections.take(&id("greedy")).is_none());
        assert!(connections.take(&id("modest")).is_some());
        drop(taken);
        assert!(connections.take(&id("greedy")).is_some());
    }

    #[tokio::test]
    async fn a_granted_name_is_resolved_once_and_the_checked_address_is_connected_to() {
        let network = noted(&["93.184.215.14"]);
        let (answer, driver) = send(
            &network,
            "http://granted.example/path?query",
            &["http://granted.example"],
        )
        .await
        .unwrap();
        assert_eq!(answer.status(), 200);
        let body = async { answer.into_body().collect().await.unwrap().to_bytes() };
        let (body, _) = tokio::join!(body, Pin::from(driver));
        assert_eq!(&body[..], b"ok");
        assert_eq!(*network.resolves.lock().unwrap(), 1);
        assert_eq!(
            *network.connects.lock().unwrap(),
            ["93.184.215.14:80".parse().unwrap()]
        );
    }
}
