//! A listener that asks for no certificate, with an API of the test's own behind it.

use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
};
use temp_dir::TempDir;
use tokio::{net::TcpListener, sync::watch};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    config::Tls,
    http::{Answer, Content, Hint, Refusal, RefusalStatus},
    tls::{Clients, Section},
};

/// It tells who asks.
struct Echo;

impl Handler for Echo {
    type Answer = Answer;

    async fn answer(self: Arc<Self>, request: Request<Incoming>, peer: Arc<Peer>, busy: Busy) -> Answer {
        if request.method() == Method::DELETE {
            return Answer::Refused(Refusal {
                status: RefusalStatus::METHOD_NOT_ALLOWED,
                content: Content::json("{}"),
                hint: Some(Hint::Allow("GET, HEAD")),
                is_last: true,
            });
        }
        busy.authenticate();
        let text = format!("{:?} {}", peer.client, peer.count_request());
        Answer::Read(Content { media_type: "text/plain", bytes: text.into() })
    }
}

/// A server's own certificate, and a section that names its files.
fn section(dir: &TempDir) -> (CertificateDer<'static>, Section) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let write = |name: &str, text: String| {
        std::fs::write(dir.child(name), text).unwrap();
        dir.child(name)
    };
    let tls = Tls {
        certificate: write("tls.crt", certificate.pem()),
        private_key: write("tls.key", key.serialize_pem()),
        client_ca: dir.child("none.crt"),
        crl: None,
        client_names: Vec::new(),
        tls_1_2: false,
    };
    (certificate.der().clone(), Section { name: "echo.tls", tls, clients: Clients::None })
}

const LIMITS: Limits = Limits {
    section: "echo",
    connections_max: 10,
    idle_max: Duration::from_secs(60),
    age_max: Duration::from_secs(600),
    head_max: Duration::from_secs(10),
    streams_max: 400,
};

#[tokio::test]
async fn a_server_answers_for_any_api_and_clients_without_a_certificate() {
    let dir = TempDir::new().unwrap();
    let (certificate, section) = section(&dir);
    let (_keep, tls) = watch::channel(Arc::new(ServerTls::load(&section).unwrap().0));
    let (metrics, draining) = (Arc::new(Metrics::new().unwrap()), CancellationToken::new());
    let server = Server::new(tls, Arc::new(Echo), LIMITS, &metrics, &draining);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(Arc::clone(&server).run(listener));

    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(client)).connect(name, socket).await.unwrap();
    let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);

    for (method, status, body) in [
        (Method::GET, StatusCode::OK, "Unknown 0"),
        (Method::HEAD, StatusCode::OK, ""),
        (Method::DELETE, StatusCode::METHOD_NOT_ALLOWED, "{}"),
    ] {
        requests.ready().await.unwrap();
        let request = Request::builder().method(&method).uri("/").body(Empty::<bytes::Bytes>::new()).unwrap();
        let answer = requests.send_request(request).await.unwrap();
        let (head, received) = answer.into_parts();
        assert_eq!(head.status, status, "{method}");
        assert_eq!(head.headers.get(header::ALLOW).is_some(), method == Method::DELETE);
        assert_eq!(head.headers.get(header::CONNECTION).is_some(), method == Method::DELETE, "its last answer");
        assert_eq!(received.collect().await.unwrap().to_bytes(), body, "{method}");
    }
    draining.cancel();
    serving.await.unwrap().ended().await;
    assert_eq!((server.connections.count(), metrics.connections_accepted.get()), (0, 1));
}

#[test]
fn streams_of_http_2_go_by_who_is_authenticated() {
    let door = Door::new(Arc::new(Echo), LIMITS);
    let streams = |client: Client| door.take_streams(&client);
    let (first, shared) = streams(Client::Allowed("cn:a".into()));
    assert_eq!((first, shared.as_ref().map(crate::quota::Share::amount)), (108, Some(100)));
    assert_eq!(streams(Client::Allowed("cn:a".into())).0, 83, "a quarter of what is free");
    let not_allowed = tls::NotAllowed { subject: "CN=b".to_owned() };
    for (client, own) in [(Client::NotAllowed(not_allowed), 1), (Client::Unknown, 8)] {
        let (streams, shared) = streams(client);
        assert!(streams == own && shared.is_none());
    }
}
