//! Who may come in, and what they may do then.

use std::sync::Arc;

use mqtt_proto::v5::{self, ConnectReasonCode, PubackReasonCode, SubscribeReasonCode};
use mqtt_proto::{QoS, v3};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::TlsConnector;
use tombolo_triggers::mqtt::{MqttTls, PasswordHash, Rule, User};

use crate::client::{Client, connect, message, open_config, pid, start};

fn rule(user: &str, topics: &str) -> Rule {
    Rule {
        user: Some(user.into()),
        publish: true,
        subscribe: true,
        topics: topics.into(),
    }
}

fn with_password(id: &str, user: &str, password: &str) -> v5::Connect {
    let mut connect = connect(id);
    connect.username = Some(user.into());
    connect.password = Some(password.as_bytes().to_vec().into());
    connect
}

/// Of the password `secret`, with few iterations, because the tests run without optimisation.
fn anna() -> User {
    let hash = "pbkdf2-sha256$1000$73616c74$";
    let digest = "a8df899f3c4f204d967e0ad63c092987c10055ebb017b3d9d28add218d4f7aad";
    User {
        name: "anna".into(),
        password: format!("{hash}{digest}").parse().unwrap(),
    }
}

#[tokio::test]
async fn a_password_lets_in_and_rules_say_to_what() {
    let mut config = open_config();
    config.listeners[0].anonymous = false;
    config.users = vec![anna()];
    config.rules = vec![rule("anna", "machines/{client}/#")];
    let broker = start(config).await;
    for (user, password) in [("anna", "wrong"), ("bert", "secret"), ("", "secret")] {
        let connect = with_password("m1", user, password);
        let (mut client, connack) = Client::hello(broker.tcp().await, connect).await;
        assert_eq!(
            connack.reason_code,
            ConnectReasonCode::BadUserNameOrPassword
        );
        assert_eq!(client.bytes().await, None);
    }
    let (_, connack) = Client::hello(broker.tcp().await, connect("m1")).await;
    assert_eq!(connack.reason_code, ConnectReasonCode::NotAuthorized);

    let anna = with_password("m1", "anna", "secret");
    let mut client = Client::connected(broker.tcp().await, anna).await;
    client.publish(1, 1, "machines/m1/speed", "1").await;
    assert_eq!(
        client.packet().await,
        v5::Puback::new_success(pid(1)).into()
    );
    for topic in ["machines/m2/speed", "$SYS/broker", "machines"] {
        client.publish(1, 2, topic, "1").await;
        let forbidden = v5::Puback::new(pid(2), PubackReasonCode::NotAuthorized);
        assert_eq!(client.packet().await, forbidden.into(), "{topic}");
    }
    for filter in [
        "#",
        "machines/#",
        "machines/+/speed",
        "$share/g/machines/m2/#",
        "$SYS/#",
    ] {
        let code = client.subscribe(filter, QoS::Level1).await;
        assert_eq!(code, SubscribeReasonCode::NotAuthorized, "{filter}");
    }
    let code = client
        .subscribe("$share/g/machines/m1/#", QoS::Level1)
        .await;
    assert_eq!(code, SubscribeReasonCode::GrantedQoS1);
    assert_eq!(broker.arrived(), ["machines/m1/speed=1"]);
    broker.stop().await;
}

#[tokio::test]
async fn identifiers_and_wills_open_no_way_round_the_rules() {
    let mut config = open_config();
    config.rules = vec![Rule {
        user: None,
        publish: true,
        subscribe: true,
        topics: "devices/{client}/#".into(),
    }];
    let broker = start(config).await;
    for id in ["+", "#", "a/b", "{user}"] {
        let mut client = Client::connected(broker.tcp().await, connect(id)).await;
        client.publish(1, 2, "devices/a/b", "1").await;
        let forbidden = v5::Puback::new(pid(2), PubackReasonCode::NotAuthorized);
        assert_eq!(client.packet().await, forbidden.into(), "{id}");
        let code = client.subscribe("devices/+/b", QoS::Level0).await;
        assert_eq!(code, SubscribeReasonCode::NotAuthorized, "{id}");
    }
    let mut will = connect("a");
    let topic = "devices/b/x".try_into().unwrap();
    will.last_will = Some(v5::LastWill::new(QoS::Level0, topic, "x".into()));
    let (_, connack) = Client::hello(broker.tcp().await, will).await;
    assert_eq!(connack.reason_code, ConnectReasonCode::NotAuthorized);
    assert!(broker.arrived().is_empty());
    broker.stop().await;
}

