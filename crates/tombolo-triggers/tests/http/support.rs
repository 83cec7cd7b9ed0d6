//! A listener with small functions behind it, and the clients that ask it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on shall stop"
)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tombolo_core::{
    AnswerDeadline, Blame, Body, BodyError, Call, Code, Failure, FunctionId, Invoke, InvokeFuture,
    Limit,
};
use tombolo_manifest::{HttpConfig, Tier};
use tombolo_telemetry::{Telemetry, TelemetryOptions};
use tombolo_triggers::http::{HttpServer, HttpService, RouteEntry, RouteTarget, Routes};

/// The functions of the tests, chosen by the first segment of the path.
pub struct Functions {
    /// Hears of every invocation, or of every endless answer, that was dropped before its end.
    dropped: mpsc::Sender<()>,
}

impl Invoke for Functions {
    fn invoke(&self, call: Call) -> InvokeFuture {
        Box::pin(run(call, self.dropped.clone()))
    }
}

async fn run(call: Call, dropped: mpsc::Sender<()>) -> Result<Response<Body>, Failure> {
    let request = call.request;
    let path = request.uri().path().to_owned();
    match path.split('/').nth(1).unwrap_or_default() {
        "hello" => Ok(Response::new(full("hello"))),
        "sized" => Ok(Response::builder()
            .header("content-length", 5)
            .body(full("hello"))
            .unwrap()),
        "headers" => Ok(Response::new(full(&listed(request.headers())))),
        "context" => {
            let context = call.context;
            let text = format!(
                "{} {} {:?}",
                context.trace, context.request_id, context.client
            );
            Ok(Response::new(full(&text)))
        }
        "echo" => Ok(Response::builder()
            .header("trailer", "x-sum")
            .body(request.into_body())
            .unwrap()),
        "sink" => match request.into_body().collect().await {
            Ok(body) => {
                let trailers = body.trailers().map(listed).unwrap_or_default();
                Ok(Response::new(full(&format!(
                    "{}\n{trailers}",
                    body.to_bytes().len()
                ))))
            }
            // As a function that does not expect its body to break.
            Err(_) => Err(Failure::new(
                Code::Trap,
                Blame::Guest,
                "the function trapped",
            )),
        },
        "deaf" => {
            std::future::pending::<()>().await;
            drop(request);
            unreachable!()
        }
        "slow" => {
            tokio::time::sleep(Duration::from_millis(30)).await;
            Ok(Response::new(chunks(vec![Ok("slo"), Ok("w")])))
        }
        "trailers" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "42".parse().unwrap());
            let frames = [
                Ok(Frame::data(Bytes::from("data"))),
                Ok(Frame::trailers(trailers)),
            ];
            let body = StreamBody::new(stream::iter(frames)).boxed_unsync();
            Ok(Response::builder()
                .header("trailer", "x-sum")
                .body(body)
                .unwrap())
        }
        "cut" => Ok(Response::new(chunks(vec![Ok("half"), Err(())]))),
        "short" => Ok(Response::builder()
            .header("content-length", 10)
            .body(full("hello"))
            .unwrap()),
        "empty" => Ok(Response::builder()
            .header("content-length", 10)
            .body(full(""))
            .unwrap()),
        "endless" => Ok(Response::new(Endless(Guard(dropped)).boxed_unsync())),
        "unread" => {
            let mut response = Response::new(Endless(Guard(dropped)).boxed_unsync());
            let deadline = std::time::Instant::now() + Duration::from_millis(100);
            response.extensions_mut().insert(AnswerDeadline(deadline));
            Ok(response)
        }
        "never" => {
            let _guard = Guard(dropped);
            std::future::pending().await
        }
        "busy" => Err(Failure::new(Code::Busy, Blame::Host, "as many as allowed")
            .limit(Limit::Concurrency)
            .retry_after(Duration::from_millis(100))),
        "trap" => Err(Failure {
            backtrace: Some("0: signal::plan".into()),
            ..Failure::new(Code::Trap, Blame::Guest, "the function trapped")
        }),
        "informational" => Ok(Response::builder()
            .status(StatusCode::PROCESSING)
            .body(full(""))
            .unwrap()),
        other => panic!("no function {other}"),
    }
}

fn listed(headers: &HeaderMap) -> String {
    let line = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        format!("{name}: {}\n", value.to_str().unwrap())
    };
    headers.iter().map(line).collect()
}

fn full(text: &str) -> Body {
    let whole = Full::new(Bytes::copy_from_slice(text.as_bytes()));
    whole
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

fn chunks(parts: Vec<Result<&'static str, ()>>) -> Body {
    let frames = parts.into_iter().map(|part| match part {
        Ok(text) => Ok(Frame::data(Bytes::from(text))),
        Err(()) => Err(BodyError::from(Failure::new(
            Code::Trap,
            Blame::Guest,
            "the function trapped",
        ))),
    });
    StreamBody::new(stream::iter(frames.collect::<Vec<_>>())).boxed_unsync()
}

struct Guard(mpsc::Sender<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}

/// A body that always has more.
struct Endless(#[expect(dead_code, reason = "it tells of its end")] Guard);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 4096])))))
    }
}

/// A running listener.
pub struct Server {
    pub address: SocketAddr,
    pub routes: watch::Sender<Arc<Routes>>,
    pub telemetry: Telemetry,
    pub dropped: mpsc::Receiver<()>,
    pub shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

pub fn config() -> HttpConfig {
    HttpConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        ..HttpConfig::default()
    }
}

