//! Drives the real `tombolo` binary over loopback, as its users do: processes, clients and folders.

mod api;
mod app;
mod authority;
mod build;
mod client;
mod command;
mod device;
mod disk;
mod origin;
mod server;

pub use api::Api;
pub use app::App;
pub use authority::Authority;
pub use build::{guest, guests_folder, tombolo};
pub use client::{Answer, Client, Conversation, body};
pub use command::{Output, command, run, run_with};
pub use device::{Device, Hello, Message, Reply};
pub use disk::SmallDisk;
pub use origin::Origin;
pub use server::Server;
