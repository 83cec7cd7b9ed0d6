//! Sessions that outlive the process: whatever was acknowledged is there again when the store is opened again.

use mqtt_proto::{QoS, QosPid, v5};
use tombolo_store::{KeyValue, Store, Write};
use tombolo_triggers::mqtt::{Message, MqttBounds, MqttConfig, Properties, Qos, User};

use crate::client::{Client, Running, lasting, message, open_config, pid, run_with};

/// A store, and a broker that keeps its sessions there.
struct Node {
    folder: tempfile::TempDir,
    store: Store,
    broker: Running,
}

fn memory(store: &Store) -> KeyValue {
    let name = |text: &str| text.parse().unwrap();
    store.key_value(&name("tombolo"), &name("sessions"))
}

impl Node {
    async fn start(folder: tempfile::TempDir, config: MqttConfig) -> Self {
        Self::start_with(folder, config, vec![]).await
    }

    async fn start_with(
        folder: tempfile::TempDir,
        config: MqttConfig,
        retained: Vec<Message>,
    ) -> Self {
        let store = Store::open(folder.path()).unwrap();
        let broker = run_with(config, Some(memory(&store)), retained).await;
        broker.journal.gate.add_permits(1_000_000);
        Self {
            folder,
            store,
            broker,
        }
    }

    async fn new() -> Self {
        Self::start(tempfile::tempdir().unwrap(), open_config()).await
    }

    /// Cuts everything off, without a word to anybody, and starts again.
    async fn cut(self) -> Self {
        self.cut_with(open_config(), vec![]).await
    }

    async fn cut_with(self, config: MqttConfig, writes: Vec<Write>) -> Self {
        self.broker.cut().await;
        memory(&self.store).write(writes).await.unwrap();
        self.store.close().await;
        Self::start(self.folder, config).await
    }

    async fn restart(self) -> Self {
        self.broker.stop().await;
        self.store.close().await;
        Self::start(self.folder, open_config()).await
    }

    async fn hello(&self, id: &str) -> (Client<tokio::net::TcpStream>, bool) {
        let (client, connack) = Client::hello(self.broker.tcp().await, lasting(id)).await;
        (client, connack.session_present)
    }

    async fn end(self) {
        self.broker.stop().await;
        self.store.close().await;
    }
}

/// Publishes and waits for the acknowledgement.
async fn publish(client: &mut Client<tokio::net::TcpStream>, qos: u8, packet: u16, payload: &str) {
    client.publish(qos, packet, "a", payload).await;
    match client.packet().await {
        v5::Packet::Puback(_) if qos == 1 => {}
        v5::Packet::Pubrec(_) if qos == 2 => {
            client
                .send(v5::Pubrel::new_success(pid(packet)).into())
                .await;
            assert_eq!(
                client.packet().await,
                v5::Pubcomp::new_success(pid(packet)).into()
            );
        }
        other => panic!("{other:?}"),
    }
}

async fn publication(client: &mut Client<tokio::net::TcpStream>) -> v5::Publish {
    match client.packet().await {
        v5::Packet::Publish(publish) => publish,
        other => panic!("{other:?}"),
    }
}

/// Takes so many messages, answers each packet as it comes, and waits until all exchanges are over.
async fn drain(client: &mut Client<tokio::net::TcpStream>, count: usize) -> Vec<String> {
    let (mut got, mut open) = (Vec::new(), 0);
    while got.len() < count || open > 0 {
        match client.packet().await {
            v5::Packet::Publish(publish) => {
                got.push(String::from_utf8(publish.payload.to_vec()).unwrap());
                let answer = match publish.qos_pid {
                    QosPid::Level1(pid) => v5::Puback::new_success(pid).into(),
                    QosPid::Level2(pid) => {
                        open += 1;
                        v5::Pubrec::new_success(pid).into()
                    }
                    QosPid::Level0 => continue,
                };
                client.send(answer).await;
            }
            v5::Packet::Pubrel(release) => {
                open -= 1;
                client
                    .send(v5::Pubcomp::new_success(release.pid).into())
                    .await;
            }
            other => panic!("{other:?}"),
        }
    }
    got
}

