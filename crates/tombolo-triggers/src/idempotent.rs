//! Idempotency keys: whoever comes with the key of an earlier request or event gets its answer, and the function does not run again.
//!
//! A request names its key in the header `Idempotency-Key`
//! (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>), an event in the
//! extension attribute `idempotencykey`. Keys belong to a function and to the credentials of the caller
//! ([`key`]); a request with another target or another body is refused. An answer is kept for a day of
//! the store's life once it is on disk, and only then given: `2xx`, and everything else that
//! another attempt would not change. What asks to be tried again (404, 408, 409, 429, 5xx, no
//! answer at all) is not kept, so that another attempt runs, nor is what depends on who asks or when
//! ([`is_final`]).
//!
//! A function that was called with a key finishes, and its answer is kept, although the caller goes away.
//!
//! With the effects of a transactional invocation the answer is committed as they are: its work counts once for each
//! key. Else the function may run twice for one key where the node stops between the function's work and the
//! storing of its answer, where an answer is too long to be kept, and where the disk is full.

mod fingerprint;
mod key;

use std::collections::HashSet;
use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use serde::{Deserialize, Serialize};
use tokio_util::task::TaskTracker;
use tombolo_core::{Blame, Body, Call, Code, Failure, FunctionId, Invoke, InvokeFuture};
use tombolo_store::{ANSWER_BYTES_MAX, Answer, Effects, Journal, StoreError, Transaction};

use fingerprint::{Fingerprint, Reading};

/// Marks an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// What of an answer the head may take.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// The version of a stored answer.
const VERSION: u8 = 2;

/// Runs functions, but not again for a key that was answered.
pub struct Idempotent {
    inner: Arc<dyn Invoke>,
    journal: Journal,
    running: Arc<Mutex<Running>>,
    /// The invocations with a key: each has a place of its function, or waits for one.
    tasks: TaskTracker,
}

/// The keys whose functions are running: as many as there are invocations at most.
type Running = HashSet<(FunctionId, String)>;

