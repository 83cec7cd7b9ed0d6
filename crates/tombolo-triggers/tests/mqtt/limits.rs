//! What happens at every bound, and to what is no MQTT.

use std::time::Duration;

use mqtt_proto::v5::{self, ConnectReasonCode, DisconnectReasonCode, SubscribeReasonCode};
use mqtt_proto::{QoS, QosPid, v3};

use crate::client::{Client, connect, lasting, message, open_config, pid, start, start_closed};

#[tokio::test]
async fn a_full_queue_drops_what_is_new_and_holds_nobody_up() {
    let mut config = open_config();
    config.bounds.queue_messages_max = 10;
    let broker = start(config).await;
    let mut away = Client::connected(broker.tcp().await, lasting("away")).await;
    away.subscribe("a", QoS::Level1).await;
    away.disconnect().await;
    let mut here = broker.client("here").await;
    here.subscribe("a", QoS::Level1).await;
    let mut publisher = broker.client("p").await;
    for packet in 1..=30 {
        publisher.publish(1, packet, "a", &packet.to_string()).await;
        publisher.packet().await;
        assert_eq!(here.payload().await, packet.to_string());
    }
    let mut away = Client::connected(broker.tcp().await, lasting("away")).await;
    for packet in 1..=10 {
        assert_eq!(away.payload().await, packet.to_string());
    }
    assert!(away.is_idle().await);
    assert_eq!(broker.handle.figures().dropped_full, 20);
    broker.stop().await;
}

#[tokio::test]
async fn a_subscriber_that_never_reads_costs_a_bounded_amount() {
    let mut config = open_config();
    config.bounds.queue_bytes_max = 256 << 10;
    let broker = start(config).await;
    let mut deaf = broker.client("deaf").await;
    deaf.subscribe("a", QoS::Level0).await;
    let mut publisher = broker.client("p").await;
    let payload = "x".repeat(60_000);
    // More than the kernel's buffers of both sides hold.
    for packet in 1..=400 {
        publisher.publish(1, packet, "a", &payload).await;
        publisher.packet().await;
    }
    let figures = broker.handle.figures();
    assert!(figures.queued_bytes <= 256 << 10, "{figures:?}");
    assert!(figures.dropped_full > 0, "{figures:?}");
    broker.stop().await;
}

#[tokio::test]
async fn too_many_or_too_much_is_refused_with_the_reason() {
    let mut config = open_config();
    config.bounds.sessions_max = 2;
    config.bounds.subscriptions_max = 2;
    config.bounds.retained_max = 1;
    config.bounds.packet_bytes_max = 2000;
    let broker = start(config).await;
    let mut one = broker.client("one").await;
    let _two = broker.client("two").await;
    let (_, connack) = Client::hello(broker.tcp().await, connect("three")).await;
    assert_eq!(connack.reason_code, ConnectReasonCode::ServerBusy);
    for (filter, code) in [
        ("a", SubscribeReasonCode::GrantedQoS1),
        ("b", SubscribeReasonCode::GrantedQoS1),
        ("c", SubscribeReasonCode::QuotaExceeded),
        ("b", SubscribeReasonCode::GrantedQoS1),
    ] {
        assert_eq!(one.subscribe(filter, QoS::Level1).await, code, "{filter}");
    }
    for topic in ["r/1", "r/2"] {
        let mut publish = message(1, 1, topic, "x");
        publish.retain = true;
        one.send(publish.into()).await;
        one.packet().await;
    }
    assert_eq!(broker.handle.figures().unretained, 1);
    one.publish(0, 0, "a", &"x".repeat(3000)).await;
    let v5::Packet::Disconnect(goodbye) = one.packet().await else {
        panic!("a last word is expected");
    };
    assert_eq!(goodbye.reason_code, DisconnectReasonCode::PacketTooLarge);
    broker.stop().await;
}

#[tokio::test]
async fn what_was_retained_waits_for_room_and_goes_on() {
    let mut config = open_config();
    config.bounds.queues_bytes_max = 4000;
    let broker = start(config).await;
    let mut publisher = broker.client("p").await;
    let long = "x".repeat(1000);
    for packet in 1..=5 {
        let mut publish = message(1, packet, &format!("r/{packet}"), &long);
        publish.retain = true;
        publisher.send(publish.into()).await;
        publisher.packet().await;
    }
    let mut away = Client::connected(broker.tcp().await, lasting("away")).await;
    away.subscribe("a", QoS::Level1).await;
    away.disconnect().await;
    for packet in 1..=3 {
        publisher.publish(1, packet, "a", &long).await;
        publisher.packet().await;
    }
    let mut here = broker.client("here").await;
    here.subscribe("r/#", QoS::Level1).await;
    assert!(here.is_idle().await);
    assert!(broker.handle.figures().queued_bytes <= 4000);
    let mut away = Client::connected(broker.tcp().await, lasting("away")).await;
    for _ in 1..=3 {
        away.payload().await;
    }
    for packet in 1..=5 {
        assert_eq!(here.message().await.topic_name[..], format!("r/{packet}"));
    }
    broker.stop().await;
}

