//! A node in a folder of its own, apps made of one small component, and a client.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tombolo_api::{Address, Client};
use tombolo_manifest::{Manifest, NodeConfig};
use tombolo_node::{AppSource, Node, NodeHandle, NodeOptions, RunError, StartError, Stop};
use tombolo_telemetry::Telemetry;

/// Turns of a loop that keep a function busy for a second or so.
pub const LONG: u32 = 4_000_000_000;

/// A folder with a store in `store`, secrets in `secrets`, and apps beside.
pub struct Site(TempDir);

impl Site {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("secrets")).unwrap();
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn config(&self) -> NodeConfig {
        let mut config = NodeConfig {
            store: self.path().join("store"),
            ..NodeConfig::default()
        };
        config.secrets = Some(self.path().join("secrets"));
        config.http.listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.runtime.concurrency = 16;
        config
    }

    /// An app whose function answers `status` at `/app`, after some turns of a loop.
    pub fn app(&self, app: &str, function: &str, status: u16, turns: u32) -> AppSource {
        self.app_with(app, function, status, turns, "")
    }

    /// The same with more lines for the function's table.
    pub fn app_with(
        &self,
        app: &str,
        function: &str,
        status: u16,
        turns: u32,
        more: &str,
    ) -> AppSource {
        let folder = self.path().join(app);
        std::fs::create_dir_all(&folder).unwrap();
        let text = include_str!("status.wat")
            .replace("SPIN", &turns.to_string())
            .replace("STATUS", &status.to_string());
        std::fs::write(folder.join(format!("{function}.wat")), text).unwrap();
        let manifest = format!(
            "[app]\nname = \"{app}\"\nversion = \"1.0.0\"\n\
             [functions.{function}]\ncomponent = \"{function}.wat\"\n\
             limits = {{ wall = \"5min\", cpu = \"5min\" }}\n{more}\n\
             [[triggers.http]]\nroute = \"/{app}\"\nfunction = \"{function}\"\n"
        );
        let manifest = Manifest::parse(&manifest, "tombolo.toml").unwrap();
        AppSource { folder, manifest }
    }

    pub async fn start(&self, apps: Vec<AppSource>) -> Result<Running, StartError> {
        let config = self.config();
        let node = Node::start(NodeOptions {
            config,
            apps,
            dev: false,
        })
        .await?;
        let (handle, telemetry) = (node.handle(), node.telemetry().clone());
        let stop = Stop::default();
        let shutdown = stop.drain.clone();
        let task = tokio::spawn(node.run(stop));
        let client = Client::new(self.address().unwrap());
        Ok(Running {
            handle,
            telemetry,
            client,
            shutdown,
            task,
        })
    }

    /// What commands in the folder find the node by.
    pub fn address(&self) -> Option<Address> {
        Address::read(&self.path().join("store")).ok()
    }
}

pub struct Running {
    pub handle: NodeHandle,
    pub telemetry: Telemetry,
    pub client: Client,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub fn http(&self) -> SocketAddr {
        self.handle.http_addrs()[0]
    }

    pub async fn get(&self, path: &str) -> u16 {
        Connection::open(self.http()).await.get(path).await
    }

    /// What the admin listener answers to a request of anybody.
    pub async fn admin(&self, request: Request<Empty<Bytes>>) -> Response<Bytes> {
        Connection::open(self.handle.admin_addr())
            .await
            .send(request)
            .await
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// One kept-alive HTTP/1.1 connection.
pub struct Connection(SendRequest<Empty<Bytes>>);

impl Connection {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        // It ends with its sender; what breaks it is told there.
        tokio::spawn(connection);
        Self(sender)
    }

    pub async fn get(&mut self, path: &str) -> u16 {
        let request = Request::get(path).body(Empty::new()).unwrap();
        self.send(request).await.status().as_u16()
    }

    pub async fn send(&mut self, mut request: Request<Empty<Bytes>>) -> Response<Bytes> {
        request
            .headers_mut()
            .insert("host", "node.example".parse().unwrap());
        self.0.ready().await.unwrap();
        let (head, body) = self.0.send_request(request).await.unwrap().into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }
}