impl Idempotent {
    /// What runs functions, with answers kept in a journal.
    pub fn new(inner: Arc<dyn Invoke>, journal: Journal) -> Self {
        Self {
            inner,
            journal,
            running: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Waits until what was called with a key has ended and its answer is kept. Dropping the runtimes on which it
    /// was called cuts it.
    pub async fn drain(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Invoke for Idempotent {
    fn invoke(&self, call: Call) -> InvokeFuture {
        let key = match key::of(&call) {
            Ok(None) => return self.inner.invoke(call),
            Ok(Some(key)) => key,
            Err(failure) => return Box::pin(ready(Err(failure))),
        };
        let Some(claim) = Claim::take(&self.running, &call.function, &key) else {
            let detail = "a request with this idempotency key is being worked on";
            let failure = Failure::new(Code::Conflict, Blame::Caller, detail);
            return Box::pin(ready(Err(failure.retry_after(Duration::from_secs(1)))));
        };
        let target = target(&call);
        match self.journal.answer(&call.function, &key) {
            Ok(stored) => {
                if let Some(stored) = stored.and_then(|stored| Stored::read(&stored)) {
                    return Box::pin(stored.replay(target, call.request.into_body()));
                }
            }
            Err(error) => {
                let detail = format!("stored answers cannot be read: {error}");
                let failure = Failure::new(error.code(), Blame::Host, detail);
                return Box::pin(ready(Err(failure)));
            }
        }
        let function = call.function.clone();
        let keeper = match call.request.extensions().get::<Effects>() {
            Some(effects) => Keeper::Effects(effects.clone()),
            None => Keeper::Journal(self.journal.clone()),
        };
        let (head, body) = call.request.into_parts();
        let (body, reading) = Reading::of(body);
        let request = Request::from_parts(head, body);
        let answering = self.inner.invoke(Call { request, ..call });
        let work = async move {
            let answer = answering.await?;
            let mut kept = keep(&keeper, function, key, (target, reading), answer).await?;
            if let Keeper::Effects(_) = keeper {
                // Nobody else runs for the key until whoever commits the effects has done so.
                kept.extensions_mut().insert(Arc::new(claim));
            }
            Ok(kept)
        };
        let tasks = self.tasks.clone();
        Box::pin(async move {
            // Whoever waits may go; the task ends within the limits of the invocation all the same.
            tasks.spawn(work).await.unwrap_or_else(|error| {
                let detail = format!("the invocation was cut: {error}");
                Err(Failure::new(Code::HostError, Blame::Host, detail))
            })
        })
    }
}

/// Where an answer is kept.
enum Keeper {
    Journal(Journal),
    /// With all else that the invocation does.
    Effects(Effects),
}

impl Keeper {
    async fn keep(&self, answer: Answer) -> Result<(), StoreError> {
        match self {
            Self::Journal(journal) => {
                let committed = journal.commit(Transaction {
                    answers: vec![answer],
                    ..Transaction::default()
                });
                committed.await.map(drop)
            }
            Self::Effects(effects) => effects.answer(answer),
        }
    }
}

/// Stores an answer if it is final, and gives it on.
async fn keep(
    keeper: &Keeper,
    function: FunctionId,
    key: String,
    (target, reading): (String, Reading),
    answer: Response<Body>,
) -> Result<Response<Body>, Failure> {
    if !is_final(answer.status()) {
        return Ok(answer);
    }
    let (head, body) = answer.into_parts();
    let headers = head.headers.iter();
    let headers =
        headers.filter(|(name, _)| **name != CONTENT_LENGTH && **name != TRANSFER_ENCODING);
    let headers =
        headers.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    let headers = headers.collect();
    let (whole, body) = match read(body).await? {
        Read::Whole(bytes, body) => (bytes, body),
        Read::TooLong(body) => {
            tracing::warn!(%function, "an answer is too long to be kept for its idempotency key");
            return Ok(Response::from_parts(head, body));
        }
    };
    let Some(read) = reading.fingerprint() else {
        return Ok(Response::from_parts(head, body));
    };
    let stored = Stored {
        version: VERSION,
        target,
        read,
        status: head.status.as_u16(),
        headers,
        body: whole.into(),
    };
    let encoded = postcard::to_stdvec(&stored).unwrap_or_default();
    let answer = Answer {
        function: function.clone(),
        key,
        answer: encoded.into(),
    };
    if let Err(error) = keeper.keep(answer).await {
        // The function has done its work: an error would have it done again.
        tracing::warn!(%function, %error, "an answer cannot be kept for its idempotency key");
    }
    Ok(Response::from_parts(head, body))
}

/// Whether an answer is kept: not where the same request may be answered otherwise later, or with other credentials.
fn is_final(status: StatusCode) -> bool {
    !may_change(status) && !matches!(status.as_u16(), 401 | 402 | 403 | 407 | 423 | 425)
}

/// Whether another attempt may be answered otherwise: the table of the delivery contract.
pub(crate) fn may_change(status: StatusCode) -> bool {
    matches!(status.as_u16(), 404 | 408 | 409 | 429 | 500..=599)
}

/// An answer's body.
enum Read {
    /// All of it, and the same with its trailers.
    Whole(Bytes, Body),
    /// It is too long to be kept.
    TooLong(Body),
}

async fn read(mut body: Body) -> Result<Read, Failure> {
    let mut whole = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let detail = format!("the answer broke off: {error}");
            Failure::new(Code::AnswerInvalid, Blame::Guest, detail)
        })?;
        match frame.into_data() {
            Ok(data) if whole.len() + data.len() > ANSWER_BYTES_MAX - HEAD_BYTES_MAX => {
                let begin = [whole.freeze(), data].map(|bytes| Ok(Frame::data(bytes)));
                let begin = StreamBody::new(stream::iter(begin));
                return Ok(Read::TooLong(chained(begin.boxed_unsync(), body)));
            }
            Ok(data) => whole.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let whole = whole.freeze();
    let body = Full::new(whole.clone()).map_err(|never| match never {});
    let trailers = trailers.map(Ok);
    let body = body
        .with_trailers(std::future::ready(trailers))
        .boxed_unsync();
    Ok(Read::Whole(whole, body))
}

/// One body behind another.
fn chained(first: Body, then: Body) -> Body {
    use futures_util::StreamExt as _;
    let frames = first.into_data_stream().map(|data| data.map(Frame::data));
    let frames = frames.chain(http_body_util::BodyStream::new(then));
    StreamBody::new(frames).boxed_unsync()
}

/// An answer as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u8,
    /// Method, path and query of the request.
    target: String,
    /// And its body, as far as the function has read it.
    read: Fingerprint,
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Stored {
    /// None when it is of a version that is not known.
    fn read(stored: &[u8]) -> Option<Self> {
        let stored: Self = postcard::from_bytes(stored).ok()?;
        (stored.version == VERSION).then_some(stored)
    }

    /// Gives the answer again, if the request is the one that it was given to.
    async fn replay(self, target: String, body: Body) -> Result<Response<Body>, Failure> {
        let reused = |than: &str| {
            let detail = format!("the idempotency key was used before, {than}");
            Err(Failure::new(Code::KeyReused, Blame::Caller, detail))
        };
        if self.target != target {
            return reused(&format!("for `{}`", self.target));
        }
        if !self.read.is_of(body).await? {
            return reused("with another body");
        }
        self.response().ok_or_else(|| {
            let detail = "a stored answer cannot be given again";
            Failure::new(Code::HostError, Blame::Host, detail)
        })
    }

    fn response(self) -> Option<Response<Body>> {
        let body = Full::new(Bytes::from(self.body)).map_err(|never| match never {});
        let mut response = Response::new(body.boxed_unsync());
        *response.status_mut() = StatusCode::from_u16(self.status).ok()?;
        let headers = response.headers_mut();
        for (name, value) in self.headers {
            headers.append(
                HeaderName::try_from(name).ok()?,
                HeaderValue::try_from(value).ok()?,
            );
        }
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
        Some(response)
    }
}

/// What of a request has to be the same for the same key.
fn target(call: &Call) -> String {
    let uri = call.request.uri();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    format!("{} {path}", call.request.method())
}

/// The right to run a function for a key; given back when it is dropped.
struct Claim {
    running: Arc<Mutex<Running>>,
    claimed: (FunctionId, String),
}

impl Claim {
    fn take(running: &Arc<Mutex<Running>>, function: &FunctionId, key: &str) -> Option<Self> {
        let claimed = (function.clone(), key.to_owned());
        let mut all = running.lock().unwrap_or_else(PoisonError::into_inner);
        let is_free = all.insert(claimed.clone());
        // Made only where it is due: what it gives back when it is dropped must be its own.
        is_free.then(|| Self {
            running: running.clone(),
            claimed,
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.claimed);
    }
}
