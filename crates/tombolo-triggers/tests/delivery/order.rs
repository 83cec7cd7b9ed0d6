//! Order by key where a function cannot be stopped: the next event waits until it is surely done.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tombolo_core::event::Event;
use tombolo_store::queue::{QueueSettings, RetrySettings};
use tombolo_triggers::delivery::Consumer;

use crate::support::{Functions, Site, answer, consumer, settings};

const LINGERS: Duration = Duration::from_millis(300);

/// Notes when an invocation is given up.
struct GivenUp(Arc<Mutex<Option<Instant>>>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        *self.0.lock().unwrap() = Some(Instant::now());
    }
}

fn of_key(id: &str) -> Event {
    let mut event = Event::new(id, "/machine/7", "reading");
    event.subject = Some("press".into());
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_last_attempt_that_ran_out_of_time_the_next_of_its_key_waits_for_the_guest() {
    let site = Site::new();
    let ordered = QueueSettings {
        order_by: Some("subject".into()),
        lease_ms: 600,
        retry: RetrySettings {
            attempts: 1,
            ..settings().retry
        },
        ..settings()
    };
    let opened = site.open(&[("count", ordered)]).await;
    let given_up = Arc::new(Mutex::new(None));
    let waited = Arc::new(Mutex::new(None));
    let functions = Functions::new({
        let (given_up, waited) = (given_up.clone(), waited.clone());
        move |seen| {
            let (given_up, waited) = (given_up.clone(), waited.clone());
            async move {
                if seen.header("ce-id") == "stuck" {
                    let _noting = GivenUp(given_up.clone());
                    std::future::pending::<()>().await;
                }
                *waited.lock().unwrap() = given_up.lock().unwrap().map(|at| at.elapsed());
                Ok(answer(200))
            }
        }
    });
    let consumer = Consumer {
        lingers: LINGERS,
        ..consumer("count", "queue")
    };
    let delivering = opened.deliver(&functions, vec![consumer]);
    opened.publish("count", ["stuck", "next"].map(of_key)).await;
    opened.until_empty("count").await;
    assert_eq!(opened.dead("count").len(), 1);
    let waited = waited.lock().unwrap().unwrap();
    assert!(waited >= LINGERS, "{waited:?}");
    delivering.stop().await;
}
