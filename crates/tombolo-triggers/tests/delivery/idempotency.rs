//! Idempotency keys: one run, one answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use tombolo_core::event::Event;
use tombolo_core::{Body, Call, CallContext, Code, Failure, Invoke, TraceContext};
use tombolo_triggers::idempotent::Idempotent;

use crate::support::{
    Called, Functions, Site, answer, answer_with, broken, consumer, event, eventually, gate, pass,
    settings,
};

fn call(method: &str, path: &str, key: &str) -> Call {
    call_with(method, path, &[("idempotency-key", key)], "")
}

fn call_with(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Call {
    let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
    let body = body.map_err(|never| match never {}).boxed_unsync();
    let request = Request::builder().method(method).uri(path);
    let add = |request: http::request::Builder, (name, value): &(&str, &str)| {
        request.header(*name, *value)
    };
    let request = headers.iter().fold(request, add).body(body).unwrap();
    Call {
        function: consumer("orders", "queue").function,
        request,
        context: CallContext {
            trace: TraceContext {
                trace_id: 1,
                span_id: 1,
                sampled: false,
            },
            request_id: "r".into(),
            deadline: None,
            hops: 0,
            nested: false,
            event: false,
            client: None,
        },
    }
}

/// Functions that answer 201 and how often they ran, or what the path says.
fn counting() -> Arc<Functions> {
    let runs = AtomicU32::new(0);
    Functions::new(move |seen| {
        let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            Ok(match seen.path.as_str() {
                "/broken" => broken(),
                "/long" => answer_with(200, &[], &"x".repeat(2 << 20)),
                path => {
                    let status = path.trim_start_matches('/').parse().unwrap_or(201);
                    answer_with(
                        status,
                        &[("x-run", "kept"), ("x-run", "twice")],
                        &run.to_string(),
                    )
                }
            })
        }
    })
}

