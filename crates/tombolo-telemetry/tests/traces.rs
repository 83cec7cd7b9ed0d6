//! Spans reach a real OTLP collector, as a tree, and only when they are sampled.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tombolo_core::{Blame, Code, Failure, TraceContext};
use tombolo_telemetry::{Telemetry, TelemetryOptions, name};

/// A collector that answers the first `refusals` exports with 503 and keeps the rest.
async fn collector(mut refusals: u32) -> (SocketAddr, mpsc::Receiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let refuse = refusals > 0;
            refusals = refusals.saturating_sub(1);
            let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| async {
                assert_eq!(request.uri().path(), "/v1/traces");
                assert_eq!(request.headers()["content-type"], "application/x-protobuf");
                let body = request.into_body().collect().await?.to_bytes();
                let mut response = hyper::Response::new(Full::new(Bytes::new()));
                if refuse {
                    *response.status_mut() = hyper::StatusCode::SERVICE_UNAVAILABLE;
                } else {
                    let export = ExportTraceServiceRequest::decode(body).unwrap();
                    sender.send(export).await.unwrap();
                }
                Ok::<_, hyper::Error>(response)
            });
            let connection = hyper::server::conn::http1::Builder::new();
            connection
                .serve_connection(TokioIo::new(stream), service)
                .await
                .unwrap();
        }
    });
    (address, receiver)
}

fn options(collector: SocketAddr, sample_ratio: f64) -> TelemetryOptions {
    TelemetryOptions {
        otlp: Some(format!("http://{collector}")),
        sample_ratio,
    }
}

fn spans(export: &ExportTraceServiceRequest) -> Vec<Span> {
    let scopes = export
        .resource_spans
        .iter()
        .flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| scope.spans.clone()).collect()
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let entry = span.attributes.iter().find(|entry| entry.key == key)?;
    Some(format!("{:?}", entry.value))
}

fn remote(sampled: bool) -> TraceContext {
    TraceContext {
        trace_id: 7,
        span_id: 9,
        sampled,
    }
}

#[tokio::test]
async fn a_request_and_its_invocation_arrive_as_parent_and_child() {
    let (address, mut exports) = collector(0).await;
    let (telemetry, service) = Telemetry::start(&options(address, 0.0), "node-7").unwrap();
    {
        let mut request = telemetry.span(name::SPAN_HTTP, &remote(true), true);
        request.set(name::HTTP_REQUEST_METHOD, "GET");
        let mut invoke = telemetry.span(name::SPAN_INVOKE, &request.context(), false);
        invoke.fail(&Failure::new(Code::Trap, Blame::Guest, "wasm trap"));
    }
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    service.run(shutdown).await;

    let export = exports.recv().await.unwrap();
    let resource = format!("{:?}", export.resource_spans[0].resource);
    assert!(
        resource.contains("node-7") && resource.contains("tombolo"),
        "{resource}"
    );
    let spans = spans(&export);
    let named = |name| spans.iter().find(|span| span.name == name).unwrap();
    let (request, invoke) = (named(name::SPAN_HTTP), named(name::SPAN_INVOKE));
    assert_eq!(request.trace_id, 7u128.to_be_bytes());
    assert_eq!(request.parent_span_id, 9u64.to_be_bytes());
    assert_eq!(invoke.trace_id, request.trace_id);
    assert_eq!(invoke.parent_span_id, request.span_id);
    assert!(
        attribute(request, name::HTTP_REQUEST_METHOD)
            .unwrap()
            .contains("GET")
    );
    assert!(
        attribute(invoke, name::ERROR_TYPE)
            .unwrap()
            .contains("TB0301")
    );
    assert_eq!(invoke.status.as_ref().unwrap().code(), StatusCode::Error);
}

