//! `tombolo invoke`: one request or one event for a function, here or on the node that runs here.

use std::io::Read as _;
use std::path::Path;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use serde::Serialize;
use tombolo_api::client::Answer;
use tombolo_api::{Address, Client, Problem, Receipt};
use tombolo_core::code::exit;
use tombolo_core::event::{Bounds, Event, EventError, http as binding, json};
use tombolo_core::publish::CALLBACK;
use tombolo_core::{Code, FunctionId};
use tombolo_manifest::NodeConfig;
use tombolo_node::{AppSource, NodeOptions};

use crate::app;
use crate::arguments::{Format, Global, Invoke, Trigger};
use crate::error::Error;
use crate::output::{self, Output};
use crate::server::{self, Running};

/// An answer, for programs.
#[derive(Serialize)]
struct Answered {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// Calls the function and prints its answer.
pub async fn run(arguments: Invoke, global: &Global, output: &Output) -> Result<u8, Error> {
    let task = task(&arguments)?;
    let folder = app::folder(global)?;
    let config = app::node_config(&folder, &arguments.files)?;
    if let Some(client) = running(&config).await? {
        let id = app::function_id(&client, &arguments.function).await?;
        return perform(&client, &id, task, &arguments, output).await;
    }
    // No address is told: the log need not wait.
    drop(server::start_log(&config, global)?);
    let (client, node) = start(&folder, config).await?;
    let called = async {
        let id = app::function_id(&client, &arguments.function).await?;
        perform(&client, &id, task, &arguments, output).await
    };
    let outcome = called.await;
    node.drain().await?;
    outcome
}

/// The node that runs in the folder, if it answers; one that was killed leaves its address behind.
async fn running(config: &NodeConfig) -> Result<Option<Client>, Error> {
    let Some(client) = app::running_node(config)? else {
        return Ok(None);
    };
    match client.node().await {
        Ok(_) => Ok(Some(client)),
        Err(error) if error.code() == Code::Unreachable => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A node for this one call, without listeners for anybody else.
async fn start(folder: &Path, mut config: NodeConfig) -> Result<(Client, Running), Error> {
    let manifest = app::manifest(folder)?;
    config.http.listen.clear();
    config.mqtt.listeners.clear();
    config.admin.listen.set_port(0);
    let store = config.store.clone();
    let source = AppSource {
        folder: folder.into(),
        manifest,
    };
    let options = NodeOptions {
        config,
        apps: vec![source],
        dev: true,
    };
    let node = Running::start(server::start(options).await?);
    let address = Address::read(&store).map_err(|error| {
        Error::new(Code::Failed, "cannot find the node that was started").why(&error)
    })?;
    Ok((Client::new(address), node))
}

/// What the node is asked for.
enum Task {
    /// The function's answer.
    Answer(Request<Bytes>),
    /// To deliver an event later.
    Deliver(Event),
}

fn task(arguments: &Invoke) -> Result<Task, Error> {
    if !arguments.later {
        return request(arguments).map(Task::Answer);
    }
    let mut event = match &arguments.event {
        Some(file) => read_event(file)?,
        None => {
            let data = arguments.data.as_deref().map(read_data).transpose()?;
            event("invoke", "async", data)
        }
    };
    if let Some(url) = &arguments.callback {
        event.extensions.remove(CALLBACK);
        event
            .set(CALLBACK, url.clone())
            .map_err(|error| unsent(&error))?;
    }
    Ok(Task::Deliver(event))
}

async fn perform(
    client: &Client,
    id: &FunctionId,
    task: Task,
    arguments: &Invoke,
    output: &Output,
) -> Result<u8, Error> {
    match task {
        Task::Answer(request) => call(client, id, request, arguments, output).await,
        Task::Deliver(event) => {
            let name = event.id.clone();
            let (headers, body) = binding::write_binary(event).map_err(|error| unsent(&error))?;
            let receipt = client.invoke_later(id, headers, body).await?;
            print_receipt(&receipt, name, output)?;
            Ok(exit::DONE)
        }
    }
}

/// Prints what became of events; their ids are their names.
pub(super) fn print_receipt(
    receipt: &Receipt,
    names: String,
    output: &Output,
) -> Result<(), Error> {
    let Receipt {
        accepted,
        duplicates,
    } = receipt;
    output.one(
        receipt,
        || names,
        || format!("accepted {accepted}, duplicates {duplicates}\n"),
    )
}

async fn call(
    client: &Client,
    id: &FunctionId,
    request: Request<Bytes>,
    arguments: &Invoke,
    output: &Output,
) -> Result<u8, Error> {
    let request = request.map(|body| {
        Full::new(body)
            .map_err(|never| match never {})
            .boxed_unsync()
    });
    let mut answer = client.invoke(id, request).await?;
    let status = answer.head.status;
    if matches!(output.format, Format::Json | Format::Yaml) {
        let body = print_structure(answer, output).await?;
        return Ok(exit_code(status, &body));
    }
    output.progress(status.to_string());
    if arguments.include {
        output::write_bytes(&head(&answer))?;
    }
    // Failures are told in a problem, whose code is more exact than the status.
    let mut beginning = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        output::write_bytes(&chunk)?;
        if beginning.len() < PROBLEM_BYTES_MAX {
            beginning.extend_from_slice(&chunk);
        }
    }
    Ok(exit_code(status, &beginning))
}

/// A problem is looked into up to this length.
const PROBLEM_BYTES_MAX: usize = 1 << 20;

/// What the command exits with after this answer.
fn exit_code(status: StatusCode, body: &[u8]) -> u8 {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) if !status.is_success() => problem.code().exit_code(),
        _ => from_status(status),
    }
}

