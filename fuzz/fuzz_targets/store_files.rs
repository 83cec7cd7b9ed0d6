//! The files of a store, each with arbitrary bytes in arbitrary places: it opens or says why not, and never serves what
//! nobody wrote.
#![no_main]

use std::path::Path;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use tombolo_core::event::Event;
use tombolo_core::{Publication, Publish as _, QueueId};
use tombolo_store::disk::simulated::SimulatedDisk;
use tombolo_store::queue::QueueSettings;
use tombolo_store::{Limits, Store, StoreError, SystemClock, Write};

const FOLDER: &str = "/store";
const EVENTS: usize = 40;

fn open(disk: &SimulatedDisk) -> Result<Store, tombolo_store::OpenError> {
    let disk = Arc::new(disk.clone());
    let clock = Box::new(SystemClock::start());
    Store::open_on(disk, Path::new(FOLDER), clock, Limits::default())
}

fn queue() -> QueueId {
    QueueId {
        app: "app".parse().expect("a name"),
        queue: "readings".parse().expect("a name"),
    }
}

fn data(id: &str) -> Vec<u8> {
    format!("data of {id} ").repeat(8).into_bytes()
}

/// A closed store with events and keys.
static WHOLE: LazyLock<SimulatedDisk> = LazyLock::new(|| {
    let disk = SimulatedDisk::new();
    let store = open(&disk).expect("an empty disk is no problem");
    let things = store.key_value(
        &"app".parse().expect("a name"),
        &"things".parse().expect("a name"),
    );
    wait(async {
        let journal = store.journal();
        journal
            .configure(queue(), QueueSettings::default())
            .await
            .expect("it is open");
        for id in (0..EVENTS).map(|id| id.to_string()) {
            let event = Event::new(id.as_str(), "/m", "t").with_data("text/plain", data(&id));
            journal
                .publish(vec![Publication::new(queue(), event)])
                .await
                .expect("there is room");
            let set = Write::Set {
                value: data(&id).into(),
                key: id,
            };
            things.write(vec![set]).await.expect("there is room");
        }
    });
    wait(store.close());
    disk
});

/// Waits for a future that other threads bring forward.
fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(done) => return done,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

fuzz_target!(|input: &[u8]| {
    // Which file, and then changes: where (two bytes, in 65,536ths of the file) and what.
    let Some((which, changes)) = input.split_first() else {
        return;
    };
    let files = WHOLE.files();
    let file = &files[usize::from(*which) % files.len()];
    let disk = WHOLE.damaged(file, |content| {
        for change in changes.chunks(3) {
            let &[high, low, what] = change else {
                let cut = content.len() * usize::from(change[0]) / 256;
                return content.truncate(cut);
            };
            let at = content.len() * usize::from(u16::from_be_bytes([high, low])) / 65_536;
            if let Some(byte) = content.get_mut(at) {
                *byte = what;
            }
        }
    });
    let Ok(store) = open(&disk) else {
        return;
    };
    let journal = store.journal();
    for listed in journal.list(&queue(), 0, 1000).unwrap_or_default() {
        match journal.peek(&queue(), listed.sequence) {
            Ok(peeked) => {
                let event = peeked.expect("it was listed").event;
                let found = event.data.expect("each has data");
                assert_eq!(found, data(&event.id));
            }
            Err(StoreError::Damaged(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let things = store.key_value(
        &"app".parse().expect("a name"),
        &"things".parse().expect("a name"),
    );
    for id in (0..EVENTS).map(|id| id.to_string()) {
        match things.get(&id) {
            Ok(Some(value)) => assert_eq!(value, data(&id)),
            Ok(None) | Err(StoreError::Damaged(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
});
