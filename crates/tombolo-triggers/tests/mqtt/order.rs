//! A client's messages are in the journal in the order in which it sent them.

use std::sync::Arc;

use mqtt_proto::v5;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tombolo_core::event::Event;
use tombolo_core::{Publication, Publish as _, QueueId};
use tombolo_store::Store;
use tombolo_store::queue::QueueSettings;
use tombolo_triggers::mqtt::{Arrival, Broker, Refusal};

use crate::client::{Client, connect, message, open_config, pid};

/// As many as a client may have on their way, nearly.
const BURST: u16 = 120;
const BURSTS: u16 = 8;

#[tokio::test]
async fn bursts_of_one_client_are_kept_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (journal, queue) = (
        store.journal(),
        QueueId {
            app: "press".parse().unwrap(),
            queue: "readings".parse().unwrap(),
        },
    );
    let settings = QueueSettings::default();
    journal.configure(queue.clone(), settings).await.unwrap();
    let (kept, into) = (journal.clone(), queue.clone());
    let accept = move |arrival: Arrival| {
        let id = String::from_utf8_lossy(&arrival.message.payload).into_owned();
        let event = Event::new(id, "/client", "message");
        let kept = kept.publish(vec![Publication::new(into.clone(), event)]);
        async move { kept.await.map(drop).map_err(|_| Refusal::Failed) }
    };
    let broker = Broker::bind(open_config(), Arc::new(accept)).unwrap();
    let address = broker.local_addrs()[0];
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(broker.run(shutdown.clone()));

    let stream = TcpStream::connect(address).await.unwrap();
    let mut client = Client::connected(stream, connect("press")).await;
    for burst in 0..BURSTS {
        let numbers = burst * BURST + 1..=(burst + 1) * BURST;
        let mut bytes = Vec::new();
        for number in numbers.clone() {
            let publish: v5::Packet = message(1, number, "a", &number.to_string()).into();
            bytes.extend_from_slice(publish.encode().unwrap().as_ref());
        }
        client.raw(&bytes).await;
        for number in numbers {
            let acknowledged = v5::Puback::new_success(pid(number));
            assert_eq!(client.packet().await, acknowledged.into());
        }
    }
    let listed = journal
        .list(&queue, 0, usize::from(BURST * BURSTS))
        .unwrap();
    let ids: Vec<String> = listed
        .iter()
        .map(|one| {
            journal
                .peek(&queue, one.sequence)
                .unwrap()
                .unwrap()
                .event
                .id
        })
        .collect();
    let expected: Vec<String> = (1..=BURST * BURSTS).map(|one| one.to_string()).collect();
    assert_eq!(ids, expected);
    client.disconnect().await;
    shutdown.cancel();
    running.await.unwrap().unwrap();
}
