//! An HTTP client that tells a whole answer from one that was cut, and can talk while it listens.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context as Task, Poll};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

type RequestBody = BoxBody<Bytes, std::convert::Infallible>;

/// Where and how to ask. Every request has a connection of its own.
#[derive(Clone, Copy)]
pub struct Client {
    address: SocketAddr,
    http2: bool,
}

/// An answer as far as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
    /// False when the answer was cut before its end.
    pub whole: bool,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as problem+json (RFC 9457); fails when it is something else.
    pub fn problem(&self) -> Result<serde_json::Value> {
        let content_type = self.headers.get(http::header::CONTENT_TYPE);
        if content_type.is_none_or(|value| value != "application/problem+json") {
            bail!("{} with {content_type:?}: {}", self.status, self.text());
        }
        Ok(serde_json::from_slice(&self.body)?)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A whole body.
pub fn body(bytes: impl Into<Bytes>) -> RequestBody {
    Full::new(bytes.into()).boxed()
}

impl Client {
    pub fn http1(address: SocketAddr) -> Self {
        Self {
            address,
            http2: false,
        }
    }

    pub fn http2(address: SocketAddr) -> Self {
        Self {
            address,
            http2: true,
        }
    }

    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Request::get(path).body(body(""))?).await
    }

    pub async fn post(&self, path: &str, bytes: impl Into<Bytes>) -> Result<Answer> {
        self.send(Request::post(path).body(body(bytes))?).await
    }

    /// Sends a request and reads the answer to its end, or to where it breaks.
    pub async fn send(&self, request: Request<RequestBody>) -> Result<Answer> {
        let (response, connection) = self.begin(request).await?;
        let (head, mut incoming) = response.into_parts();
        let mut answer = Answer {
            status: head.status,
            headers: head.headers,
            body: Vec::new(),
            trailers: HeaderMap::new(),
            whole: true,
        };
        while let Some(frame) = incoming.frame().await {
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => answer.body.extend_from_slice(&data),
                Ok(Err(other)) => answer
                    .trailers
                    .extend(other.into_trailers().unwrap_or_default()),
                Err(_) => {
                    answer.whole = false;
                    break;
                }
            }
        }
        connection.abort();
        Ok(answer)
    }

    /// Announces a body of so many bytes, and reads the answer without ever sending it.
    pub async fn announce(&self, path: &str, length: u64) -> Result<Answer> {
        let (_pieces, receiver) = mpsc::channel(1);
        let request = Request::post(path).header(http::header::CONTENT_LENGTH, length);
        self.send(request.body(Pieces(receiver).boxed())?).await
    }

    /// Begins a request whose body is sent piece by piece, and reads the head of the answer.
    pub async fn converse(&self, path: &str, first: &'static str) -> Result<Conversation> {
        let (pieces, receiver) = mpsc::channel(16);
        pieces.send(Bytes::from_static(first.as_bytes())).await?;
        let request = Request::post(path).body(Pieces(receiver).boxed())?;
        let (response, connection) = self.begin(request).await?;
        Ok(Conversation {
            status: response.status(),
            pieces: Some(pieces),
            incoming: response.into_body(),
            connection,
        })
    }

    async fn begin(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, JoinHandle<()>)> {
        let stream = TcpStream::connect(self.address)
            .await
            .with_context(|| format!("nobody listens at {}", self.address))?;
        let stream = TokioIo::new(stream);
        let authority = self.address.to_string();
        if self.http2 {
            let path = request
                .uri()
                .path_and_query()
                .map_or("/", |path| path.as_str());
            *request.uri_mut() = format!("http://{authority}{path}").parse()?;
            let executor = TokioExecutor::new();
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(executor, stream).await?;
            let connection = tokio::spawn(async move { drop(connection.await) });
            return Ok((sender.send_request(request).await?, connection));
        }
        let headers = request.headers_mut();
        if !headers.contains_key(http::header::HOST) {
            headers.insert(http::header::HOST, authority.parse()?);
        }
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        let connection = tokio::spawn(async move { drop(connection.await) });
        Ok((sender.send_request(request).await?, connection))
    }
}

/// A request and its answer, both under way.
pub struct Conversation {
    pub status: StatusCode,
    pieces: Option<mpsc::Sender<Bytes>>,
    incoming: Incoming,
    connection: JoinHandle<()>,
}

impl Conversation {
    /// Sends a piece of the request's body.
    pub async fn say(&self, piece: &'static str) -> Result<()> {
        let pieces = self.pieces.as_ref().context("the body has ended")?;
        pieces.send(Bytes::from_static(piece.as_bytes())).await?;
        Ok(())
    }

    /// Reads until so many bytes of the answer's body have come.
    pub async fn hear(&mut self, length: usize) -> Result<String> {
        let mut heard = Vec::new();
        while heard.len() < length {
            let frame = self
                .incoming
                .frame()
                .await
                .context("the answer has ended")??;
            heard.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
        Ok(String::from_utf8(heard)?)
    }

    /// Ends the request's body and reads the answer to its end, which must be a whole one.
    pub async fn end(mut self) -> Result<String> {
        self.pieces = None;
        let rest = self.incoming.collect().await?.to_bytes();
        self.connection.abort();
        Ok(String::from_utf8(rest.into())?)
    }
}

struct Pieces(mpsc::Receiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(task)
            .map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}
