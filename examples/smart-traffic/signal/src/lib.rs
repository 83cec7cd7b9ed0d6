//! The pure part of function `signal`: one intersection as a state machine without I/O.

pub mod aggregate;
pub mod batch;
pub mod decision;
pub mod detectors;
pub mod intersection;
pub mod phase;
