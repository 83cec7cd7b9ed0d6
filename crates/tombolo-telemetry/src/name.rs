//! The name of every metric, span and attribute, after OpenTelemetry's semantic conventions where they have one.

/// Span: an HTTP request from its first byte to the end of the answer.
pub const SPAN_HTTP: &str = "http.server.request";
/// Span: one invocation of a function.
pub const SPAN_INVOKE: &str = "faas.invoke";
/// Span: one delivery of an event or a batch, from its taking to its settlement.
pub const SPAN_DELIVERY: &str = "messaging.process";

/// Attribute: the function as `app/function`.
pub const FAAS_NAME: &str = "faas.name";
/// Attribute: the id of the invocation, which is the request id.
pub const FAAS_INVOCATION_ID: &str = "faas.invocation_id";
/// Attribute: the method of a request.
pub const HTTP_REQUEST_METHOD: &str = "http.request.method";
/// Attribute: the status of an answer.
pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
/// Attribute: the route that matched, as in the manifest.
pub const HTTP_ROUTE: &str = "http.route";
/// Attribute: the path of a request, without its query.
pub const URL_PATH: &str = "url.path";
/// Attribute: the address of the client.
pub const CLIENT_ADDRESS: &str = "client.address";
/// Attribute: the version of HTTP.
pub const NETWORK_PROTOCOL_VERSION: &str = "network.protocol.version";
/// Attribute: the bytes of an answer's body that were sent.
pub const HTTP_RESPONSE_BODY_SIZE: &str = "http.response.body.size";
/// Attribute: from the head of a request to the end of its answer, in microseconds.
pub const DURATION_US: &str = "duration_us";
/// Attribute: whether an answer broke after its head.
pub const CUT: &str = "cut";
/// Attribute: the error code, `TB0301`.
pub const ERROR_TYPE: &str = "error.type";
/// Attribute: whose fault an error is: `caller`, `guest`, `host` or `dependency`.
pub const TOMBOLO_BLAME: &str = "tombolo.blame";
/// Attribute: what carries events; always `tombolo`.
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// Attribute: what is done with events; `process` for deliveries.
pub const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
/// Attribute: the queue as `app/queue`.
pub const MESSAGING_DESTINATION_NAME: &str = "messaging.destination.name";
/// Attribute: the id of the event, when it is a single one.
pub const MESSAGING_MESSAGE_ID: &str = "messaging.message.id";
/// Attribute: the events of a batch.
pub const MESSAGING_BATCH_MESSAGE_COUNT: &str = "messaging.batch.message_count";
/// Attribute: the kind of trigger, `queue` for instance.
pub const TOMBOLO_TRIGGER: &str = "tombolo.trigger";
/// Attribute: which attempt to deliver it is, from 1.
pub const TOMBOLO_ATTEMPT: &str = "tombolo.attempt";
/// Attribute of every span: the name of the service.
pub const SERVICE_NAME: &str = "service.name";
/// Attribute of every span: the version of the service.
pub const SERVICE_VERSION: &str = "service.version";
/// Attribute of every span: the node.
pub const SERVICE_INSTANCE_ID: &str = "service.instance.id";

/// One metric: its OpenMetrics name without unit and suffix, its unit, and what it means.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    /// `seconds`, `bytes`, or none.
    pub unit: Option<&'static str>,
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident = $name:literal, $unit:expr, $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: Metric = Metric { name: $name, unit: $unit, help: $help };)*
        /// Every metric.
        pub const METRICS: &[Metric] = &[$($constant,)*];
    };
}

const SECONDS: Option<&str> = Some("seconds");
const BYTES: Option<&str> = Some("bytes");

