//! The client against a real server: success, refusals, streams of log entries and invocations.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tombolo_api::path::{self, Endpoint};
use tombolo_api::{Address, Client, ClientError, LogQuery, Problem, invocation};
use tombolo_core::{Code, FunctionId};

const ENTRY: &str = r#"{"time":"2026-01-31T12:00:00.000Z","app":"a","function":"f","stream":"stdout","level":"info","message":"one"}"#;

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.headers()["authorization"] != "Bearer secret" {
        return Ok(Problem::new(Code::NotAllowed, "the token is wrong")
            .into_response()
            .map(Full::new));
    }
    Ok(match path::parse(request.uri().path()) {
        Some(Endpoint::Apps) => Response::new(Full::from(
            r#"{"items":[{"name":"a","version":"1.0.0","functions":["f"],"triggers":0}]}"#,
        )),
        Some(Endpoint::Logs) => {
            let query = LogQuery::from_query(request.uri().query().unwrap()).unwrap();
            assert_eq!(query.tail, Some(2));
            Response::new(Full::from(format!("{ENTRY}\n\n{ENTRY}\n")))
        }
        Some(Endpoint::Invoke { function: "f", .. }) => {
            let inner = invocation::decode(request).unwrap();
            let said = format!("{} {}", inner.method(), inner.uri());
            let body = inner.into_body().collect().await.unwrap().to_bytes();
            Response::builder()
                .status(418)
                .header(invocation::ANSWERED, "true")
                .body(Full::from([said.as_bytes(), b" ", &body].concat()))
                .unwrap()
        }
        _ => Problem::new(Code::NotFound, "nothing here")
            .into_response()
            .map(Full::new),
    })
}

async fn serve(tasks: &mut JoinSet<()>) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = format!("http://{}", listener.local_addr().unwrap());
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .await;
            drop(served);
        }
    });
    Address {
        admin,
        token: "secret".into(),
        pid: 1,
    }
}

fn id(function: &str) -> FunctionId {
    FunctionId {
        app: "a".parse().unwrap(),
        function: function.parse().unwrap(),
    }
}

#[tokio::test]
async fn answers_and_refusals_are_told_apart() {
    let mut tasks = JoinSet::new();
    let address = serve(&mut tasks).await;
    let client = Client::new(address.clone());
    assert_eq!(client.apps().await.unwrap().items[0].name.as_str(), "a");
    assert_eq!(client.app("b").await.unwrap_err().code(), Code::NotFound);

    let stranger = Client::new(Address {
        token: "guess".into(),
        ..address
    });
    assert_eq!(stranger.apps().await.unwrap_err().code(), Code::NotAllowed);
}

#[tokio::test]
async fn log_entries_come_one_by_one() {
    let mut tasks = JoinSet::new();
    let client = Client::new(serve(&mut tasks).await);
    let query = LogQuery {
        tail: Some(2),
        ..LogQuery::default()
    };
    let mut stream = client.logs(&query).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().message, "one");
    assert_eq!(stream.next().await.unwrap().unwrap().message, "one");
    assert_eq!(stream.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_function_answers_for_itself_and_the_node_for_a_missing_one() {
    let mut tasks = JoinSet::new();
    let client = Client::new(serve(&mut tasks).await);
    let request = |body: &'static str| {
        let body = Full::from(body).map_err(|never| match never {});
        Request::put("/x?y=1").body(body.boxed_unsync()).unwrap()
    };
    let answer = client.invoke(&id("f"), request("hello")).await.unwrap();
    assert_eq!(answer.head.status, 418);
    assert_eq!(answer.bytes().await.unwrap(), "PUT /x?y=1 hello");
    let error = client.invoke(&id("g"), request("")).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused(_)), "{error}");
}

#[tokio::test]
async fn nobody_at_home_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::new(Address {
        admin,
        token: String::new(),
        pid: 1,
    });
    assert_eq!(client.node().await.unwrap_err().code(), Code::Unreachable);
}
