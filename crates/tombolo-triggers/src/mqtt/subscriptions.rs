//! The triggers behind the broker: each message that a deployed filter selects becomes an event in the queues of its functions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use tombolo_core::{Name, Publication, Publish, PublishError, QueueId};

use super::auth::PasswordError;
use super::event::{Ids, client_source, of_message};
use super::filters::Filters;
use super::message::{Accept, AcceptFuture, Arrival, Refusal};
use super::topic::TopicFilter;

/// A filter, and the queue that gets the messages which it selects.
pub type Subscription = (TopicFilter, QueueId);

/// The filters of all apps. A clone means the same.
#[derive(Clone)]
pub struct Subscriptions(Arc<Shared>);

struct Shared {
    publish: Arc<dyn Publish>,
    ids: Ids,
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    apps: BTreeMap<Name, Vec<Subscription>>,
    filters: Filters<QueueId, ()>,
}

impl Subscriptions {
    /// No filters yet.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(publish: Arc<dyn Publish>) -> Result<Self, PasswordError> {
        Ok(Self(Arc::new(Shared {
            publish,
            ids: Ids::new().ok_or(PasswordError::Random)?,
            table: RwLock::default(),
        })))
    }

    /// Replaces the filters of an app. Each message is seen by all of the old ones or by all of the new ones.
    pub fn replace(&self, app: &Name, subscriptions: Vec<Subscription>) {
        let mut table = self.0.table.write().unwrap_or_else(PoisonError::into_inner);
        table.apps.insert(app.clone(), subscriptions);
        let mut filters = Filters::default();
        for (filter, queue) in table.apps.values().flatten() {
            filters.entry(filter, queue.clone(), || ());
        }
        table.filters = filters;
    }
}

impl Shared {
    /// The queues whose filters select the topic; each once, however many of its filters do.
    fn queues(&self, topic: &str) -> BTreeSet<QueueId> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let mut queues = BTreeSet::new();
        table.filters.select(topic, |queue, ()| {
            queues.insert(queue.clone());
        });
        queues
    }

    fn publications(&self, arrival: &Arrival) -> Result<Vec<Publication>, Refusal> {
        let queues = self.queues(&arrival.message.topic);
        if queues.is_empty() {
            return Ok(Vec::new());
        }
        let source = || {
            let client = arrival.client.as_ref();
            client.map_or_else(String::new, |client| client_source(&client.id))
        };
        let (event, trace) = of_message(&arrival.message, source, &self.ids).map_err(|error| {
            let topic = &arrival.message.topic;
            tracing::debug!(%topic, %error, "an mqtt message is no valid event");
            Refusal::Invalid
        })?;
        let publication = |queue| Publication::new(queue, event.clone()).trace(trace);
        Ok(queues.into_iter().map(publication).collect())
    }
}

impl Accept for Subscriptions {
    fn accept(&self, arrival: Arrival) -> AcceptFuture {
        let publications = match self.0.publications(&arrival) {
            Ok(none) if none.is_empty() => return Box::pin(std::future::ready(Ok(()))),
            Ok(publications) => publications,
            Err(refusal) => return Box::pin(std::future::ready(Err(refusal))),
        };
        let publishing = self.0.publish.publish(publications);
        let shared = self.0.clone();
        Box::pin(async move {
            let mut published = publishing.await;
            // A queue went with the release that was replaced just now: the new filters decide.
            if let Err(PublishError::Unknown(_)) = published {
                let publications = shared.publications(&arrival)?;
                published = shared.publish.publish(publications).await;
            }
            published
                .map(drop)
                .map_err(|error| refusal(&arrival, &error))
        })
    }
}

