//! Packets of the broker as bytes. PUBLISH, of which there are many, is written straight from the shared message; most others by `mqtt-proto`.

use mqtt_proto::{Pid, v3, v5};
use tokio::time::Instant;

use super::config::MqttBounds;
use super::message::{Message, Qos, Refusal};
use super::session::Delivery;
use super::wire::{Answer, Version, WireError};

/// Why a client may not connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denial {
    Version,
    Identifier,
    Credentials,
    Forbidden,
    Busy,
    Extended,
}

/// What came of one subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Granted {
    Yes(Qos),
    Forbidden,
    Invalid,
    TooMany,
}

/// What became of a published message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Accepted,
    Forbidden,
    Refused(Refusal),
}

/// Why the broker ends a connection; MQTT 5 clients are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Goodbye {
    Malformed,
    Protocol,
    TooLong,
    Topic,
    Alias,
    Window,
    Silent,
    TakenOver,
    ShuttingDown,
    Refused,
}

/// Takes what the codec wrote. It fails only for what is longer than any packet may be, and
/// nothing that is written here is.
fn put(out: &mut Vec<u8>, bytes: Result<mqtt_proto::VarBytes, mqtt_proto::Error>) {
    if let Ok(bytes) = bytes {
        out.extend_from_slice(bytes.as_ref());
    }
}

/// CONNACK to a client that is let in.
pub fn welcome(
    out: &mut Vec<u8>,
    version: Version,
    present: bool,
    assigned: Option<&str>,
    expiry: Option<u32>,
    bounds: &MqttBounds,
) {
    match version {
        Version::V3 => {
            let code = v3::ConnectReturnCode::Accepted;
            put(
                out,
                v3::Packet::Connack(v3::Connack::new(present, code)).encode(),
            );
        }
        Version::V5 => {
            let mut packet = v5::Connack::new(present, v5::ConnectReasonCode::Success);
            packet.properties.assigned_client_id = assigned.map(Into::into);
            packet.properties.session_expiry_interval = expiry;
            packet.properties.receive_max = Some(bounds.arriving_max);
            packet.properties.max_packet_size = Some(bounds.packet_bytes_max);
            packet.properties.topic_alias_max = Some(super::inbound::ALIASES_MAX);
            put(out, v5::Packet::Connack(packet).encode());
        }
    }
}

/// CONNACK to a client that is not.
pub fn denial(out: &mut Vec<u8>, version: Version, denial: Denial) {
    match version {
        Version::V3 => {
            use v3::ConnectReturnCode as Code;
            let code = match denial {
                Denial::Version => Code::UnacceptableProtocolVersion,
                Denial::Identifier => Code::IdentifierRejected,
                Denial::Credentials => Code::BadUserNameOrPassword,
                Denial::Forbidden | Denial::Extended => Code::NotAuthorized,
                Denial::Busy => Code::ServerUnavailable,
            };
            put(
                out,
                v3::Packet::Connack(v3::Connack::new(false, code)).encode(),
            );
        }
        Version::V5 => {
            use v5::ConnectReasonCode as Code;
            let code = match denial {
                Denial::Version => Code::UnsupportedProtocolVersion,
                Denial::Identifier => Code::ClientIdentifierNotValid,
                Denial::Credentials => Code::BadUserNameOrPassword,
                Denial::Forbidden => Code::NotAuthorized,
                Denial::Busy => Code::ServerBusy,
                Denial::Extended => Code::BadAuthMethod,
            };
            put(
                out,
                v5::Packet::Connack(v5::Connack::new(false, code)).encode(),
            );
        }
    }
}

/// PUBACK or PUBREC for a message of a client.
pub fn verdict(out: &mut Vec<u8>, version: Version, qos: Qos, packet: u16, verdict: Verdict) {
    let answer = match qos {
        Qos::AtMostOnce => return,
        Qos::AtLeastOnce => Answer::Acknowledged,
        Qos::ExactlyOnce => Answer::Received,
    };
    let code = match verdict {
        Verdict::Accepted => 0x00,
        Verdict::Forbidden => 0x87,
        Verdict::Refused(Refusal::Full) => 0x97,
        Verdict::Refused(Refusal::Invalid) => 0x99,
        Verdict::Refused(Refusal::Failed) => 0x80,
    };
    self::answer(out, version, answer, packet, code);
}

/// One of the four answers; the code is MQTT 5's, where 0 is success.
pub fn answer(out: &mut Vec<u8>, version: Version, answer: Answer, packet: u16, code: u8) {
    let head = match answer {
        Answer::Acknowledged => 0x40,
        Answer::Received => 0x50,
        Answer::Release => 0x62,
        Answer::Complete => 0x70,
    };
    let [high, low] = packet.to_be_bytes();
    if version == Version::V3 || code == 0 {
        out.extend_from_slice(&[head, 2, high, low]);
    } else {
        out.extend_from_slice(&[head, 3, high, low, code]);
    }
}

/// SUBACK.
pub fn granted(out: &mut Vec<u8>, version: Version, packet: u16, granted: &[Granted]) {
    let Ok(pid) = Pid::try_from(packet) else {
        return;
    };
    match version {
        Version::V3 => {
            // Not by the codec, which writes 3 for what is 0x80 (its 0.4.0).
            out.push(0x90);
            put_var_int(out, 2 + granted.len());
            out.extend_from_slice(&packet.to_be_bytes());
            out.extend(granted.iter().map(|one| match one {
                Granted::Yes(Qos::AtMostOnce) => 0,
                Granted::Yes(Qos::AtLeastOnce) => 1,
                Granted::Yes(Qos::ExactlyOnce) => 2,
                Granted::Forbidden | Granted::Invalid | Granted::TooMany => 0x80,
            }));
        }
        Version::V5 => {
            use v5::SubscribeReasonCode as Code;
            let codes = granted.iter().map(|one| match one {
                Granted::Yes(Qos::AtMostOnce) => Code::GrantedQoS0,
                Granted::Yes(Qos::AtLeastOnce) => Code::GrantedQoS1,
                Granted::Yes(Qos::ExactlyOnce) => Code::GrantedQoS2,
                Granted::Forbidden => Code::NotAuthorized,
                Granted::Invalid => Code::TopicFilterInvalid,
                Granted::TooMany => Code::QuotaExceeded,
            });
            put(
                out,
                v5::Packet::Suback(v5::Suback::new(pid, codes.collect())).encode(),
            );
        }
    }
}