#[tokio::test]
async fn a_trace_that_begins_here_has_a_root_without_parent() {
    let (address, mut exports) = collector(0).await;
    let (telemetry, service) = Telemetry::start(&options(address, 1.0), "node").unwrap();
    let context = telemetry.root();
    drop(telemetry.span(name::SPAN_HTTP, &context, false));
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    service.run(shutdown).await;
    let spans = spans(&exports.recv().await.unwrap());
    assert_eq!(spans[0].trace_id, context.trace_id.to_be_bytes());
    assert!(spans[0].parent_span_id.is_empty(), "{:?}", spans[0]);
}

#[tokio::test]
async fn the_parents_flag_decides_whatever_the_ratio_is() {
    let (address, mut exports) = collector(0).await;
    let (telemetry, service) = Telemetry::start(&options(address, 1.0), "node").unwrap();
    let unsampled = telemetry.span("unsampled", &remote(false), true);
    assert!(!unsampled.is_recording() && !unsampled.context().sampled);
    drop(unsampled);
    drop(telemetry.span("sampled", &remote(true), true));
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    service.run(shutdown).await;
    let spans = spans(&exports.recv().await.unwrap());
    assert_eq!(
        spans
            .iter()
            .map(|span| span.name.as_str())
            .collect::<Vec<_>>(),
        ["sampled"]
    );
}

#[tokio::test]
async fn a_collector_that_refuses_once_gets_the_spans_again() {
    let (address, mut exports) = collector(1).await;
    let (telemetry, service) = Telemetry::start(&options(address, 1.0), "node").unwrap();
    drop(telemetry.span("again", &telemetry.root(), false));
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(service.run(shutdown.clone()));
    assert_eq!(spans(&exports.recv().await.unwrap())[0].name, "again");
    shutdown.cancel();
    running.await.unwrap();
    assert!(
        telemetry
            .render_metrics()
            .contains("tombolo_spans_dropped_total 0")
    );
}

#[tokio::test]
async fn spans_beyond_the_queue_are_dropped_and_counted() {
    let (address, _exports) = collector(0).await;
    let (telemetry, _service) = Telemetry::start(&options(address, 1.0), "node").unwrap();
    for _ in 0..5000 {
        drop(telemetry.span("flood", &telemetry.root(), false));
    }
    assert!(
        telemetry
            .render_metrics()
            .contains("tombolo_spans_dropped_total 904")
    );
}

#[tokio::test]
async fn without_a_collector_no_trace_is_sampled_but_a_callers_flag_is_passed_on() {
    let options = TelemetryOptions {
        otlp: None,
        sample_ratio: 1.0,
    };
    let (telemetry, _service) = Telemetry::start(&options, "node").unwrap();
    assert!(!telemetry.root().sampled);
    let span = telemetry.span("x", &remote(true), true);
    assert!(!span.is_recording());
    assert!(span.context().sampled);
}

#[tokio::test]
async fn a_delivery_is_linked_to_the_spans_that_published_its_events() {
    let (address, mut exports) = collector(0).await;
    let (telemetry, service) = Telemetry::start(&options(address, 0.0), "node").unwrap();
    let published: Vec<TraceContext> = (1..=200)
        .map(|span_id| TraceContext {
            span_id,
            ..remote(span_id == 1)
        })
        .collect();
    let mut span = telemetry.delivery_span(name::SPAN_DELIVERY, &published[0], published.iter());
    span.error("TB0301".into(), "the function trapped");
    drop(span);
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    service.run(shutdown).await;
    let span = &spans(&exports.recv().await.unwrap())[0];
    assert_eq!(span.parent_span_id, 1u64.to_be_bytes());
    assert_eq!(span.links[0].trace_id, 7u128.to_be_bytes());
    assert_eq!(span.links[0].span_id, 1u64.to_be_bytes());
    assert_eq!((span.links.len(), span.dropped_links_count), (128, 72));
    assert_eq!(span.status.as_ref().unwrap().code(), StatusCode::Error);
    assert!(
        attribute(span, name::ERROR_TYPE)
            .unwrap()
            .contains("TB0301")
    );
}
