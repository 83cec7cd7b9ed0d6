//! What a scraper sees: the names are in the reference, the values are what was counted.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;

use tombolo_core::{Code, FunctionId, QueueId};
use tombolo_telemetry::{AnswerReading, Outcome, QueueReading, Telemetry, TelemetryOptions, name};

fn telemetry() -> Telemetry {
    let options = TelemetryOptions {
        otlp: None,
        sample_ratio: 0.0,
    };
    Telemetry::start(&options, "node").unwrap().0
}

/// Run with `UPDATE_EXPECT=1` to write the reference anew.
#[test]
fn the_reference_lists_every_metric() {
    let text = telemetry().render_metrics();
    let described: String = text
        .lines()
        .filter(|line| line.starts_with("# ") && !line.ends_with("EOF"))
        .flat_map(|line| [line, "\n"])
        .collect();
    for metric in name::METRICS {
        assert!(
            described.contains(metric.help),
            "{} is not rendered",
            metric.name
        );
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/metrics.txt");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &described).unwrap();
    }
    assert_eq!(described, std::fs::read_to_string(&path).unwrap());
}

#[test]
fn what_was_counted_is_rendered_with_its_labels() {
    let telemetry = telemetry();
    let id = FunctionId {
        app: "demo".parse().unwrap(),
        function: "hello".parse().unwrap(),
    };
    let metrics = telemetry.function(&id);
    assert!(std::sync::Arc::ptr_eq(&metrics, &telemetry.function(&id)));
    let (wall, cpu) = (Duration::from_secs(2), Duration::from_millis(250));
    metrics.start();
    metrics.finish(Outcome::Failed(Code::Trap), wall, cpu, 1 << 30, 10, 20);
    telemetry.http().start();
    telemetry.http().finish(http::StatusCode::BAD_GATEWAY, wall);
    let text = telemetry.render_metrics();
    let labels = r#"app="demo",function="hello""#;
    for line in [
        format!("faas_invocations_total{{{labels}}} 1"),
        format!("faas_errors_total{{{labels},error_type=\"TB0301\"}} 1"),
        format!("tombolo_function_cpu_seconds_total{{{labels}}} 0.25"),
        format!("tombolo_function_memory_gigabyte_seconds_total{{{labels}}} 2.0"),
        format!("tombolo_function_io_bytes_total{{{labels},direction=\"out\"}} 20"),
        format!("tombolo_function_running{{{labels}}} 0"),
        format!("faas_invoke_duration_seconds_bucket{{le=\"2.5\",{labels}}} 1"),
        "tombolo_http_responses_total{http_response_status_code=\"502\"} 1".to_owned(),
        "http_server_active_requests 0".to_owned(),
        "http_server_request_duration_seconds_count 1".to_owned(),
        "# EOF".to_owned(),
    ] {
        assert!(
            text.lines().any(|seen| seen == line),
            "no `{line}` in\n{text}"
        );
    }
}

#[test]
fn queues_tell_their_state_when_they_are_asked() {
    let telemetry = telemetry();
    let queue = QueueId {
        app: "plant".parse().unwrap(),
        queue: "readings.dead".parse().unwrap(),
    };
    telemetry.queue(&queue).delivered(Duration::from_millis(2));
    let reading = QueueReading {
        queue,
        depth: 3,
        bytes: 300,
        oldest_age: Duration::from_millis(1500),
        leased: 1,
        published: 9,
        attempts: 12,
        retried: 4,
        delivered: 5,
        dead: 2,
        dropped: vec![("expired", 1), ("dropped", 0)],
        remembered: 9,
        forgotten_early: 7,
        remembered_damages: 1,
    };
    telemetry.read_queues(move || vec![reading.clone()]);
    let text = telemetry.render_metrics();
    let labels = r#"app="plant",queue="readings.dead""#;
    for line in [
        format!("messaging_process_duration_seconds_count{{{labels}}} 1"),
        format!("tombolo_queue_depth{{{labels}}} 3"),
        format!("tombolo_queue_size_bytes{{{labels}}} 300"),
        format!("tombolo_queue_oldest_age_seconds{{{labels}}} 1.5"),
        format!("tombolo_queue_leased{{{labels}}} 1"),
        format!("tombolo_queue_published_total{{{labels}}} 9"),
        format!("tombolo_queue_attempts_total{{{labels}}} 12"),
        format!("tombolo_queue_retried_total{{{labels}}} 4"),
        format!("tombolo_queue_delivered_total{{{labels}}} 5"),
        format!("tombolo_queue_dead_total{{{labels}}} 2"),
        format!("tombolo_queue_dropped_total{{{labels},reason=\"expired\"}} 1"),
        format!("tombolo_queue_remembered{{{labels}}} 9"),
        format!("tombolo_queue_forgotten_early_total{{{labels}}} 7"),
        format!("tombolo_queue_remembered_damages_total{{{labels}}} 1"),
        format!("tombolo_queue_dropped_total{{{labels},reason=\"dropped\"}} 0"),
    ] {
        assert!(
            text.lines().any(|seen| seen == line),
            "no `{line}` in\n{text}"
        );
    }
}

#[test]
fn stored_answers_tell_what_was_pushed_out() {
    let telemetry = telemetry();
    let reading = AnswerReading {
        function: FunctionId {
            app: "shop".parse().unwrap(),
            function: "pay".parse().unwrap(),
        },
        answers: 3,
        bytes: 300,
        evicted: 2,
    };
    telemetry.read_answers(move || vec![reading.clone()]);
    let text = telemetry.render_metrics();
    let labels = r#"app="shop",function="pay""#;
    for line in [
        format!("tombolo_function_answers{{{labels}}} 3"),
        format!("tombolo_function_answers_size_bytes{{{labels}}} 300"),
        format!("tombolo_function_answers_evicted_total{{{labels}}} 2"),
    ] {
        assert!(
            text.lines().any(|seen| seen == line),
            "no `{line}` in\n{text}"
        );
    }
}
