//! A queue against a naive model of it, its cases one by one, and its size.

mod cases;
mod model;
mod size;
