//! What was written is read again, and nothing else.

use std::collections::BTreeMap;

use super::*;
use crate::mqtt::session::Options;

fn message(expires: Option<Instant>) -> Message {
    Message {
        topic: "a/b".into(),
        payload: "x".into(),
        qos: Qos::ExactlyOnce,
        retain: true,
        expires,
        properties: Properties {
            content_type: Some("text/plain".into()),
            text: Some(true),
            response_topic: Some("r".into()),
            correlation: Some("c".into()),
            user: vec![("site".into(), "harbour".into())],
        },
    }
}

fn set(expires: Option<Instant>) -> What {
    What::Set {
        client: "c".into(),
        user: Some("press".into()),
        expiry: Duration::from_secs(60),
        expires,
    }
}

/// The records of a session, after these changes.
fn records(changes: Vec<What>, moment: Moment) -> BTreeMap<String, Bytes> {
    let mut records = BTreeMap::new();
    for what in changes {
        let mut writes = Vec::new();
        Change { session: 7, what }.writes(moment, &mut writes);
        for write in writes {
            match write {
                Write::Set { key, value } => drop(records.insert(key, value)),
                Write::Delete { key } => drop(records.remove(&key)),
            }
        }
    }
    records
}

fn read(records: &BTreeMap<String, Bytes>, moment: Moment) -> Reading {
    let mut reading = Reading::new(moment);
    for (key, value) in records {
        reading.record(key.clone(), Some(value));
    }
    reading
}

fn everything(moment: Moment) -> Vec<What> {
    let long = format!("$share/{}/{}", "g".repeat(1024), "t".repeat(1024));
    let subscribed = |text: &str, retained| What::Subscribed {
        selection: text.parse().unwrap(),
        options: Options {
            qos: Qos::AtLeastOnce,
            no_local: true,
            retain_as_published: true,
            id: Some(9),
        },
        retained,
    };
    let delivery = |sequence, expires| Delivery {
        sequence,
        ..Delivery::new(
            Arc::new(message(expires)),
            Qos::AtLeastOnce,
            true,
            vec![3, 9],
        )
    };
    let later = moment.now + Duration::from_secs(5);
    vec![
        set(Some(moment.now + Duration::from_secs(30))),
        subscribed("a/#", StillToGet::After("a/a".into())),
        subscribed(&long, StillToGet::Nothing),
        What::Queued(delivery(1, None)),
        What::Queued(delivery(2, Some(later))),
        What::Queued(delivery(3, None)),
        What::Releasing(1),
        What::Forgotten(3),
        What::Received(300),
        What::Received(4),
        What::Released(4),
    ]
}

#[test]
fn what_was_written_is_read_again() {
    let moment = Moment::new();
    let records = records(everything(moment), moment);
    let mut later = moment;
    later.wall_ms += 10_000;
    let reading = read(&records, later);
    assert!(reading.gone.is_empty());
    let [session] = &reading.sessions[..] else {
        panic!("one session is expected");
    };
    assert_eq!((session.key, &*session.client), (7, "c"));
    assert_eq!(session.user.as_deref(), Some("press"));
    assert_eq!(session.left, Some(Duration::from_secs(20)));
    assert_eq!(session.received, [300]);
    assert_eq!(session.subscriptions.len(), 2);
    let own = session.subscriptions.iter();
    let own = own.filter(|(selection, ..)| selection.group.is_none());
    let [(_, options, retained)] = own.collect::<Vec<_>>()[..] else {
        panic!("one subscription of its own is expected");
    };
    assert_eq!((options.id, options.no_local), (Some(9), true));
    assert_eq!(*retained, StillToGet::After("a/a".into()));
    let [(1, None), (2, Some(second))] = &session.deliveries[..] else {
        panic!("{:?}", session.deliveries);
    };
    assert!(second.again && second.retain && second.ids == [3, 9]);
    // Its time was over while nobody counted.
    assert!(second.message.is_expired(later.now));
    let expires = second.message.expires;
    assert_eq!(*second.message, message(expires));
}

#[test]
fn nothing_is_left_of_a_session_that_is_over() {
    let moment = Moment::new();
    let mut changes = everything(moment);
    let selections = changes.iter().filter_map(|what| match what {
        What::Subscribed { selection, .. } => Some(selection.clone()),
        _ => None,
    });
    let ended = What::Ended {
        selections: selections.collect(),
        sequences: vec![1, 2],
        received: vec![300],
    };
    changes.push(ended);
    assert!(records(changes, moment).is_empty());
    // Or whose time is over.
    let expired = records(everything(moment), moment);
    let mut later = moment;
    later.wall_ms += 30_000;
    let reading = read(&expired, later);
    assert!(reading.sessions.is_empty());
    assert_eq!(reading.gone.len(), expired.len());
}

#[test]
fn another_form_is_passed_over() {
    let bytes = encode(&StoredMessage::of(&message(None), Moment::new()));
    assert!(decode::<StoredMessage>(&bytes).is_some());
    let mut other = bytes.to_vec();
    other[0] = VERSION + 1;
    assert!(decode::<StoredMessage>(&other).is_none());
    assert!(decode::<StoredMessage>(&[]).is_none());
}
