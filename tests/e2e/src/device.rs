//! An MQTT client that says what it is told to, byte for byte, whether or not that is allowed.

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const SUBACK: u8 = 9;
const PINGRESP: u8 = 13;
/// The packet identifier of whatever has one: there is one question at a time.
const IDENTIFIER: [u8; 2] = [0, 1];

/// How a client introduces itself. Texts are bytes, which need not be UTF-8.
#[derive(Clone, Copy, Default)]
pub struct Hello<'a> {
    /// MQTT 3.1.1 instead of 5.
    pub old: bool,
    pub client: &'a [u8],
    /// With the password `secret`.
    pub user: Option<&'a [u8]>,
    /// The topic of a will of QoS 1.
    pub will: Option<&'a [u8]>,
}

impl Hello<'_> {
    fn packet(&self) -> Vec<u8> {
        let mut flags = 2;
        let mut payload = text(self.client);
        if let Some(topic) = self.will {
            flags |= 4 | 8;
            payload.extend(self.no_properties());
            payload.extend(text(topic));
            payload.extend(text(b"will"));
        }
        if let Some(user) = self.user {
            flags |= 0x80 | 0x40;
            payload.extend(text(user));
            payload.extend(text(b"secret"));
        }
        let version = if self.old { 4 } else { 5 };
        let mut body = text(b"MQTT");
        body.extend([version, flags, 0, 0]);
        body.extend(self.no_properties());
        body.extend(payload);
        packet(0x10, &body)
    }

    /// The length of the properties, which MQTT 3.1.1 does not have.
    fn no_properties(&self) -> &'static [u8] {
        if self.old { &[] } else { &[0] }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The reason code; below 0x80 it was done.
    Code(u8),
    /// The connection was ended instead.
    Ended,
}

impl Reply {
    pub fn is_refusal(self) -> bool {
        !matches!(self, Self::Code(..0x80))
    }
}

/// A message as a subscriber gets it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
}

/// A client that is connected.
pub struct Device {
    stream: TcpStream,
    old: bool,
    /// What came while it waited for something else.
    received: Vec<Message>,
}

impl Device {
    /// Connects to the broker at this port of this machine.
    pub async fn connect(port: u16, hello: Hello<'_>) -> Result<Self> {
        match Self::try_connect(port, hello).await? {
            Ok(device) => Ok(device),
            Err(reply) => bail!("not connected: {reply:?}"),
        }
    }

    /// The same; the reply when the broker wants no such client.
    pub async fn try_connect(
        port: u16,
        hello: Hello<'_>,
    ) -> Result<std::result::Result<Self, Reply>> {
        let mut device = Self {
            stream: TcpStream::connect(("127.0.0.1", port)).await?,
            old: hello.old,
            received: Vec::new(),
        };
        device.write(&hello.packet()).await;
        Ok(match device.answer(CONNACK).await? {
            Some(body) => match body.get(1).context("an empty CONNACK")? {
                0 => Ok(device),
                code => Err(Reply::Code(*code)),
            },
            None => Err(Reply::Ended),
        })
    }

    /// Publishes with QoS 1.
    pub async fn publish(&mut self, topic: &[u8], payload: &[u8], retain: bool) -> Result<Reply> {
        self.publish_with(topic, &[], payload, retain).await
    }

    /// Publishes with QoS 1 by a topic alias (MQTT 5), which stands for the topic unless that is empty.
    pub async fn publish_alias(&mut self, topic: &[u8], alias: u8) -> Result<Reply> {
        self.publish_with(topic, &[0x23, 0, alias], b"alias", false)
            .await
    }

