//! Sources that turn the world into calls of functions: today HTTP.

pub mod http;
