//! The vocabulary every other crate speaks: names, digests, events, budgets, error codes and the seams `Invoke`, `Publish` and `PublishTopic`. No I/O and no async runtime.

pub mod budget;
pub mod code;
pub mod digest;
pub mod event;
pub mod failure;
pub mod header;
pub mod invoke;
pub mod level;
pub mod name;
pub mod publish;
pub mod queue;
pub mod terms;
pub mod time;
pub mod topic;
pub mod trace;

pub use budget::{Budget, Limit};
pub use code::Code;
pub use digest::Digest;
pub use failure::{Blame, Failure};
pub use invoke::{AnswerDeadline, Body, BodyError, Call, CallContext, Invoke, InvokeFuture};
pub use level::{LogLevel, LogLevelError};
pub use name::{FunctionId, Name};
pub use publish::{Origin, Publication, Publish, PublishError, PublishFuture, Published, Receipt};
pub use queue::{Feed, QueueId, QueueName};
pub use terms::Terms;
pub use time::Moment;
pub use topic::{PublishTopic, TopicFuture, TopicPublication, TopicQos};
pub use trace::TraceContext;
