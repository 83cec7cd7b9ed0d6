//! A small MQTT 3.1.1 client that loads a broker: publishers with a window each, and one subscriber that counts.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// How long anything may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(120);

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH_QOS_1: u8 = 0x32;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;

/// What is published: so many messages of so many bytes to so many topics, by so many clients.
#[derive(Clone, Copy)]
pub struct Load {
    pub messages: u32,
    pub bytes: u32,
    pub topics: u32,
    pub publishers: u32,
    /// Messages of one publisher that wait for their acknowledgement.
    pub window: u32,
}

struct Connection {
    stream: TcpStream,
    input: BufReader<TcpStream>,
}

impl Connection {
    fn open(address: SocketAddr, name: &str) -> Result<Self> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("nobody listens at {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let input = BufReader::with_capacity(64 << 10, stream.try_clone()?);
        let mut connection = Self { stream, input };
        // Protocol level 4, a clean session, no keep-alive.
        let mut body = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
        text(&mut body, name)?;
        connection.stream.write_all(&packet(CONNECT, &body)?)?;
        let (head, body) = connection.read()?;
        ensure!(
            head == CONNACK && body == [0, 0],
            "the broker refuses {name}"
        );
        Ok(connection)
    }

    fn read(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut byte = [0];
        self.input.read_exact(&mut byte)?;
        let [head] = byte;
        let (mut length, mut shift) = (0, 0);
        loop {
            self.input.read_exact(&mut byte)?;
            let [part] = byte;
            length |= usize::from(part & 0x7f) << shift;
            shift += 7;
            if part & 0x80 == 0 {
                break;
            }
            ensure!(shift <= 21, "a packet's length is malformed");
        }
        let mut body = vec![0; length];
        self.input.read_exact(&mut body)?;
        Ok((head, body))
    }
}

fn packet(head: u8, body: &[u8]) -> Result<Vec<u8>> {
    let mut packet = vec![head];
    let mut length = body.len();
    loop {
        let part = u8::try_from(length & 0x7f)?;
        length >>= 7;
        packet.push(if length > 0 { part | 0x80 } else { part });
        if length == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    Ok(packet)
}

fn text(body: &mut Vec<u8>, text: &str) -> Result<()> {
    body.extend(u16::try_from(text.len())?.to_be_bytes());
    body.extend(text.as_bytes());
    Ok(())
}

impl Load {
    /// Publishes everything with QoS 1; returns when every message was acknowledged.
    pub fn publish(self, address: SocketAddr) -> Result<()> {
        let publishers = (0..self.publishers).map(|publisher| {
            thread::spawn(move || {
                self.publish_part(address, publisher)
                    .with_context(|| format!("publisher {publisher}"))
            })
        });
        let publishers: Vec<_> = publishers.collect();
        for publisher in publishers {
            match publisher.join() {
                Ok(done) => done?,
                Err(_) => bail!("a publisher panicked"),
            }
        }
        Ok(())
    }

    fn publish_part(self, address: SocketAddr, publisher: u32) -> Result<()> {
        let mut connection = Connection::open(address, &format!("publisher-{publisher}"))?;
        let payload = vec![b'x'; usize::try_from(self.bytes)?];
        let count = self.messages / self.publishers;
        let (mut sent, mut acknowledged) = (0, 0);
        let mut output = Vec::new();
        while acknowledged < count {
            output.clear();
            while sent < count && sent - acknowledged < self.window {
                // Each publisher has topics of its own, as devices have.
                let topic = publisher + self.publishers * (sent % (self.topics / self.publishers));
                let mut body = Vec::new();
                text(&mut body, &format!("bench/{topic}"))?;
                body.extend(u16::try_from(sent % 60_000 + 1)?.to_be_bytes());
                body.extend_from_slice(&payload);
                output.extend(packet(PUBLISH_QOS_1, &body)?);
                sent += 1;
            }
            connection.stream.write_all(&output)?;
            // What has come already is taken with it.
            loop {
                let (head, _) = connection.read()?;
                ensure!(head == PUBACK, "the broker answers {head:#x}");
                acknowledged += 1;
                if connection.input.buffer().len() < 4 {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// A client that has subscribed to everything, with QoS 1.
pub struct Subscriber(Connection);

impl Subscriber {
    pub fn open(address: SocketAddr) -> Result<Self> {
        let mut connection = Connection::open(address, "subscriber")?;
        let mut body = vec![0, 1];
        text(&mut body, "bench/#")?;
        body.push(1);
        connection.stream.write_all(&packet(SUBSCRIBE, &body)?)?;
        let (head, body) = connection.read()?;
        ensure!(
            head == SUBACK && body.last() == Some(&1),
            "the broker refuses the subscription"
        );
        Ok(Self(connection))
    }

    /// Receives and acknowledges so many messages.
    pub fn receive(mut self, messages: u32) -> Result<()> {
        let mut output = Vec::new();
        for _ in 0..messages {
            let (head, body) = self.0.read()?;
            ensure!(head & 0xf0 == PUBLISH, "the broker sends {head:#x}");
            let (length, rest) = body.split_at_checked(2).context("no topic")?;
            let length = usize::from(u16::from_be_bytes(length.try_into()?));
            let id = rest.get(length..length + 2).context("no identifier")?;
            output.extend([PUBACK, 2]);
            output.extend_from_slice(id);
            if self.0.input.buffer().is_empty() {
                self.0.stream.write_all(&output)?;
                output.clear();
            }
        }
        self.0.stream.write_all(&output)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_in_seven_bits() {
        assert_eq!(packet(0x30, &[1, 2]).unwrap(), [0x30, 2, 1, 2]);
        let long = packet(0x30, &[0; 321]).unwrap();
        assert_eq!((&long[..3], long.len()), (&[0x30, 0xc1, 0x02][..], 324));
    }
}
