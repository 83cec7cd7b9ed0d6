//! Callbacks: what became of an asynchronous invocation, sent to where its caller asked for, as far as the function's grants allow.

use std::sync::Mutex;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use tombolo_core::{Blame, Body, Call, Code, Failure, Invoke, InvokeFuture, header};

use super::policy::{Destination, Refusal};
use super::{Client, from_body_error};
use crate::function::{Function, Grants};
use crate::runtime::Runtime;

/// What is read of an answer, to tell why it refused.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Sends requests for functions: the other side answers where a function would. The function of the call is the one
/// whose grants decide, the URL of the request where it goes.
pub struct Callbacks(pub(crate) Runtime);

impl Invoke for Callbacks {
    fn invoke(&self, call: Call) -> InvokeFuture {
        let (client, function) = (self.0.client(), self.0.find(&call.function));
        Box::pin(async move {
            let function = function.ok_or_else(|| {
                let detail = format!("there is no function `{}` on this node", call.function);
                Failure::new(Code::NotFound, Blame::Host, detail)
            })?;
            send(&client, &function, call.request).await
        })
    }
}

/// Whether a URL may be called back for a function with these grants.
pub(crate) fn check(grants: &Grants, url: &str) -> Result<(), Failure> {
    let refused = |refusal: Refusal| {
        let code = match refusal {
            Refusal::Host | Refusal::Scheme => Code::BadRequest,
            Refusal::NotGranted(_) | Refusal::Address { .. } => Code::NotAllowed,
        };
        let detail = format!("the callback `{url}` is refused: {refusal}");
        Failure::new(code, Blame::Caller, detail)
    };
    let uri: Uri = url.parse().map_err(|_| refused(Refusal::Host))?;
    let destination = Destination::of(&uri).map_err(refused)?;
    let address_granted = destination.check_granted(&grants.http).map_err(refused)?;
    match destination.address() {
        Some(address) if !address_granted => destination.check_address(address).map_err(refused),
        _ => Ok(()),
    }
}

async fn send(
    client: &Client,
    function: &Function,
    mut request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    header::strip_reserved(request.headers_mut());
    let host = request.uri().authority().map(|host| host.as_str());
    if let Some(host) = host.and_then(|host| HeaderValue::from_str(host).ok()) {
        request.headers_mut().insert(HOST, host);
    }
    let request = request.map(|body| body.map_err(from_body_error).boxed_unsync());
    let refusal = Mutex::new(None);
    let refused = |why: &Refusal| {
        if let Ok(mut refusal) = refusal.lock() {
            *refusal = Some(why.to_string());
        }
    };
    let grants = &function.grants.http;
    let sent = client.send(&function.id, request, None, grants, refused);
    let (response, rest) = sent.await.map_err(|error| {
        let why = refusal.lock().ok().and_then(|mut refusal| refusal.take());
        let detail = match why {
            Some(why) => format!("the callback is refused: {why}"),
            None => format!("the callback cannot be sent: {error}"),
        };
        Failure::new(Code::Unreachable, Blame::Dependency, detail)
    })?;
    let (head, body) = response.into_parts();
    let collecting = Limited::new(body, ANSWER_BYTES_MAX).collect();
    tokio::pin!(collecting);
    // The body comes as long as the connection is driven, or is there already when that has ended.
    let collected = tokio::select! {
        biased;
        collected = &mut collecting => collected,
        _ = Box::into_pin(rest) => collecting.await,
    };
    // The status is what counts: a text that is too long or breaks off is not told.
    let text = collected.map_or_else(|_| Bytes::new(), |whole| whole.to_bytes());
    let body = Full::new(text).map_err(|never| match never {});
    Ok(Response::from_parts(head, body.boxed_unsync()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_goes_where_the_function_may_go() {
        let grants = Grants {
            http: ["https://*.example", "http://127.0.0.1:8080"]
                .map(|grant| grant.parse().unwrap())
                .to_vec(),
            ..Grants::default()
        };
        for allowed in ["https://a.example/b?c=d", "http://127.0.0.1:8080/"] {
            check(&grants, allowed).unwrap();
        }
        for (refused, code) in [
            ("https://other.test/", Code::NotAllowed),
            ("http://a.example/", Code::NotAllowed),
            ("http://127.0.0.1:9090/", Code::NotAllowed),
            ("http://169.254.169.254/", Code::NotAllowed),
            ("ftp://a.example/", Code::BadRequest),
            ("/path", Code::BadRequest),
            ("https://user@a.example/", Code::BadRequest),
            ("no url", Code::BadRequest),
            ("", Code::BadRequest),
        ] {
            let failure = check(&grants, refused).unwrap_err();
            assert_eq!(failure.code, code, "{refused}: {failure}");
        }
    }
}
