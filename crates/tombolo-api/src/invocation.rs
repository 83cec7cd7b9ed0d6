//! The envelope of an invocation: how a request for a function travels inside a request to the API.
//!
//! Outer: `POST …/invoke`, with `Authorization` of the API and the body of the inner request as its
//! body. Inner method and target are in `x-invoke-method` and `x-invoke-target`, each inner header
//! in `x-invoke-header-<name>`, so that nothing of the one is taken for the other's. The answer is
//! the function's own, marked by [`ANSWERED`]; without the mark it is the API that refused.

use http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use tombolo_core::header as names;

/// The method of the inner request.
pub const METHOD: HeaderName = HeaderName::from_static("x-invoke-method");
/// Path and query of the inner request.
pub const TARGET: HeaderName = HeaderName::from_static("x-invoke-target");
/// What a header of the inner request is prefixed with.
pub const HEADER_PREFIX: &str = "x-invoke-header-";
/// Set to `true` on an answer that comes from the invocation, its failures included.
pub const ANSWERED: HeaderName = HeaderName::from_static("x-invoke-answered");

/// Why an envelope cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("the header `{0}` is missing")]
    Missing(HeaderName),
    #[error("the header `{0}` is not valid")]
    Invalid(HeaderName),
}

/// Puts a request for a function into one for the API at `path`. The inner URI keeps only path and query;
/// an authority becomes the inner `host` header where there is none yet.
pub fn encode<B>(inner: Request<B>, path: &str) -> Result<Request<B>, http::Error> {
    let (parts, body) = inner.into_parts();
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let mut outer = Request::post(path)
        .header(METHOD, parts.method.as_str())
        .header(TARGET, target);
    if let Some(authority) = parts.uri.authority()
        && !parts.headers.contains_key(header::HOST)
    {
        outer = outer.header(format!("{HEADER_PREFIX}host"), authority.as_str());
    }
    for (name, value) in &parts.headers {
        outer = outer.header(format!("{HEADER_PREFIX}{name}"), value);
    }
    outer.body(body)
}

/// Takes the request for the function out again. Of the headers that only the host may set, those
/// that say which trigger is played are kept.
pub fn decode<B>(outer: Request<B>) -> Result<Request<B>, EnvelopeError> {
    let (parts, body) = outer.into_parts();
    let value = |name: HeaderName| parts.headers.get(&name).ok_or(EnvelopeError::Missing(name));
    let method = Method::from_bytes(value(METHOD)?.as_bytes())
        .map_err(|_| EnvelopeError::Invalid(METHOD))?;
    let target = value(TARGET)?;
    let uri = Uri::try_from(target.as_bytes())
        .ok()
        .filter(|uri| uri.authority().is_none() && uri.path().starts_with('/'))
        .ok_or(EnvelopeError::Invalid(TARGET))?;
    let mut inner = Request::new(body);
    *inner.method_mut() = method;
    *inner.uri_mut() = uri;
    for (name, value) in &parts.headers {
        let Some(bare) = name.as_str().strip_prefix(HEADER_PREFIX) else {
            continue;
        };
        let bare = HeaderName::try_from(bare).map_err(|_| EnvelopeError::Invalid(name.clone()))?;
        let reserved = bare.as_str().starts_with(names::PREFIX);
        if !reserved || bare == names::TRIGGER || bare == names::ATTEMPT {
            inner.headers_mut().append(bare, value.clone());
        }
    }
    inner
        .headers_mut()
        .entry(header::HOST)
        .or_insert(HeaderValue::from_static("localhost"));
    Ok(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inner_request_arrives_as_it_was_sent() {
        let inner = Request::put("http://a.example/x%20y?q=1")
            .header("authorization", "Basic inner")
            .header("accept", "a")
            .header("accept", "b")
            .header("x-tombolo-trigger", "queue")
            .header("x-tombolo-node", "forged")
            .body("body")
            .unwrap();
        let mut outer = encode(inner, "/api").unwrap();
        outer
            .headers_mut()
            .insert("authorization", "Bearer outer".parse().unwrap());
        assert_eq!(outer.method(), "POST");
        let inner = decode(outer).unwrap();
        assert_eq!(inner.method(), "PUT");
        assert_eq!(inner.uri(), "/x%20y?q=1");
        assert_eq!(inner.headers()["host"], "a.example");
        assert_eq!(inner.headers()["authorization"], "Basic inner");
        assert_eq!(inner.headers().get_all("accept").iter().count(), 2);
        assert_eq!(inner.headers()["x-tombolo-trigger"], "queue");
        assert!(!inner.headers().contains_key("x-tombolo-node"));
        assert_eq!(*inner.body(), "body");
    }

    #[test]
    fn bad_envelopes_are_refused() {
        assert_eq!(
            decode(Request::new(())).unwrap_err(),
            EnvelopeError::Missing(METHOD)
        );
        for target in ["http://elsewhere.example/", "*", "no-slash"] {
            let outer = Request::post("/")
                .header(METHOD, "GET")
                .header(TARGET, target)
                .body(())
                .unwrap();
            assert_eq!(
                decode(outer).unwrap_err(),
                EnvelopeError::Invalid(TARGET),
                "{target}"
            );
        }
    }
}
