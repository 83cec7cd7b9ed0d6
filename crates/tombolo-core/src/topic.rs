//! The seam between functions and those who subscribed to MQTT topics: the trait `PublishTopic`.

use std::future::Future;
use std::pin::Pin;

use crate::event::Event;
use crate::{Failure, TraceContext};

/// The extension attribute that carries over topics how many functions led to an event.
const HOPS: &str = "tombolohops";

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

/// How many functions led to an event that came by a topic.
pub fn hops(event: &Event) -> u8 {
    let count = event.attribute(HOPS);
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Says how many functions led to an event that goes to a topic.
pub fn set_hops(event: &mut Event, count: u8) {
    match count {
        0 => event.extensions.remove(HOPS),
        count => event.extensions.insert(HOPS.to_owned(), count.to_string()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_carries_its_hops_as_a_valid_attribute() {
        let mut event = Event::new("1", "/a", "b");
        assert_eq!(hops(&event), 0);
        set_hops(&mut event, 3);
        event.check().unwrap();
        assert_eq!(hops(&event), 3);
        set_hops(&mut event, 0);
        assert!(event.extensions.is_empty());
        event.set(HOPS, "many".into()).unwrap();
        assert_eq!(hops(&event), 0);
    }
}
