//! Packets of both protocol versions, read into one form; decoding itself is `mqtt-proto`'s.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mqtt_proto::{QoS, v3, v5};
use tokio::time::Instant;

use super::message::{Message, Properties, Qos};
use super::session::Options;
use super::switch::RetainedWanted;
use super::topic::{Selection, TopicError, check_name};

/// The protocol of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// MQTT 3.1.1, and 3.1, which differs from it in the name only.
    V3,
    V5,
}

/// Why what a client sent is no packet that it may send.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("the packet is malformed")]
    Malformed,
    #[error("the packet breaks the protocol: {0}")]
    Protocol(&'static str),
    #[error("the packet has {0} bytes")]
    TooLong(usize),
    #[error("the protocol version is not supported")]
    Version,
    #[error("the topic is not valid")]
    Topic(#[from] TopicError),
}

impl From<mqtt_proto::Error> for WireError {
    fn from(_: mqtt_proto::Error) -> Self {
        Self::Malformed
    }
}

impl From<v5::ErrorV5> for WireError {
    fn from(_: v5::ErrorV5) -> Self {
        Self::Malformed
    }
}

/// What a client asks for when it connects.
#[derive(Debug)]
pub struct Connect {
    pub version: Version,
    pub id: Arc<str>,
    pub clean: bool,
    pub keep_alive: Duration,
    pub expiry: Duration,
    /// How many unacknowledged messages it takes.
    pub window: u16,
    /// The longest packet that it takes.
    pub packet_bytes_max: usize,
    pub will: Option<Will>,
    pub user: Option<Arc<str>>,
    pub password: Option<Bytes>,
    /// It wants a kind of authentication that takes more than one step.
    pub extended: bool,
}

/// What is published for a client that goes without a word.
#[derive(Clone, Debug)]
pub struct Will {
    pub delay: Duration,
    pub expiry: Option<Duration>,
    pub message: Message,
}

/// A message as a client sent it.
#[derive(Debug)]
pub struct Publish {
    pub packet: Option<u16>,
    pub alias: Option<u16>,
    /// Its topic is empty when the alias stands for one.
    pub message: Message,
}

/// The four answers in the exchange of one message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// PUBACK: QoS 1 is done.
    Acknowledged,
    /// PUBREC: QoS 2, the receiver has it.
    Received,
    /// PUBREL: QoS 2, the sender knows that.
    Release,
    /// PUBCOMP: QoS 2 is done.
    Complete,
}

#[derive(Debug)]
pub struct Wanted {
    pub selection: Selection,
    pub options: Options,
    pub retained: RetainedWanted,
}

/// A packet of a client, after its CONNECT.
#[derive(Debug)]
pub enum Packet {
    Publish(Publish),
    Answer {
        answer: Answer,
        packet: u16,
        /// The client did not refuse (MQTT 5 reason codes from 0x80 on).
        success: bool,
    },
    Subscribe {
        packet: u16,
        wanted: Vec<Result<Wanted, TopicError>>,
    },
    Unsubscribe {
        packet: u16,
        selections: Vec<Result<Selection, TopicError>>,
    },
    Ping,
    Disconnect {
        /// The will is to be published nevertheless.
        with_will: bool,
        expiry: Option<Duration>,
    },
}

/// The first packet of a stream: its first byte, and where its body begins and ends.
pub struct Frame {
    pub head: u8,
    pub body: std::ops::Range<usize>,
}

/// Finds the first packet in the bytes; none while it is not there wholly.
///
/// # Errors
/// It is longer than allowed, or its length is malformed.
pub fn frame(bytes: &[u8], bytes_max: usize) -> Result<Option<Frame>, WireError> {
    let Some((&head, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let mut length = 0;
    for (index, byte) in rest.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let start = index + 2;
            if start + length > bytes_max {
                return Err(WireError::TooLong(start + length));
            }
            let body = start..start + length;
            return Ok((bytes.len() >= body.end).then_some(Frame { head, body }));
        }
    }
    if rest.len() >= 4 {
        return Err(WireError::Malformed);
    }
    Ok(None)
}

