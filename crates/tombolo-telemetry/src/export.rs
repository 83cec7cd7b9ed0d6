//! Sends finished spans to the OTLP collector (protobuf over HTTP), in batches, from a bounded queue.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri, uri::Scheme};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use opentelemetry::KeyValue;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    ExporterBuildError, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{TelemetryOptions, name};

/// Spans that wait to be exported; more are dropped and counted.
const QUEUE_SPANS_MAX: usize = 4096;
const BATCH_SPANS_MAX: usize = 512;
/// How long a span waits for others to share its batch.
const BATCH_DELAY: Duration = Duration::from_secs(1);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses between the attempts to export one batch.
const RETRY_PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];
/// How long the last spans may take at shutdown.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("`{0}` is not the address of an OTLP collector; it looks like http://127.0.0.1:4318")]
    Endpoint(String),
    #[error(
        "`{0}` is a collector behind TLS, which is not supported; name one that takes plain http, such as an agent on this machine that passes on to it"
    )]
    Tls(String),
    #[error("the exporter of traces cannot be made")]
    Exporter(#[from] ExporterBuildError),
}

type Queue = mpsc::Sender<Box<SpanData>>;

/// The part of telemetry that runs: without it, spans stay in their queue.
#[derive(Debug)]
pub struct TelemetryService {
    exporter: Option<(SpanExporter, mpsc::Receiver<Box<SpanData>>)>,
    dropped: Arc<AtomicU64>,
}

pub(crate) fn start(
    options: &TelemetryOptions,
    node: &str,
    dropped: Arc<AtomicU64>,
) -> Result<(Option<Queue>, TelemetryService), StartError> {
    let from_environment = |variable: &str| std::env::var(variable).ok();
    let Some(endpoint) = endpoint(options.otlp.as_deref(), from_environment)? else {
        return Ok((
            None,
            TelemetryService {
                exporter: None,
                dropped,
            },
        ));
    };
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Client)
        // The library's retries block the thread; ours do not.
        .with_retry_policy(RetryPolicy::disabled())
        .with_timeout(EXPORT_TIMEOUT)
        .with_endpoint(endpoint.to_string())
        .build()?;
    let resource = Resource::builder_empty().with_attributes([
        KeyValue::new(name::SERVICE_NAME, "tombolo"),
        KeyValue::new(name::SERVICE_VERSION, env!("CARGO_PKG_VERSION")),
        KeyValue::new(name::SERVICE_INSTANCE_ID, node.to_owned()),
    ]);
    exporter.set_resource(&resource.build());
    let (sender, receiver) = mpsc::channel(QUEUE_SPANS_MAX);
    Ok((
        Some(sender),
        TelemetryService {
            exporter: Some((exporter, receiver)),
            dropped,
        },
    ))
}

/// Where traces go: the config's address, else the environment's, by the rules of
/// <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>.
fn endpoint(
    config: Option<&str>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<Uri>, StartError> {
    let set = |variable| environment(variable).filter(|value| !value.is_empty());
    let below = |base: &str| format!("{}/v1/traces", base.trim_end_matches('/'));
    let url = config
        .map(below)
        .or_else(|| set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))
        .or_else(|| set("OTEL_EXPORTER_OTLP_ENDPOINT").map(|base| below(&base)));
    let Some(url) = url else { return Ok(None) };
    match url.parse::<Uri>() {
        Ok(uri) if uri.scheme() == Some(&Scheme::HTTP) && uri.host().is_some() => Ok(Some(uri)),
        Ok(uri) if uri.scheme() == Some(&Scheme::HTTPS) => Err(StartError::Tls(url)),
        _ => Err(StartError::Endpoint(url)),
    }
}

impl TelemetryService {
    /// Exports spans until `shutdown`, then what is still in the queue, for at most five seconds.
    pub async fn run(self, shutdown: CancellationToken) {
        let Some((exporter, receiver)) = self.exporter else {
            return shutdown.cancelled().await;
        };
        let mut worker = Worker {
            exporter,
            receiver,
            dropped: self.dropped,
            failing: false,
        };
        let too_late = async {
            shutdown.cancelled().await;
            tokio::time::sleep(FLUSH_TIMEOUT).await;
        };
        tokio::select! {
            () = worker.work(&shutdown) => {}
            // The process ends: what the collector did not take until now is lost.
            () = too_late => tracing::warn!("the collector did not take the last spans in time"),
        }
    }
}

