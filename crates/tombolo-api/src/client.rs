//! The client of the API: one connection for each request, closed when its answer is dropped.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, header, response};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tombolo_core::{Body, Code, FunctionId, QueueId};

use crate::{
    Address, App, DroppedEvent, Function, FunctionSummary, List, LogEntry, LogQuery, Node, Problem,
    Queue, QueuedEvent, Receipt, Selected, Selection, Terms, Trigger,
};
use crate::{invocation, path};

/// The longest answer that is held in memory, and the longest line of a log stream.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Why a request to a node failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no node answers at {admin}")]
    Unreachable {
        admin: String,
        #[source]
        source: std::io::Error,
    },
    #[error("`{0}` is no address of a node")]
    Address(String),
    #[error("the request cannot be sent")]
    Request(#[source] http::Error),
    #[error("the connection to the node broke")]
    Connection(#[from] hyper::Error),
    #[error("the node answered with something else than JSON of the API")]
    Json(#[from] serde_json::Error),
    #[error("the node's answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
}

impl ClientError {
    /// The code in the table of errors.
    pub fn code(&self) -> Code {
        match self {
            Self::Unreachable { .. } | Self::Connection(_) => Code::Unreachable,
            Self::Refused(problem) => problem.code(),
            Self::Address(_) | Self::Request(_) | Self::Json(_) | Self::TooLong => Code::Failed,
        }
    }
}

/// A client of one node.
#[derive(Clone)]
pub struct Client {
    address: Address,
}

impl Client {
    /// A client of the node at this address; nothing is sent yet.
    pub fn new(address: Address) -> Self {
        Self { address }
    }

    /// The node itself.
    pub async fn node(&self) -> Result<Node, ClientError> {
        self.get(path::NODE).await
    }

    /// Every app.
    pub async fn apps(&self) -> Result<List<App>, ClientError> {
        self.get(path::APPS).await
    }

    /// One app.
    pub async fn app(&self, name: &str) -> Result<App, ClientError> {
        self.get(&path::app(name)).await
    }

    /// Every function of every app.
    pub async fn functions(&self) -> Result<List<FunctionSummary>, ClientError> {
        self.get(path::FUNCTIONS).await
    }

    /// One function.
    pub async fn function(&self, id: &FunctionId) -> Result<Function, ClientError> {
        self.get(&path::function(id)).await
    }

    /// Every trigger of every app.
    pub async fn triggers(&self) -> Result<List<Trigger>, ClientError> {
        self.get(path::TRIGGERS).await
    }

    /// Every queue, those included that no app uses and that have events.
    pub async fn queues(&self) -> Result<List<Queue>, ClientError> {
        self.get(path::QUEUES).await
    }

    /// One queue.
    pub async fn queue(&self, id: &QueueId) -> Result<Queue, ClientError> {
        self.get(&path::queue(id)).await
    }

    /// Events of a queue, oldest first, from the first whose number is not below `from`; at most `limit`, fewer
    /// when they are long. Nothing is taken by this.
    pub async fn queue_events(
        &self,
        id: &QueueId,
        from: u64,
        limit: u16,
    ) -> Result<List<QueuedEvent>, ClientError> {
        let path = path::queue_events(id);
        self.get(&format!("{path}?from={from}&limit={limit}")).await
    }

    /// One event of a queue.
    pub async fn queue_event(
        &self,
        id: &QueueId,
        sequence: u64,
    ) -> Result<QueuedEvent, ClientError> {
        self.get(&path::queue_event(id, sequence)).await
    }

    /// The last events that a queue dropped, oldest first.
    pub async fn queue_drops(&self, id: &QueueId) -> Result<List<DroppedEvent>, ClientError> {
        self.get(&path::queue_drops(id)).await
    }

    /// Sends CloudEvents to a queue: headers and body of any mode of HTTP.
    pub async fn send_events(
        &self,
        id: &QueueId,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Receipt, ClientError> {
        self.post(&path::queue_events(id), headers, body).await
    }

    /// The same, on terms of the sender's.
    pub async fn send_events_on(
        &self,
        id: &QueueId,
        terms: &Terms,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Receipt, ClientError> {
        let path = format!("{}?{}", path::queue_events(id), terms.to_query());
        self.post(&path, headers, body).await
    }

    /// Sends CloudEvents to a function, which receives them later: an asynchronous invocation.
    pub async fn invoke_later(
        &self,
        id: &FunctionId,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Receipt, ClientError> {
        self.post(&path::function_events(id), headers, body).await
    }

    /// Publishes dead letters again in the queue that they came from.
    pub async fn redrive(
        &self,
        id: &QueueId,
        selection: &Selection,
    ) -> Result<Selected, ClientError> {
        self.select(&path::queue_redrive(id), selection).await
    }

    /// Removes events of a queue.
    pub async fn purge(
        &self,
        id: &QueueId,
        selection: &Selection,
    ) -> Result<Selected, ClientError> {
        self.select(&path::queue_purge(id), selection).await
    }

    /// The entries that the query selects.
    pub async fn logs(&self, query: &LogQuery) -> Result<LogStream, ClientError> {
        let request = Request::get(format!("{}?{}", path::LOGS, query.to_query()))
            .body(Empty::new())
            .map_err(ClientError::Request)?;
        let answer = self.send(request).await?.refused().await?;
        Ok(LogStream {
            answer,
            buffer: BytesMut::new(),
        })
    }

    /// Runs a function for one request; the answer is the function's, or the failure of the invocation.
    pub async fn invoke(
        &self,
        id: &FunctionId,
        request: Request<Body>,
    ) -> Result<Answer, ClientError> {
        let request =
            invocation::encode(request, &path::invoke(id)).map_err(ClientError::Request)?;
        let answer = self.send(request).await?;
        if answer.head.headers.contains_key(invocation::ANSWERED) {
            return Ok(answer);
        }
        answer.refused().await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let request = Request::get(path)
            .body(Empty::new())
            .map_err(ClientError::Request)?;
        let answer = self.send(request).await?.refused().await?;
        Ok(serde_json::from_slice(&answer.bytes().await?)?)
    }

    async fn select<T: DeserializeOwned>(
        &self,
        path: &str,
        selection: &impl Serialize,
    ) -> Result<T, ClientError> {
        let mut headers = HeaderMap::new();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        let body = serde_json::to_vec(selection)?;
        self.post(path, headers, body.into()).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let mut request = Request::post(path)
            .body(Full::new(body))
            .map_err(ClientError::Request)?;
        *request.headers_mut() = headers;
        let answer = self.send(request).await?.refused().await?;
        Ok(serde_json::from_slice(&answer.bytes().await?)?)
    }

    async fn send<B>(&self, mut request: Request<B>) -> Result<Answer, ClientError>
    where
        B: http_body_util::BodyExt<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let admin = &self.address.admin;
        let authority = admin
            .strip_prefix("http://")
            .ok_or_else(|| ClientError::Address(admin.clone()))?
            .trim_end_matches('/');
        let headers = request.headers_mut();
        for (name, value) in [
            (header::HOST, authority.to_owned()),
            (
                header::AUTHORIZATION,
                format!("Bearer {}", self.address.token),
            ),
        ] {
            let value = value
                .parse()
                .map_err(|error| ClientError::Request(http::Error::from(error)))?;
            headers.insert(name, value);
        }
        let stream =
            TcpStream::connect(authority)
                .await
                .map_err(|source| ClientError::Unreachable {
                    admin: admin.clone(),
                    source,
                })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            // What breaks the connection is told to whoever reads the answer.
            let _ = connection.await;
        });
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok(Answer {
            head,
            body,
            _connection: task,
        })
    }
}

/// An answer whose body is still under way; dropping it closes the connection.
#[derive(Debug)]
pub struct Answer {
    /// Status and headers.
    pub head: response::Parts,
    body: Incoming,
    _connection: JoinSet<()>,
}

impl Answer {
    /// The next piece of the body; none at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The whole body.
    pub async fn bytes(mut self) -> Result<Bytes, ClientError> {
        let mut whole = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if whole.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(ClientError::TooLong);
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    /// Takes an answer that is no success for an error.
    async fn refused(self) -> Result<Self, ClientError> {
        if self.head.status.is_success() {
            return Ok(self);
        }
        let status = self.head.status;
        let body = self.bytes().await?;
        let problem = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Problem::new(Code::Failed, format!("the node answered {status}")));
        Err(ClientError::Refused(Box::new(problem)))
    }
}

/// Log entries as they come.
#[derive(Debug)]
pub struct LogStream {
    answer: Answer,
    buffer: BytesMut,
}

impl LogStream {
    /// The next entry; none when the stream has ended.
    pub async fn next(&mut self) -> Result<Option<LogEntry>, ClientError> {
        loop {
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                if !line.trim_ascii().is_empty() {
                    return Ok(Some(serde_json::from_slice(&line)?));
                }
            }
            if self.buffer.len() > ANSWER_BYTES_MAX {
                return Err(ClientError::TooLong);
            }
            match self.answer.chunk().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None if self.buffer.trim_ascii().is_empty() => return Ok(None),
                None => {
                    let rest = self.buffer.split();
                    return Ok(Some(serde_json::from_slice(&rest)?));
                }
            }
        }
    }
}
