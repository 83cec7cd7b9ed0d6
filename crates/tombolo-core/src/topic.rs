//! The seam between functions and those who subscribed to MQTT topics: the trait `PublishTopic`.

use std::future::Future;
use std::pin::Pin;

use crate::event::Event;
use crate::{Failure, TraceContext};

/// More publications to topics in a chain, each caused by the one before, are taken for a loop.
pub const RELAYS_MAX: u8 = 16;

/// The extension attribute that counts them.
const RELAYS: &str = "tombolorelays";

/// How surely subscribers of a topic get a message at the most (MQTT 5, 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopicQos {
    /// Once or never.
    AtMostOnce,
    /// Once or more often.
    #[default]
    AtLeastOnce,
    /// Once.
    ExactlyOnce,
}

impl TopicQos {
    /// The level with this number, 0 to 2.
    pub fn of_number(number: &str) -> Option<Self> {
        match number {
            "0" => Some(Self::AtMostOnce),
            "1" => Some(Self::AtLeastOnce),
            "2" => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// An event on its way to those who subscribed to a topic.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicPublication {
    /// The name of the topic; the broker checks it.
    pub topic: String,
    /// The event, checked by [`Event::check_within`]. Its data is the payload.
    pub event: Event,
    pub qos: TopicQos,
    /// Whether those get it who subscribe later, until another replaces it.
    pub retain: bool,
    /// The trace and the span that publish it.
    pub trace: Option<TraceContext>,
}

/// The future of a publication; ready once every trigger that matches has the message in the journal.
pub type TopicFuture = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// Something that carries messages to topics: the node's broker, a fake in tests.
pub trait PublishTopic: Send + Sync + 'static {
    /// Publishes one message.
    fn publish_topic(&self, publication: TopicPublication) -> TopicFuture;
}

/// How many publications to topics led to this event, each caused by the one before.
pub fn relays(event: &Event) -> u8 {
    let count = event.attribute(RELAYS);
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Says how many publications to topics led to this event.
pub fn set_relays(event: &mut Event, count: u8) {
    match count {
        0 => event.extensions.remove(RELAYS),
        count => event
            .extensions
            .insert(RELAYS.to_owned(), count.to_string()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_carries_its_relays_as_a_valid_attribute() {
        let mut event = Event::new("1", "/a", "b");
        assert_eq!(relays(&event), 0);
        set_relays(&mut event, 3);
        event.check().unwrap();
        assert_eq!(relays(&event), 3);
        set_relays(&mut event, 0);
        assert!(event.extensions.is_empty());
        event.set(RELAYS, "many".into()).unwrap();
        assert_eq!(relays(&event), 0);
    }
}
