//! Sessions that outlive their connections.

use mqtt_proto::{QoS, QosPid, v5};

use crate::client::{Client, lasting, message, open_config, pid, start};

#[tokio::test]
async fn messages_wait_for_a_client_that_is_away() {
    let broker = start(open_config()).await;
    let (mut client, first) = Client::hello(broker.tcp().await, lasting("c")).await;
    assert!(!first.session_present);
    client.subscribe("a", QoS::Level1).await;
    client.disconnect().await;
    let mut publisher = broker.client("p").await;
    publisher.publish(1, 1, "a", "one").await;
    publisher.publish(0, 0, "a", "fleeting").await;
    publisher.publish(2, 2, "a", "two").await;
    assert!(matches!(publisher.packet().await, v5::Packet::Puback(_)));
    assert!(matches!(publisher.packet().await, v5::Packet::Pubrec(_)));
    let (mut client, second) = Client::hello(broker.tcp().await, lasting("c")).await;
    assert!(second.session_present);
    assert_eq!(client.payload().await, "one");
    assert_eq!(client.payload().await, "two");
    assert!(client.is_idle().await);
    client.disconnect().await;
    // Who wants nothing of it any more gets nothing.
    let mut clean = lasting("c");
    clean.clean_start = true;
    let (mut client, third) = Client::hello(broker.tcp().await, clean).await;
    assert!(!third.session_present);
    publisher.publish(1, 3, "a", "three").await;
    publisher.packet().await;
    assert!(client.is_idle().await);
    broker.stop().await;
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again() {
    let broker = start(open_config()).await;
    let mut client = Client::connected(broker.tcp().await, lasting("c")).await;
    client.subscribe("a", QoS::Level2).await;
    let mut publisher = broker.client("p").await;
    publisher.publish(1, 1, "a", "one").await;
    publisher.publish(2, 2, "a", "two").await;
    publisher.publish(2, 3, "a", "three").await;
    let mut got = Vec::new();
    for _ in 0..3 {
        let v5::Packet::Publish(publish) = client.packet().await else {
            panic!("a message is expected");
        };
        got.push(publish);
    }
    // The second one is received and not released when the connection is lost.
    let second = got[1].qos_pid.pid().unwrap();
    client.send(v5::Pubrec::new_success(second).into()).await;
    assert_eq!(
        client.packet().await,
        v5::Pubrel::new_success(second).into()
    );
    drop(client);
    let mut client = Client::connected(broker.tcp().await, lasting("c")).await;
    let v5::Packet::Publish(first) = client.packet().await else {
        panic!("a message is expected");
    };
    assert!(first.dup && first.qos_pid == got[0].qos_pid);
    assert_eq!(
        client.packet().await,
        v5::Pubrel::new_success(second).into()
    );
    let v5::Packet::Publish(third) = client.packet().await else {
        panic!("a message is expected");
    };
    assert!(third.dup && third.qos_pid == got[2].qos_pid);
    for packet in [
        v5::Puback::new_success(first.qos_pid.pid().unwrap()).into(),
        v5::Pubcomp::new_success(second).into(),
        v5::Pubrec::new_success(third.qos_pid.pid().unwrap()).into(),
    ] {
        client.send(packet).await;
    }
    assert!(matches!(client.packet().await, v5::Packet::Pubrel(_)));
    client
        .send(v5::Pubcomp::new_success(third.qos_pid.pid().unwrap()).into())
        .await;
    assert!(client.is_idle().await);
    assert_eq!(broker.handle.figures().queued_bytes, 0);
    broker.stop().await;
}

#[tokio::test]
async fn the_last_one_with_an_identifier_has_it() {
    let broker = start(open_config()).await;
    let mut first = Client::connected(broker.tcp().await, lasting("c")).await;
    first.subscribe("a", QoS::Level1).await;
    let (mut second, connack) = Client::hello(broker.tcp().await, lasting("c")).await;
    assert!(connack.session_present);
    let v5::Packet::Disconnect(goodbye) = first.packet().await else {
        panic!("a last word is expected");
    };
    assert_eq!(
        goodbye.reason_code,
        v5::DisconnectReasonCode::SessionTakenOver
    );
    second.publish(1, 4, "a", "x").await;
    let packets = [second.packet().await, second.packet().await];
    assert!(
        packets
            .iter()
            .any(|one| matches!(one, v5::Packet::Publish(_)))
    );
    assert_eq!(broker.handle.figures().sessions, 1);
    broker.stop().await;
}

#[tokio::test]
async fn a_client_is_sent_no_more_than_it_takes() {
    let broker = start(open_config()).await;
    let mut connect = lasting("c");
    connect.properties.receive_max = Some(2);
    connect.properties.max_packet_size = Some(100);
    let mut client = Client::connected(broker.tcp().await, connect).await;
    client.subscribe("a", QoS::Level1).await;
    let mut publisher = broker.client("p").await;
    for (packet, payload) in [(1, "1"), (2, "2"), (3, &*"x".repeat(200)), (4, "4")] {
        publisher.publish(1, packet, "a", payload).await;
        publisher.packet().await;
    }
    let mut pids = Vec::new();
    for _ in 0..2 {
        let v5::Packet::Publish(publish) = client.packet().await else {
            panic!("a message is expected");
        };
        pids.push(publish.qos_pid);
    }
    assert!(client.is_idle().await, "two are unacknowledged");
    for qos_pid in pids {
        let QosPid::Level1(pid) = qos_pid else {
            panic!("QoS 1 is expected");
        };
        client.send(v5::Puback::new_success(pid).into()).await;
    }
    assert_eq!(client.payload().await, "4");
    assert_eq!(broker.handle.figures().dropped_long, 1);
    broker.stop().await;
}

#[tokio::test]
async fn goodbye_is_said_when_the_node_stops_and_no_will_is_published() {
    let broker = start(open_config()).await;
    let mut connect = lasting("c");
    let topic = "gone".try_into().unwrap();
    connect.last_will = Some(v5::LastWill::new(QoS::Level1, topic, "x".into()));
    let mut client = Client::connected(broker.tcp().await, connect).await;
    client.publish(1, 1, "a", "x").await;
    assert_eq!(
        client.packet().await,
        v5::Puback::new_success(pid(1)).into()
    );
    let journal = broker.journal.clone();
    broker.stop().await;
    let v5::Packet::Disconnect(goodbye) = client.packet().await else {
        panic!("a last word is expected");
    };
    assert_eq!(
        goodbye.reason_code,
        v5::DisconnectReasonCode::ServerShuttingDown
    );
    assert_eq!(journal.arrived.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_message_that_is_too_long_holds_up_none_behind_it() {
    let broker = start(open_config()).await;
    let mut away = Client::connected(broker.tcp().await, lasting("c")).await;
    away.subscribe("a", QoS::Level1).await;
    away.disconnect().await;
    let mut publisher = broker.client("p").await;
    for (packet, payload) in [(1, "x".repeat(200)), (2, "short".into())] {
        publisher.publish(1, packet, "a", &payload).await;
        publisher.packet().await;
    }
    let mut connect = lasting("c");
    connect.properties.receive_max = Some(1);
    connect.properties.max_packet_size = Some(100);
    let mut client = Client::connected(broker.tcp().await, connect).await;
    assert_eq!(client.payload().await, "short");
    broker.stop().await;
}

#[tokio::test]
async fn a_shared_subscription_that_ends_leaves_the_plain_one_alone() {
    let broker = start(open_config()).await;
    let mut publisher = broker.client("p").await;
    for packet in 1..=40 {
        let mut publish = message(1, packet, &format!("r/{packet:02}"), "x");
        publish.retain = true;
        publisher.send(publish.into()).await;
        publisher.packet().await;
    }
    let mut connect = lasting("c");
    connect.properties.receive_max = Some(1);
    let mut client = Client::connected(broker.tcp().await, connect).await;
    client.subscribe("r/#", QoS::Level1).await;
    let v5::Packet::Publish(first) = client.packet().await else {
        panic!("a message is expected");
    };
    let filters = vec!["$share/g/r/#".try_into().unwrap()];
    client
        .send(v5::Unsubscribe::new(pid(3), filters).into())
        .await;
    assert!(matches!(client.packet().await, v5::Packet::Unsuback(_)));
    let acknowledged = v5::Puback::new_success(first.qos_pid.pid().unwrap());
    client.send(acknowledged.into()).await;
    for packet in 2..=40 {
        assert_eq!(
            client.message().await.topic_name[..],
            format!("r/{packet:02}")
        );
    }
    broker.stop().await;
}
