//! What subscribers get: retained messages, wills, shares, overlapping filters, expiry.

use std::time::Duration;

use mqtt_proto::{QoS, v5};

use crate::client::{Client, connect, message, open_config, pid, start};

async fn retain(client: &mut Client<tokio::net::TcpStream>, topic: &str, payload: &str) {
    let mut publish = message(1, 9, topic, payload);
    publish.retain = true;
    client.send(publish.into()).await;
    assert_eq!(
        client.packet().await,
        v5::Puback::new_success(pid(9)).into()
    );
}

#[tokio::test]
async fn retained_messages_are_there_for_who_comes_later() {
    let broker = start(open_config()).await;
    let mut publisher = broker.client("p").await;
    for index in 0..600 {
        retain(
            &mut publisher,
            &format!("room/{index:03}/t"),
            &index.to_string(),
        )
        .await;
    }
    retain(&mut publisher, "room/005/t", "changed").await;
    retain(&mut publisher, "room/006/t", "").await;
    let mut late = broker.client("late").await;
    let mut options = v5::SubscriptionOptions::new(QoS::Level1);
    options.retain_as_published = false;
    late.subscribe_with("room/+/t", options).await;
    let mut got = Vec::new();
    for _ in 0..599 {
        let publish = late.message().await;
        assert!(publish.retain);
        got.push(String::from_utf8(publish.payload.to_vec()).unwrap());
    }
    assert_eq!(got[5], "changed");
    assert_eq!(got[6], "7");
    // What is published from now on is not an old message.
    retain(&mut publisher, "room/007/t", "new").await;
    assert!(!late.message().await.retain);
    assert_eq!(broker.handle.figures().retained, 599);
    broker.stop().await;
}

#[tokio::test]
async fn a_will_is_published_for_who_goes_without_a_word() {
    let broker = start(open_config()).await;
    let mut watcher = broker.client("w").await;
    watcher.subscribe("gone/#", QoS::Level1).await;
    let will = |id: &str| {
        let mut connect = connect(id);
        let topic = format!("gone/{id}").as_str().try_into().unwrap();
        connect.last_will = Some(v5::LastWill::new(QoS::Level1, topic, "lost".into()));
        connect
    };
    let polite = Client::connected(broker.tcp().await, will("polite")).await;
    polite.disconnect().await;
    let rude = Client::connected(broker.tcp().await, will("rude")).await;
    drop(rude);
    assert_eq!(&*watcher.message().await.topic_name, "gone/rude");

    // A will with a delay is not published when its client is back in time.
    let mut slow = will("slow");
    slow.properties.session_expiry_interval = Some(100);
    slow.clean_start = false;
    slow.last_will.as_mut().unwrap().properties.delay_interval = Some(60);
    drop(Client::connected(broker.tcp().await, slow.clone()).await);
    let back = Client::connected(broker.tcp().await, slow.clone()).await;
    back.disconnect().await;
    slow.last_will.as_mut().unwrap().properties.delay_interval = Some(1);
    drop(Client::connected(broker.tcp().await, slow).await);
    assert_eq!(&*watcher.message().await.topic_name, "gone/slow");
    assert!(watcher.is_idle().await);
    broker.stop().await;
}

#[tokio::test]
async fn members_of_a_share_take_turns() {
    let broker = start(open_config()).await;
    let mut members = [broker.client("a").await, broker.client("b").await];
    for member in &mut members {
        member.subscribe("$share/workers/jobs/#", QoS::Level1).await;
    }
    let mut publisher = broker.client("p").await;
    for packet in 1..=10 {
        publisher
            .publish(1, packet, "jobs/x", &packet.to_string())
            .await;
        publisher.packet().await;
    }
    let [a, b] = &mut members;
    for _ in 0..5 {
        assert_ne!(a.payload().await, b.payload().await);
    }
    assert!(a.is_idle().await && b.is_idle().await);
    broker.stop().await;
}

#[tokio::test]
async fn overlapping_filters_make_one_delivery() {
    let broker = start(open_config()).await;
    let mut client = broker.client("c").await;
    for (id, filter, qos) in [(1u32, "a/#", QoS::Level0), (2, "+/b", QoS::Level1)] {
        let topics = vec![(
            filter.try_into().unwrap(),
            v5::SubscriptionOptions::new(qos),
        )];
        let mut subscribe = v5::Subscribe::new(pid(3), topics);
        subscribe.properties.subscription_id = Some(id.try_into().unwrap());
        client.send(subscribe.into()).await;
        client.packet().await;
    }
    let mut other = broker.client("p").await;
    other.publish(1, 1, "a/b", "x").await;
    let bytes = client.bytes().await.unwrap();
    assert_eq!(bytes[0], 0x32, "QoS 1, the higher of the two");
    let ids = bytes
        .windows(4)
        .any(|four| four == [0x0b, 1, 0x0b, 2] || four == [0x0b, 2, 0x0b, 1]);
    assert!(ids, "{bytes:?}");
    assert!(client.is_idle().await);
    broker.stop().await;
}

#[tokio::test]
async fn a_client_does_not_hear_itself_when_it_does_not_want_to() {
    let broker = start(open_config()).await;
    let mut client = broker.client("c").await;
    let mut options = v5::SubscriptionOptions::new(QoS::Level1);
    options.no_local = true;
    client.subscribe_with("a", options).await;
    client.publish(1, 1, "a", "own").await;
    assert_eq!(
        client.packet().await,
        v5::Puback::new_success(pid(1)).into()
    );
    assert!(client.is_idle().await);
    broker.stop().await;
}

#[tokio::test]
async fn what_is_too_old_is_not_delivered() {
    let broker = start(open_config()).await;
    let mut away = crate::client::lasting("away");
    let mut client = Client::connected(broker.tcp().await, away.clone()).await;
    client.subscribe("a", QoS::Level1).await;
    client.disconnect().await;
    let mut publisher = broker.client("p").await;
    for (packet, payload, seconds) in [(1, "old", 1), (2, "young", 600)] {
        let mut publish = message(1, packet, "a", payload);
        publish.properties.message_expiry_interval = Some(seconds);
        publisher.send(publish.into()).await;
        publisher.packet().await;
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    away.clean_start = false;
    let mut client = Client::connected(broker.tcp().await, away).await;
    let young = client.message().await;
    assert_eq!(&young.payload[..], b"young");
    assert!(young.properties.message_expiry_interval.unwrap() <= 599);
    assert_eq!(broker.handle.figures().dropped_expired, 1);
    broker.stop().await;
}