#[tokio::test]
async fn what_waited_for_a_client_waits_after_a_cut() {
    let node = Node::new().await;
    let (mut client, present) = node.hello("c").await;
    assert!(!present);
    client.subscribe("a", QoS::Level2).await;
    client.subscribe("b", QoS::Level1).await;
    client.disconnect().await;
    let mut publisher = node.broker.client("p").await;
    for number in 1..=30 {
        publish(
            &mut publisher,
            1 + (number % 2) as u8,
            number,
            &number.to_string(),
        )
        .await;
    }
    let node = node.cut().await;
    let (mut client, present) = node.hello("c").await;
    assert!(present);
    let wanted: Vec<String> = (1..=30).map(|number| number.to_string()).collect();
    assert_eq!(drain(&mut client, 30).await, wanted);
    assert!(client.is_idle().await);
    // The subscriptions are there as well, and what is done is done.
    let mut publisher = node.broker.client("p").await;
    publisher.publish(1, 1, "b", "after").await;
    publisher.packet().await;
    assert_eq!(client.payload().await, "after");
    assert!(client.is_idle().await);
    client.disconnect().await;
    // What is acknowledged is written when the node stops, if it was not before.
    let node = node.restart().await;
    assert!(node.hello("c").await.1);
    assert_eq!(node.broker.handle.figures().queued_bytes, 0);
    node.end().await;
}

#[tokio::test]
async fn the_exchange_of_a_message_goes_on_where_it_was_cut() {
    let node = Node::new().await;
    let (mut client, _) = node.hello("c").await;
    client.subscribe("a", QoS::Level2).await;
    let mut publisher = node.broker.client("p").await;
    for (packet, payload) in [(1, "one"), (2, "two"), (3, "three")] {
        publish(&mut publisher, 2, packet, payload).await;
    }
    let mut got = Vec::new();
    for _ in 0..3 {
        got.push(publication(&mut client).await.qos_pid);
    }
    let second = got[1].pid().unwrap();
    client.send(v5::Pubrec::new_success(second).into()).await;
    assert_eq!(
        client.packet().await,
        v5::Pubrel::new_success(second).into()
    );
    let node = node.cut().await;
    let (mut client, present) = node.hello("c").await;
    assert!(present);
    let first = publication(&mut client).await;
    assert!(first.dup && first.qos_pid == got[0], "{first:?}");
    assert_eq!(
        client.packet().await,
        v5::Pubrel::new_success(second).into()
    );
    let third = publication(&mut client).await;
    assert!(third.dup && third.qos_pid == got[2], "{third:?}");
    node.end().await;
}

#[tokio::test]
async fn a_message_that_is_sent_again_after_a_cut_is_accepted_once() {
    let node = Node::new().await;
    let (mut client, _) = node.hello("c").await;
    client.publish(2, 9, "x", "once").await;
    assert_eq!(
        client.packet().await,
        v5::Pubrec::new_success(pid(9)).into()
    );
    let node = node.cut().await;
    let (mut client, _) = node.hello("c").await;
    let mut again = message(2, 9, "x", "once");
    again.dup = true;
    client.send(again.into()).await;
    assert_eq!(
        client.packet().await,
        v5::Pubrec::new_success(pid(9)).into()
    );
    assert!(node.broker.arrived().is_empty());
    client.send(v5::Pubrel::new_success(pid(9)).into()).await;
    assert_eq!(
        client.packet().await,
        v5::Pubcomp::new_success(pid(9)).into()
    );
    // Released is released, and the identifier stands for another message.
    let node = node.cut().await;
    let (mut client, _) = node.hello("c").await;
    client.publish(2, 9, "x", "another").await;
    assert_eq!(
        client.packet().await,
        v5::Pubrec::new_success(pid(9)).into()
    );
    assert_eq!(node.broker.arrived(), ["x=another"]);
    node.end().await;
}

