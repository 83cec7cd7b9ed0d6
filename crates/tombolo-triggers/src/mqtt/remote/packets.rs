//! Packets as a client of a broker sends and reads them; MQTT 5.

use std::sync::Arc;

use bytes::Bytes;
use mqtt_proto::{Pid, QoS, v5};
use tokio::time::Instant;

use super::RemoteBroker;
use crate::mqtt::message::Qos;
use crate::mqtt::topic::TopicFilter;
use crate::mqtt::wire::{self, Answer, Packet, Publish, Version, WireError};

/// Messages that the broker may send before they are acknowledged.
pub const WINDOW: u16 = 64;
/// How long the broker is to keep what it has for us while we are away.
const SESSION_EXPIRY_SECONDS: u32 = 7 * 24 * 3600;

/// A packet of a broker.
pub enum FromBroker {
    Welcome {
        /// The broker still has the session, with its subscriptions.
        present: bool,
    },
    Denied(String),
    Publish(Box<Publish>),
    /// PUBREL: the broker knows that we have this message.
    Release(u16),
    /// What came of each subscription: false when it was refused.
    Subscribed(Vec<bool>),
    Unsubscribed,
    Pong,
    Goodbye(String),
}

/// Reads a packet of a broker.
pub fn decode(head: u8, body: &[u8]) -> Result<FromBroker, WireError> {
    use v5::PacketType as Type;
    let length = u32::try_from(body.len()).map_err(|_| WireError::Malformed)?;
    let header = v5::Header::new_with(head, length, length)?;
    let mut end = 0;
    Ok(match header.typ {
        Type::Connack => {
            let connack = v5::Connack::decode(body, &mut end, header)?;
            match connack.reason_code {
                v5::ConnectReasonCode::Success => FromBroker::Welcome {
                    present: connack.session_present,
                },
                code => {
                    FromBroker::Denied(said(&format!("{code:?}"), connack.properties.reason_string))
                }
            }
        }
        Type::Suback => {
            let suback = v5::Suback::decode(body, &mut end, header)?;
            let granted = suback.topics.iter().map(|code| (*code as u8) < 0x80);
            FromBroker::Subscribed(granted.collect())
        }
        Type::Unsuback => FromBroker::Unsubscribed,
        Type::Pingresp => FromBroker::Pong,
        Type::Disconnect => {
            let disconnect = v5::Disconnect::decode(body, &mut end, header)?;
            let code = format!("{:?}", disconnect.reason_code);
            FromBroker::Goodbye(said(&code, disconnect.properties.reason_string))
        }
        _ => match wire::decode(Version::V5, head, body, Instant::now())? {
            Packet::Publish(publish) => FromBroker::Publish(Box::new(publish)),
            Packet::Answer {
                answer: Answer::Release,
                packet,
                ..
            } => FromBroker::Release(packet),
            _ => return Err(WireError::Protocol("no broker sends such a packet here")),
        },
    })
}

/// Reads bytes as whatever packet of a broker they may be, and forgets it: for the fuzzer.
pub fn read_any_of_broker(bytes: &[u8]) {
    if let Ok(Some(found)) = wire::frame(bytes, 1 << 20) {
        let body = bytes.get(found.body).unwrap_or_default();
        let _ = decode(found.head, body);
    }
}

/// The reason code, and the broker's own words where it has some.
fn said(code: &str, words: Option<Arc<str>>) -> String {
    match words {
        Some(words) => format!("{code}, {words:?}"),
        None => code.to_owned(),
    }
}

/// CONNECT, going on with the session of before.
pub fn connect(out: &mut Vec<u8>, broker: &RemoteBroker, client: &str, keep_alive_seconds: u16) {
    let mut packet = v5::Connect::new(client.into(), keep_alive_seconds);
    packet.clean_start = false;
    packet.properties.session_expiry_interval = Some(SESSION_EXPIRY_SECONDS);
    packet.properties.receive_max = Some(WINDOW);
    packet.username = broker.username.as_deref().map(Into::into);
    let password = broker.password.as_deref();
    packet.password = password.map(|password| Bytes::copy_from_slice(password.as_bytes()));
    put(out, packet.into());
}