#[tokio::test]
async fn an_old_client_leaves_no_more_unreleased_than_a_new_one() {
    let mut config = open_config();
    config.bounds.arriving_max = 3;
    let broker = start(config).await;
    let mut old = Client::new(broker.tcp().await);
    old.send_v3(v3::Connect::new("old".into(), 0).into()).await;
    old.packet_v3().await;
    for packet in 1..=4 {
        let (qos_pid, topic) = (QosPid::Level2(pid(packet)), "a".try_into().unwrap());
        let publish = v3::Publish::new(qos_pid, topic, bytes::Bytes::new());
        old.send_v3(publish.into()).await;
        if packet <= 3 {
            assert_eq!(old.packet_v3().await, v3::Packet::Pubrec(pid(packet)));
        }
    }
    assert_eq!(old.bytes().await, None);
    broker.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_bound_are_closed_at_once() {
    let mut config = open_config();
    config.bounds.connections_max = 1;
    let broker = start(config).await;
    let mut one = broker.client("one").await;
    assert_eq!(Client::new(broker.tcp().await).bytes().await, None);
    assert!(one.is_idle().await);
    assert_eq!(broker.handle.figures().connections_refused, 1);
    one.disconnect().await;
    while broker.handle.figures().connections > 0 {
        tokio::task::yield_now().await;
    }
    broker.client("two").await.disconnect().await;
    broker.stop().await;
}

#[tokio::test]
async fn a_journal_that_does_not_answer_stops_the_reading_and_not_the_others() {
    let mut config = open_config();
    config.bounds.arriving_max = 4;
    let broker = start_closed(config).await;
    let mut flood = broker.client("flood").await;
    let publish: v5::Packet = message(0, 0, "a", &"x".repeat(1000)).into();
    let publish = publish.encode().unwrap();
    // Writes until the kernel takes no more: the broker reads no further.
    let mut written = 0;
    while let Ok(result) = tokio::time::timeout(
        Duration::from_millis(300),
        tokio::io::AsyncWriteExt::write_all(&mut flood.stream, publish.as_ref()),
    )
    .await
    {
        result.unwrap();
        written += 1;
        assert!(written < 100_000, "the broker takes everything");
    }
    assert_eq!(broker.arrived().len(), 4);
    let mut other = broker.client("other").await;
    assert!(other.is_idle().await);
    broker.journal.gate.add_permits(1_000_000);
    drop(flood);
    broker.stop().await;
}

#[tokio::test]
async fn who_breaks_the_protocol_is_told_and_closed() {
    let broker = start(open_config()).await;
    let broken: [(&[u8], DisconnectReasonCode); 8] = [
        // CONNECT again.
        (
            &[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 0, 0, 0],
            DisconnectReasonCode::ProtocolError,
        ),
        // A packet of a server, and one that does not exist.
        (&[0xd0, 0], DisconnectReasonCode::ProtocolError),
        (&[0x00, 0], DisconnectReasonCode::MalformedPacket),
        // A length of five bytes.
        (
            &[0x30, 0xff, 0xff, 0xff, 0xff, 1],
            DisconnectReasonCode::MalformedPacket,
        ),
        // QoS 3; a topic that ends before it begins; a wildcard in a name; a zero character.
        (
            &[0x36, 6, 0, 1, b'a', 0, 1, 0],
            DisconnectReasonCode::MalformedPacket,
        ),
        (
            &[0x30, 3, 0, 9, b'a'],
            DisconnectReasonCode::MalformedPacket,
        ),
        (
            &[0x30, 5, 0, 2, b'a', b'#', 0],
            DisconnectReasonCode::MalformedPacket,
        ),
        (
            &[0x30, 5, 0, 2, b'a', 1, 0],
            DisconnectReasonCode::TopicNameInvalid,
        ),
    ];
    for (bytes, code) in broken {
        let mut client = broker.client("c").await;
        client.raw(bytes).await;
        let v5::Packet::Disconnect(goodbye) = client.packet().await else {
            panic!("a last word is expected");
        };
        assert_eq!(goodbye.reason_code, code, "{bytes:?}");
        assert_eq!(client.bytes().await, None);
    }
    // No MQTT at all, and a version that there is not.
    for (bytes, answer) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], None),
        (
            &[0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 9, 2, 0, 0, 0, 0],
            Some(vec![0x20, 2, 0, 1]),
        ),
    ] {
        let mut client = Client::new(broker.tcp().await);
        client.raw(bytes).await;
        assert_eq!(client.bytes().await, answer);
    }
    assert!(broker.arrived().is_empty());
    broker.stop().await;
}

#[tokio::test]
async fn a_silent_client_is_missed() {
    let broker = start(open_config()).await;
    let mut watcher = broker.client("w").await;
    watcher.subscribe("gone", QoS::Level0).await;
    let mut connect = connect("c");
    connect.keep_alive = 1;
    let topic = "gone".try_into().unwrap();
    connect.last_will = Some(v5::LastWill::new(QoS::Level0, topic, "x".into()));
    let mut silent = Client::connected(broker.tcp().await, connect).await;
    assert_eq!(watcher.payload().await, "x");
    let v5::Packet::Disconnect(goodbye) = silent.packet().await else {
        panic!("a last word is expected");
    };
    assert_eq!(goodbye.reason_code, DisconnectReasonCode::KeepAliveTimeout);
    broker.stop().await;
}
