//! What the API answers instead of what was asked for.

use tombolo_api::Problem;
use tombolo_core::Code;

/// A problem on its way to the caller; boxed, because most answers are none.
pub(crate) type Refusal = Box<Problem>;

pub(crate) fn refuse(code: Code, detail: impl Into<String>) -> Refusal {
    Box::new(Problem::new(code, detail))
}
