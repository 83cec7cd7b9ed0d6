//! A way into a queue from outside: a route of the node's listener, which a token opens.

use std::fmt;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response, Uri};
use percent_encoding::percent_decode_str;
use tombolo_core::{Blame, Body, Code, Failure, QueueId, TraceContext};

use super::Ingress;

/// The parameter of a URL that carries the token of senders that cannot set headers (CloudEvents HTTP 1.1 Web
/// Hooks 1.0.2, section 3.2).
const PARAMETER: &str = "access_token";

/// One queue, and what opens it.
#[derive(Clone)]
pub struct Entrance {
    ingress: Ingress,
    queue: QueueId,
    token: Token,
}

/// The digest of a token: tokens themselves are not kept. An empty one opens nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Option<blake3::Hash>);

impl Token {
    /// A token of this text.
    pub fn new(text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        Self((!text.is_empty()).then(|| blake3::hash(text)))
    }

    /// Whether the other is the same, compared in constant time.
    fn opens(&self, other: &Self) -> bool {
        self.0.is_some() && self.0 == other.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Entrance {
    /// An entrance that opens to whoever has the token.
    pub fn new(ingress: Ingress, queue: QueueId, token: Token) -> Self {
        Self {
            ingress,
            queue,
            token,
        }
    }

    /// Answers as [`Ingress::handle`], but takes events from nobody without the token: as `Authorization: Bearer`, or
    /// as the parameter `access_token`. `OPTIONS`, by which a sender asks whether it may send, needs none.
    ///
    /// # Errors
    /// The token is missing or wrong.
    pub async fn answer(
        &self,
        request: Request<Body>,
        trace: TraceContext,
        request_id: &str,
    ) -> Result<Response<Body>, Failure> {
        if request.method() != Method::OPTIONS && !self.opens(request.headers(), request.uri()) {
            let detail = "the request has no token, or not the one of this route";
            return Err(Failure::new(Code::TokenWrong, Blame::Caller, detail));
        }
        let trace = Some(trace);
        let answered = self.ingress.handle(&self.queue, request, trace, request_id);
        Ok(answered.await)
    }

    /// Whether the token is there, exactly once.
    fn opens(&self, headers: &HeaderMap, uri: &Uri) -> bool {
        let bearer = headers.get_all(AUTHORIZATION).iter().map(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
            let is_bearer = scheme.eq_ignore_ascii_case(b"Bearer ");
            is_bearer.then(|| Token::new(token))
        });
        let pairs = uri.query().unwrap_or_default().split('&');
        let parameter = pairs.filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            let token: Vec<u8> = percent_decode_str(value).collect();
            (name == PARAMETER).then(|| Some(Token::new(token)))
        });
        let mut tokens = bearer.chain(parameter);
        match (tokens.next(), tokens.next()) {
            (Some(Some(token)), None) => self.token.opens(&token),
            _ => false,
        }
    }
}

impl fmt::Debug for Entrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entrance({})", self.queue)
    }
}

impl PartialEq for Entrance {
    fn eq(&self, other: &Self) -> bool {
        (&self.queue, &self.token) == (&other.queue, &other.token)
    }
}

impl Eq for Entrance {}