/// Reads the first packet of a connection.
pub fn decode_connect(head: u8, body: &[u8]) -> Result<Connect, WireError> {
    let length = u32::try_from(body.len()).map_err(|_| WireError::Malformed)?;
    let header = v3::Header::new_with(head, length, length)?;
    if header.typ != v3::PacketType::Connect {
        return Err(WireError::Protocol("the first packet is not CONNECT"));
    }
    let mut end = 0;
    let connect = match v3::Connect::decode(body, &mut end) {
        Ok(connect) => connect_v3(connect)?,
        Err(mqtt_proto::Error::UnexpectedProtocol(mqtt_proto::Protocol::V500)) => {
            end = 0;
            let header = v5::Header::new_with(head, length, length)?;
            connect_v5(v5::Connect::decode(body, &mut end, header)?)?
        }
        Err(mqtt_proto::Error::InvalidProtocol(..)) => return Err(WireError::Version),
        Err(error) => return Err(error.into()),
    };
    whole(body, end)?;
    Ok(connect)
}

/// Reads a packet that follows the first one.
pub fn decode(version: Version, head: u8, body: &[u8], now: Instant) -> Result<Packet, WireError> {
    match version {
        Version::V3 => decode_v3(head, body),
        Version::V5 => decode_v5(head, body, now),
    }
}

/// Reads bytes as whatever packet they may be, and forgets it: for the fuzzer.
pub fn read_any(bytes: &[u8]) {
    let Ok(Some(Frame { head, body })) = frame(bytes, 1 << 20) else {
        return;
    };
    let body = bytes.get(body).unwrap_or_default();
    let _ = decode_connect(head, body);
    for version in [Version::V3, Version::V5] {
        let _ = decode(version, head, body, Instant::now());
    }
}

/// `mqtt-proto` leaves what follows a packet's last field unread.
fn whole(body: &[u8], end: usize) -> Result<(), WireError> {
    if end == body.len() {
        Ok(())
    } else {
        Err(WireError::Malformed)
    }
}

fn decode_v3(head: u8, body: &[u8]) -> Result<Packet, WireError> {
    use v3::PacketType as Type;
    let length = u32::try_from(body.len()).map_err(|_| WireError::Malformed)?;
    let header = v3::Header::new_with(head, length, length)?;
    let mut end = 0;
    let packet = match header.typ {
        Type::Publish => {
            let publish = v3::Publish::decode(body, &mut end, header)?;
            let qos = publish.qos_pid.qos();
            Packet::Publish(Publish {
                packet: publish.qos_pid.pid().map(mqtt_proto::Pid::value),
                alias: None,
                message: Message {
                    topic: checked(&publish.topic_name)?,
                    payload: publish.payload,
                    qos: qos.into(),
                    retain: publish.retain,
                    expires: None,
                    properties: Properties::default(),
                },
            })
        }
        Type::Puback | Type::Pubrec | Type::Pubrel | Type::Pubcomp => {
            let answer = match header.typ {
                Type::Puback => Answer::Acknowledged,
                Type::Pubrec => Answer::Received,
                Type::Pubrel => Answer::Release,
                _ => Answer::Complete,
            };
            let &[high, low] = body else {
                return Err(WireError::Malformed);
            };
            end = 2;
            Packet::Answer {
                answer,
                packet: u16::from_be_bytes([high, low]),
                success: true,
            }
        }
        Type::Subscribe => {
            let subscribe = v3::Subscribe::decode(body, &mut end, header)?;
            let wanted = subscribe.topics.iter().map(|(filter, qos)| {
                Ok(Wanted {
                    selection: filter.parse()?,
                    options: Options {
                        qos: (*qos).into(),
                        ..Options::default()
                    },
                    retained: RetainedWanted::Always,
                })
            });
            Packet::Subscribe {
                packet: subscribe.pid.value(),
                wanted: wanted.collect(),
            }
        }
        Type::Unsubscribe => {
            let unsubscribe = v3::Unsubscribe::decode(body, &mut end, header)?;
            Packet::Unsubscribe {
                packet: unsubscribe.pid.value(),
                selections: unsubscribe
                    .topics
                    .iter()
                    .map(|filter| filter.parse())
                    .collect(),
            }
        }
        Type::Pingreq => Packet::Ping,
        Type::Disconnect => Packet::Disconnect {
            with_will: false,
            expiry: None,
        },
        _ => return Err(WireError::Protocol("no client sends such a packet here")),
    };
    whole(body, end)?;
    Ok(packet)
}

