//! What functions publish: into which queues and to which topics, as which events, and how much an instance holds of what is not published yet.

pub(crate) mod topic;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tombolo_core::event::{Bounds, Event};
use tombolo_core::publish::PRIORITY_DEFAULT;
use tombolo_core::{
    Blame, Code, Failure, FunctionId, Name, Origin, Publication, Publish, PublishTopic, QueueId,
    Receipt, TraceContext,
};

use crate::egress::Caller;
use crate::function::Grants;

pub(crate) use topic::{TopicPublisher, TopicTerms};

/// The type of an event whose function says none.
pub(crate) const TYPE_DEFAULT: &str = "tombolo.message";

/// Bytes of messages and bodies that one instance holds at most until they are published.
const HELD_BYTES_MAX: usize = 16 << 20;

/// The way of an instance's events to the journal and to the broker.
#[derive(Default)]
pub(crate) struct Publishing {
    publish: Option<Arc<dyn Publish>>,
    topics: Option<Arc<dyn PublishTopic>>,
    /// Made when the instance publishes, which most never do.
    room: Option<Room>,
}

/// The room that an instance has for what it wants to publish.
#[derive(Clone)]
pub(crate) struct Room(Arc<Semaphore>);

/// A part of the room, given back when it is dropped.
#[derive(Default)]
pub(crate) struct Held(Option<OwnedSemaphorePermit>);

impl Publishing {
    pub(crate) fn new(
        publish: Option<Arc<dyn Publish>>,
        topics: Option<Arc<dyn PublishTopic>>,
    ) -> Self {
        Self {
            publish,
            topics,
            room: None,
        }
    }

    pub(crate) fn room(&mut self) -> Room {
        let make = || Room(Arc::new(Semaphore::new(HELD_BYTES_MAX)));
        self.room.get_or_insert_with(make).clone()
    }

    /// Who publishes into a queue of the caller's own app; refused without a grant of that queue.
    pub(crate) fn publisher(
        &self,
        caller: &Caller,
        grants: &Grants,
        queue: &str,
    ) -> Result<Publisher, Failure> {
        let granted = queue.parse::<Name>().ok();
        let granted = granted.filter(|name| grants.queues.contains(name));
        let name = granted.ok_or_else(|| {
            let detail = format!(
                "the manifest does not grant the queue `{queue}`; `grants = {{ queues = [\"{queue}\"] }}` would"
            );
            Failure::new(Code::NotAllowed, Blame::Caller, detail)
        })?;
        let collected = caller.effects.clone().map(|effects| Arc::new(effects) as _);
        let publish = collected.or_else(|| self.publish.clone()).ok_or_else(|| {
            let detail = "this node keeps no events";
            Failure::new(Code::PublishUnavailable, Blame::Host, detail)
        })?;
        Ok(Publisher {
            publish,
            queue: QueueId {
                app: caller.function.app.clone(),
                queue: name.into(),
            },
            author: Author::of(caller),
        })
    }
}

impl Room {
    /// Takes `bytes` more.
    pub(crate) fn add(&self, held: &mut Held, bytes: usize) -> Result<(), Failure> {
        let permits = u32::try_from(bytes).ok();
        let permit =
            permits.and_then(|permits| Arc::clone(&self.0).try_acquire_many_owned(permits).ok());
        let permit = permit.ok_or_else(|| {
            let detail = format!(
                "the function holds more than {HELD_BYTES_MAX} bytes that it has not published"
            );
            Failure::new(Code::Busy, Blame::Guest, detail).retry_after(Duration::from_secs(1))
        })?;
        match &mut held.0 {
            Some(all) => all.merge(permit),
            None => held.0 = Some(permit),
        }
        Ok(())
    }
}

/// When events are to be delivered, and before which others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) due_wall_ms: Option<u64>,
    pub(crate) priority: u8,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            due_wall_ms: None,
            priority: PRIORITY_DEFAULT,
        }
    }
}

/// An invocation that publishes.
pub(crate) struct Author {
    function: FunctionId,
    trace: TraceContext,
    origin: Origin,
}

impl Author {
    fn of(caller: &Caller) -> Self {
        Self {
            function: caller.function.clone(),
            trace: caller.trace,
            origin: caller.origin(),
        }
    }

    /// A name for an event that nobody else gives: the span is the invocation's own.
    pub(crate) fn id(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let TraceContext {
            trace_id, span_id, ..
        } = self.trace;
        let number = NEXT.fetch_add(1, Relaxed);
        format!("{trace_id:032x}-{span_id:016x}-{number:x}")
    }

    /// The source of the function's events.
    pub(crate) fn source(&self) -> String {
        format!("/{}", self.function)
    }
}

/// An invocation that publishes into one queue.
pub(crate) struct Publisher {
    pub(crate) author: Author,
    publish: Arc<dyn Publish>,
    queue: QueueId,
}

