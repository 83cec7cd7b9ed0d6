//! What a function has read of a request's body: another request with the same key has to have it too.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};
use tombolo_core::{Blame, Body, BodyError, Code, Failure};

/// The digest of the part of a body that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fingerprint {
    bytes: u64,
    /// Whether this is all of it.
    whole: bool,
    digest: [u8; 32],
}

impl Fingerprint {
    /// Whether a body begins with what was read, and ends with it where the first one did.
    ///
    /// # Errors
    /// The body breaks off.
    pub(super) async fn is_of(&self, mut body: Body) -> Result<bool, Failure> {
        let mut digest = blake3::Hasher::new();
        let mut left = self.bytes;
        while left > 0 || self.whole {
            let Some(frame) = body.frame().await else {
                break;
            };
            let Ok(data) = frame.map_err(unread)?.into_data() else {
                continue;
            };
            let length = usize::try_from(left).unwrap_or(usize::MAX);
            if self.whole && data.len() > length {
                return Ok(false);
            }
            let data = data.get(..length).unwrap_or(&data);
            digest.update(data);
            left -= data.len() as u64;
        }
        Ok(left == 0 && *digest.finalize().as_bytes() == self.digest)
    }
}

fn unread(error: BodyError) -> Failure {
    match error {
        BodyError::Failure(failure) => failure,
        error => Failure::new(Code::BadRequest, Blame::Caller, error.to_string()),
    }
}

/// What was read so far.
#[derive(Clone, Default)]
pub(super) struct Reading(Arc<Mutex<Read>>);

#[derive(Default)]
struct Read {
    digest: blake3::Hasher,
    bytes: u64,
    whole: bool,
    broken: bool,
}

impl Reading {
    /// A body whose reading is followed.
    pub(super) fn of(body: Body) -> (Body, Self) {
        let reading = Self::default();
        reading.read().whole = body.is_end_stream();
        let followed = Followed {
            body,
            reading: reading.clone(),
        };
        (followed.boxed_unsync(), reading)
    }

    /// None when the body broke off: then the function has not seen the request.
    pub(super) fn fingerprint(&self) -> Option<Fingerprint> {
        let read = self.read();
        (!read.broken).then(|| Fingerprint {
            bytes: read.bytes,
            whole: read.whole,
            digest: *read.digest.finalize().as_bytes(),
        })
    }

    fn read(&self) -> MutexGuard<'_, Read> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Followed {
    body: Body,
    reading: Reading,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(frame) = &polled {
            let mut read = self.reading.read();
            read.whole = frame.is_none() || self.body.is_end_stream();
            read.broken |= matches!(frame, Some(Err(_)));
            if let Some(Ok(frame)) = frame
                && let Some(data) = frame.data_ref()
            {
                read.digest.update(data);
                read.bytes += data.len() as u64;
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::*;

    fn body(frames: &[&'static str]) -> Body {
        let frames: Vec<_> = frames.iter().map(|text| Bytes::from(*text)).collect();
        let frames = frames.into_iter().map(|bytes| Ok(Frame::data(bytes)));
        StreamBody::new(stream::iter(frames)).boxed_unsync()
    }

    #[tokio::test]
    async fn only_what_was_read_has_to_be_the_same() {
        let (mut followed, reading) = Reading::of(body(&["ab", "cd"]));
        followed.frame().await.unwrap().unwrap();
        let begin = reading.fingerprint().unwrap();
        followed.collect().await.unwrap();
        let whole = reading.fingerprint().unwrap();
        for (frames, is_begin, is_whole) in [
            (&["ab", "cd"][..], true, true),
            (&["a", "", "bcd"], true, true),
            (&["abc"], true, false),
            (&["abcde"], true, false),
            (&["abcd", "e"], true, false),
            (&["a"], false, false),
            (&["ax", "cd"], false, false),
        ] {
            assert_eq!(
                begin.is_of(body(frames)).await.unwrap(),
                is_begin,
                "{frames:?}"
            );
            assert_eq!(
                whole.is_of(body(frames)).await.unwrap(),
                is_whole,
                "{frames:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_has_none() {
        let frames = [
            Ok(Frame::data(Bytes::from("a"))),
            Err(BodyError::Cut("gone".into())),
        ];
        let (followed, reading) = Reading::of(StreamBody::new(stream::iter(frames)).boxed_unsync());
        assert!(followed.collect().await.is_err());
        assert_eq!(reading.fingerprint(), None);
    }
}