#[tokio::test]
async fn messages_that_are_sent_again_do_not_count_against_the_window() {
    let mut config = open_config();
    config.bounds.arriving_max = 4;
    let node = Node::start(tempfile::tempdir().unwrap(), config.clone()).await;
    let (mut client, _) = node.hello("c").await;
    for packet in 1..=4 {
        client.publish(2, packet, "x", "once").await;
        assert!(matches!(client.packet().await, v5::Packet::Pubrec(_)));
    }
    let node = node.cut_with(config, vec![]).await;
    let (mut client, _) = node.hello("c").await;
    for packet in 1..=4 {
        let mut again = message(2, packet, "x", "once");
        again.dup = true;
        client.send(again.into()).await;
        let received = v5::Pubrec::new_success(pid(packet)).into();
        assert_eq!(client.packet().await, received);
    }
    assert!(node.broker.arrived().is_empty());
    client.publish(2, 5, "x", "new").await;
    let v5::Packet::Disconnect(goodbye) = client.packet().await else {
        panic!("one more than the window is too many");
    };
    let code = v5::DisconnectReasonCode::ReceiveMaximumExceeded;
    assert_eq!(goodbye.reason_code, code);
    node.end().await;
}

#[tokio::test]
async fn what_has_ended_stays_ended() {
    let node = Node::new().await;
    for id in ["unsubscribed", "clean", "brief", "mine"] {
        let (mut client, _) = node.hello(id).await;
        client.subscribe("a", QoS::Level1).await;
        if id == "unsubscribed" {
            let filters = vec!["a".try_into().unwrap()];
            client
                .send(v5::Unsubscribe::new(pid(3), filters).into())
                .await;
            assert!(matches!(client.packet().await, v5::Packet::Unsuback(_)));
        }
        client.disconnect().await;
    }
    let mut clean = lasting("clean");
    clean.clean_start = true;
    Client::connected(node.broker.tcp().await, clean)
        .await
        .disconnect()
        .await;
    // One that ends with its connection, whether or not it is seen to end.
    let mut brief = lasting("brief");
    brief.properties.session_expiry_interval = None;
    let (_brief, connack) = Client::hello(node.broker.tcp().await, brief).await;
    assert!(connack.session_present);
    let mut publisher = node.broker.client("p").await;
    publish(&mut publisher, 1, 1, "x").await;
    let node = node.cut().await;
    for (id, here) in [
        ("unsubscribed", true),
        ("clean", true),
        ("brief", false),
        ("mine", true),
    ] {
        let (mut client, present) = node.hello(id).await;
        assert_eq!(present, here, "{id}");
        if id == "mine" {
            assert_eq!(client.payload().await, "x");
        }
        assert!(client.is_idle().await, "{id} gets nothing");
    }
    node.end().await;
}

#[tokio::test]
async fn a_session_outlives_its_time_on_no_restart() {
    let node = Node::new().await;
    let mut connect = lasting("c");
    connect.properties.session_expiry_interval = Some(1);
    let client = Client::connected(node.broker.tcp().await, connect).await;
    client.disconnect().await;
    let (connected, _) = node.hello("connected").await;
    let node = node.cut().await;
    drop(connected);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let node = node.cut().await;
    assert!(!node.hello("c").await.1);
    assert!(node.hello("connected").await.1);
    node.end().await;
}

#[tokio::test]
async fn a_subscription_goes_on_with_what_was_retained() {
    let mut config = open_config();
    config.bounds.unacknowledged_max = 4;
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start_with(folder, config.clone(), retained()).await;
    let (mut client, _) = node.hello("c").await;
    client.subscribe("r/#", QoS::Level1).await;
    for number in 0..50 {
        assert_eq!(client.payload().await, number.to_string());
    }
    node.broker.cut().await;
    node.store.close().await;
    let node = Node::start_with(node.folder, config, retained()).await;
    let (mut client, _) = node.hello("c").await;
    let first = client.payload().await.parse().unwrap();
    // It knew that the client has most of the fifty.
    assert!((40..=50).contains(&first), "{first}");
    for number in first + 1..100 {
        assert_eq!(client.payload().await, number.to_string());
    }
    assert!(client.is_idle().await);
    node.end().await;
}

/// What another store keeps.
fn retained() -> Vec<Message> {
    let message = |number: usize| Message {
        topic: format!("r/{number:03}").into(),
        payload: number.to_string().into(),
        qos: Qos::AtLeastOnce,
        retain: true,
        expires: None,
        properties: Properties::default(),
    };
    (0..100).map(message).collect()
}

