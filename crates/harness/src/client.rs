//! The sender's side: HTTPS with a client certificate, as ASAPP sends it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme, SupportedProtocolVersion};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::HANG;
use super::certs::Identity;

pub type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;
pub type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    One,
    Two,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    V12,
    V13,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// The JSON document, or the text where it is none, or null without a body.
    pub body: Value,
}

/// Posts to one address. It keeps its connections: HTTP/1.1 one for each request that is under way, HTTP/2 a single one.
pub struct Sender {
    address: SocketAddr,
    http: Http,
    config: Arc<ClientConfig>,
    kept: bool,
    idle: Mutex<Vec<Connection>>,
}

impl Sender {
    /// `authority` is the PEM of the CA that the server's certificate is checked against, under the name `localhost`.
    pub fn new(address: SocketAddr, authority: &str, identity: Option<&Identity>, http: Http) -> Self {
        Self::with_tls(address, authority, identity, http, &[Tls::V13])
    }

    pub fn with_tls(
        address: SocketAddr,
        authority: &str,
        identity: Option<&Identity>,
        http: Http,
        versions: &[Tls],
    ) -> Self {
        let config = tls_config(authority, identity, http, versions);
        Self { address, http, config: Arc::new(config), kept: true, idle: Mutex::default() }
    }

    /// From now on each request comes on a connection of its own, with its own handshake.
    pub fn fresh(mut self) -> Self {
        self.kept = false;
        self
    }

    /// It shows its certificate only to a server that names its CA, or none: as Go's and Java's clients do.
    pub fn picky(mut self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.client_auth_cert_resolver = Arc::new(Picky(Arc::clone(&config.client_auth_cert_resolver)));
        self.config = Arc::new(config);
        self
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Result<Answer, Error> {
        let mut request = Request::post(path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::new(body.into()))?).await
    }

    /// Any request; `host` is added.
    pub async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Answer, Error> {
        let host = format!("localhost:{}", self.address.port());
        match self.http {
            Http::One => {
                request.headers_mut().insert("host", host.parse()?);
            }
            Http::Two => *request.uri_mut() = format!("https://{host}{}", request.uri()).parse()?,
        }
        tokio::time::timeout(HANG, self.exchange(request)).await?
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, Error> {
        let mut connection = self.connection().await?;
        let (head, body) = connection.send(request).await?.into_parts();
        let bytes = body.collect().await?.to_bytes();
        if self.kept && self.http == Http::One {
            self.idle.lock().unwrap().push(connection);
        }
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: document(&bytes) })
    }

    /// A TLS connection to write bytes to: a slow body, a request that is none.
    pub async fn connect(&self) -> Result<TlsStream, Error> {
        self.shake_hands(TcpStream::connect(self.address).await?).await
    }

    /// The same on a connection that is there.
    pub async fn shake_hands(&self, tcp: TcpStream) -> Result<TlsStream, Error> {
        tcp.set_nodelay(true)?;
        Ok(TlsConnector::from(Arc::clone(&self.config)).connect(ServerName::try_from("localhost")?, tcp).await?)
    }

    /// One that is kept and still open, or a new one. A kept one that the server is just closing is not tried again:
    /// such a request fails, as it does for a real sender.
    async fn connection(&self) -> Result<Connection, Error> {
        loop {
            let Some(mut connection) = self.take_idle() else { break };
            if connection.ready().await {
                return Ok(connection);
            }
        }
        let connection = self.open().await?;
        if let (Connection::Two(sender), true) = (&connection, self.kept) {
            // Two requests at once may each have opened one; the first that is kept serves all later ones.
            let mut idle = self.idle.lock().unwrap();
            if idle.is_empty() {
                idle.push(Connection::Two(sender.clone()));
            }
        }
        Ok(connection)
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap();
        idle.retain(|connection| !connection.closed());
        match idle.last() {
            Some(Connection::Two(shared)) => Some(Connection::Two(shared.clone())),
            // In turn: one that rested until the server closes it could break the request that takes it at that moment.
            Some(Connection::One(_)) => Some(idle.remove(0)),
            None => None,
        }
    }

    async fn open(&self) -> Result<Connection, Error> {
        let io = TokioIo::new(self.connect().await?);
        // The connection's own task ends with it; its error reaches the request that it broke.
        match self.http {
            Http::One => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                Ok(Connection::One(sender))
            }
            Http::Two => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                Ok(Connection::Two(sender))
            }
        }
    }
}

#[derive(Debug)]
struct Picky(Arc<dyn ResolvesClientCert>);

impl ResolvesClientCert for Picky {
    fn resolve(&self, names: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.resolve(names, schemes)?;
        let (_, leaf) = X509Certificate::from_der(shown.end_entity_cert().ok()?).ok()?;
        (names.is_empty() || names.contains(&leaf.issuer().as_raw())).then_some(shown)
    }

    fn has_certs(&self) -> bool {
        self.0.has_certs()
    }
}

enum Connection {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    async fn ready(&mut self) -> bool {
        match self {
            Self::One(sender) => sender.ready().await.is_ok(),
            Self::Two(sender) => sender.ready().await.is_ok(),
        }
    }

    fn closed(&self) -> bool {
        match self {
            Self::One(sender) => sender.is_closed(),
            Self::Two(sender) => sender.is_closed(),
        }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::One(sender) => sender.send_request(request).await,
            Self::Two(sender) => sender.send_request(request).await,
        }
    }
}

fn document(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into())
}

/// The provider is named, not taken from the process: no test depends on which one another installed first.
fn tls_config(authority: &str, identity: Option<&Identity>, http: Http, versions: &[Tls]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let versions: Vec<&'static SupportedProtocolVersion> = versions
        .iter()
        .map(|version| match version {
            Tls::V12 => &rustls::version::TLS12,
            Tls::V13 => &rustls::version::TLS13,
        })
        .collect();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => {
            let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(identity.private_key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain.collect::<Result<_, _>>().unwrap(), key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![match http {
        Http::One => b"http/1.1".to_vec(),
        Http::Two => b"h2".to_vec(),
    }];
    config
}
