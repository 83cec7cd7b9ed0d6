//! `tombolo up`: serves the app in the folder on an embedded node.

use tombolo_node::NodeOptions;

use crate::arguments::{Global, Up};
use crate::error::Error;
use crate::output::Output;
use crate::server::{self, FunctionLog};

/// Serves until a signal comes.
pub async fn run(arguments: &Up, global: &Global, output: &Output) -> Result<(), Error> {
    let (source, config) = server::app_and_config(arguments, global)?;
    let log = server::start_log(&config, global)?;
    let options = NodeOptions {
        config,
        apps: vec![source],
        dev: false,
    };
    server::serve(options, log, FunctionLog::Kept, output).await
}
