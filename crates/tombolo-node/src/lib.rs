//! A node: the only place where store, telemetry, runtime, listeners and control API meet.
//!
//! [`Node::start`] builds everything and deploys the apps; [`Node::run`] serves until it is told to
//! stop, and then drains in this order: readiness, HTTP listeners with schedules and deliveries,
//! functions, admin listener, telemetry, store. All but the last two have one deadline together.

mod address;
mod admin;
mod app;
mod control;
mod deploy;
mod describe;
mod dispatcher;
mod events;
mod invocation;
mod logs;
mod mqtt;
mod node;
mod queues;
mod refusal;
mod secrets;
mod token;

pub use app::AppSource;
pub use deploy::{DeployError, Deployed};
pub use node::{Node, NodeHandle, NodeOptions, RunError, StartError, Stop};
pub use secrets::SecretError;
// The command line sees the runtime through the node alone.
pub use tombolo_runtime::{CommandError, CommandSpec, LoadError, run_command};
