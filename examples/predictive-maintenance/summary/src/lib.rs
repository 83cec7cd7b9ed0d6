//! What is kept of each machine and the shift report on it: pure, bounded, and the same however often an event comes.

pub mod machine;
pub mod report;
pub mod score;
