//! Renders every metric as OpenMetrics text, from the counters as they stand.

use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use tombolo_core::{FunctionId, QueueId};

use crate::histogram::Histogram;
use crate::name::{self, Metric};
use crate::{AnswerReading, FunctionMetrics, FunctionUsage, QueueMetrics, QueueReading, Telemetry};

pub fn render(telemetry: &Telemetry) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot::take(telemetry)));
    let mut text = String::new();
    // Writing to a string does not fail; should an encoder, the text ends without its `# EOF` and scrapers refuse it.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Snapshot {
    telemetry: Telemetry,
    functions: Vec<Function>,
    queues: Vec<QueueReading>,
    deliveries: Vec<(QueueId, Arc<QueueMetrics>)>,
}

#[derive(Debug)]
struct Function {
    id: FunctionId,
    usage: FunctionUsage,
    metrics: Arc<FunctionMetrics>,
}

impl Function {
    fn labels(&self) -> [(&'static str, &str); 2] {
        function_labels(&self.id)
    }
}

impl Snapshot {
    fn take(telemetry: &Telemetry) -> Self {
        let functions = telemetry.functions().into_iter();
        let functions = functions
            .map(|(id, metrics)| Function {
                id,
                usage: metrics.snapshot(),
                metrics,
            })
            .collect();
        Self {
            telemetry: telemetry.clone(),
            functions,
            queues: telemetry.queue_readings(),
            deliveries: telemetry.queues(),
        }
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        self.invocations(&mut encoder)?;
        self.billing(&mut encoder)?;
        self.answers(&mut encoder)?;
        self.http(&mut encoder)?;
        self.queues(&mut encoder)?;
        self.key_values(&mut encoder)?;
        self.broker(&mut encoder)?;
        self.node(&mut encoder)
    }
}

impl Snapshot {
    fn invocations(&self, encoder: &mut DescriptorEncoder) -> Result<(), Error> {
        self.counters(encoder, name::FAAS_INVOCATIONS, |usage| usage.invocations)?;
        let mut family = family(encoder, name::FAAS_ERRORS, MetricType::Counter)?;
        for function in &self.functions {
            for (code, count) in function.metrics.errors() {
                let code = code.to_string();
                let [app, id] = function.labels();
                counter(&mut family, &[app, id, (name::LABEL_ERROR, &code)], count)?;
            }
        }
        self.counters(encoder, name::FAAS_COLDSTARTS, |usage| usage.cold_starts)?;
        self.counters(encoder, name::FUNCTION_CANCELLED, |usage| usage.cancelled)?;
        self.counters(encoder, name::FUNCTION_REJECTED, |usage| usage.rejected)?;
        self.gauges(encoder, name::FUNCTION_RUNNING, |usage| usage.running)?;
        self.gauges(encoder, name::FUNCTION_WAITING, |usage| usage.waiting)?;
        self.histograms(encoder, name::FAAS_INVOKE_DURATION, |metrics| &metrics.wall)?;
        self.histograms(encoder, name::FAAS_INIT_DURATION, |metrics| &metrics.init)
    }

    fn billing(&self, encoder: &mut DescriptorEncoder) -> Result<(), Error> {
        self.seconds(encoder, name::FUNCTION_CPU, |usage| {
            usage.cpu_ns as f64 / 1e9
        })?;
        self.seconds(encoder, name::FUNCTION_WALL, |usage| {
            usage.wall_ns as f64 / 1e9
        })?;
        self.seconds(encoder, name::FUNCTION_MEMORY, |usage| usage.gb_seconds)?;
        let mut family = family(encoder, name::FUNCTION_IO, MetricType::Counter)?;
        for function in &self.functions {
            let [app, id] = function.labels();
            let usage = &function.usage;
            for (direction, bytes) in [("in", usage.bytes_in), ("out", usage.bytes_out)] {
                counter(
                    &mut family,
                    &[app, id, (name::LABEL_DIRECTION, direction)],
                    bytes,
                )?;
            }
        }
        Ok(())
    }

    fn answers(&self, encoder: &mut DescriptorEncoder) -> Result<(), Error> {
        let readings = self.telemetry.answer_readings();
        for (metric, value) in [
            (
                name::FUNCTION_ANSWERS,
                (|reading| reading.answers) as fn(&AnswerReading) -> u64,
            ),
            (name::FUNCTION_ANSWERS_SIZE, |reading| reading.bytes),
        ] {
            let mut gauges = family(encoder, metric, MetricType::Gauge)?;
            for reading in &readings {
                gauges
                    .encode_family(&function_labels(&reading.function).as_slice())?
                    .encode_gauge(&gauge_value(value(reading)))?;
            }
        }
        let evicted = name::FUNCTION_ANSWERS_EVICTED;
        let mut counters = family(encoder, evicted, MetricType::Counter)?;
        for reading in &readings {
            let labels = function_labels(&reading.function);
            counter(&mut counters, &labels, reading.evicted)?;
        }
        Ok(())
    }

