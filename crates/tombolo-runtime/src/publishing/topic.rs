//! What functions publish to MQTT topics: which ones, and how often one message may lead to another.

use std::sync::Arc;

use tombolo_core::event::{Bounds, Event};
use tombolo_core::invoke::HOPS_MAX;
use tombolo_core::topic::set_hops;
use tombolo_core::{Blame, Code, Failure, PublishTopic, TopicPublication, TopicQos};

use super::{Author, Publishing};
use crate::egress::Caller;
use crate::function::Grants;

/// How a message goes to its subscribers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TopicTerms {
    pub(crate) qos: TopicQos,
    pub(crate) retain: bool,
}

/// An invocation that publishes to one topic.
pub(crate) struct TopicPublisher {
    pub(crate) author: Author,
    topics: Arc<dyn PublishTopic>,
    topic: String,
}

impl Publishing {
    /// Who publishes to a topic; refused without a grant of it, and beyond the bound on hops.
    pub(crate) fn topic_publisher(
        &self,
        caller: &Caller,
        grants: &Grants,
        topic: &str,
    ) -> Result<TopicPublisher, Failure> {
        // A filter is no topic, though it may be what a grant says.
        let is_filter = topic.contains(['+', '#']);
        if is_filter || !grants.topics.iter().any(|filter| filter.matches(topic)) {
            let detail = match is_filter {
                true => format!("`{topic}` has wildcards: a message goes to one topic"),
                false => format!(
                    "the manifest does not grant the topic `{topic}`; `grants = {{ topics = [\"{topic}\"] }}` would"
                ),
            };
            return Err(Failure::new(Code::NotAllowed, Blame::Caller, detail));
        }
        if caller.hops >= HOPS_MAX {
            let detail =
                format!("{HOPS_MAX} functions, each by the one before, led to this message");
            return Err(Failure::new(Code::Loop, Blame::Caller, detail));
        }
        let topics = self.topics.clone().ok_or_else(|| {
            let detail = "this node has no MQTT broker";
            Failure::new(Code::PublishUnavailable, Blame::Host, detail)
        })?;
        Ok(TopicPublisher {
            author: Author::of(caller),
            topics,
            topic: topic.to_owned(),
        })
    }
}

impl TopicPublisher {
    /// Publishes an event; ready once every trigger that its topic matches has it in the journal.
    pub(crate) async fn publish(self, mut event: Event, terms: TopicTerms) -> Result<(), Failure> {
        set_hops(&mut event, self.author.origin.hops);
        event.check_within(&Bounds::default())?;
        let publication = TopicPublication {
            topic: self.topic,
            event,
            qos: terms.qos,
            retain: terms.retain,
            trace: Some(self.author.trace),
        };
        self.topics.publish_topic(publication).await
    }
}

#[cfg(test)]
pub(crate) mod fake {
    use std::sync::Mutex;

    use tombolo_core::TopicFuture;

    use super::super::fake::caller;
    use super::*;

    /// A broker that keeps what it is sent.
    #[derive(Default)]
    pub(crate) struct Carried(pub(crate) Mutex<Vec<TopicPublication>>);

    impl PublishTopic for Carried {
        fn publish_topic(&self, publication: TopicPublication) -> TopicFuture {
            self.0.lock().unwrap().push(publication);
            Box::pin(std::future::ready(Ok(())))
        }
    }

    impl Carried {
        /// A publisher of the function `plant/sensor`, which may publish to `plans/#`.
        pub(crate) fn publisher(
            self: &Arc<Self>,
            topic: &str,
            hops: u8,
        ) -> Result<TopicPublisher, Failure> {
            let grants = Grants {
                topics: vec!["plans/#".parse().unwrap()],
                ..Grants::default()
            };
            let topics: Arc<dyn PublishTopic> = Arc::clone(self) as _;
            let caller = Caller { hops, ..caller() };
            Publishing::new(None, Some(topics)).topic_publisher(&caller, &grants, topic)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::Carried;
    use super::*;
    use crate::publishing::fake::caller;

    #[test]
    fn only_granted_topics_are_reached_and_no_filters() {
        let carried = Arc::new(Carried::default());
        assert!(carried.publisher("plans/7", 0).is_ok());
        for other in ["plan", "Plans/7", "$plans/7", "", "plans/+", "plans/#"] {
            let failure = carried.publisher(other, 0).err().unwrap();
            assert_eq!(failure.code, Code::NotAllowed, "{other}");
        }
    }

    #[test]
    fn a_node_without_a_broker_says_so() {
        let grants = Grants {
            topics: vec!["#".parse().unwrap()],
            ..Grants::default()
        };
        let none = Publishing::default().topic_publisher(&caller(), &grants, "a");
        assert_eq!(none.err().unwrap().code, Code::PublishUnavailable);
    }

    #[tokio::test]
    async fn each_message_counts_those_before_it_and_a_chain_has_an_end() {
        let carried = Arc::new(Carried::default());
        let mut event = Event::new("1", "/plant/sensor", "plan");
        set_hops(&mut event, 9);
        let publisher = carried.publisher("plans/7", 2).ok().unwrap();
        let sent = publisher.publish(event, TopicTerms::default()).await;
        sent.unwrap();
        let sent = carried.0.lock().unwrap().pop().unwrap();
        assert_eq!(tombolo_core::topic::hops(&sent.event), 3);
        assert_eq!((sent.qos, sent.retain), (TopicQos::AtLeastOnce, false));
        assert!(carried.publisher("plans/7", HOPS_MAX - 1).is_ok());
        let failure = carried.publisher("plans/7", HOPS_MAX).err().unwrap();
        assert_eq!(failure.code, Code::Loop);
    }
}
