//! A function's answer, read to its end before anything is settled.

use bytes::{Bytes, BytesMut};
use http::{Extensions, HeaderMap, Response, StatusCode};
use http_body_util::BodyExt as _;
use tombolo_core::{Body, BodyError};

/// How much of an answer's body is kept: what replies and the answers of batches have to fit in.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;

/// An answer whose body has come to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The first [`BODY_BYTES_MAX`] of the body.
    pub(super) body: Bytes,
    /// Whether there was more.
    pub(super) cut: bool,
    /// What the host keeps for as long as the answer is not settled.
    pub(super) extensions: Extensions,
}

/// Reads an answer. What is beyond the bound is read and dropped: the invocation ends with the end
/// of its answer, and only then is it known to have succeeded.
pub(super) async fn read(response: Response<Body>) -> Result<Answer, BodyError> {
    let (head, mut body) = response.into_parts();
    let (mut kept, mut cut) = (BytesMut::new(), false);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        let room = BODY_BYTES_MAX - kept.len();
        cut |= data.len() > room;
        kept.extend_from_slice(data.get(..room).unwrap_or(&data));
    }
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body: kept.freeze(),
        cut,
        extensions: head.extensions,
    })
}