    fn http(&self, encoder: &mut DescriptorEncoder) -> Result<(), Error> {
        let http = self.telemetry.http();
        let mut durations = family(encoder, name::HTTP_REQUEST_DURATION, MetricType::Histogram)?;
        histogram(&mut durations, &http.duration)?;
        family(encoder, name::HTTP_ACTIVE_REQUESTS, MetricType::Gauge)?
            .encode_gauge(&gauge_value(http.active_requests()))?;
        let mut responses = family(encoder, name::HTTP_RESPONSES, MetricType::Counter)?;
        for (status, count) in http.statuses() {
            counter(
                &mut responses,
                &[(name::LABEL_STATUS, &status.to_string())],
                count,
            )?;
        }
        family(encoder, name::HTTP_CONNECTIONS, MetricType::Gauge)?
            .encode_gauge(&gauge_value(http.connections()))?;
        let mut refused = family(encoder, name::HTTP_CONNECTIONS_REFUSED, MetricType::Counter)?;
        counter(&mut refused, &[], http.connections_refused())
    }

    fn queues(&self, encoder: &mut DescriptorEncoder) -> Result<(), Error> {
        let duration = name::MESSAGING_PROCESS_DURATION;
        let mut durations = family(encoder, duration, MetricType::Histogram)?;
        for (queue, metrics) in &self.deliveries {
            let labels = queue_labels(queue);
            let labels = labels.as_slice();
            histogram(&mut durations.encode_family(&labels)?, &metrics.process)?;
        }
        for (metric, value) in [
            (
                name::QUEUE_DEPTH,
                (|queue| queue.depth) as fn(&QueueReading) -> u64,
            ),
            (name::QUEUE_SIZE, |queue| queue.bytes),
            (name::QUEUE_LEASED, |queue| queue.leased),
            (name::QUEUE_REMEMBERED, |queue| queue.remembered),
        ] {
            let mut gauges = family(encoder, metric, MetricType::Gauge)?;
            for queue in &self.queues {
                let labels = queue_labels(&queue.queue);
                gauges
                    .encode_family(&labels.as_slice())?
                    .encode_gauge(&gauge_value(value(queue)))?;
            }
        }
        let mut ages = family(encoder, name::QUEUE_OLDEST_AGE, MetricType::Gauge)?;
        for queue in &self.queues {
            let labels = queue_labels(&queue.queue);
            ages.encode_family(&labels.as_slice())?
                .encode_gauge(&queue.oldest_age.as_secs_f64())?;
        }
        for (metric, value) in [
            (
                name::QUEUE_PUBLISHED,
                (|queue| queue.published) as fn(&QueueReading) -> u64,
            ),
            (name::QUEUE_ATTEMPTS, |queue| queue.attempts),
            (name::QUEUE_RETRIED, |queue| queue.retried),
            (name::QUEUE_DELIVERED, |queue| queue.delivered),
            (name::QUEUE_DEAD, |queue| queue.dead),
            (name::QUEUE_FORGOTTEN_EARLY, |queue| queue.forgotten_early),
            (name::QUEUE_REMEMBERED_DAMAGES, |queue| {
                queue.remembered_damages
            }),
        ] {
            let mut counters = family(encoder, metric, MetricType::Counter)?;
            for queue in &self.queues {
                counter(&mut counters, &queue_labels(&queue.queue), value(queue))?;
            }
        }
        let mut dropped = family(encoder, name::QUEUE_DROPPED, MetricType::Counter)?;
        for queue in &self.queues {
            let [app, id] = queue_labels(&queue.queue);
            for (reason, count) in &queue.dropped {
                let labels = [app, id, (name::LABEL_REASON, *reason)];
                counter(&mut dropped, &labels, *count)?;
            }
        }
        Ok(())
    }

    fn key_values(&self, encoder: &mut DescriptorEncoder) -> Result<(), Error> {
        let mut sizes = family(encoder, name::KEYVALUE_SIZE, MetricType::Gauge)?;
        for (app, bytes) in self.telemetry.key_value_readings() {
            let labels = [(name::LABEL_APP, app.as_str())];
            sizes
                .encode_family(&labels.as_slice())?
                .encode_gauge(&gauge_value(bytes))?;
        }
        Ok(())
    }

