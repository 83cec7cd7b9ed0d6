//! The end-to-end tests: real processes on loopback, one module for each promise.

mod budgets;
mod calls;
mod cli;
mod code;
mod devices;
mod endurance;
mod grants;
mod guests;
mod http;
mod isolation;
mod keyvalue;
mod loading;
mod logs;
mod machine;
mod mqtt;
mod operations;
mod publishing;
mod queues;
mod run;
mod transactions;
