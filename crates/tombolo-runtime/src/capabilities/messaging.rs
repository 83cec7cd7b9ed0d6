//! `wasi:messaging` 0.2.0-draft, producer: a message is an event in a granted queue, or goes to a granted topic of the node's broker.

use std::collections::BTreeMap;

use bytes::Bytes;
use tombolo_core::event::{Event, EventError};
use tombolo_core::{Blame, Code, Failure, TopicQos};
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};

use crate::publishing::{Author, Held, TYPE_DEFAULT, TopicTerms, now};
use crate::state::{Capabilities, State};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/messaging",
        world: "imports",
        imports: {
            "wasi:messaging/producer.send": async | trappable,
            default: trappable,
        },
        with: {
            "wasi:messaging/types.client": crate::capabilities::messaging::Client,
            "wasi:messaging/types.message": crate::capabilities::messaging::Message,
        },
        require_store_data_send: true,
    });
}

use bindings::wasi::messaging::{producer, types};

/// What a client is connected to: by the name `mqtt` to the node's broker, by any other to the app's queues.
pub enum Client {
    Broker,
    Queues,
}

/// The name that a client connects to the broker with.
const BROKER: &str = "mqtt";
/// The metadata that say how a message goes to a topic.
const QOS: &str = "mqtt-qos";
const RETAIN: &str = "mqtt-retain";

/// A message that the guest makes.
#[derive(Default)]
pub struct Message {
    data: Vec<u8>,
    content_type: Option<String>,
    metadata: BTreeMap<String, String>,
    held: Held,
}

/// What a key of metadata costs beside its text.
const METADATA_BYTES: usize = 64;

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    types::add_to_linker::<_, Capabilities>(linker, |state| state)?;
    producer::add_to_linker::<_, Capabilities>(linker, |state| state)
}

/// Links `send` once more, so that each event belongs to the invocation whose task sends it.
pub(super) fn link_concurrent(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    type Arguments = (Resource<Client>, String, Resource<Message>);
    linker.allow_shadowing(true);
    linker
        .instance("wasi:messaging/producer@0.2.0-draft")?
        .func_wrap_async(
            "send",
            |mut store: StoreContextMut<'_, State>, (client, topic, message): Arguments| {
                Box::new(async move {
                    let tasks: Vec<_> = store.async_call_stack()?.collect();
                    let state = store.data_mut();
                    state.egress.work_for(&tasks);
                    let sent = producer::Host::send(state, client, topic, message).await?;
                    Ok((sent,))
                })
            },
        )?;
    linker.allow_shadowing(false);
    Ok(())
}

impl Message {
    fn bytes(&self) -> usize {
        let metadata = self.metadata.iter();
        let metadata = metadata.map(|(key, value)| key.len() + value.len() + METADATA_BYTES);
        let content_type = self.content_type.as_ref().map_or(0, String::len);
        self.data.len() + content_type + metadata.sum::<usize>()
    }

    /// Takes what the metadata say about the way to a topic.
    fn topic_terms(&mut self) -> Result<TopicTerms, Failure> {
        let mut terms = TopicTerms::default();
        let bad = |key, wanted, value: &str| {
            let detail = format!("the metadata `{key}` are {wanted}, not `{value}`");
            Failure::new(Code::BadRequest, Blame::Caller, detail)
        };
        if let Some(value) = self.metadata.remove(QOS) {
            let qos = TopicQos::of_number(&value);
            terms.qos = qos.ok_or_else(|| bad(QOS, "0 to 2", &value))?;
        }
        if let Some(value) = self.metadata.remove(RETAIN) {
            let retain = value.parse();
            terms.retain = retain.map_err(|_| bad(RETAIN, "true or false", &value))?;
        }
        Ok(terms)
    }

    /// The event that it becomes. Metadata that begin with `ce-` are attributes and have to be valid ones; of
    /// the others `type` and `subject` are too, and what can be an extension is one.
    fn into_event(self, author: &Author) -> Result<Event, EventError> {
        let mut event = Event::new("", "", "");
        event.data = Some(self.data.into()).filter(|data: &Bytes| !data.is_empty());
        if let Some(content_type) = self.content_type {
            event.set("datacontenttype", content_type)?;
        }
        let is_set = |event: &Event, name: &str| {
            let value = event.attribute(name);
            value.is_some_and(|value| !value.is_empty())
        };
        let mut others = Vec::new();
        for (key, value) in self.metadata {
            let key = key.to_ascii_lowercase();
            match key.strip_prefix("ce-") {
                Some(name) if is_set(&event, name) => {}
                Some(name) => event.set(name, value)?,
                None => others.push((key, value)),
            }
        }
        for (name, value) in others {
            let own = matches!(name.as_str(), "id" | "source" | "time" | "dataschema");
            if !own && !is_set(&event, &name) {
                // Decoration that is no valid attribute stays behind.
                let _ = event.set(&name, value);
            }
        }
        for (name, make) in [
            ("id", Author::id as fn(&Author) -> String),
            ("source", Author::source),
            ("type", |_| TYPE_DEFAULT.to_owned()),
            ("time", |_| now()),
        ] {
            if !is_set(&event, name) {
                event.set(name, make(author))?;
            }
        }
        Ok(event)
    }
}