async fn print_structure(answer: Answer, output: &Output) -> Result<Bytes, Error> {
    let status = answer.head.status.as_u16();
    let headers = shown_headers(&answer)
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect();
    let body = answer.bytes().await?;
    let answered = Answered {
        status,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    output.one(&answered, String::new, String::new)?;
    Ok(body)
}

/// The headers of the function's answer, without the mark of the API.
fn shown_headers(answer: &Answer) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    let headers = answer.head.headers.iter();
    headers.filter(|(name, _)| **name != tombolo_api::invocation::ANSWERED)
}

/// Status line and headers as HTTP/1.1 writes them.
fn head(answer: &Answer) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {}\r\n", answer.head.status).into_bytes();
    for (name, value) in shown_headers(answer) {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// What a status means for the caller of the command.
fn from_status(status: StatusCode) -> u8 {
    match status {
        status if status.is_success() => exit::DONE,
        StatusCode::NOT_FOUND | StatusCode::GONE => exit::NOT_FOUND,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => exit::NOT_ALLOWED,
        StatusCode::CONFLICT => exit::CONFLICT,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => exit::UNREACHABLE,
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => exit::TIMEOUT,
        _ => exit::FAILED,
    }
}

/// The request that the arguments describe.
fn request(arguments: &Invoke) -> Result<Request<Bytes>, Error> {
    let data = arguments.data.as_deref().map(read_data).transpose()?;
    if let Some(file) = &arguments.event {
        return event_request(
            read_event(file)?,
            arguments.trigger.unwrap_or(Trigger::Queue),
        );
    }
    match arguments.trigger {
        Some(Trigger::Mqtt) => event_request(message(data), Trigger::Mqtt),
        Some(trigger) => event_request(event("invoke", trigger.as_str(), data), trigger),
        None => http_request(arguments, data),
    }
}

/// The event of a plain MQTT message; one to a topic that matters is played with `--event`.
fn message(data: Option<Vec<u8>>) -> Event {
    let topic = "tombolo/invoke";
    let mut event = event("mqtt/invoke", "mqtt.message", data);
    // A plain message does not say what its data is.
    event.datacontenttype = None;
    event.subject = Some(topic.to_owned());
    let extensions = &mut event.extensions;
    extensions.insert("mqtttopic".to_owned(), topic.to_owned());
    event
}

fn read_event(file: &Path) -> Result<Event, Error> {
    let text = read_file(file)?;
    json::parse(&text, &Bounds::default()).map_err(|error| no_event(file, &error))
}

/// A file has no event.
pub(super) fn no_event(file: &Path, error: &EventError) -> Error {
    Error::usage("this is no CloudEvent in its JSON format")
        .place(file.display())
        .why(error)
}

/// An event cannot be sent as it is.
pub(super) fn unsent(error: &EventError) -> Error {
    Error::usage("the event cannot be delivered").why(error)
}

fn event_request(event: Event, trigger: Trigger) -> Result<Request<Bytes>, Error> {
    event
        .into_request(trigger.as_str(), 1)
        .map_err(|error| unsent(&error))
}

/// An event of this command and kind of trigger.
pub(super) fn event(command: &str, kind: &str, data: Option<Vec<u8>>) -> Event {
    let now = humantime::format_rfc3339_nanos(SystemTime::now()).to_string();
    // The moment to the nanosecond, so that two calls are two events.
    let mut event = Event::new(
        now.as_str(),
        format!("/tombolo/{command}"),
        format!("tombolo.{kind}"),
    );
    event.time = Some(now);
    match data {
        None => event,
        Some(data) => {
            let json = serde_json::from_slice::<serde::de::IgnoredAny>(&data).is_ok();
            let kind = if json {
                "application/json"
            } else {
                "text/plain"
            };
            event.with_data(kind, data)
        }
    }
}

fn http_request(arguments: &Invoke, data: Option<Vec<u8>>) -> Result<Request<Bytes>, Error> {
    let line = arguments.http.as_deref().unwrap_or("/");
    let (method, target) = match line.split_once(' ') {
        Some((method, target)) => (method, target.trim()),
        None if data.is_some() => ("POST", line),
        None => ("GET", line),
    };
    let invalid = || {
        Error::usage(format!("`{line}` is no request"))
            .help("give method and path, for example `--http \"GET /signals/7\"`")
    };
    let mut request = Request::new(Bytes::from(data.unwrap_or_default()));
    *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|_| invalid())?;
    *request.uri_mut() = target
        .parse::<Uri>()
        .ok()
        .filter(|uri| uri.path().starts_with('/'))
        .ok_or_else(invalid)?;
    for header in &arguments.header {
        let invalid = || {
            Error::usage(format!("`{header}` is no header")).help("give `--header \"NAME: VALUE\"`")
        };
        let (name, value) = header.split_once(':').ok_or_else(invalid)?;
        let name = name.trim().parse::<HeaderName>().map_err(|_| invalid())?;
        let value = value.trim().parse::<HeaderValue>().map_err(|_| invalid())?;
        request.headers_mut().append(name, value);
    }
    Ok(request)
}

pub(super) fn read_data(data: &str) -> Result<Vec<u8>, Error> {
    match data.strip_prefix('@') {
        Some(file) => read_file(Path::new(file)),
        None if data == "-" => read_file(Path::new("-")),
        None => Ok(data.into()),
    }
}

pub(super) fn read_file(file: &Path) -> Result<Vec<u8>, Error> {
    let read = if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .map(|_| bytes)
    } else {
        std::fs::read(file)
    };
    read.map_err(|error| Error::io("cannot read the data", &error).place(file.display()))
}
