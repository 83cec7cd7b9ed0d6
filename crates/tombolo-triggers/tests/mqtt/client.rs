//! A broker to talk to, a journal that does as it is told, and a client that shows every packet.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mqtt_proto::{Pid, QoS, QosPid, TopicName, v3, v5};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tombolo_store::KeyValue;
use tombolo_triggers::mqtt::{
    Accept, AcceptFuture, Arrival, Broker, BrokerHandle, Message, MqttConfig, MqttListener,
    Refusal, Rule,
};

/// Nothing here takes long; what does is a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Stands where the journal does: notes what arrives, and says yes when it is let.
pub struct Journal {
    pub gate: Semaphore,
    pub arrived: Mutex<Vec<Arrival>>,
    pub refuse: Mutex<Option<Refusal>>,
    seen: mpsc::Sender<()>,
}

pub struct Running {
    pub addresses: Vec<SocketAddr>,
    pub handle: BrokerHandle,
    pub journal: Arc<Journal>,
    seen: tokio::sync::Mutex<mpsc::Receiver<()>>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    /// What writes the sessions, and what ends it.
    writer: Option<(JoinHandle<()>, CancellationToken)>,
}

struct Through(Arc<Journal>);

impl Accept for Through {
    fn accept(&self, arrival: Arrival) -> AcceptFuture {
        let journal = self.0.clone();
        Box::pin(async move {
            journal.arrived.lock().unwrap().push(arrival);
            journal.seen.send(()).await.unwrap();
            journal.gate.acquire().await.unwrap().forget();
            match *journal.refuse.lock().unwrap() {
                None => Ok(()),
                Some(refusal) => Err(refusal),
            }
        })
    }
}

pub fn everything() -> Rule {
    Rule {
        user: None,
        publish: true,
        subscribe: true,
        topics: "#".into(),
    }
}

pub fn open_config() -> MqttConfig {
    MqttConfig {
        listeners: vec![MqttListener {
            address: ([127, 0, 0, 1], 0).into(),
            tls: None,
            anonymous: true,
        }],
        rules: vec![everything()],
        ..MqttConfig::default()
    }
}

/// A broker whose journal says yes at once.
pub async fn start(config: MqttConfig) -> Running {
    let running = start_closed(config).await;
    running.journal.gate.add_permits(1_000_000);
    running
}

/// A broker whose journal waits for permits of its gate.
pub async fn start_closed(config: MqttConfig) -> Running {
    run_with(config, None, vec![]).await
}

/// The same, which keeps its sessions in a store.
pub async fn run_with(
    config: MqttConfig,
    memory: Option<KeyValue>,
    retained: Vec<Message>,
) -> Running {
    let (seen, seen_by) = mpsc::channel(100_000);
    let journal = Arc::new(Journal {
        gate: Semaphore::new(0),
        arrived: Mutex::default(),
        refuse: Mutex::default(),
        seen,
    });
    let broker = Broker::bind(config, Arc::new(Through(journal.clone()))).unwrap();
    let (addresses, handle) = (broker.local_addrs().to_vec(), broker.handle());
    broker.restore(retained);
    let mut writer = None;
    if let Some(memory) = memory {
        let sessions = broker.keep_sessions(memory).await.unwrap();
        let stop = CancellationToken::new();
        writer = Some((tokio::spawn(sessions.run(stop.clone())), stop));
    }
    let shutdown = CancellationToken::new();
    let until = shutdown.clone();
    let task = tokio::spawn(async move { broker.run(until).await.unwrap() });
    Running {
        addresses,
        handle,
        journal,
        seen: seen_by.into(),
        shutdown,
        task,
        writer,
    }
}

impl Running {
    /// Waits until one more message has reached the journal.
    pub async fn arrival(&self) -> Arrival {
        let mut seen = self.seen.lock().await;
        tokio::time::timeout(PATIENCE, seen.recv())
            .await
            .unwrap()
            .unwrap();
        self.journal.arrived.lock().unwrap().last().unwrap().clone()
    }

    pub fn arrived(&self) -> Vec<String> {
        let arrived = self.journal.arrived.lock().unwrap();
        let show = |one: &Arrival| {
            let text = String::from_utf8_lossy(&one.message.payload);
            format!("{}={text}", one.message.topic)
        };
        arrived.iter().map(show).collect()
    }

    pub async fn client(&self, id: &str) -> Client<TcpStream> {
        Client::connected(self.tcp().await, connect(id)).await
    }

    pub async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.addresses[0]).await.unwrap()
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .unwrap()
            .unwrap();
        if let Some((writer, stop)) = self.writer {
            stop.cancel();
            tokio::time::timeout(PATIENCE, writer)
                .await
                .unwrap()
                .unwrap();
        }
    }

    /// Ends everything where it stands, as a power cut would.
    pub async fn cut(self) {
        let writer = self.writer.map(|(writer, _)| writer);
        for task in writer.into_iter().chain([self.task]) {
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
    }
}

