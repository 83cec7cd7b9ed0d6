//! The pure part of function `shift`: the report as text and as a page.

mod chart;
pub mod page;
pub mod text;

#[cfg(test)]
mod sample;