type Answer<T> = wasmtime::Result<Result<T, types::Error>>;

fn error(failure: &Failure) -> types::Error {
    let text = format!("{failure} ({})", failure.code);
    match failure.code {
        Code::NotAllowed => types::Error::PermissionDenied(text),
        Code::PublishUnavailable => types::Error::Connection(text),
        _ => types::Error::Other(text),
    }
}

impl State {
    fn message(&self, message: &Resource<Message>) -> wasmtime::Result<&Message> {
        Ok(self.table.get(message)?)
    }

    /// Changes a message, within the room that the instance has for what it publishes.
    fn change(
        &mut self,
        message: &Resource<Message>,
        change: impl FnOnce(&mut Message),
    ) -> wasmtime::Result<()> {
        let room = self.egress.publishing.room();
        let message = self.table.get_mut(message)?;
        change(message);
        message.held = Held::default();
        let bytes = message.bytes();
        let added = room.add(&mut message.held, bytes);
        // The interface has no error for it.
        added.map_err(|failure| wasmtime::format_err!("{failure}"))
    }
}

impl types::Host for State {}

impl types::HostClient for State {
    fn connect(&mut self, name: String) -> Answer<Resource<Client>> {
        let client = match name.as_str() {
            BROKER => Client::Broker,
            _ => Client::Queues,
        };
        Ok(Ok(self.table.push(client)?))
    }

    fn disconnect(&mut self, client: Resource<Client>) -> Answer<()> {
        self.table.get(&client)?;
        Ok(Ok(()))
    }

    fn drop(&mut self, client: Resource<Client>) -> wasmtime::Result<()> {
        self.table.delete(client)?;
        Ok(())
    }
}

impl types::HostMessage for State {
    fn new(&mut self, data: Vec<u8>) -> wasmtime::Result<Resource<Message>> {
        let message = self.table.push(Message::default())?;
        self.change(&message, |message| message.data = data)?;
        Ok(message)
    }

    fn topic(&mut self, message: Resource<Message>) -> wasmtime::Result<Option<String>> {
        // Only a message that was received came by a topic.
        self.message(&message)?;
        Ok(None)
    }

    fn content_type(&mut self, message: Resource<Message>) -> wasmtime::Result<Option<String>> {
        Ok(self.message(&message)?.content_type.clone())
    }

    fn set_content_type(
        &mut self,
        message: Resource<Message>,
        content_type: String,
    ) -> wasmtime::Result<()> {
        self.change(&message, |message| {
            message.content_type = Some(content_type);
        })
    }

    fn data(&mut self, message: Resource<Message>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.message(&message)?.data.clone())
    }

    fn set_data(&mut self, message: Resource<Message>, data: Vec<u8>) -> wasmtime::Result<()> {
        self.change(&message, |message| message.data = data)
    }

    fn metadata(
        &mut self,
        message: Resource<Message>,
    ) -> wasmtime::Result<Option<types::Metadata>> {
        let metadata = &self.message(&message)?.metadata;
        let pairs = || metadata.clone().into_iter().collect();
        Ok((!metadata.is_empty()).then(pairs))
    }

    fn add_metadata(
        &mut self,
        message: Resource<Message>,
        key: String,
        value: String,
    ) -> wasmtime::Result<()> {
        self.change(&message, |message| {
            message.metadata.insert(key, value);
        })
    }

    fn set_metadata(
        &mut self,
        message: Resource<Message>,
        metadata: types::Metadata,
    ) -> wasmtime::Result<()> {
        self.change(&message, |message| {
            message.metadata = metadata.into_iter().collect();
        })
    }

    fn remove_metadata(&mut self, message: Resource<Message>, key: String) -> wasmtime::Result<()> {
        self.change(&message, |message| {
            message.metadata.remove(&key);
        })
    }

    fn drop(&mut self, message: Resource<Message>) -> wasmtime::Result<()> {
        self.table.delete(message)?;
        Ok(())
    }
}