/// SUBSCRIBE to all of these; without what was retained before.
pub fn subscribe<'f>(out: &mut Vec<u8>, filters: impl Iterator<Item = (&'f TopicFilter, Qos)>) {
    let topics = filters.filter_map(|(filter, qos)| {
        let mut options = v5::SubscriptionOptions::new(match qos {
            Qos::AtMostOnce => QoS::Level0,
            Qos::AtLeastOnce => QoS::Level1,
            Qos::ExactlyOnce => QoS::Level2,
        });
        options.retain_handling = v5::RetainHandling::DoNotSend;
        Some((name(filter.as_str())?, options))
    });
    let topics: Vec<_> = topics.collect();
    // Nothing else of ours has an identifier, but UNSUBSCRIBE.
    put(out, v5::Subscribe::new(Pid::default(), topics).into());
}

/// UNSUBSCRIBE from all of these.
pub fn unsubscribe(out: &mut Vec<u8>, filters: &[String]) {
    let topics = filters.iter().filter_map(|filter| name(filter)).collect();
    put(out, v5::Unsubscribe::new(Pid::default() + 1, topics).into());
}

pub fn ping(out: &mut Vec<u8>) {
    put(out, v5::Packet::Pingreq);
}

pub fn goodbye(out: &mut Vec<u8>) {
    put(out, v5::Disconnect::new_normal().into());
}

/// The filter as the codec has it, which accepts every filter that we accept.
fn name(filter: &str) -> Option<mqtt_proto::TopicFilter> {
    filter.try_into().ok()
}

fn put(out: &mut Vec<u8>, packet: v5::Packet) {
    // It fails only for what is longer than any packet may be.
    if let Ok(bytes) = packet.encode() {
        out.extend_from_slice(bytes.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use mqtt_proto::v5::{
        Connack, ConnectReasonCode, Disconnect, DisconnectReasonCode, Suback, SubscribeReasonCode,
        Unsuback, UnsubscribeReasonCode,
    };
    use proptest::prelude::*;

    use super::*;

    /// Packets of which a broker may send each.
    fn packets() -> Vec<Vec<u8>> {
        let mut welcome = Connack::new(true, ConnectReasonCode::Success);
        welcome.properties.reason_string = Some("as ever".into());
        let mut goodbye = Disconnect::new(DisconnectReasonCode::ServerBusy);
        goodbye.properties.reason_string = Some("later".into());
        let granted = vec![SubscribeReasonCode::GrantedQoS1];
        let gone = vec![UnsubscribeReasonCode::Success];
        let packets: [v5::Packet; 5] = [
            welcome.into(),
            goodbye.into(),
            Suback::new(Pid::default(), granted).into(),
            Unsuback::new(Pid::default(), gone).into(),
            v5::Packet::Pingresp,
        ];
        let encoded = packets.iter().map(v5::Packet::encode);
        encoded.map(|one| one.unwrap().as_ref().to_vec()).collect()
    }

    #[test]
    fn what_a_broker_sends_is_read() {
        for packet in packets() {
            assert!(decode(packet[0], &packet[2..]).is_ok(), "{packet:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_broker_break_the_decoder(
            packet in prop::sample::select(packets()),
            head in any::<Option<u8>>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            tail in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut body = packet[2..].to_vec();
            body.extend(tail);
            for (index, value) in changes {
                if !body.is_empty() {
                    let index = index.index(body.len());
                    body[index] = value;
                }
            }
            let mut bytes = vec![head.unwrap_or(packet[0]), u8::try_from(body.len()).unwrap()];
            bytes.extend(body);
            read_any_of_broker(&bytes);
        }
    }
}
