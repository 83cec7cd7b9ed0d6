//! The acknowledgement of a message means that the journal has it.

use mqtt_proto::v5::{self, PubackReasonCode};
use mqtt_proto::{QoS, v3};
use tombolo_triggers::mqtt::{Message, Properties, Qos, Refusal};

use crate::client::{Client, connect, lasting, message, open_config, pid, start, start_closed};

#[tokio::test]
async fn an_acknowledgement_waits_for_the_journal_and_messages_do_not_wait_for_each_other() {
    let broker = start_closed(open_config()).await;
    let mut subscriber = broker.client("subscriber").await;
    subscriber.subscribe("a/#", QoS::Level1).await;
    let mut client = broker.client("publisher").await;
    for packet in 1..=20 {
        client.publish(1, packet, "a/b", &packet.to_string()).await;
    }
    // All twenty are with the journal before it has said yes to any.
    for _ in 0..20 {
        broker.arrival().await;
    }
    assert!(
        client.is_idle().await,
        "no acknowledgement before the journal's word"
    );
    assert!(
        subscriber.is_idle().await,
        "no delivery before the journal's word"
    );
    broker.journal.gate.add_permits(20);
    for packet in 1..=20 {
        assert_eq!(
            client.packet().await,
            v5::Puback::new_success(pid(packet)).into()
        );
        assert_eq!(subscriber.payload().await, packet.to_string());
    }
    broker.stop().await;
}

#[tokio::test]
async fn exactly_once_survives_a_lost_connection() {
    let broker = start_closed(open_config()).await;
    let mut client = Client::connected(broker.tcp().await, lasting("machine")).await;
    client.publish(2, 5, "a", "stop").await;
    broker.arrival().await;
    // The connection is lost before the journal says yes, so no PUBREC reaches the client.
    drop(client);
    broker.journal.gate.add_permits(10);
    let mut client = Client::connected(broker.tcp().await, lasting("machine")).await;
    let mut again = message(2, 5, "a", "stop");
    again.dup = true;
    client.send(again.into()).await;
    assert!(matches!(client.packet().await, v5::Packet::Pubrec(rec) if rec.pid == pid(5)));
    client.send(v5::Pubrel::new_success(pid(5)).into()).await;
    assert_eq!(
        client.packet().await,
        v5::Pubcomp::new_success(pid(5)).into()
    );
    // Released, so the same identifier is a new message.
    client.publish(2, 5, "a", "start").await;
    assert!(matches!(client.packet().await, v5::Packet::Pubrec(rec) if rec.pid == pid(5)));
    assert_eq!(broker.arrived(), ["a=stop", "a=start"]);
    broker.stop().await;
}

#[tokio::test]
async fn a_refused_message_stays_with_its_publisher() {
    let broker = start(open_config()).await;
    *broker.journal.refuse.lock().unwrap() = Some(Refusal::Full);
    let mut client = broker.client("five").await;
    client.publish(1, 1, "a", "x").await;
    let full = v5::Puback::new(pid(1), PubackReasonCode::QuotaExceeded);
    assert_eq!(client.packet().await, full.into());

    // MQTT 3.1.1 has no such answer: none comes, and the connection ends.
    let mut old = Client::new(broker.tcp().await);
    old.send_v3(v3::Connect::new("three".into(), 0).into())
        .await;
    old.packet_v3().await;
    let publish = v3::Publish::new(
        mqtt_proto::QosPid::Level1(pid(1)),
        "a".try_into().unwrap(),
        bytes::Bytes::from_static(b"x"),
    );
    old.send_v3(publish.into()).await;
    assert_eq!(old.bytes().await, None);
    assert_eq!(broker.handle.figures().refused, 2);
    broker.stop().await;
}

#[tokio::test]
async fn the_journal_sees_who_published_and_all_properties() {
    let broker = start(open_config()).await;
    let mut client = broker.client("sensor-7").await;
    let mut publish = message(1, 1, "plant/speed", "12");
    publish.properties.content_type = Some("text/plain".into());
    publish.properties.correlation_data = Some(bytes::Bytes::from_static(b"\0\x01"));
    publish.properties.topic_alias = Some(3);
    let trace = v5::UserProperty {
        name: "traceparent".into(),
        value: "00-1-2-01".into(),
    };
    publish.properties.user_properties.push(trace);
    client.send(publish.clone().into()).await;
    let arrival = broker.arrival().await;
    assert_eq!(&*arrival.client.unwrap().id, "sensor-7");
    let Properties {
        content_type,
        correlation,
        user,
        ..
    } = &arrival.message.properties;
    assert_eq!(content_type.as_deref(), Some("text/plain"));
    assert_eq!(correlation.as_deref(), Some(&b"\0\x01"[..]));
    assert_eq!(&*user[0].0, "traceparent");
    // The alias stands for the topic from now on.
    publish.topic_name = "".try_into().unwrap();
    client.send(publish.into()).await;
    assert_eq!(&*broker.arrival().await.message.topic, "plant/speed");
    broker.stop().await;
}

#[tokio::test]
async fn functions_publish_through_the_journal_too() {
    let broker = start(open_config()).await;
    let mut client = Client::connected(broker.tcp().await, connect("plant")).await;
    client.subscribe("commands/+", QoS::Level1).await;
    let message = |topic: &str| Message {
        topic: topic.into(),
        payload: "stop".into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        expires: None,
        properties: Properties::default(),
    };
    broker
        .handle
        .publish(message("commands/press"))
        .await
        .unwrap();
    assert_eq!(client.payload().await, "stop");
    assert_eq!(broker.arrived(), ["commands/press=stop"]);
    assert!(broker.handle.publish(message("commands/+")).await.is_err());
    assert!(broker.handle.publish(message("$SYS/x")).await.is_err());
    *broker.journal.refuse.lock().unwrap() = Some(Refusal::Full);
    assert!(
        broker
            .handle
            .publish(message("commands/press"))
            .await
            .is_err()
    );
    broker.stop().await;
}