fn decode_v5(head: u8, body: &[u8], now: Instant) -> Result<Packet, WireError> {
    use v5::PacketType as Type;
    let length = u32::try_from(body.len()).map_err(|_| WireError::Malformed)?;
    let header = v5::Header::new_with(head, length, length)?;
    let mut end = 0;
    let answer = |answer, pid: mqtt_proto::Pid, code: u8| Packet::Answer {
        answer,
        packet: pid.value(),
        success: code < 0x80,
    };
    let packet = match header.typ {
        Type::Publish => publish_v5(v5::Publish::decode(body, &mut end, header)?, now)?,
        Type::Puback => {
            let packet = v5::Puback::decode(body, &mut end, header)?;
            answer(Answer::Acknowledged, packet.pid, packet.reason_code as u8)
        }
        Type::Pubrec => {
            let packet = v5::Pubrec::decode(body, &mut end, header)?;
            answer(Answer::Received, packet.pid, packet.reason_code as u8)
        }
        Type::Pubrel => {
            let packet = v5::Pubrel::decode(body, &mut end, header)?;
            answer(Answer::Release, packet.pid, packet.reason_code as u8)
        }
        Type::Pubcomp => {
            let packet = v5::Pubcomp::decode(body, &mut end, header)?;
            answer(Answer::Complete, packet.pid, packet.reason_code as u8)
        }
        Type::Subscribe => {
            let subscribe = v5::Subscribe::decode(body, &mut end, header)?;
            let id = subscribe
                .properties
                .subscription_id
                .map(v5::VarByteInt::value);
            if id == Some(0) {
                return Err(WireError::Protocol("a subscription identifier is 0"));
            }
            let wanted = subscribe.topics.iter();
            Packet::Subscribe {
                packet: subscribe.pid.value(),
                wanted: wanted
                    .map(|(filter, options)| wanted_v5(filter, options, id))
                    .collect(),
            }
        }
        Type::Unsubscribe => {
            let unsubscribe = v5::Unsubscribe::decode(body, &mut end, header)?;
            Packet::Unsubscribe {
                packet: unsubscribe.pid.value(),
                selections: unsubscribe
                    .topics
                    .iter()
                    .map(|filter| filter.parse())
                    .collect(),
            }
        }
        Type::Pingreq => Packet::Ping,
        Type::Disconnect => {
            let disconnect = v5::Disconnect::decode(body, &mut end, header)?;
            Packet::Disconnect {
                with_will: disconnect.reason_code != v5::DisconnectReasonCode::NormalDisconnect,
                expiry: disconnect.properties.session_expiry_interval.map(seconds),
            }
        }
        _ => {
            return Err(WireError::Protocol("no client sends such a packet here"));
        }
    };
    whole(body, end)?;
    Ok(packet)
}

fn wanted_v5(
    filter: &str,
    options: &v5::SubscriptionOptions,
    id: Option<u32>,
) -> Result<Wanted, TopicError> {
    Ok(Wanted {
        selection: filter.parse()?,
        options: Options {
            qos: options.max_qos.into(),
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            id,
        },
        retained: match options.retain_handling {
            v5::RetainHandling::SendAtSubscribe => RetainedWanted::Always,
            v5::RetainHandling::SendAtSubscribeIfNotExist => RetainedWanted::WhenNew,
            v5::RetainHandling::DoNotSend => RetainedWanted::Never,
        },
    })
}