    async fn publish_with(
        &mut self,
        topic: &[u8],
        properties: &[u8],
        payload: &[u8],
        retain: bool,
    ) -> Result<Reply> {
        let mut body = text(topic);
        body.extend(IDENTIFIER);
        if !self.old {
            body.push(u8::try_from(properties.len())?);
            body.extend(properties);
        }
        body.extend(payload);
        let head = 0x32 | u8::from(retain);
        self.write(&packet(head, &body)).await;
        Ok(match self.answer(PUBACK).await? {
            // Success may be left out.
            Some(body) => Reply::Code(body.get(2).copied().unwrap_or(0)),
            None => Reply::Ended,
        })
    }

    /// Subscribes with QoS 1.
    pub async fn subscribe(&mut self, filter: &[u8]) -> Result<Reply> {
        let mut body = IDENTIFIER.to_vec();
        if !self.old {
            body.push(0);
        }
        body.extend(text(filter));
        body.push(1);
        self.write(&packet(0x82, &body)).await;
        Ok(match self.answer(SUBACK).await? {
            Some(body) => Reply::Code(*body.last().context("an empty SUBACK")?),
            None => Reply::Ended,
        })
    }

    /// Has the broker answer, so that what it sent before is here. False when the connection has ended.
    pub async fn ping(&mut self) -> Result<bool> {
        self.write(b"\xc0\x00").await;
        Ok(self.answer(PINGRESP).await?.is_some())
    }

    /// What has come, or is on its way. On a connection that has ended it is what came before.
    pub async fn settled(&mut self) -> Result<Vec<Message>> {
        // The broker may answer the first before it sends what waits, and has sent it before the second.
        for _ in 0..2 {
            self.ping().await?;
        }
        Ok(std::mem::take(&mut self.received))
    }

    /// The next message, acknowledged.
    pub async fn message(&mut self) -> Result<Message> {
        while self.received.is_empty() {
            let Some((head, body)) = self.read().await? else {
                bail!("the connection ended before there was a message");
            };
            ensure!(head >> 4 == PUBLISH, "{head:#x} {body:?}");
            self.keep(head, &body).await?;
        }
        Ok(self.received.remove(0))
    }

    /// The body of the next packet of this kind; none when the connection ends before.
    async fn answer(&mut self, kind: u8) -> Result<Option<Vec<u8>>> {
        while let Some((head, body)) = self.read().await? {
            match head >> 4 {
                PUBLISH => self.keep(head, &body).await?,
                seen if seen == kind => return Ok(Some(body)),
                // DISCONNECT: the end comes next.
                14 => {}
                _ => bail!("{head:#x} {body:?} instead of an answer"),
            }
        }
        Ok(None)
    }

    async fn keep(&mut self, head: u8, body: &[u8]) -> Result<()> {
        let rest = body.get(2..).context("no topic")?;
        let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let (topic, mut rest) = rest.split_at_checked(length).context("half a topic")?;
        let topic = String::from_utf8(topic.to_vec())?;
        if head & 0x06 != 0 {
            let (identifier, after) = rest.split_at_checked(2).context("no identifier")?;
            rest = after;
            self.write(&packet(0x40, identifier)).await;
        }
        if !self.old {
            let (length, after) = rest.split_first().context("no properties")?;
            ensure!(*length < 0x80, "long properties");
            rest = after.get(usize::from(*length)..).context("half of them")?;
        }
        let payload = rest.to_vec();
        self.received.push(Message { topic, payload });
        Ok(())
    }

    /// A broker that has ended the connection is noticed when its answer is read.
    async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.ok();
    }

    /// The next packet; none at the end of the connection, however it came.
    async fn read(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        let Ok(head) = self.stream.read_u8().await else {
            return Ok(None);
        };
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let byte = self.stream.read_u8().await?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
            shift += 7;
            ensure!(shift < 28, "a length of more than four bytes");
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(Some((head, body)))
    }
}

fn text(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("no text of a test is longer");
    [&length.to_be_bytes(), bytes].concat()
}

fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![head];
    let mut length = body.len();
    while length > 0x7f {
        packet.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    packet.push(length as u8);
    packet.extend(body);
    packet
}
