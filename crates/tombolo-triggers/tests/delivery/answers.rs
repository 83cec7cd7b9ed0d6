//! Each class of answer, over every kind of trigger.

use std::collections::BTreeMap;
use std::time::Duration;

use tombolo_core::{Blame, Code, Failure, Limit};
use tombolo_store::queue::{Burial, Due, QueueSettings, Standing};

use crate::support::{
    Functions, Site, answer, answer_with, broken, consumer, endless, event, queue, settings,
};

/// Every kind of trigger, with a queue of its own.
const TRIGGERS: [(&str, &str); 5] = [
    ("readings", "queue"),
    ("rollup.cron", "cron"),
    ("signal.mqtt", "mqtt"),
    ("audit.change", "change"),
    ("report.async", "async"),
];

/// What the function is told to do, by the event's type, and what comes of it.
const CASES: [(&str, Option<(u16, Burial)>); 21] = [
    ("200", None),
    ("202", None),
    ("204", None),
    ("299", None),
    ("100", Some((1, Burial::Refused))),
    ("301", Some((1, Burial::Refused))),
    ("304", Some((1, Burial::Refused))),
    ("400", Some((1, Burial::Refused))),
    ("401", Some((1, Burial::Refused))),
    ("410", Some((1, Burial::Refused))),
    ("422", Some((1, Burial::Refused))),
    ("404", Some((3, Burial::Attempts))),
    ("408", Some((3, Burial::Attempts))),
    ("409", Some((3, Burial::Attempts))),
    ("429", Some((3, Burial::Attempts))),
    ("500", Some((3, Burial::Attempts))),
    ("503", Some((3, Burial::Attempts))),
    ("599", Some((3, Burial::Attempts))),
    ("trap", Some((3, Burial::Attempts))),
    ("budget", Some((3, Burial::Attempts))),
    ("broken", Some((3, Burial::Attempts))),
];