#[tokio::test]
async fn a_forbidden_message_of_an_old_client_is_answered_and_dropped() {
    let mut config = open_config();
    config.rules = Vec::new();
    let broker = start(config).await;
    let mut client = Client::new(broker.tcp().await);
    client
        .send_v3(v3::Connect::new("old".into(), 0).into())
        .await;
    client.packet_v3().await;
    let qos_pid = mqtt_proto::QosPid::Level1(pid(1));
    let publish = v3::Publish::new(qos_pid, "a".try_into().unwrap(), bytes::Bytes::new());
    client.send_v3(publish.into()).await;
    assert_eq!(client.packet_v3().await, v3::Packet::Puback(pid(1)));
    let topics = vec![("a".try_into().unwrap(), QoS::Level1)];
    client
        .send_v3(v3::Subscribe::new(pid(2), topics).into())
        .await;
    let refused = v3::Suback::new(pid(2), vec![v3::SubscribeReturnCode::Failure]);
    assert_eq!(client.packet_v3().await, refused.into());
    assert_eq!(broker.handle.figures().forbidden, 1);
    assert!(broker.arrived().is_empty());
    broker.stop().await;
}

#[tokio::test]
async fn nobody_takes_over_the_session_of_another_user() {
    let mut config = open_config();
    config.users = vec![anna()];
    let broker = start(config).await;
    let mut anna = with_password("c", "anna", "secret");
    anna.properties.session_expiry_interval = Some(100);
    let mut client = Client::connected(broker.tcp().await, anna).await;
    let (_, connack) = Client::hello(broker.tcp().await, connect("c")).await;
    assert_eq!(
        connack.reason_code,
        ConnectReasonCode::ClientIdentifierNotValid
    );
    assert!(client.is_idle().await);
    broker.stop().await;
}

/// A folder with an authority, a server's certificate and clients' certificates.
struct Certificates {
    folder: tempfile::TempDir,
    authority: CertificateDer<'static>,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Certificates {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let made = Self {
            authority: authority.der().clone(),
            issuer: rcgen::Issuer::new(params, key),
            folder,
        };
        let (server, key) = made.issue("localhost");
        std::fs::write(made.folder.path().join("server.pem"), server.pem()).unwrap();
        std::fs::write(made.folder.path().join("server.key"), key.serialize_pem()).unwrap();
        made
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn tls(&self, required: bool) -> MqttTls {
        MqttTls {
            certificate: self.folder.path().join("server.pem"),
            key: self.folder.path().join("server.key"),
            client_authorities: Some(self.folder.path().join("ca.pem")),
            client_certificate_required: required,
        }
    }

    fn connector(&self, client: Option<&str>) -> TlsConnector {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let (certificate, key) = self.issue(name);
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder
                    .with_client_auth_cert(vec![certificate.der().clone()], key)
                    .unwrap()
            }
        };
        Arc::new(config).into()
    }
}

#[tokio::test]
async fn a_client_certificate_is_the_user() {
    let certificates = Certificates::new();
    let mut config = open_config();
    config.listeners[0].anonymous = false;
    config.listeners[0].tls = Some(certificates.tls(true));
    config.rules = vec![rule("press-7", "press/7/#")];
    let broker = start(config).await;
    let host = ServerName::try_from("localhost").unwrap();

    let connector = certificates.connector(Some("press-7"));
    let stream = connector
        .connect(host.clone(), broker.tcp().await)
        .await
        .unwrap();
    let mut client = Client::connected(stream, connect("c")).await;
    client.send(message(1, 1, "press/7/t", "1").into()).await;
    assert_eq!(
        client.packet().await,
        v5::Puback::new_success(pid(1)).into()
    );
    client.send(message(1, 1, "press/8/t", "1").into()).await;
    let forbidden = v5::Puback::new(pid(1), PubackReasonCode::NotAuthorized);
    assert_eq!(client.packet().await, forbidden.into());
    let arrival = broker.arrival().await;
    assert_eq!(arrival.client.unwrap().user.as_deref(), Some("press-7"));

    // Without a certificate, or with one of another authority, there is no connection.
    let strangers = Certificates::new();
    let foreign = {
        let (certificate, key) = strangers.issue("press-7");
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificates.authority.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate.der().clone()], key)
            .unwrap();
        TlsConnector::from(Arc::new(config))
    };
    for connector in [certificates.connector(None), foreign] {
        if let Ok(stream) = connector.connect(host.clone(), broker.tcp().await).await {
            // TLS 1.3 clients hear of the refusal after their own side of the handshake.
            let mut client = Client::new(stream);
            let hello: v5::Packet = connect("x").into();
            let _ = tokio::io::AsyncWriteExt::write_all(
                &mut client.stream,
                hello.encode().unwrap().as_ref(),
            )
            .await;
            assert_eq!(client.bytes().await, None);
        }
    }
    broker.stop().await;
}

#[test]
fn hashes_of_passwords_differ_and_verify() {
    let hash = PasswordHash::new(b"secret").unwrap();
    let again: PasswordHash = hash.to_string().parse().unwrap();
    assert!(again == hash && again.verify(b"secret") && !again.verify(b"Secret"));
    assert!(PasswordHash::new(b"secret").unwrap() != hash);
}
