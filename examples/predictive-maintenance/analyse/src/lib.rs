//! The pure part of function `analyse`: what each message of a machine changes, and what follows from it.

pub mod commissioning;
pub mod temperature;
pub mod vibration;