metrics! {
    FAAS_INVOCATIONS = "faas_invocations", None, "Invocations that ended, whatever their outcome";
    FAAS_ERRORS = "faas_errors", None, "Invocations that failed, by error code";
    FAAS_COLDSTARTS = "faas_coldstarts", None, "Invocations that found no machine code mapped";
    FAAS_INVOKE_DURATION = "faas_invoke_duration", SECONDS, "Wall time of invocations, from start to the end of the response";
    FAAS_INIT_DURATION = "faas_init_duration", SECONDS, "Time that cold starts spent on mapping machine code";
    FUNCTION_CPU = "tombolo_function_cpu", SECONDS, "CPU time of the function's own code";
    FUNCTION_WALL = "tombolo_function_wall", SECONDS, "Wall time of invocations, summed up";
    FUNCTION_MEMORY = "tombolo_function_memory_gigabyte_seconds", None, "Peak memory of each invocation times its wall time, in GiB seconds";
    FUNCTION_IO = "tombolo_function_io", BYTES, "Bytes of request bodies in and of response bodies out";
    FUNCTION_CANCELLED = "tombolo_function_cancelled", None, "Invocations whose caller went away";
    FUNCTION_REJECTED = "tombolo_function_rejected", None, "Calls refused because the function or the node was busy";
    FUNCTION_RUNNING = "tombolo_function_running", None, "Invocations that run now";
    FUNCTION_WAITING = "tombolo_function_waiting", None, "Calls that wait for a place now";
    FUNCTION_ANSWERS = "tombolo_function_answers", None, "Answers that are stored for idempotency keys";
    FUNCTION_ANSWERS_SIZE = "tombolo_function_answers_size", BYTES, "Bytes of the answers that are stored for idempotency keys";
    FUNCTION_ANSWERS_EVICTED = "tombolo_function_answers_evicted", None, "Stored answers that made room for newer ones of their function before their time";
    HTTP_REQUEST_DURATION = "http_server_request_duration", SECONDS, "Time from the head of a request to the end of its answer";
    HTTP_ACTIVE_REQUESTS = "http_server_active_requests", None, "Requests that are being answered now";
    HTTP_RESPONSES = "tombolo_http_responses", None, "Answers, by status";
    HTTP_CONNECTIONS = "tombolo_http_connections", None, "Open client connections";
    HTTP_CONNECTIONS_REFUSED = "tombolo_http_connections_refused", None, "Connections closed at once because their client had as many as allowed";
    MESSAGING_PROCESS_DURATION = "messaging_process_duration", SECONDS, "Time from taking events to their function's whole answer";
    QUEUE_DEPTH = "tombolo_queue_depth", None, "Events in the queue, with those that are being delivered";
    QUEUE_SIZE = "tombolo_queue_size", BYTES, "Bytes of the events in the queue";
    QUEUE_OLDEST_AGE = "tombolo_queue_oldest_age", SECONDS, "Age of the oldest event in the queue";
    QUEUE_LEASED = "tombolo_queue_leased", None, "Events that are being delivered";
    QUEUE_PUBLISHED = "tombolo_queue_published", None, "Events that the queue accepted";
    QUEUE_ATTEMPTS = "tombolo_queue_attempts", None, "Deliveries of events, again and again";
    QUEUE_RETRIED = "tombolo_queue_retried", None, "Attempts that failed and were followed by another";
    QUEUE_DELIVERED = "tombolo_queue_delivered", None, "Events that their function acknowledged";
    QUEUE_DEAD = "tombolo_queue_dead", None, "Events that became dead letters";
    QUEUE_DROPPED = "tombolo_queue_dropped", None, "Events that left unread, by reason: dropped or compacted for want of room, expired, purged, lost to damage of the disk";
    KEYVALUE_SIZE = "tombolo_keyvalue_size", BYTES, "Bytes of the keys and values that the key-value stores of an app have together; the app tombolo is the node itself";
    QUEUE_REMEMBERED = "tombolo_queue_remembered", None, "Ids of accepted events that the queue remembers, to know duplicates";
    QUEUE_FORGOTTEN_EARLY = "tombolo_queue_forgotten_early", None, "Remembered ids that were forgotten before the retention was over, because there were too many";
    QUEUE_REMEMBERED_DAMAGES = "tombolo_queue_remembered_damages", None, "Places of the disk with remembered ids that were found damaged: duplicates of these events are accepted";
    MQTT_CONNECTIONS = "tombolo_mqtt_connections", None, "Clients that are connected to the broker now";
    MQTT_CONNECTIONS_REFUSED = "tombolo_mqtt_connections_refused", None, "Connections closed at once because the broker had as many as allowed";
    MQTT_SESSIONS = "tombolo_mqtt_sessions", None, "Sessions of the broker, connected or not";
    MQTT_SUBSCRIPTIONS = "tombolo_mqtt_subscriptions", None, "Subscriptions of clients";
    MQTT_RETAINED = "tombolo_mqtt_retained", None, "Retained messages";
    MQTT_RETAINED_SIZE = "tombolo_mqtt_retained_size", BYTES, "Bytes of the retained messages";
    MQTT_WAITING_SIZE = "tombolo_mqtt_waiting_size", BYTES, "Bytes of messages that wait for clients or for their acknowledgements";
    MQTT_ACCEPTED = "tombolo_mqtt_accepted", None, "Messages that were published and accepted";
    MQTT_REFUSED = "tombolo_mqtt_refused", None, "Messages that were not accepted, by reason: forbidden by the rules, or refused because a queue of a trigger was full, the event not valid or the store failed";
    MQTT_SENT = "tombolo_mqtt_sent", None, "Copies of messages sent to clients";
    MQTT_DROPPED = "tombolo_mqtt_dropped", None, "Copies of messages that clients did not get, by reason: full, expired or too long for the client";
    MQTT_UNRETAINED = "tombolo_mqtt_unretained", None, "Messages that were to be retained and found no room";
    MQTT_REMOTE_CONNECTED = "tombolo_mqtt_remote_connected", None, "1 for each broker elsewhere that an app subscribes to and is connected to now, 0 for one that it is not";
    LOG_ENTRIES_EVICTED = "tombolo_log_entries_evicted", None, "Log entries that made room for newer ones";
    LOG_MEMORY = "tombolo_log_memory", BYTES, "Memory that kept log entries take";
    SPANS_DROPPED = "tombolo_spans_dropped", None, "Spans that were lost: the export queue was full or the collector did not take them";
}

/// Label of metrics: the app.
pub const LABEL_APP: &str = "app";
/// Label of metrics: the function's name within the app.
pub const LABEL_FUNCTION: &str = "function";
/// Label of metrics: the queue's name within the app.
pub const LABEL_QUEUE: &str = "queue";
/// Label of metrics: why something happened.
pub const LABEL_REASON: &str = "reason";
/// Label of metrics: the URL of an MQTT broker elsewhere.
pub const LABEL_BROKER: &str = "broker";
/// Label of metrics: the error code.
pub const LABEL_ERROR: &str = "error_type";
/// Label of metrics: `in` or `out`.
pub const LABEL_DIRECTION: &str = "direction";
/// Label of metrics: the status of an answer.
pub const LABEL_STATUS: &str = "http_response_status_code";