async fn text(answered: Result<Response<Body>, Failure>) -> String {
    let body = answered.unwrap().into_body().collect().await.unwrap();
    String::from_utf8(body.to_bytes().into()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_the_first_run_is_given_again_also_after_a_restart() {
    let site = Site::new();
    let opened = site.open(&[]).await;
    let functions = counting();
    let invoke = Idempotent::new(Arc::new(Called(functions.clone())), opened.journal.clone());
    assert_eq!(text(invoke.invoke(call("POST", "/", "k")).await).await, "1");
    let again = invoke.invoke(call("POST", "/", "k")).await.unwrap();
    assert_eq!(again.status(), 201);
    let values: Vec<_> = again.headers().get_all("x-run").iter().collect();
    assert_eq!(values, ["kept", "twice"]);
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(text(Ok(again)).await, "1");
    assert_eq!(
        text(invoke.invoke(call("POST", "/", "other")).await).await,
        "2"
    );
    assert_eq!(text(invoke.invoke(call("GET", "/", "k")).await).await, "3");
    let reused = invoke
        .invoke(call("POST", "/elsewhere", "k"))
        .await
        .unwrap_err();
    assert_eq!(reused.code, Code::KeyReused);
    let empty = invoke.invoke(call("POST", "/", "")).await.unwrap_err();
    assert_eq!(empty.code, Code::BadRequest);
    opened.store.close().await;

    let opened = site.open(&[]).await;
    let invoke = Idempotent::new(Arc::new(Called(functions.clone())), opened.journal.clone());
    assert_eq!(text(invoke.invoke(call("POST", "/", "k")).await).await, "1");
    assert_eq!(functions.seen().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_attempt_may_change_is_not_kept() {
    let site = Site::new();
    let opened = site.open(&[]).await;
    let functions = counting();
    let invoke = Idempotent::new(Arc::new(Called(functions.clone())), opened.journal.clone());
    for (path, runs) in [
        ("/503", 2),
        ("/429", 2),
        ("/404", 2),
        ("/401", 2),
        ("/403", 2),
        ("/422", 1),
        ("/302", 1),
    ] {
        let before = functions.seen().len();
        for _ in 0..2 {
            text(invoke.invoke(call("POST", path, path)).await).await;
        }
        assert_eq!(functions.seen().len() - before, runs, "{path}");
    }
    let cut = invoke
        .invoke(call("POST", "/broken", "b"))
        .await
        .unwrap_err();
    assert_eq!(cut.code, Code::AnswerInvalid);
    let long = text(invoke.invoke(call("POST", "/long", "l")).await).await;
    assert_eq!(long.len(), 2 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_runs_once_at_a_time() {
    let site = Site::new();
    let opened = site.open(&[]).await;
    let door = gate();
    let waiting = door.clone();
    let functions = Functions::new(move |_| {
        let door = waiting.clone();
        async {
            pass(door).await;
            Ok(answer(200))
        }
    });
    let invoke = Idempotent::new(Arc::new(Called(functions.clone())), opened.journal.clone());
    let first = invoke.invoke(call("POST", "/", "k"));
    let second = invoke.invoke(call("POST", "/", "k")).await.unwrap_err();
    assert_eq!(
        (second.code, second.retry_after.is_some()),
        (Code::Conflict, true)
    );
    door.add_permits(1);
    assert_eq!(first.await.unwrap().status(), 200);
    // A caller that goes away gives the key back.
    drop(invoke.invoke(call("POST", "/", "gone")));
    door.add_permits(1);
    assert_eq!(
        invoke
            .invoke(call("POST", "/", "gone"))
            .await
            .unwrap()
            .status(),
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_given_to_its_own_caller_only() {
    let site = Site::new();
    let opened = site.open(&[]).await;
    let functions = counting();
    let invoke = Idempotent::new(Arc::new(Called(functions.clone())), opened.journal.clone());
    let callers = [
        ("authorization", "Bearer alice"),
        ("authorization", "Bearer bob"),
        ("cookie", "session=alice"),
        ("x-api-key", "alice"),
        ("x-anybody", ""),
    ];
    for _ in 0..2 {
        for (run, caller) in (1..).zip(callers) {
            let call = call_with("POST", "/", &[("idempotency-key", "order-17"), caller], "");
            assert_eq!(text(invoke.invoke(call).await).await, run.to_string());
        }
    }
    // Nor can a client take the key of an event.
    for (event, run) in [(false, "6"), (true, "7"), (false, "6")] {
        let mut call = call_with("POST", "/", &[("ce-idempotencykey", "e")], "");
        call.context.event = event;
        assert_eq!(text(invoke.invoke(call).await).await, run);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_body_with_the_same_key_is_refused() {
    let site = Site::new();
    let opened = site.open(&[]).await;
    let functions = counting();
    let invoke = Idempotent::new(Arc::new(Called(functions.clone())), opened.journal.clone());
    let pay = |body| call_with("POST", "/", &[("idempotency-key", "k")], body);
    assert_eq!(text(invoke.invoke(pay("10 EUR")).await).await, "1");
    for other in ["99 EUR", "10 EUR and more", "10", ""] {
        let refused = invoke.invoke(pay(other)).await.unwrap_err();
        assert_eq!(refused.code, Code::KeyReused, "{other}");
        assert_eq!(refused.code.http_status(), 422);
    }
    assert_eq!(text(invoke.invoke(pay("10 EUR")).await).await, "1");
    assert_eq!(functions.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_does_not_undo_what_was_begun() {
    let site = Site::new();
    let opened = site.open(&[]).await;
    let door = gate();
    let waiting = door.clone();
    let functions = Functions::new(move |_| {
        let door = waiting.clone();
        async {
            pass(door).await;
            Ok(answer(201))
        }
    });
    let invoke = Idempotent::new(Arc::new(Called(functions.clone())), opened.journal.clone());
    let calling = tokio::spawn(invoke.invoke(call("POST", "/", "k")));
    eventually(|| functions.seen().len() == 1).await;
    calling.abort();
    assert!(calling.await.unwrap_err().is_cancelled());
    let busy = invoke.invoke(call("POST", "/", "k")).await.unwrap_err();
    assert_eq!(busy.code, Code::Conflict);
    door.add_permits(1);
    invoke.drain().await;
    let again = invoke.invoke(call("POST", "/", "k")).await.unwrap();
    assert_eq!(again.status(), 201);
    assert_eq!(functions.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_events_with_one_key_run_the_function_once() {
    let site = Site::new();
    let opened = site.open(&[("orders", settings())]).await;
    let functions = counting();
    let with_key = |id: &str| {
        let mut event: Event = event(id);
        event
            .extensions
            .insert("idempotencykey".into(), "order-17".into());
        event
    };
    let mut one_by_one = settings();
    one_by_one.concurrency = 1;
    opened
        .journal
        .configure(crate::support::queue("orders"), one_by_one)
        .await
        .unwrap();
    opened.publish("orders", ["1", "2"].map(with_key)).await;
    let invoke = Idempotent::new(Arc::new(Called(functions.clone())), opened.journal.clone());
    let delivering = opened.deliver_by(Arc::new(invoke), vec![consumer("orders", "queue")]);
    opened
        .until("orders", |figures| figures.counters.done == 2)
        .await;
    assert_eq!(functions.seen().len(), 1);
    delivering.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_waits_for_the_one_with_its_key_and_is_dead_when_it_is_another() {
    let site = Site::new();
    let mut once = settings();
    once.retry.attempts = 1;
    let opened = site.open(&[("orders", once)]).await;
    let door = gate();
    let waiting = door.clone();
    let functions = Functions::new(move |_| {
        let door = waiting.clone();
        async {
            pass(door).await;
            Ok(answer(200))
        }
    });
    let order = |id: &str, data: &'static str| {
        let mut event = event(id).with_data("text/plain", data);
        let key = "order-17".into();
        event.extensions.insert("idempotencykey".into(), key);
        event
    };
    let same = [order("1", "10 EUR"), order("2", "10 EUR")];
    opened.publish("orders", same).await;
    let invoke = Idempotent::new(Arc::new(Called(functions.clone())), opened.journal.clone());
    let delivering = opened.deliver_by(Arc::new(invoke), vec![consumer("orders", "queue")]);
    opened
        .until("orders", |figures| figures.backing_off == 1)
        .await;
    door.add_permits(1);
    opened
        .until("orders", |figures| figures.counters.done == 2)
        .await;
    opened.publish("orders", [order("3", "99 EUR")]).await;
    opened.until_empty("orders").await;
    let dead = opened.dead("orders");
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].event.id, "3");
    assert_eq!(functions.seen().len(), 1);
    delivering.stop().await;
}
