//! The HTTP listener as clients see it: real sockets on loopback, and functions that are a few lines each.

mod bodies;
mod drain;
mod files;
mod head;
mod patience;
mod support;
mod tls;
