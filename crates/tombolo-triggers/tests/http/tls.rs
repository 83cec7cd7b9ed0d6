//! TLS: both protocols by ALPN, and certificates that follow their files.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tombolo_core::Code;
use tombolo_manifest::{HttpConfig, TlsConfig};
use tombolo_triggers::http::HttpServer;

use crate::support::*;

/// Writes a new certificate and returns it.
fn write_certificate(folder: &Path) -> CertificateDer<'static> {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(
        folder.join("key.pem"),
        certified.signing_key.serialize_pem(),
    )
    .unwrap();
    std::fs::write(folder.join("cert.pem"), certified.cert.pem()).unwrap();
    certified.cert.der().clone()
}

fn tls_config(folder: &Path) -> HttpConfig {
    let tls = TlsConfig {
        certificate: folder.join("cert.pem"),
        key: folder.join("key.pem"),
    };
    HttpConfig {
        tls: Some(tls),
        ..config()
    }
}

async fn connect(
    server: &Server,
    trusted: &CertificateDer<'static>,
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, server.connect().await)
        .await
}

#[tokio::test]
async fn the_protocol_is_agreed_on() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = write_certificate(folder.path());
    let server = Server::with(tls_config(folder.path()));
    let stream = connect(&server, &certificate, &[b"h2", b"http/1.1"])
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let answer = Http2::new(stream).await.send(get("/hello")).await.unwrap();
    assert_eq!(answer.text(), "hello");
    for protocols in [&[&b"http/1.1"[..]][..], &[]] {
        let stream = connect(&server, &certificate, protocols).await.unwrap();
        let answer = Http1::new(stream).await.send(get("/hello")).await.unwrap();
        assert_eq!(answer.text(), "hello");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_is_cut_over_tls_too() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = write_certificate(folder.path());
    let server = Server::with(tls_config(folder.path()));
    let stream = connect(&server, &certificate, &[]).await.unwrap();
    assert!(Http1::new(stream).await.send(get("/cut")).await.is_err());
}

#[tokio::test]
async fn a_new_certificate_is_taken_over_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let first = write_certificate(folder.path());
    let server = Server::with(tls_config(folder.path()));
    let kept = connect(&server, &first, &[]).await.unwrap();

    std::fs::write(folder.path().join("cert.pem"), "no certificate").unwrap();
    let second = {
        let other = tempfile::tempdir().unwrap();
        // Longer than the time after which the files are looked at.
        tokio::time::sleep(Duration::from_secs(3)).await;
        connect(&server, &first, &[])
            .await
            .expect("the last good certificate stays");
        let second = write_certificate(other.path());
        for name in ["key.pem", "cert.pem"] {
            std::fs::copy(other.path().join(name), folder.path().join(name)).unwrap();
        }
        second
    };
    while connect(&server, &second, &[]).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let answer = Http1::new(kept).await.send(get("/hello")).await.unwrap();
    assert_eq!(answer.text(), "hello", "a connection from before goes on");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_named_before_anything_listens() {
    let folder = tempfile::tempdir().unwrap();
    let error = HttpServer::bind(&tls_config(folder.path())).unwrap_err();
    assert_eq!(error.code(), Code::Tls);
    write_certificate(folder.path());
    let other = tempfile::tempdir().unwrap();
    write_certificate(other.path());
    std::fs::copy(other.path().join("key.pem"), folder.path().join("key.pem")).unwrap();
    assert_eq!(
        HttpServer::bind(&tls_config(folder.path()))
            .unwrap_err()
            .code(),
        Code::Tls
    );
}