impl producer::Host for State {
    async fn send(
        &mut self,
        client: Resource<Client>,
        topic: String,
        message: Resource<Message>,
    ) -> Answer<()> {
        let to_broker = matches!(self.table.get(&client)?, Client::Broker);
        let mut message = self.table.delete(message)?;
        // The room is given back when the event is kept.
        let _held = std::mem::take(&mut message.held);
        let sent: Result<(), Failure> = match to_broker {
            true => {
                let publisher = self.egress.topic_publisher(&topic);
                let sent = async {
                    let publisher = publisher?;
                    let terms = message.topic_terms()?;
                    let event = message.into_event(&publisher.author)?;
                    publisher.publish(event, terms).await
                };
                sent.await
            }
            false => {
                let publisher = self.egress.publisher(&topic);
                let sent = async {
                    let publisher = publisher?;
                    let event = message.into_event(&publisher.author)?;
                    publisher
                        .publish(vec![event], tombolo_core::Terms::default())
                        .await
                };
                sent.await.map(drop)
            }
        };
        Ok(sent.map_err(|failure| error(&failure)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::publishing::fake::Kept;

    fn message(data: &str, metadata: &[(&str, &str)]) -> Message {
        let pairs = metadata.iter();
        let pairs = pairs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Message {
            data: data.into(),
            metadata: pairs.collect(),
            ..Message::default()
        }
    }

    fn event(message: Message) -> Result<Event, EventError> {
        let publisher = Arc::new(Kept::default()).publisher("readings");
        message.into_event(&publisher.ok().unwrap().author)
    }

    #[test]
    fn a_bare_message_is_an_event_of_the_function() {
        let event = event(message("20.5", &[])).unwrap();
        assert_eq!(event.source, "/plant/sensor");
        assert_eq!(event.kind, "tombolo.message");
        assert_eq!(event.data.as_deref(), Some(&b"20.5"[..]));
        assert_eq!(event.datacontenttype, None);
        assert!(event.time.is_some() && !event.id.is_empty());
        event.check().unwrap();
    }

    #[test]
    fn metadata_become_attributes_where_they_can() {
        let mut sent = message(
            "{}",
            &[
                ("ce-type", "reading"),
                ("type", "decoration"),
                ("subject", "hall-3"),
                ("ce-id", "42"),
                ("id", "43"),
                ("source", "/elsewhere"),
                ("ce-site", "harbour"),
                ("ce-specversion", "1.0"),
                ("ce-datacontenttype", "text/plain"),
                ("Colour", "red"),
                ("not-a-name", "x"),
                ("bad", "a\nb"),
                ("data", "x"),
            ],
        );
        sent.content_type = Some("application/json".into());
        let event = event(sent).unwrap();
        assert_eq!((event.kind.as_str(), event.id.as_str()), ("reading", "42"));
        assert_eq!(event.source, "/plant/sensor");
        assert_eq!(event.subject.as_deref(), Some("hall-3"));
        assert_eq!(event.datacontenttype.as_deref(), Some("application/json"));
        let extensions = event.extensions.iter();
        let extensions: Vec<_> = extensions.map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(extensions, [("colour", "red"), ("site", "harbour")]);
        event.check().unwrap();
    }

    #[test]
    fn metadata_say_how_a_message_goes_to_a_topic() {
        let terms = |metadata: &[(&str, &str)]| message("", metadata).topic_terms();
        let qos = TopicQos::ExactlyOnce;
        let expected = TopicTerms { qos, retain: true };
        assert_eq!(terms(&[(QOS, "2"), (RETAIN, "true")]).unwrap(), expected);
        assert_eq!(terms(&[("type", "x")]).unwrap(), TopicTerms::default());
        for bad in [(QOS, "3"), (QOS, ""), (RETAIN, "1")] {
            assert_eq!(terms(&[bad]).unwrap_err().code, Code::BadRequest);
        }
    }

    #[test]
    fn what_is_meant_as_an_attribute_has_to_be_valid() {
        for (key, value) in [
            ("ce-time", "yesterday"),
            ("ce-type", ""),
            ("ce-source", "/a b"),
            ("ce-not_a_name", "x"),
            ("ce-data", "x"),
        ] {
            assert!(event(message("", &[(key, value)])).is_err(), "{key}");
        }
        let mut sent = message("", &[]);
        sent.content_type = Some("no media type".into());
        assert!(event(sent).is_err());
    }
}
