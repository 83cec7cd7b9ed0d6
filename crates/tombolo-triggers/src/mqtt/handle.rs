//! What functions publish with, and what the broker's figures are read from.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tombolo_core::{Blame, Code, Failure, PublishTopic, TopicFuture, TopicPublication, TopicQos};

use super::broker::Shared;
use super::event;
use super::figures::MqttFigures;
use super::message::{Arrival, Message, Qos, Refusal};
use super::topic::{TopicError, check_name};

/// Why a function's message was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("cannot publish to this topic")]
    Topic(#[from] TopicError),
    #[error("names that begin with `$` are the broker's own")]
    Reserved,
    #[error("a message has at most {bound_bytes} bytes, this one has {bytes}")]
    TooLong { bytes: usize, bound_bytes: usize },
    #[error("the message was refused")]
    Refused(#[from] Refusal),
}

/// What publishes to a running broker and reads its figures.
#[derive(Clone)]
pub struct BrokerHandle(pub(super) Arc<Shared>);

impl BrokerHandle {
    /// Publishes for a function. Resolves when the message was accepted, as for a client; then it
    /// is on its way to those who subscribed.
    ///
    /// # Errors
    /// The topic or the length is not allowed, or the message was not accepted.
    pub async fn publish(&self, message: Message) -> Result<(), PublishError> {
        check_name(&message.topic)?;
        if message.topic.starts_with('$') {
            return Err(PublishError::Reserved);
        }
        let (bytes, bound_bytes) = (
            message.weight_bytes(),
            self.0.bounds.packet_bytes_max as usize,
        );
        if bytes > bound_bytes {
            return Err(PublishError::TooLong { bytes, bound_bytes });
        }
        let arrival = Arrival {
            client: None,
            message: Arc::new(message),
        };
        Ok(self.0.publish(arrival).await?)
    }

    async fn publish_event(&self, publication: TopicPublication) -> Result<(), PublishError> {
        let (payload, properties) = event::into_message(publication.event, publication.trace);
        let message = Message {
            topic: publication.topic.into(),
            payload,
            qos: match publication.qos {
                TopicQos::AtMostOnce => Qos::AtMostOnce,
                TopicQos::AtLeastOnce => Qos::AtLeastOnce,
                TopicQos::ExactlyOnce => Qos::ExactlyOnce,
            },
            retain: publication.retain,
            expires: None,
            properties,
        };
        self.publish(message).await
    }

    /// What the broker counts.
    pub fn figures(&self) -> MqttFigures {
        MqttFigures {
            connections: self.0.connections.load(Ordering::Relaxed),
            connections_refused: self.0.connections_refused.load(Ordering::Relaxed),
            ..self.0.switch().figures()
        }
    }
}

impl PublishTopic for BrokerHandle {
    fn publish_topic(&self, publication: TopicPublication) -> TopicFuture {
        let handle = self.clone();
        Box::pin(async move { Ok(handle.publish_event(publication).await?) })
    }
}

/// When a function whose message found no room should try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let (code, blame) = match &error {
            PublishError::Topic(_) | PublishError::Reserved => (Code::BadRequest, Blame::Caller),
            PublishError::TooLong { .. } => (Code::EventTooLong, Blame::Caller),
            PublishError::Refused(Refusal::Invalid) => (Code::EventInvalid, Blame::Caller),
            PublishError::Refused(Refusal::Full) => (Code::QueueFull, Blame::Host),
            PublishError::Refused(Refusal::Failed) => (Code::PublishUnavailable, Blame::Host),
        };
        let detail = match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        let failure = Self::new(code, blame, detail);
        match error {
            PublishError::Refused(Refusal::Full) => failure.retry_after(RETRY_AFTER),
            _ => failure,
        }
    }
}