pub fn function_route(route: &str) -> RouteEntry {
    let function = FunctionId {
        app: "app".parse().unwrap(),
        function: "f".parse().unwrap(),
    };
    RouteEntry {
        route: route.parse().unwrap(),
        app: "app".parse().unwrap(),
        target: RouteTarget::Function(function),
    }
}

pub fn static_route(route: &str, folder: &Path) -> RouteEntry {
    RouteEntry {
        target: RouteTarget::Static(folder.into()),
        ..function_route(route)
    }
}

impl Server {
    /// All functions, each at its name, by plain TCP.
    pub fn start() -> Self {
        Self::with(config())
    }

    pub fn with(config: HttpConfig) -> Self {
        let names = [
            "hello",
            "sized",
            "headers",
            "context",
            "echo",
            "sink",
            "deaf",
            "slow",
            "trailers",
            "cut",
            "short",
            "empty",
            "endless",
            "unread",
            "never",
            "busy",
            "trap",
            "informational",
        ];
        let routes = names
            .iter()
            .map(|name| function_route(&format!("/{name}/{{*rest}}")));
        Self::with_routes(config, routes.collect(), false)
    }

    pub fn with_routes(config: HttpConfig, routes: Vec<RouteEntry>, verbose: bool) -> Self {
        let options = TelemetryOptions {
            otlp: None,
            sample_ratio: 0.0,
        };
        let (telemetry, _) = Telemetry::start(&options, "node").unwrap();
        let (routes, receiver) = watch::channel(Arc::new(Routes::new(routes).unwrap()));
        let (sender, dropped) = mpsc::channel(64);
        let server = HttpServer::bind(&config).unwrap();
        let address = server.local_addrs()[0];
        let service = HttpService {
            server,
            routes: receiver,
            invoke: Arc::new(Functions { dropped: sender }),
            telemetry: telemetry.clone(),
            node: "harbour".parse().unwrap(),
            tier: Tier::Device,
            verbose,
            cores: 2,
            cut: CancellationToken::new(),
            afterwards: Box::pin(async {}),
        };
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let thread = std::thread::spawn(move || service.run(&token).unwrap());
        Self {
            address,
            routes,
            telemetry,
            dropped,
            shutdown,
            thread: Some(thread),
        }
    }

    /// Waits until the drain is over.
    pub async fn stopped(mut self) {
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(|| thread.join().unwrap())
            .await
            .unwrap();
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Writes these bytes on a new connection and reads until the server closes it.
    pub async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        read_all(&mut stream).await
    }

    pub async fn http1(&self) -> Http1 {
        Http1::new(self.connect().await).await
    }

    pub async fn http2(&self) -> Http2 {
        Http2::new(self.connect().await).await
    }

    /// One GET on a connection of its own.
    pub async fn get(&self, path: &str) -> Answer {
        self.http1().await.send(get(path)).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    String::from_utf8(text).unwrap()
}

/// Reads until `end` is there.
pub async fn read_until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        text.push(char::from(stream.read_u8().await.unwrap()));
    }
    text
}

/// An answer as a whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    pub async fn read(response: Response<Incoming>) -> Result<Self, hyper::Error> {
        let (head, body) = response.into_parts();
        let body = body.collect().await?;
        Ok(Self {
            status: head.status.as_u16(),
            headers: head.headers,
            trailers: body.trailers().cloned(),
            body: body.to_bytes(),
        })
    }

    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts that this is a refusal as the contract demands, and returns it.
    pub fn problem(&self, status: u16, code: Code) -> serde_json::Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["code"], code.to_string());
        assert_eq!(problem["status"], status);
        assert_eq!(problem["request_id"], self.header("x-request-id"));
        assert!(!self.header("traceparent").is_empty());
        problem
    }
}

pub fn get(path: &str) -> Request<Body> {
    Request::builder()
        .uri(path)
        .header("host", "tests")
        .body(full(""))
        .unwrap()
}

pub fn post(path: &str, body: Body) -> Request<Body> {
    Request::post(path)
        .header("host", "tests")
        .body(body)
        .unwrap()
}

/// A body of unknown length whose parts the test sends.
pub fn channel_body() -> (mpsc::Sender<Frame<Bytes>>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let frames = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|frame| (Ok(frame), receiver))
    });
    (sender, StreamBody::new(frames).boxed_unsync())
}

/// A client of HTTP/1.1 on one connection.
pub struct Http1(pub hyper::client::conn::http1::SendRequest<Body>);

impl Http1 {
    pub async fn new(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let io = TokioIo::new(stream);
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub async fn send(&mut self, request: Request<Body>) -> Result<Answer, hyper::Error> {
        self.0.ready().await?;
        Answer::read(self.0.send_request(request).await?).await
    }
}

/// A client of HTTP/2 on one connection.
#[derive(Clone)]
pub struct Http2(pub hyper::client::conn::http2::SendRequest<Body>);

impl Http2 {
    pub async fn new(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        Self::with_window(stream, 65_535).await
    }

    pub async fn with_window(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        window_bytes: u32,
    ) -> Self {
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(window_bytes)
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub async fn send(&mut self, mut request: Request<Body>) -> Result<Answer, hyper::Error> {
        let path = request.uri().path_and_query().unwrap().clone();
        *request.uri_mut() = format!("http://tests{path}").parse().unwrap();
        request.headers_mut().remove("host");
        self.0.ready().await?;
        Answer::read(self.0.send_request(request).await?).await
    }
}
