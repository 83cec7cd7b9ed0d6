//! The built-in MQTT 3.1.1 and 5 broker: a message is acknowledged only once `Accept`, the journal, has taken it.
//!
//! | type | what it is |
//! | --- | --- |
//! | `Broker` | bound addresses, then what runs |
//! | `BrokerHandle` | what functions publish with |
//! | `Accept` | the seam to the journal: decides about each message before its acknowledgement |
//! | `Subscriptions` | the `Accept` of a node: the filters of its apps, and their functions' queues |
//! | `RemoteBrokers` | brokers elsewhere that apps subscribe to |
//! | `Retaining` | an `Accept` around another one, which writes retained messages to the disk |
//! | `Switch` | sessions, subscriptions and retained messages; a state machine without I/O behind one lock |
//! | `Session` | what waits for one client and what it has not acknowledged |
//! | `Connection` | the task of one client: packets in, answers and deliveries out |
//! | `Inbound` | a client's messages that the journal decides about, side by side and in order |
//!
//! Sessions live in memory and end with the process; what the journal accepted and what `Retaining`
//! wrote does not. Everything is bounded (`MqttBounds`), and what finds no room is counted.

mod acl;
mod auth;
mod broker;
mod config;
mod connection;
mod encode;
mod event;
mod filters;
mod handshake;
mod inbound;
mod message;
mod remote;
mod retained;
mod session;
mod socket;
mod subscriptions;
mod switch;
mod tls;
mod topic;
mod wire;

pub use acl::Rule;
pub use auth::{PasswordError, PasswordHash, User};
pub use broker::{Broker, BrokerError, BrokerHandle, PublishError};
pub use config::{MqttBounds, MqttConfig, MqttListener, MqttTls};
pub use event::TOPIC as TOPIC_ATTRIBUTE;
pub use filters::Filters;
pub use message::{Accept, AcceptFuture, Arrival, Client, Message, Properties, Qos, Refusal};
#[doc(hidden)]
pub use remote::read_any_of_broker;
pub use remote::{RemoteBroker, RemoteBrokers, RemoteError, RemoteHandle, RemoteStatus};
pub use retained::Retaining;
pub use subscriptions::{Subscription, Subscriptions};
pub use switch::MqttFigures;
pub use topic::{TopicError, TopicFilter, check_name};
#[doc(hidden)]
pub use wire::read_any;