#[tokio::test]
async fn a_damaged_record_is_dropped_and_the_rest_works() {
    let node = Node::new().await;
    for id in ["whole", "broken"] {
        let (mut client, _) = node.hello(id).await;
        client.subscribe("a", QoS::Level1).await;
        client.disconnect().await;
    }
    let mut publisher = node.broker.client("p").await;
    for (packet, payload) in [(1, "one"), (2, "two"), (3, "three")] {
        publish(&mut publisher, 1, packet, payload).await;
    }
    let keys = memory(&node.store).keys(None, 100).unwrap();
    let second = |prefix: &str| {
        let mut own = keys
            .iter()
            .filter(|key| key.starts_with(prefix) && key.contains('m'));
        own.nth(1).unwrap().clone()
    };
    let set = |key: String| Write::Set {
        key,
        value: "\u{1}damage".into(),
    };
    let sessions: Vec<&String> = keys.iter().filter(|key| key.len() == 16).collect();
    let writes = vec![
        set(second(sessions[0])),
        set(sessions[1].clone()),
        set("nonsense".into()),
    ];
    let node = node.cut_with(open_config(), writes).await;
    let (mut client, present) = node.hello("whole").await;
    assert!(present);
    assert_eq!(client.payload().await, "one");
    assert_eq!(client.payload().await, "three");
    assert!(client.is_idle().await);
    client.disconnect().await;
    assert!(!node.hello("broken").await.1);
    node.broker.cut().await;
    let left = memory(&node.store).keys(None, 100).unwrap();
    assert!(!left.iter().any(|key| key == "nonsense"), "{left:?}");
    node.store.close().await;
}

#[tokio::test]
async fn narrower_bounds_drop_what_came_last() {
    let node = Node::new().await;
    let (mut client, _) = node.hello("c").await;
    client.subscribe("a", QoS::Level1).await;
    client.disconnect().await;
    let mut publisher = node.broker.client("p").await;
    for packet in 1..=5 {
        publish(&mut publisher, 1, packet, &packet.to_string()).await;
    }
    let mut config = open_config();
    config.bounds = MqttBounds {
        queue_messages_max: 1,
        unacknowledged_max: 1,
        ..config.bounds
    };
    let node = node.cut_with(config, vec![]).await;
    assert_eq!(node.broker.handle.figures().dropped_full, 3);
    let node = node.restart().await;
    let (mut client, _) = node.hello("c").await;
    assert_eq!(client.payload().await, "1");
    assert_eq!(client.payload().await, "2");
    assert!(client.is_idle().await);
    node.end().await;
}

#[tokio::test]
async fn a_full_queue_behind_what_is_unacknowledged_is_there_after_a_cut() {
    let mut config = open_config();
    config.bounds.queue_messages_max = 3;
    config.bounds.unacknowledged_max = 2;
    let node = Node::start(tempfile::tempdir().unwrap(), config.clone()).await;
    let (mut client, _) = node.hello("c").await;
    client.subscribe("a", QoS::Level1).await;
    let mut publisher = node.broker.client("p").await;
    for packet in 1..=5 {
        publish(&mut publisher, 1, packet, &packet.to_string()).await;
        if packet <= 2 {
            publication(&mut client).await;
        }
    }
    let node = node.cut_with(config, vec![]).await;
    let (mut client, _) = node.hello("c").await;
    assert_eq!(drain(&mut client, 5).await, ["1", "2", "3", "4", "5"]);
    assert_eq!(node.broker.handle.figures().dropped_full, 0);
    node.end().await;
}

#[tokio::test]
async fn what_is_not_permitted_any_more_is_dropped_at_the_start() {
    let node = Node::new().await;
    let (mut client, _) = node.hello("c").await;
    for filter in ["a", "b", "#"] {
        client.subscribe(filter, QoS::Level2).await;
    }
    client.disconnect().await;
    let mut publisher = node.broker.client("p").await;
    for (packet, topic) in [(1, "a"), (2, "b")] {
        publisher.publish(1, packet, topic, topic).await;
        publisher.packet().await;
    }
    publisher.publish(2, 3, "a", "secret").await;
    publisher.packet().await;
    let mut config = open_config();
    config.rules[0].topics = "b".into();
    let node = node.cut_with(config, vec![]).await;
    // It stays so, whatever is permitted later.
    let node = node.restart().await;
    let (mut client, present) = node.hello("c").await;
    assert!(present);
    assert_eq!(drain(&mut client, 1).await, ["b"]);
    // The client may hold the identifier of what was dropped.
    if let v5::Packet::Pubrel(release) = client.packet().await {
        client
            .send(v5::Pubcomp::new_success(release.pid).into())
            .await;
    } else {
        panic!("a release is expected");
    }
    let mut publisher = node.broker.client("p").await;
    for (packet, topic) in [(1, "a"), (2, "b")] {
        publisher.publish(1, packet, topic, "again").await;
        publisher.packet().await;
    }
    assert_eq!(drain(&mut client, 1).await, ["again"]);
    assert!(client.is_idle().await);
    node.end().await;
}