pub fn connect(id: &str) -> v5::Connect {
    v5::Connect::new(id.into(), 0)
}

/// A session that outlives its connection.
pub fn lasting(id: &str) -> v5::Connect {
    let mut connect = connect(id);
    connect.clean_start = false;
    connect.properties.session_expiry_interval = Some(600);
    connect
}

pub fn pid(packet: u16) -> Pid {
    packet.try_into().unwrap()
}

/// A client of MQTT 5 that sends what it is told and shows what it gets.
pub struct Client<S> {
    pub stream: S,
    input: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn new(stream: S) -> Self {
        let input = Vec::new();
        Self { stream, input }
    }

    pub async fn connected(stream: S, connect: v5::Connect) -> Self {
        let (client, connack) = Self::hello(stream, connect).await;
        assert_eq!(connack.reason_code, v5::ConnectReasonCode::Success);
        client
    }

    pub async fn hello(stream: S, connect: v5::Connect) -> (Self, v5::Connack) {
        let mut client = Self::new(stream);
        client.send(connect.into()).await;
        match client.packet().await {
            v5::Packet::Connack(connack) => (client, connack),
            other => panic!("{other:?}"),
        }
    }

    pub async fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub async fn send(&mut self, packet: v5::Packet) {
        self.raw(packet.encode().unwrap().as_ref()).await;
    }

    pub async fn send_v3(&mut self, packet: v3::Packet) {
        self.raw(packet.encode().unwrap().as_ref()).await;
    }

    /// The bytes of the next packet; none when the broker closed the connection.
    pub async fn bytes(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(length) = length(&self.input)
                && self.input.len() >= length
            {
                return Some(self.input.drain(..length).collect());
            }
            let read = self.stream.read_buf(&mut self.input);
            match tokio::time::timeout(PATIENCE, read)
                .await
                .expect("a packet in time")
            {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    pub async fn packet(&mut self) -> v5::Packet {
        let bytes = self.bytes().await.expect("a packet before the end");
        v5::Packet::decode(&bytes).unwrap().unwrap()
    }

    pub async fn packet_v3(&mut self) -> v3::Packet {
        let bytes = self.bytes().await.expect("a packet before the end");
        v3::Packet::decode(&bytes).unwrap().unwrap()
    }

    pub async fn publish(&mut self, qos: u8, packet: u16, topic: &str, payload: &str) {
        self.send(message(qos, packet, topic, payload).into()).await;
    }

    pub async fn subscribe(&mut self, filter: &str, qos: QoS) -> v5::SubscribeReasonCode {
        self.subscribe_with(filter, v5::SubscriptionOptions::new(qos))
            .await
    }

    pub async fn subscribe_with(
        &mut self,
        filter: &str,
        options: v5::SubscriptionOptions,
    ) -> v5::SubscribeReasonCode {
        let topics = vec![(filter.try_into().unwrap(), options)];
        self.send(v5::Subscribe::new(pid(7), topics).into()).await;
        match self.packet().await {
            v5::Packet::Suback(suback) => suback.topics[0],
            other => panic!("{other:?}"),
        }
    }

    /// The next message, acknowledged when it wants to be.
    pub async fn message(&mut self) -> v5::Publish {
        let v5::Packet::Publish(publish) = self.packet().await else {
            panic!("a message is expected");
        };
        if let QosPid::Level1(pid) = publish.qos_pid {
            self.send(v5::Puback::new_success(pid).into()).await;
        }
        publish
    }

    pub async fn payload(&mut self) -> String {
        String::from_utf8(self.message().await.payload.to_vec()).unwrap()
    }

    /// Everything that the broker has sent so far is there: it answers in order.
    pub async fn is_idle(&mut self) -> bool {
        self.send(v5::Packet::Pingreq).await;
        self.packet().await == v5::Packet::Pingresp
    }

    pub async fn disconnect(mut self) {
        self.send(v5::Disconnect::new_normal().into()).await;
        assert_eq!(self.bytes().await, None);
    }
}

pub fn message(qos: u8, packet: u16, topic: &str, payload: &str) -> v5::Publish {
    let qos_pid = match qos {
        0 => QosPid::Level0,
        1 => QosPid::Level1(pid(packet)),
        _ => QosPid::Level2(pid(packet)),
    };
    let topic = TopicName::try_from(topic).unwrap();
    v5::Publish::new(qos_pid, topic, payload.as_bytes().to_vec().into())
}

fn length(bytes: &[u8]) -> Option<usize> {
    let mut length = 0;
    for (index, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some(index + 2 + length);
        }
    }
    None
}