fn refusal(arrival: &Arrival, error: &PublishError) -> Refusal {
    let topic = &arrival.message.topic;
    match error {
        PublishError::Full { .. } | PublishError::DiskFull => {
            tracing::debug!(%topic, %error, "there is no room for an mqtt message");
            Refusal::Full
        }
        PublishError::TooLong { .. } | PublishError::Unfit { .. } => {
            tracing::debug!(%topic, %error, "an mqtt message is nothing for its queue");
            Refusal::Invalid
        }
        PublishError::Unknown(_) | PublishError::Unavailable(_) => {
            tracing::warn!(%topic, %error, "an mqtt message cannot be kept");
            Refusal::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use tombolo_core::{PublishFuture, Published};

    use super::*;
    use crate::mqtt::{Message, Properties, Qos};

    /// A journal in memory, which refuses what it is told to refuse, once.
    #[derive(Default)]
    struct Kept {
        transactions: Mutex<Vec<Vec<Publication>>>,
        refusal: Mutex<Option<PublishError>>,
    }

    impl Publish for Kept {
        fn publish(&self, publications: Vec<Publication>) -> PublishFuture {
            let outcome = match self.refusal.lock().unwrap().take() {
                Some(error) => Err(error),
                None => Ok(publications
                    .iter()
                    .map(|_| Published::Accepted(1))
                    .collect()),
            };
            if outcome.is_ok() {
                self.transactions.lock().unwrap().push(publications);
            }
            Box::pin(std::future::ready(outcome))
        }
    }

    fn queue(text: &str) -> QueueId {
        let (app, queue) = text.split_once('/').unwrap();
        QueueId {
            app: app.parse().unwrap(),
            queue: queue.parse().unwrap(),
        }
    }

    fn subscribe(subscriptions: &Subscriptions, app: &str, filters: &[(&str, &str)]) {
        let filters = filters.iter();
        let filters = filters.map(|(filter, to)| (filter.parse().unwrap(), queue(to)));
        subscriptions.replace(&app.parse().unwrap(), filters.collect());
    }

    async fn arrive(subscriptions: &Subscriptions, topic: &str) -> Result<(), Refusal> {
        let message = Message {
            topic: topic.into(),
            payload: Bytes::from_static(b"1"),
            qos: Qos::AtMostOnce,
            retain: false,
            expires: None,
            properties: Properties::default(),
        };
        let arrival = Arrival {
            client: None,
            message: Arc::new(Message {
                properties: Properties {
                    user: ["specversion:1.0", "id:1", "source:/a", "type:t"]
                        .iter()
                        .filter_map(|pair| pair.split_once(':'))
                        .map(|(name, value)| (name.into(), value.into()))
                        .collect(),
                    ..Properties::default()
                },
                ..message
            }),
        };
        subscriptions.accept(arrival).await
    }

    fn queues(kept: &Kept) -> Vec<Vec<String>> {
        let transactions = std::mem::take(&mut *kept.transactions.lock().unwrap());
        let names = |publications: Vec<Publication>| {
            let names = publications.iter().map(|one| one.queue.to_string());
            names.collect()
        };
        transactions.into_iter().map(names).collect()
    }

    #[tokio::test]
    async fn a_message_goes_once_to_each_queue_that_wants_it_in_one_transaction() {
        let kept = Arc::new(Kept::default());
        let subscriptions = Subscriptions::new(kept.clone()).unwrap();
        subscribe(
            &subscriptions,
            "plant",
            &[
                ("m/+", "plant/a.mqtt"),
                ("m/#", "plant/a.mqtt"),
                ("m/7", "plant/b.mqtt"),
            ],
        );
        subscribe(&subscriptions, "other", &[("#", "other/c.mqtt")]);
        arrive(&subscriptions, "m/7").await.unwrap();
        arrive(&subscriptions, "n").await.unwrap();
        let expected = [
            vec!["other/c.mqtt", "plant/a.mqtt", "plant/b.mqtt"],
            vec!["other/c.mqtt"],
        ];
        assert_eq!(queues(&kept), expected);
        subscribe(&subscriptions, "other", &[]);
        subscribe(&subscriptions, "plant", &[("n", "plant/b.mqtt")]);
        arrive(&subscriptions, "m/7").await.unwrap();
        arrive(&subscriptions, "n").await.unwrap();
        assert_eq!(queues(&kept), [["plant/b.mqtt"]]);
    }

    #[tokio::test]
    async fn what_the_journal_refuses_is_refused_with_its_reason() {
        let kept = Arc::new(Kept::default());
        let subscriptions = Subscriptions::new(kept.clone()).unwrap();
        subscribe(&subscriptions, "plant", &[("#", "plant/a.mqtt")]);
        let retry_after = std::time::Duration::ZERO;
        let full = PublishError::Full {
            queue: queue("plant/a.mqtt"),
            retry_after,
        };
        for (error, refusal) in [
            (full, Refusal::Full),
            (PublishError::DiskFull, Refusal::Full),
            (PublishError::TooLong { bound_bytes: 1 }, Refusal::Invalid),
            (PublishError::Unavailable("closed".into()), Refusal::Failed),
        ] {
            *kept.refusal.lock().unwrap() = Some(error);
            assert_eq!(arrive(&subscriptions, "m").await, Err(refusal));
        }
        // The queue is gone, and with the filters of now another one gets the message.
        let unknown = PublishError::Unknown(queue("plant/a.mqtt"));
        *kept.refusal.lock().unwrap() = Some(unknown);
        arrive(&subscriptions, "m").await.unwrap();
        assert_eq!(queues(&kept), [["plant/a.mqtt"]]);
    }
}