#[tokio::test]
async fn a_session_that_nobody_can_take_up_is_dropped_at_the_start() {
    let node = Node::new().await;
    let (mut client, _) = node.hello("c").await;
    client.subscribe("a", QoS::Level1).await;
    client.disconnect().await;
    let mut closed = open_config();
    closed.listeners[0].anonymous = false;
    closed.users = vec![User {
        name: "anna".into(),
        password:
            "pbkdf2-sha256$1$00$8ce1bc94e6b3d1a0bd2be2ae8e4c34d6a1e9ec3b0b0e5c9cbf0b4c7a3a7a1f00"
                .parse()
                .unwrap(),
    }];
    let node = node.cut_with(closed, vec![]).await;
    assert_eq!(node.broker.handle.figures().sessions, 0);
    let node = node.restart().await;
    assert!(!node.hello("c").await.1);
    node.end().await;
}

#[tokio::test]
async fn nothing_is_acknowledged_that_cannot_be_written() {
    let node = Node::new().await;
    let (mut away, _) = node.hello("away").await;
    away.subscribe("a", QoS::Level1).await;
    away.disconnect().await;
    let (mut here, _) = node.hello("here").await;
    let mut publisher = node.broker.client("p").await;
    // From now on nothing is written.
    node.store.close().await;
    publisher.publish(1, 1, "a", "x").await;
    let v5::Packet::Disconnect(goodbye) = publisher.packet().await else {
        panic!("no acknowledgement is expected");
    };
    assert_eq!(goodbye.reason_code, v5::DisconnectReasonCode::QuotaExceeded);
    let topics = vec![(
        "b".try_into().unwrap(),
        v5::SubscriptionOptions::new(QoS::Level1),
    )];
    here.send(v5::Subscribe::new(pid(7), topics).into()).await;
    assert!(matches!(here.packet().await, v5::Packet::Disconnect(_)));
    let (_, connack) = Client::hello(node.broker.tcp().await, lasting("new")).await;
    assert_eq!(connack.reason_code, v5::ConnectReasonCode::ServerBusy);
    // Nothing of what comes again waits in memory, and the functions do not get it.
    let (before, arrived) = (node.broker.handle.figures(), node.broker.arrived().len());
    let mut publisher = node.broker.client("p").await;
    for packet in 1..=3 {
        publisher.publish(1, packet, "a", "x").await;
        let v5::Packet::Puback(refused) = publisher.packet().await else {
            panic!("a refusal is expected");
        };
        assert_ne!(refused.reason_code, v5::PubackReasonCode::Success);
    }
    let figures = node.broker.handle.figures();
    assert_eq!(figures.queued_bytes, before.queued_bytes);
    assert_eq!(figures.refused, before.refused + 3);
    assert_eq!(node.broker.arrived().len(), arrived);
    // Whoever needs no session to be kept is served.
    let mut plain = node.broker.client("plain").await;
    plain.subscribe("c", QoS::Level1).await;
    plain.publish(1, 1, "c", "y").await;
    let packets = [plain.packet().await, plain.packet().await];
    assert!(packets.contains(&v5::Puback::new_success(pid(1)).into()));
    node.broker.stop().await;
}

#[tokio::test]
async fn a_node_that_stops_loses_nothing() {
    let node = Node::new().await;
    let (mut client, _) = node.hello("c").await;
    client.subscribe("a", QoS::Level1).await;
    let mut publisher = node.broker.client("p").await;
    publish(&mut publisher, 1, 1, "x").await;
    assert_eq!(publication(&mut client).await.payload, b"x"[..]);
    let node = node.restart().await;
    let (mut client, present) = node.hello("c").await;
    assert!(present);
    assert!(publication(&mut client).await.dup);
    node.end().await;
}