fn publish_v5(publish: v5::Publish, now: Instant) -> Result<Packet, WireError> {
    let properties = publish.properties;
    if properties.subscription_id.is_some() {
        return Err(WireError::Protocol(
            "a client sends no subscription identifiers",
        ));
    }
    let topic = if publish.topic_name.is_empty() && properties.topic_alias.is_some() {
        Arc::from("")
    } else {
        checked(&publish.topic_name)?
    };
    let expiry = properties.message_expiry_interval.map(seconds);
    Ok(Packet::Publish(Publish {
        packet: publish.qos_pid.pid().map(mqtt_proto::Pid::value),
        alias: properties.topic_alias,
        message: Message {
            topic,
            payload: publish.payload,
            qos: publish.qos_pid.qos().into(),
            retain: publish.retain,
            expires: expiry.map(|expiry| now + expiry),
            properties: Properties {
                content_type: properties.content_type,
                text: properties.payload_is_utf8,
                response_topic: response_topic(properties.response_topic)?,
                correlation: properties.correlation_data,
                user: user_properties(properties.user_properties),
            },
        },
    }))
}

fn connect_v3(connect: v3::Connect) -> Result<Connect, WireError> {
    let will = connect.last_will.map(|will| {
        Ok::<_, WireError>(Will {
            delay: Duration::ZERO,
            expiry: None,
            message: Message {
                topic: checked(&will.topic_name)?,
                payload: will.message,
                qos: will.qos.into(),
                retain: will.retain,
                expires: None,
                properties: Properties::default(),
            },
        })
    });
    Ok(Connect {
        version: Version::V3,
        id: name(connect.client_id)?,
        clean: connect.clean_session,
        keep_alive: Duration::from_secs(connect.keep_alive.into()),
        // Without an end, as far as the broker goes along with it.
        expiry: if connect.clean_session {
            Duration::ZERO
        } else {
            seconds(u32::MAX)
        },
        window: u16::MAX,
        packet_bytes_max: usize::MAX,
        will: will.transpose()?,
        user: connect.username.map(name).transpose()?,
        password: connect.password,
        extended: false,
    })
}

fn connect_v5(connect: v5::Connect) -> Result<Connect, WireError> {
    let properties = connect.properties;
    if properties.receive_max == Some(0) || properties.max_packet_size == Some(0) {
        return Err(WireError::Protocol("a maximum is 0"));
    }
    let will = connect.last_will.map(|will| {
        let properties = will.properties;
        Ok::<_, WireError>(Will {
            delay: seconds(properties.delay_interval.unwrap_or(0)),
            expiry: properties.message_expiry_interval.map(seconds),
            message: Message {
                topic: checked(&will.topic_name)?,
                payload: will.payload,
                qos: will.qos.into(),
                retain: will.retain,
                expires: None,
                properties: Properties {
                    content_type: properties.content_type,
                    text: properties.payload_is_utf8,
                    response_topic: response_topic(properties.response_topic)?,
                    correlation: properties.correlation_data,
                    user: user_properties(properties.user_properties),
                },
            },
        })
    });
    Ok(Connect {
        version: Version::V5,
        id: name(connect.client_id)?,
        clean: connect.clean_start,
        keep_alive: Duration::from_secs(connect.keep_alive.into()),
        expiry: seconds(properties.session_expiry_interval.unwrap_or(0)),
        window: properties.receive_max.unwrap_or(u16::MAX),
        packet_bytes_max: properties
            .max_packet_size
            .map_or(usize::MAX, |size| size as usize),
        will: will.transpose()?,
        user: connect.username.map(name).transpose()?,
        password: connect.password,
        extended: properties.auth_method.is_some(),
    })
}

fn seconds(count: u32) -> Duration {
    Duration::from_secs(count.into())
}

fn checked(topic: &str) -> Result<Arc<str>, WireError> {
    check_name(topic)?;
    Ok(topic.into())
}

fn response_topic(topic: Option<mqtt_proto::TopicName>) -> Result<Option<Arc<str>>, WireError> {
    topic.map(|topic| checked(&topic)).transpose()
}