/// UNSUBACK; whether there was such a subscription.
pub fn unsubscribed(out: &mut Vec<u8>, version: Version, packet: u16, existed: &[bool]) {
    let Ok(pid) = Pid::try_from(packet) else {
        return;
    };
    match version {
        Version::V3 => put(out, v3::Packet::Unsuback(pid).encode()),
        Version::V5 => {
            use v5::UnsubscribeReasonCode as Code;
            let codes = existed.iter().map(|existed| match existed {
                true => Code::Success,
                false => Code::NoSubscriptionExisted,
            });
            put(
                out,
                v5::Packet::Unsuback(v5::Unsuback::new(pid, codes.collect())).encode(),
            );
        }
    }
}

/// PINGRESP.
pub fn pong(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xd0, 0]);
}

/// DISCONNECT, which MQTT 3.1.1 servers do not have.
pub fn goodbye(out: &mut Vec<u8>, version: Version, goodbye: Goodbye) {
    if version == Version::V3 {
        return;
    }
    use v5::DisconnectReasonCode as Code;
    let code = match goodbye {
        Goodbye::Malformed => Code::MalformedPacket,
        Goodbye::Protocol => Code::ProtocolError,
        Goodbye::TooLong => Code::PacketTooLarge,
        Goodbye::Topic => Code::TopicNameInvalid,
        Goodbye::Alias => Code::TopicAliasInvalid,
        Goodbye::Window => Code::ReceiveMaximumExceeded,
        Goodbye::Silent => Code::KeepAliveTimeout,
        Goodbye::TakenOver => Code::SessionTakenOver,
        Goodbye::ShuttingDown => Code::ServerShuttingDown,
        Goodbye::Refused => Code::QuotaExceeded,
    };
    put(
        out,
        v5::Packet::Disconnect(v5::Disconnect::new(code)).encode(),
    );
}

impl From<&WireError> for Goodbye {
    fn from(error: &WireError) -> Self {
        match error {
            WireError::Malformed | WireError::Version => Self::Malformed,
            WireError::Protocol(_) => Self::Protocol,
            WireError::TooLong(_) => Self::TooLong,
            WireError::Topic(_) => Self::Topic,
        }
    }
}

/// PUBLISH to a client. False when the packet would be longer than the client takes; then
/// nothing is written.
pub fn publish(
    out: &mut Vec<u8>,
    version: Version,
    delivery: &Delivery,
    packet: Option<u16>,
    again: bool,
    now: Instant,
    bytes_max: usize,
) -> bool {
    let message = &*delivery.message;
    let mut properties = Vec::new();
    if version == Version::V5 {
        publish_properties(&mut properties, message, &delivery.ids, now);
    }
    let mut length = 2 + message.topic.len() + message.payload.len();
    length += packet.map_or(0, |_| 2);
    if version == Version::V5 {
        length += var_int_bytes(properties.len()) + properties.len();
    }
    if 1 + var_int_bytes(length) + length > bytes_max {
        return false;
    }
    let qos = match delivery.qos {
        Qos::AtMostOnce => 0,
        Qos::AtLeastOnce => 0b0010,
        Qos::ExactlyOnce => 0b0100,
    };
    out.push(0x30 | qos | u8::from(again) << 3 | u8::from(delivery.retain));
    put_var_int(out, length);
    put_text(out, message.topic.as_bytes());
    if let Some(packet) = packet {
        out.extend_from_slice(&packet.to_be_bytes());
    }
    if version == Version::V5 {
        put_var_int(out, properties.len());
        out.extend_from_slice(&properties);
    }
    out.extend_from_slice(&message.payload);
    true
}

/// The properties of PUBLISH (MQTT 5, 3.3.2.3).
fn publish_properties(out: &mut Vec<u8>, message: &Message, ids: &[u32], now: Instant) {
    let properties = &message.properties;
    if let Some(text) = properties.text {
        out.extend_from_slice(&[0x01, u8::from(text)]);
    }
    if let Some(expires) = message.expires {
        let left = expires.saturating_duration_since(now).as_secs();
        out.push(0x02);
        out.extend_from_slice(&u32::try_from(left).unwrap_or(u32::MAX).to_be_bytes());
    }
    for (id, text) in [
        (
            0x03,
            properties.content_type.as_ref().map(|text| text.as_bytes()),
        ),
        (
            0x08,
            properties
                .response_topic
                .as_ref()
                .map(|text| text.as_bytes()),
        ),
        (0x09, properties.correlation.as_deref()),
    ] {
        if let Some(text) = text {
            out.push(id);
            put_text(out, text);
        }
    }
    for id in ids {
        out.push(0x0b);
        put_var_int(out, *id as usize);
    }
    for (name, value) in &properties.user {
        out.push(0x26);
        put_text(out, name.as_bytes());
        put_text(out, value.as_bytes());
    }
}

/// Text or bytes with their length before them. What came as one is never longer than the length
/// can say; what a function gives was checked when it was published.
fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend(text.iter().take(usize::from(length)));
}

fn put_var_int(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn var_int_bytes(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}