    fn broker(&self, encoder: &mut DescriptorEncoder) -> Result<(), Error> {
        let broker = self.telemetry.broker_reading();
        for (metric, value) in [
            (name::MQTT_CONNECTIONS, broker.connections),
            (name::MQTT_SESSIONS, broker.sessions),
            (name::MQTT_SUBSCRIPTIONS, broker.subscriptions),
            (name::MQTT_RETAINED, broker.retained),
            (name::MQTT_RETAINED_SIZE, broker.retained_bytes),
            (name::MQTT_WAITING_SIZE, broker.waiting_bytes),
        ] {
            family(encoder, metric, MetricType::Gauge)?.encode_gauge(&gauge_value(value))?;
        }
        for (metric, value) in [
            (name::MQTT_CONNECTIONS_REFUSED, broker.connections_refused),
            (name::MQTT_ACCEPTED, broker.accepted),
            (name::MQTT_SENT, broker.sent),
            (name::MQTT_UNRETAINED, broker.unretained),
        ] {
            counter(
                &mut family(encoder, metric, MetricType::Counter)?,
                &[],
                value,
            )?;
        }
        for (metric, counts) in [
            (name::MQTT_REFUSED, broker.refused.as_slice()),
            (name::MQTT_DROPPED, &broker.dropped),
        ] {
            let mut counters = family(encoder, metric, MetricType::Counter)?;
            for (reason, count) in counts.iter().filter(|(reason, _)| !reason.is_empty()) {
                counter(&mut counters, &[(name::LABEL_REASON, *reason)], *count)?;
            }
        }
        let mut connected = family(encoder, name::MQTT_REMOTE_CONNECTED, MetricType::Gauge)?;
        for remote in &broker.remote {
            let labels = [
                (name::LABEL_APP, remote.app.as_str()),
                (name::LABEL_BROKER, remote.broker.as_str()),
            ];
            connected
                .encode_family(&labels.as_slice())?
                .encode_gauge(&i64::from(remote.connected))?;
        }
        Ok(())
    }

    fn node(&self, encoder: &mut DescriptorEncoder) -> Result<(), Error> {
        let logs = self.telemetry.logs();
        let mut evicted = family(encoder, name::LOG_ENTRIES_EVICTED, MetricType::Counter)?;
        counter(&mut evicted, &[], logs.evicted())?;
        family(encoder, name::LOG_MEMORY, MetricType::Gauge)?
            .encode_gauge(&gauge_value(logs.bytes()))?;
        let mut dropped = family(encoder, name::SPANS_DROPPED, MetricType::Counter)?;
        counter(&mut dropped, &[], self.telemetry.spans_dropped())
    }

    fn counters(
        &self,
        encoder: &mut DescriptorEncoder,
        metric: Metric,
        value: impl Fn(&FunctionUsage) -> u64,
    ) -> Result<(), Error> {
        let mut family = family(encoder, metric, MetricType::Counter)?;
        for function in &self.functions {
            counter(&mut family, &function.labels(), value(&function.usage))?;
        }
        Ok(())
    }

    fn seconds(
        &self,
        encoder: &mut DescriptorEncoder,
        metric: Metric,
        value: impl Fn(&FunctionUsage) -> f64,
    ) -> Result<(), Error> {
        let mut family = family(encoder, metric, MetricType::Counter)?;
        for function in &self.functions {
            let value = value(&function.usage);
            let labels = function.labels();
            family
                .encode_family(&labels.as_slice())?
                .encode_counter::<Labels, _, f64>(&value, None)?;
        }
        Ok(())
    }

    fn gauges(
        &self,
        encoder: &mut DescriptorEncoder,
        metric: Metric,
        value: impl Fn(&FunctionUsage) -> u64,
    ) -> Result<(), Error> {
        let mut family = family(encoder, metric, MetricType::Gauge)?;
        for function in &self.functions {
            let value = gauge_value(value(&function.usage));
            family
                .encode_family(&function.labels().as_slice())?
                .encode_gauge(&value)?;
        }
        Ok(())
    }

    fn histograms(
        &self,
        encoder: &mut DescriptorEncoder,
        metric: Metric,
        value: impl Fn(&FunctionMetrics) -> &Histogram,
    ) -> Result<(), Error> {
        let mut family = family(encoder, metric, MetricType::Histogram)?;
        for function in &self.functions {
            let labels = function.labels();
            let labels = labels.as_slice();
            histogram(
                &mut family.encode_family(&labels)?,
                value(&function.metrics),
            )?;
        }
        Ok(())
    }
}

fn function_labels(function: &FunctionId) -> [(&'static str, &str); 2] {
    [
        (name::LABEL_APP, function.app.as_str()),
        (name::LABEL_FUNCTION, function.function.as_str()),
    ]
}

fn queue_labels(queue: &QueueId) -> [(&'static str, &str); 2] {
    [
        (name::LABEL_APP, queue.app.as_str()),
        (name::LABEL_QUEUE, queue.queue.as_str()),
    ]
}

type Labels<'a> = [(&'a str, &'a str); 0];

fn family<'a>(
    encoder: &'a mut DescriptorEncoder,
    metric: Metric,
    kind: MetricType,
) -> Result<MetricEncoder<'a>, Error> {
    let unit = match metric.unit {
        Some("seconds") => Some(&Unit::Seconds),
        Some("bytes") => Some(&Unit::Bytes),
        _ => None,
    };
    encoder.encode_descriptor(metric.name, metric.help, unit, kind)
}

fn counter(family: &mut MetricEncoder, labels: &[(&str, &str)], count: u64) -> Result<(), Error> {
    if labels.is_empty() {
        return family.encode_counter::<Labels, _, u64>(&count, None);
    }
    family
        .encode_family(&labels)?
        .encode_counter::<Labels, _, u64>(&count, None)
}

fn histogram(encoder: &mut MetricEncoder, histogram: &Histogram) -> Result<(), Error> {
    let reading = histogram.read();
    encoder.encode_histogram::<Labels>(reading.sum_s, reading.count, &reading.buckets, None)
}

fn gauge_value(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
