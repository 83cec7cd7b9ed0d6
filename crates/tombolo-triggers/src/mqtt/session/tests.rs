//! Packet identifiers, windows, and what is sent again.

use super::*;
use crate::mqtt::message::Properties;

fn delivery(qos: Qos, expires: Option<Instant>) -> Delivery {
    let message = Message {
        topic: "a".into(),
        payload: "x".into(),
        qos,
        retain: false,
        expires,
        properties: Properties::default(),
    };
    Delivery::new(Arc::new(message), qos, false, vec![])
}

fn session() -> Session {
    let client = Client {
        id: "c".into(),
        user: None,
        address: ([127, 0, 0, 1], 1).into(),
    };
    let mut session = Session::new(1, client.id.clone(), None);
    session.attach(&client, Duration::ZERO, 10, &mut Changes::default());
    session
}

fn take(session: &mut Session) -> Vec<Outgoing> {
    let (mut changes, mut out) = (Changes::default(), Vec::new());
    let room = Room {
        messages_max: usize::MAX,
        own_bytes_max: usize::MAX,
        bytes_max: usize::MAX,
    };
    session.take(
        Instant::now(),
        1 << 20,
        (&Retained::new(), room),
        &mut changes,
        &mut out,
    );
    out
}

#[test]
fn no_two_unacknowledged_messages_have_one_identifier() {
    let (mut session, mut changes) = (session(), Changes::default());
    let send = |session: &mut Session, changes: &mut Changes| {
        session.push(delivery(Qos::AtLeastOnce, None), changes);
        match take(session).as_slice() {
            [] => None,
            [Outgoing::Publish { packet, .. }] => *packet,
            more => panic!("{more:?}"),
        }
    };
    let first = send(&mut session, &mut changes).unwrap();
    for _ in 1..PACKETS {
        let packet = send(&mut session, &mut changes).unwrap();
        assert!(packet != first && packet > 0);
        session.forget(packet, &mut changes);
    }
    assert_eq!(send(&mut session, &mut changes), None);
    session.forget(first, &mut changes);
    let [Outgoing::Publish { packet, .. }] = take(&mut session)[..] else {
        panic!("a message is expected");
    };
    assert_eq!(packet, Some(first));
}

#[test]
fn what_may_have_been_sent_is_released_when_its_time_is_over() {
    let mut session = session();
    let over = Some(Instant::now());
    for (sequence, qos) in [(7, Qos::AtLeastOnce), (8, Qos::ExactlyOnce)] {
        let restored = Delivery {
            sequence,
            again: true,
            ..delivery(qos, over)
        };
        session.restore(sequence, Some(restored));
    }
    let [Outgoing::Release(packet)] = take(&mut session)[..] else {
        panic!("a release is expected");
    };
    assert_eq!(packet, 9);
    session.forget(packet, &mut Changes::default());
    assert_eq!(session.bytes, 0);
    assert!(session.unacknowledged.is_empty() && session.queue.is_empty());
}

#[test]
fn no_more_is_sent_again_than_the_client_takes() {
    let (mut session, mut changes) = (session(), Changes::default());
    for sequence in 1..=12 {
        let restored = Delivery {
            sequence,
            again: true,
            ..delivery(Qos::ExactlyOnce, None)
        };
        session.restore(sequence, Some(restored));
    }
    session.restore(13, None);
    assert_eq!(take(&mut session).len(), 10);
    assert!(take(&mut session).is_empty());
    session.forget(2, &mut changes);
    assert_eq!(take(&mut session).len(), 1);
}