fn obedient() -> std::sync::Arc<Functions> {
    Functions::new(|seen| async move {
        let failure = |code| Failure::new(code, Blame::Guest, "it failed");
        match seen.header("ce-type") {
            "trap" => Err(failure(Code::Trap)),
            "budget" => Err(failure(Code::CpuExceeded)),
            "broken" => Ok(broken()),
            status => Ok(answer(status.parse().unwrap())),
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_means_the_same_for_every_trigger() {
    let site = Site::new();
    let queues: Vec<_> = TRIGGERS
        .iter()
        .map(|(name, _)| (*name, settings()))
        .collect();
    let opened = site.open(&queues).await;
    let functions = obedient();
    let consumers = TRIGGERS.map(|(name, trigger)| consumer(name, trigger));
    let delivering = opened.deliver(&functions, consumers.to_vec());
    for (name, _) in TRIGGERS {
        let events = CASES.map(|(kind, _)| tombolo_core::event::Event {
            kind: kind.into(),
            ..event(kind)
        });
        opened.publish(name, events).await;
    }
    for (name, trigger) in TRIGGERS {
        opened.until_empty(name).await;
        let dead: BTreeMap<String, _> = opened
            .dead(name)
            .into_iter()
            .map(|peeked| (peeked.event.id.clone(), peeked.dead.unwrap()))
            .collect();
        for (kind, expected) in CASES {
            let calls = functions.seen();
            let calls = calls.iter().filter(|seen| {
                seen.header("x-tombolo-trigger") == trigger && seen.header("ce-type") == kind
            });
            let attempts: Vec<u32> = calls.map(|seen| seen.attempt()).collect();
            let times = expected.map_or(1, |(times, _)| u32::from(times));
            assert_eq!(attempts, (1..=times).collect::<Vec<_>>(), "{name} {kind}");
            let found = dead.get(kind).map(|dead| (dead.attempts, dead.burial));
            assert_eq!(found, expected, "{name} {kind}");
        }
        let cause = |kind: &str| dead[kind].history[0].cause.clone();
        assert_eq!(
            cause("422").detail,
            "the function answered 422 Unprocessable Entity"
        );
        assert_eq!(cause("422").code, None);
        assert_eq!(
            (cause("trap").code, cause("trap").detail.as_str()),
            (Some(Code::Trap), "it failed")
        );
        assert_eq!(cause("budget").code, Some(Code::CpuExceeded));
        assert_eq!(cause("broken").code, Some(Code::AnswerInvalid));
        assert!(
            cause("broken").detail.contains("broke off"),
            "{:?}",
            cause("broken")
        );
        assert_eq!(dead["503"].origin, queue(name));
    }
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_a_request_in_binary_mode() {
    let site = Site::new();
    let opened = site.open(&[("readings", settings())]).await;
    let functions = Functions::new(|_| async { Ok(answer(204)) });
    let delivering = opened.deliver(&functions, vec![consumer("readings", "queue")]);
    let mut sent = event("r-1");
    sent.subject = Some("Hall 3, Straße".into());
    sent.extensions.insert("line".into(), "4".into());
    opened.publish("readings", [sent]).await;
    opened.until_empty("readings").await;
    let seen = functions.seen().remove(0);
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/"));
    assert_eq!(seen.function.to_string(), "plant/readings");
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", "r-1"),
        ("ce-source", "/machine/7"),
        ("ce-type", "reading"),
        ("ce-subject", "Hall%203,%20Stra%C3%9Fe"),
        ("ce-line", "4"),
        ("content-type", "application/json"),
        ("content-length", "12"),
        ("x-tombolo-trigger", "queue"),
        ("x-tombolo-attempt", "1"),
        ("x-tombolo-node", "press-4"),
        ("x-request-id", seen.context.request_id.as_str()),
        ("traceparent", &seen.context.trace.to_string()),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    assert_eq!(seen.body, "{\"rpm\":1797}");
    assert_eq!(seen.context.request_id, "plant/readings/0/1");
    assert!(seen.context.deadline.is_some());
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_respected_in_both_forms() {
    let site = Site::new();
    let opened = site.open(&[("readings", settings())]).await;
    let functions = Functions::new(|seen| async move {
        let in_an_hour = std::time::SystemTime::now() + Duration::from_secs(120);
        let after = match seen.header("ce-id") {
            "date" => httpdate::fmt_http_date(in_an_hour),
            seconds => seconds.to_owned(),
        };
        Ok(answer_with(503, &[("retry-after", &after)], ""))
    });
    let delivering = opened.deliver(&functions, vec![consumer("readings", "queue")]);
    opened
        .publish("readings", ["date", "120", "999999"].map(event))
        .await;
    opened
        .until("readings", |figures| figures.backing_off == 3)
        .await;
    let now = opened.journal.now().unwrap().lived_ms;
    let listed = opened.journal.list(&queue("readings"), 0, 10).unwrap();
    for (listed, asked_ms) in listed.into_iter().zip([120_000, 120_000, 999_999_000]) {
        assert_eq!(listed.standing, Standing::BackingOff);
        let Some(Due::Lived(due)) = listed.due else {
            panic!("{:?}", listed.due)
        };
        assert!(
            due >= now + asked_ms - 20_000 && due <= now + asked_ms,
            "{due} at {now}"
        );
    }
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_has_no_place_is_tried_again_and_no_attempt_is_counted() {
    let site = Site::new();
    let opened = site.open(&[("readings", settings())]).await;
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let functions = Functions::new(move |_| {
        let busy = calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 20;
        async move {
            let failure = Failure::new(Code::Busy, Blame::Host, "it is busy")
                .limit(Limit::Concurrency)
                .retry_after(Duration::from_millis(1));
            if busy { Err(failure) } else { Ok(answer(200)) }
        }
    });
    let delivering = opened.deliver(&functions, vec![consumer("readings", "queue")]);
    opened.publish("readings", [event("1")]).await;
    opened.until_empty("readings").await;
    let seen = functions.seen();
    assert_eq!(seen.len(), 21);
    assert!(seen.iter().all(|seen| seen.attempt() == 1));
    assert!(opened.dead("readings").is_empty());
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_never_answers_is_given_up_and_tried_again() {
    let site = Site::new();
    let impatient = QueueSettings {
        lease_ms: 100,
        ..settings()
    };
    let opened = site.open(&[("readings", impatient)]).await;
    let functions = Functions::new(|seen| async move {
        match seen.header("ce-id") {
            "silent" => std::future::pending().await,
            _ => Ok(endless()),
        }
    });
    let delivering = opened.deliver(&functions, vec![consumer("readings", "queue")]);
    opened
        .publish("readings", ["silent", "endless"].map(event))
        .await;
    opened.until_empty("readings").await;
    assert_eq!(functions.seen().len(), 6);
    for dead in opened.dead("readings") {
        let dead = dead.dead.unwrap();
        assert_eq!(dead.attempts, 3);
        assert_eq!(dead.history[0].cause.code, Some(Code::WallExceeded));
    }
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_redriven_once_their_function_is_mended() {
    let site = Site::new();
    let opened = site.open(&[("readings", settings())]).await;
    let mended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_mended = mended.clone();
    let functions = Functions::new(move |_| {
        let status = if is_mended.load(std::sync::atomic::Ordering::SeqCst) {
            200
        } else {
            400
        };
        async move { Ok(answer(status)) }
    });
    let delivering = opened.deliver(&functions, vec![consumer("readings", "queue")]);
    opened.publish("readings", ["1", "2", "3"].map(event)).await;
    opened
        .until("readings.dead", |figures| figures.depth == 3)
        .await;
    mended.store(true, std::sync::atomic::Ordering::SeqCst);
    let all = tombolo_store::Selection::All;
    let redriven = opened
        .journal
        .redrive(&queue("readings"), &all, false)
        .await;
    assert_eq!(redriven.unwrap(), 3);
    opened.until_empty("readings").await;
    opened.until_empty("readings.dead").await;
    assert_eq!(functions.seen().len(), 6);
    assert_eq!(opened.figures("readings").counters.done, 3);
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_is_not_delivered() {
    let site = Site::new();
    let opened = site.open(&[("readings", settings())]).await;
    let functions = Functions::new(|_| async { Ok(answer(200)) });
    let delivering = opened.deliver(&functions, vec![consumer("readings", "queue")]);
    for _ in 0..3 {
        opened.publish("readings", ["1", "2"].map(event)).await;
        opened.until_empty("readings").await;
    }
    assert_eq!(functions.seen().len(), 2);
    delivering.stop().await;
}
