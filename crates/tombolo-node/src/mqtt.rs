//! The node's MQTT broker: made from the config, told what apps subscribe to, read for the metrics.

use std::sync::Arc;

use tombolo_core::Publish;
use tombolo_manifest::{BrokerConfig, BrokerListener, BrokerUser};
use tombolo_store::KeyValue;
use tombolo_telemetry::{BrokerReading, RemoteReading, Telemetry};
use tombolo_triggers::mqtt::{
    Broker, BrokerError, BrokerHandle, MqttBounds, MqttConfig, MqttListener, MqttTls,
    PasswordError, Qos, RemoteBroker, RemoteHandle, RemoteStatus, Retaining, Rule, SessionWriter,
    Subscriptions, User,
};

use crate::app::App;
use crate::deploy::DeployError;
use crate::events;
use crate::secrets::Secrets;

/// The stores of what outlives the process.
pub(crate) struct Kept {
    pub(crate) retained: KeyValue,
    pub(crate) sessions: KeyValue,
}

/// The broker, bound to its addresses, with what was kept before, what keeps it, and what its messages trigger.
pub(crate) async fn broker(
    config: &BrokerConfig,
    publish: Arc<dyn Publish>,
    kept: Kept,
    remote: RemoteHandle,
    telemetry: &Telemetry,
) -> Result<(Broker, SessionWriter, Subscriptions), BrokerError> {
    let subscriptions = Subscriptions::new(publish)?;
    let settings = settings(config)?;
    let accept = Arc::new(subscriptions.clone());
    let (accept, retained) = Retaining::open(accept, kept.retained, &settings.bounds).await?;
    let broker = Broker::bind(settings, Arc::new(accept))?;
    broker.restore(retained);
    let sessions = broker.keep_sessions(kept.sessions).await?;
    let handle = broker.handle();
    telemetry.read_broker(move || reading(&handle, &remote));
    Ok((broker, sessions, subscriptions))
}

/// The brokers elsewhere that the app's triggers name, each with all that is wanted of it.
pub(crate) fn remote_brokers(
    app: &App,
    secrets: &Secrets,
) -> Result<Vec<RemoteBroker>, DeployError> {
    let mut brokers: Vec<RemoteBroker> = Vec::new();
    for trigger in &app.manifest.triggers.mqtt {
        let Some(broker) = &trigger.broker else {
            continue;
        };
        let password = broker.password.as_ref().map(|name| {
            let read = secrets.read_one(name);
            read.map_err(|source| DeployError::BrokerPassword {
                url: broker.url.clone(),
                source,
            })
        });
        let password = password.transpose()?;
        let qos = match trigger.qos {
            0 => Qos::AtMostOnce,
            1 => Qos::AtLeastOnce,
            _ => Qos::ExactlyOnce,
        };
        let queue = events::mqtt_queue(app, &trigger.function);
        let wanted = (trigger.topic.as_str().parse()?, qos, queue);
        let same = brokers.iter_mut().find(|known| {
            (&known.url, &known.username) == (&broker.url, &broker.username)
                && known.password == password
        });
        match same {
            Some(known) => known.subscriptions.push(wanted),
            None => brokers.push(RemoteBroker {
                app: app.name().clone(),
                url: broker.url.clone(),
                username: broker.username.clone(),
                password,
                subscriptions: vec![wanted],
            }),
        }
    }
    Ok(brokers)
}

fn settings(config: &BrokerConfig) -> Result<MqttConfig, PasswordError> {
    let rules = config.rules.iter().map(|rule| Rule {
        user: rule.user.clone(),
        publish: rule.publish,
        subscribe: rule.subscribe,
        topics: rule.topics.clone(),
    });
    let users = config.users.iter().map(user);
    Ok(MqttConfig {
        listeners: config.listeners.iter().map(listener).collect(),
        users: users.collect::<Result<_, _>>()?,
        rules: rules.collect(),
        bounds: MqttBounds {
            connections_max: whole(config.connections_max),
            sessions_max: whole(config.sessions_max),
            packet_bytes_max: config.packet_bytes_max,
            queue_messages_max: whole(config.queue_messages_max),
            queues_bytes_max: whole(config.queues_bytes_max),
            retained_max: whole(config.retained_max),
            retained_bytes_max: whole(config.retained_bytes_max),
            session_expiry_max: config.session_expiry_max,
            ..MqttBounds::default()
        },
    })
}

fn user(user: &BrokerUser) -> Result<User, PasswordError> {
    Ok(User {
        name: user.name.clone(),
        password: user.password.as_str().parse()?,
    })
}

fn listener(listener: &BrokerListener) -> MqttListener {
    MqttListener {
        address: listener.address,
        anonymous: listener.anonymous,
        tls: listener.tls.as_ref().map(|tls| MqttTls {
            certificate: tls.certificate.clone(),
            key: tls.key.clone(),
            client_authorities: tls.client_authorities.clone(),
            client_certificate_required: tls.client_certificate_required,
        }),
    }
}

fn whole(bound: impl TryInto<usize>) -> usize {
    bound.try_into().unwrap_or(usize::MAX)
}

fn reading(broker: &BrokerHandle, remote: &RemoteHandle) -> BrokerReading {
    let figures = broker.figures();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    BrokerReading {
        connections: count(figures.connections),
        connections_refused: figures.connections_refused,
        sessions: count(figures.sessions),
        subscriptions: count(figures.subscriptions),
        retained: count(figures.retained),
        retained_bytes: count(figures.retained_bytes),
        waiting_bytes: count(figures.queued_bytes),
        accepted: figures.accepted,
        refused: [
            ("forbidden", figures.forbidden),
            ("refused", figures.refused),
        ],
        sent: figures.delivered,
        dropped: [
            ("full", figures.dropped_full),
            ("expired", figures.dropped_expired),
            ("long", figures.dropped_long),
        ],
        unretained: figures.unretained,
        remote: remote.statuses().into_iter().map(connection).collect(),
    }
}

fn connection(status: RemoteStatus) -> RemoteReading {
    RemoteReading {
        app: status.app,
        broker: status.url,
        connected: status.connected,
    }
}