impl Publisher {
    /// Publishes all of the events or none; ready once they are as durable as the queue says, or are collected to
    /// be committed with the acknowledgement of the invocation's own event.
    pub(crate) async fn publish(
        self,
        events: Vec<Event>,
        terms: Terms,
    ) -> Result<Receipt, Failure> {
        if events.is_empty() {
            return Ok(Receipt::default());
        }
        let mut publications = Vec::with_capacity(events.len());
        for event in events {
            event.check_within(&Bounds::default())?;
            publications.push(Publication {
                due_wall_ms: terms.due_wall_ms,
                priority: terms.priority,
                ..Publication::new(self.queue.clone(), event).origin(self.author.origin)
            });
        }
        let published = self.publish.publish(publications).await?;
        Ok(published.into_iter().collect())
    }
}

/// The present as events tell it.
pub(crate) fn now() -> String {
    format!("{:.3}", Timestamp::now())
}

#[cfg(test)]
pub(crate) mod fake {
    use std::sync::Mutex;
    use std::time::Instant;

    use tombolo_core::{PublishError, PublishFuture, Published};

    use super::*;

    /// A journal in memory, which can be told to refuse.
    #[derive(Default)]
    pub(crate) struct Kept {
        pub(crate) publications: Mutex<Vec<Publication>>,
        pub(crate) refusal: Mutex<Option<PublishError>>,
    }

    impl Publish for Kept {
        fn publish(&self, publications: Vec<Publication>) -> PublishFuture {
            let outcome = match self.refusal.lock().unwrap().clone() {
                Some(error) => Err(error),
                None => Ok(publications.into_iter().map(|one| self.keep(one)).collect()),
            };
            Box::pin(std::future::ready(outcome))
        }
    }

    impl Kept {
        fn keep(&self, publication: Publication) -> Published {
            let mut kept = self.publications.lock().unwrap();
            let name = |one: &Publication| (one.event.source.clone(), one.event.id.clone());
            if kept.iter().any(|one| name(one) == name(&publication)) {
                return Published::Duplicate;
            }
            kept.push(publication);
            Published::Accepted(kept.len() as u64)
        }

        /// A publisher of the function `plant/sensor`, which may use the queue `readings`.
        pub(crate) fn publisher(self: &Arc<Self>, queue: &str) -> Result<Publisher, Failure> {
            let grants = Grants {
                queues: vec!["readings".parse().unwrap()],
                ..Grants::default()
            };
            let publish: Arc<dyn Publish> = Arc::clone(self) as _;
            Publishing::new(Some(publish), None).publisher(&caller(), &grants, queue)
        }
    }

    pub(crate) fn caller() -> Caller {
        Caller {
            function: FunctionId {
                app: "plant".parse().unwrap(),
                function: "sensor".parse().unwrap(),
            },
            trace: TraceContext {
                trace_id: 7,
                span_id: 9,
                sampled: true,
            },
            request_id: "request-7".into(),
            deadline: Instant::now(),
            hops: 0,
            client: None,
            effects: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::{Kept, caller};
    use super::*;

    #[test]
    fn only_granted_queues_of_the_own_app_are_reached() {
        let kept = Arc::new(Kept::default());
        let publisher = kept.publisher("readings").ok().unwrap();
        assert_eq!(publisher.queue.to_string(), "plant/readings");
        assert_eq!(publisher.author.source(), "/plant/sensor");
        for other in ["plans", "readings.dead", "readings.other", "", "Readings"] {
            let failure = kept.publisher(other).err().unwrap();
            assert_eq!(failure.code, Code::NotAllowed, "{other}");
            assert!(
                failure.detail.contains("grants = { queues = ["),
                "{failure}"
            );
        }
    }

    #[test]
    fn a_node_without_a_journal_says_so() {
        let grants = Grants {
            queues: vec!["readings".parse().unwrap()],
            ..Grants::default()
        };
        let none = Publishing::default().publisher(&caller(), &grants, "readings");
        assert_eq!(none.err().unwrap().code, Code::PublishUnavailable);
    }

    #[test]
    fn ids_differ_within_one_invocation() {
        let kept = Arc::new(Kept::default());
        let publisher = kept.publisher("readings").ok().unwrap();
        let (first, second) = (publisher.author.id(), publisher.author.id());
        assert_ne!(first, second);
        let begin = "00000000000000000000000000000007-0000000000000009-";
        assert!(first.starts_with(begin) && second.starts_with(begin));
    }

    #[test]
    fn room_is_bounded_and_given_back() {
        let room = Publishing::default().room();
        let (mut one, mut other) = (Held::default(), Held::default());
        room.add(&mut one, HELD_BYTES_MAX - 1).unwrap();
        room.add(&mut one, 1).unwrap();
        assert_eq!(room.add(&mut other, 1).unwrap_err().code, Code::Busy);
        drop(one);
        room.add(&mut other, HELD_BYTES_MAX).unwrap();
    }

    #[test]
    fn the_present_is_a_timestamp_of_events() {
        let mut event = Event::new("1", "/a", "b");
        event.set("time", now()).unwrap();
    }
}
