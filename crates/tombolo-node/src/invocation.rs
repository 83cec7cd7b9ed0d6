//! Invokes a function for a request that came enveloped in one to the API.

use http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tombolo_api::invocation::{ANSWERED, decode};
use tombolo_core::header::{REQUEST_ID, TRACEPARENT};
use tombolo_core::{Body, BodyError, Call, CallContext, Code, Failure, FunctionId};

use crate::control::{Control, full};
use crate::refusal::{Refusal, refuse};

/// The function's answer, or the failure of the invocation; both are marked as such.
pub(crate) async fn answer(
    control: &Control,
    function: FunctionId,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let mut request =
        decode(request).map_err(|error| refuse(Code::BadRequest, error.to_string()))?;
    let parent = request
        .headers()
        .get(TRACEPARENT)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let trace = parent.unwrap_or_else(|| control.telemetry.root());
    let id = request
        .headers()
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok());
    let id = id.map_or_else(|| format!("{:032x}", trace.trace_id), str::to_owned);
    let id_value = HeaderValue::from_str(&id)
        .map_err(|_| refuse(Code::BadRequest, "the request id is not valid"))?;
    let traceparent = HeaderValue::from_str(&trace.to_string())
        .map_err(|_| refuse(Code::HostError, "the trace cannot be written"))?;
    let headers = request.headers_mut();
    headers.insert(TRACEPARENT, traceparent);
    headers.insert(REQUEST_ID, id_value.clone());
    let call = Call {
        function,
        request: request.map(|body| {
            body.map_err(|error| BodyError::Cut(error.into()))
                .boxed_unsync()
        }),
        context: CallContext {
            trace,
            request_id: id.clone(),
            deadline: None,
            hops: 0,
            nested: false,
            event: false,
            client: None,
        },
    };
    let invoked = control.invoke.invoke(call).await;
    let mut response = invoked.unwrap_or_else(|failure| refusal(&failure, &id, control.node.dev));
    response
        .headers_mut()
        .insert(ANSWERED, HeaderValue::from_static("true"));
    response.headers_mut().entry(REQUEST_ID).or_insert(id_value);
    Ok(response)
}

fn refusal(failure: &Failure, request_id: &str, dev: bool) -> Response<Body> {
    let mut response = Response::new(full(failure.problem_json(request_id, dev)));
    *response.status_mut() = failure.code.http_status();
    let kind = HeaderValue::from_static(tombolo_api::problem::CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    if let Some(after) = failure.retry_after {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, after.as_secs().max(1).into());
    }
    response
}
