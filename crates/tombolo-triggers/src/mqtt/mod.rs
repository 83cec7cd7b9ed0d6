//! The built-in MQTT 3.1.1 and 5 broker: a message is acknowledged only once `Accept`, the journal, has taken it.
//!
//! | type | what it is |
//! | --- | --- |
//! | `Broker` | bound addresses, then what runs |
//! | `BrokerHandle` | what functions publish with |
//! | `SessionWriter` | takes the changes of kept sessions to the disk |
//! | `Accept` | the seam to the journal: decides about each message before its acknowledgement |
//! | `Subscriptions` | the `Accept` of a node: the filters of its apps, and their functions' queues |
//! | `RemoteBrokers` | brokers elsewhere that apps subscribe to |
//! | `Retaining` | an `Accept` around another one, which writes retained messages to the disk |
//! | `Switch` | sessions, subscriptions and retained messages; a state machine without I/O behind one lock |
//! | `Session` | what waits for one client and what it has not acknowledged |
//! | `Connection` | the task of one client: packets in, answers and deliveries out |
//! | `Inbound` | a client's messages that the journal decides about, side by side and in order |
//! | `Held` | a client's output that waits until what it speaks of is on the disk |
//!
//! What was acknowledged to anybody is on the disk before: in the journal, as a retained message, and in
//! each session that outlives its connection. Such a session is kept: the `Switch`, which is the truth,
//! notes each change of it (`Changes`), one writer takes them to the disk in their order, and output that
//! speaks of a change is held until it is there. A session that ends with its connection is in memory
//! only, and what concerns no other waits for nothing. Everything is bounded (`MqttBounds`), and what finds no room is counted.

mod acl;
mod auth;
mod broker;
mod changes;
mod config;
mod connection;
mod encode;
mod event;
mod figures;
mod filters;
mod handle;
mod handshake;
mod held;
mod inbound;
mod keeping;
mod listener;
mod message;
mod remote;
mod retained;
mod scan;
mod session;
mod socket;
mod stored;
mod subscriptions;
mod switch;
mod tls;
mod topic;
mod wire;

pub use acl::Rule;
pub use auth::{PasswordError, PasswordHash, User};
pub use broker::{Broker, BrokerError};
pub use config::{MqttBounds, MqttConfig, MqttListener, MqttTls, PACKET_BYTES_MAX};
pub use event::TOPIC as TOPIC_ATTRIBUTE;
pub use figures::MqttFigures;
pub use filters::Filters;
pub use handle::{BrokerHandle, PublishError};
pub use keeping::SessionWriter;
pub use message::{Accept, AcceptFuture, Arrival, Client, Message, Properties, Qos, Refusal};
#[doc(hidden)]
pub use remote::read_any_of_broker;
pub use remote::{RemoteBroker, RemoteBrokers, RemoteError, RemoteHandle, RemoteStatus};
pub use retained::Retaining;
pub use subscriptions::{Subscription, Subscriptions};
pub use topic::{TopicError, TopicFilter, check_name};
#[doc(hidden)]
pub use wire::read_any;