/// Identifiers and names of users go into logs and permissions.
fn name(text: Arc<str>) -> Result<Arc<str>, WireError> {
    const BYTES_MAX: usize = 256;
    if text.len() > BYTES_MAX || text.chars().any(char::is_control) {
        return Err(WireError::Malformed);
    }
    Ok(text)
}

fn user_properties(properties: Vec<v5::UserProperty>) -> Vec<(Arc<str>, Arc<str>)> {
    properties
        .into_iter()
        .map(|one| (one.name, one.value))
        .collect()
}

impl From<QoS> for Qos {
    fn from(qos: QoS) -> Self {
        match qos {
            QoS::Level0 => Self::AtMostOnce,
            QoS::Level1 => Self::AtLeastOnce,
            QoS::Level2 => Self::ExactlyOnce,
        }
    }
}

#[cfg(test)]
mod tests {
    use mqtt_proto::QosPid;
    use proptest::prelude::*;

    use super::*;

    /// A packet as a client sends it, so that what is changed in it is not far from right.
    fn packets() -> impl Strategy<Value = Vec<u8>> {
        let mut connect = v5::Connect::new("client".into(), 60);
        let topic = mqtt_proto::TopicName::try_from("will/a").unwrap();
        connect.last_will = Some(v5::LastWill::new(QoS::Level1, topic.clone(), "x".into()));
        connect.username = Some("user".into());
        connect.properties.receive_max = Some(9);
        let pid = mqtt_proto::Pid::try_from(7).unwrap();
        let mut publish = v5::Publish::new(QosPid::Level2(pid), topic.clone(), "payload".into());
        publish.properties.content_type = Some("text/plain".into());
        publish.properties.message_expiry_interval = Some(5);
        let filter = mqtt_proto::TopicFilter::try_from("$share/g/a/+/#").unwrap();
        let options = v5::SubscriptionOptions::new(QoS::Level1);
        let five: Vec<v5::Packet> = vec![
            connect.into(),
            publish.into(),
            v5::Subscribe::new(pid, vec![(filter.clone(), options)]).into(),
            v5::Unsubscribe::new(pid, vec![filter.clone()]).into(),
            v5::Puback::new_success(pid).into(),
            v5::Disconnect::new_normal().into(),
        ];
        let publish = v3::Publish::new(QosPid::Level1(pid), topic, Bytes::from_static(b"x"));
        let three: Vec<v3::Packet> = vec![
            v3::Connect::new("client".into(), 60).into(),
            publish.into(),
            v3::Subscribe::new(pid, vec![(filter, QoS::Level2)]).into(),
        ];
        let five = five
            .into_iter()
            .map(|packet| packet.encode().unwrap().as_ref().to_vec());
        let three = three
            .into_iter()
            .map(|packet| packet.encode().unwrap().as_ref().to_vec());
        prop::sample::select(five.chain(three).collect::<Vec<_>>())
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read_any(&bytes);
        }

        #[test]
        fn no_change_of_a_packet_breaks_the_decoder(
            mut bytes in packets(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
            repair in any::<bool>(),
        ) {
            for (index, value) in changes {
                let index = index.index(bytes.len());
                bytes[index] = value;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            if repair && bytes.len() > 1 {
                // The length is right, so that the change is seen by what is behind it.
                bytes[1] = u8::try_from(bytes.len() - 2).unwrap() & 0x7f;
            }
            read_any(&bytes);
        }
    }

    #[test]
    fn a_frame_is_found_when_it_is_whole() {
        assert!(frame(&[], 100).unwrap().is_none());
        assert!(frame(&[0x30], 100).unwrap().is_none());
        assert!(frame(&[0x30, 2, 0], 100).unwrap().is_none());
        let found = frame(&[0x30, 2, 0, 0, 9], 100).unwrap().unwrap();
        assert_eq!((found.head, found.body), (0x30, 2..4));
        assert!(matches!(
            frame(&[0x30, 0x80, 1], 129),
            Err(WireError::TooLong(131))
        ));
        assert!(matches!(
            frame(&[0x30, 255, 255, 255, 255], 100),
            Err(WireError::Malformed)
        ));
    }
}