struct Worker {
    exporter: SpanExporter,
    receiver: mpsc::Receiver<Box<SpanData>>,
    dropped: Arc<AtomicU64>,
    /// Whether the last export failed: only changes are logged.
    failing: bool,
}

impl Worker {
    async fn work(&mut self, shutdown: &CancellationToken) {
        loop {
            let batch = self.collect(shutdown).await;
            if batch.is_empty() {
                return;
            }
            self.export(batch).await;
        }
    }

    /// The next batch: full, or as old as a batch may be. Empty only when `shutdown` was told and nothing is left.
    async fn collect(&mut self, shutdown: &CancellationToken) -> Vec<SpanData> {
        let mut batch = Vec::new();
        let Some(first) = self.next(shutdown).await else {
            return batch;
        };
        batch.push(*first);
        let delay = tokio::time::sleep(BATCH_DELAY);
        tokio::pin!(delay);
        while batch.len() < BATCH_SPANS_MAX {
            tokio::select! {
                // Cancel-safe: a span that `recv` has not returned stays in the queue.
                span = self.next(shutdown) => match span {
                    Some(span) => batch.push(*span),
                    None => break,
                },
                () = &mut delay => break,
            }
        }
        batch
    }

    async fn next(&mut self, shutdown: &CancellationToken) -> Option<Box<SpanData>> {
        tokio::select! {
            // What is queued goes before the shutdown.
            biased;
            span = self.receiver.recv() => span,
            () = shutdown.cancelled() => None,
        }
    }

    async fn export(&mut self, batch: Vec<SpanData>) {
        let mut pauses = RETRY_PAUSES.iter();
        let error = loop {
            match self.exporter.export(batch.clone()).await {
                Ok(()) => {
                    self.failing = false;
                    return;
                }
                Err(error) => match pauses.next() {
                    Some(pause) => tokio::time::sleep(*pause).await,
                    None => break error,
                },
            }
        };
        self.dropped
            .fetch_add(batch.len() as u64, Ordering::Relaxed);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(error = %error, "the collector does not take spans");
        }
    }
}

/// One HTTP/1.1 connection for each batch: at most one a second, and nothing to keep alive.
#[derive(Debug)]
struct Client;

impl HttpClient for Client {
    fn send_bytes<'client, 'answer>(
        &'client self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'answer>>
    where
        'client: 'answer,
        Self: 'answer,
    {
        Box::pin(async move { tokio::time::timeout(EXPORT_TIMEOUT, exchange(request)).await? })
    }
}

async fn exchange(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (mut head, body) = request.into_parts();
    let authority = head.uri.authority().ok_or("the URL has no host")?.clone();
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
    head.headers
        .insert(http::header::HOST, authority.as_str().parse()?);
    head.uri = head
        .uri
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .parse()?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answer = async move {
        let response = sender
            .send_request(Request::from_parts(head, Full::new(body)))
            .await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await?
            .to_bytes();
        Ok(Response::from_parts(head, body))
    };
    // The connection ends when `answer` drops its sender; its own error is the answer's, too.
    let (answer, _) = tokio::join!(answer, connection);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(config: Option<&str>, environment: &[(&str, &str)]) -> Option<String> {
        let look_up = |name: &str| {
            let entry = environment.iter().find(|(key, _)| *key == name);
            entry.map(|(_, value)| (*value).to_owned())
        };
        endpoint(config, look_up)
            .unwrap()
            .map(|uri| uri.to_string())
    }

    #[test]
    fn the_config_goes_before_the_environment() {
        let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:1/")];
        assert_eq!(
            resolve(Some("http://a:4318"), &environment).unwrap(),
            "http://a:4318/v1/traces"
        );
        assert_eq!(resolve(None, &environment).unwrap(), "http://b:1/v1/traces");
        let traces = [
            environment[0],
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:2/x"),
        ];
        assert_eq!(resolve(None, &traces).unwrap(), "http://c:2/x");
        assert_eq!(resolve(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), None);
    }

    #[test]
    fn only_plain_http_collectors_are_taken() {
        for bad in ["https://a:4318", "a:4318", "/x", "http://"] {
            assert!(endpoint(Some(bad), |_| None).is_err(), "{bad}");
        }
        let tls = endpoint(Some("https://a:4318"), |_| None).unwrap_err();
        assert!(tls.to_string().contains("TLS"), "{tls}");
    }
}
