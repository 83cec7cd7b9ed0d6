//! W3C trace context (https://www.w3.org/TR/trace-context/): who called, and whether the trace is sampled.

use std::fmt;
use std::str::FromStr;

/// The trace that an invocation belongs to and the span that caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Never zero.
    pub trace_id: u128,
    /// The span of the caller, or of the invocation once it has one; never zero.
    pub span_id: u64,
    /// Whether the caller records this trace.
    pub sampled: bool,
}

/// The text is no `traceparent` of version 00, nor a later version that begins like one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a traceparent header of W3C trace context")]
pub struct TraceContextError;

impl FromStr for TraceContext {
    type Err = TraceContextError;

    fn from_str(text: &str) -> Result<Self, TraceContextError> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (
            hex(parts.next(), 2)?,
            hex(parts.next(), 32)?,
            hex(parts.next(), 16)?,
            hex(parts.next(), 2)?,
        );
        let extra = parts.next().is_some();
        if version == 0xff || (version == 0 && extra) || trace == 0 || span == 0 {
            return Err(TraceContextError);
        }
        Ok(Self {
            trace_id: trace,
            span_id: u64::try_from(span).map_err(|_| TraceContextError)?,
            sampled: flags & 1 == 1,
        })
    }
}

fn hex(part: Option<&str>, digits: usize) -> Result<u128, TraceContextError> {
    part.filter(|p| p.len() == digits)
        .filter(|p| p.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
        .and_then(|p| u128::from_str_radix(p, 16).ok())
        .ok_or(TraceContextError)
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(
            f,
            "00-{:032x}-{:016x}-{flags:02x}",
            self.trace_id, self.span_id
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_good_header_round_trips() {
        let context: TraceContext = GOOD.parse().unwrap();
        assert!(context.sampled);
        assert_eq!(context.to_string(), GOOD);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_known() {
        assert!(
            format!("01{}-future", &GOOD[2..])
                .parse::<TraceContext>()
                .is_ok()
        );
    }

    #[test]
    fn bad_headers_are_refused() {
        for bad in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert!(bad.parse::<TraceContext>().is_err(), "{bad}");
        }
    }
}
