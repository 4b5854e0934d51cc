//! The endpoint that events are posted to: address, certificates, and new connections to it.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use hyper::{
    Method, Request, Uri,
    header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT},
    http::request::Parts,
};
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::outcome::Broken;
use crate::{
    cli::{Failure, target::Dev},
    files::read_pem,
};

/// Where to post, and as whom.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Target (without --url: the `causeway dev` beside this command)")]
pub struct EndpointArgs {
    /// Post here.
    #[arg(long, value_name = "URL", requires_all = ["ca", "cert", "key"])]
    url: Option<Uri>,
    /// The CA of the server's certificate, in PEM.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The sender's certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The key of --cert, in PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Where `causeway dev` keeps its files.
    #[arg(long, default_value = ".causeway", value_name = "DIR")]
    dir: PathBuf,
    /// HTTP/2.
    #[arg(long)]
    pub http2: bool,
    /// A new connection with a full handshake for each attempt.
    #[arg(long)]
    pub fresh: bool,
}

/// The endpoint, with its host looked up and its certificates read.
pub struct Endpoint {
    addresses: Vec<SocketAddr>,
    name: ServerName<'static>,
    tls: TlsConnector,
    /// The head of every request.
    pub head: Parts,
    /// Whether HTTP/2 is spoken.
    pub http2: bool,
    /// Whether each attempt opens a connection of its own.
    pub fresh: bool,
}

impl EndpointArgs {
    /// Reads the certificates and looks the host up.
    ///
    /// # Errors
    /// A file cannot be used, the host is unknown, or neither `--url` nor a running `dev` gives an address.
    pub async fn resolve(&self) -> Result<Endpoint, Failure> {
        let dev = if self.url.is_none() { Some(self.dev()?) } else { None };
        let of_dev = |file: fn(&Dev) -> &PathBuf| dev.as_ref().map(|dev| file(dev).clone()).unwrap_or_default();
        let url = match (&self.url, &dev) {
            (Some(url), _) => url.clone(),
            (None, dev) => dev.iter().find_map(|dev| dev.url.parse().ok()).unwrap_or_default(),
        };
        let wrong = |why: &str| Failure::new(format!("--url {url}: {why}; give https://host:port/path"));
        if url.scheme_str() != Some("https") {
            return Err(wrong("it is not https"));
        }
        let authority = url.authority().ok_or_else(|| wrong("it names no host"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(443);
        let found = tokio::net::lookup_host((host.as_str(), port))
            .await
            .map_err(|error| wrong(&format!("{host} was not found ({error})")))?;
        let tls = self.tls(
            &self.ca.clone().unwrap_or_else(|| of_dev(|dev| &dev.ca)),
            &self.cert.clone().unwrap_or_else(|| of_dev(|dev| &dev.certificate)),
            &self.key.clone().unwrap_or_else(|| of_dev(|dev| &dev.key)),
        )?;
        Ok(Endpoint {
            addresses: found.collect(),
            name: ServerName::try_from(host).map_err(|error| wrong(&error.to_string()))?,
            tls: TlsConnector::from(Arc::new(tls)),
            head: self.head(&url).map_err(|error| wrong(&error.to_string()))?,
            http2: self.http2,
            fresh: self.fresh,
        })
    }

    fn dev(&self) -> Result<Dev, Failure> {
        Dev::running(&self.dir).map_err(|why| {
            Failure::findings(format!("no --url given, and {why}\n  start `causeway dev` in this folder, or give --url, --ca, --cert and --key"))
        })
    }

    fn tls(&self, ca: &Path, certificate: &Path, key: &Path) -> Result<ClientConfig, Failure> {
        let wrong = |flag: &str, file: &Path, why: &dyn std::fmt::Display| {
            Failure::new(format!("{flag} {}: {why}; give a readable PEM file", file.display()))
        };
        let certificates = |flag: &str, file: &Path| {
            let read = read_pem(file)
                .and_then(|text| CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>())
                .map_err(|error| wrong(flag, file, &error))?;
            if read.is_empty() { Err(wrong(flag, file, &"it holds no certificate")) } else { Ok(read) }
        };
        let mut roots = RootCertStore::empty();
        for root in certificates("--ca", ca)? {
            roots.add(root).map_err(|error| wrong("--ca", ca, &error))?;
        }
        let chain = certificates("--cert", certificate)?;
        let private_key = read_pem(key)
            .and_then(|text| PrivateKeyDer::from_pem_slice(&text))
            .map_err(|error| wrong("--key", key, &error))?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(Failure::new)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, private_key)
            .map_err(|error| wrong("--key", key, &error))?;
        config.alpn_protocols = vec![if self.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        if self.fresh {
            config.resumption = Resumption::disabled();
        }
        Ok(config)
    }

    /// The head of every request. HTTP/2 takes its `:authority` from the URL; HTTP/1.1 has only the path, and a Host.
    fn head(&self, url: &Uri) -> Result<Parts, hyper::http::Error> {
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let uri = if self.http2 { url.clone() } else { Uri::try_from(path)? };
        let mut request = Request::builder().method(Method::POST).uri(uri).body(())?;
        let headers = request.headers_mut();
        if !self.http2 {
            headers.insert(HOST, HeaderValue::from_str(url.authority().map_or("", |authority| authority.as_str()))?);
            if self.fresh {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("causeway-send/", env!("CARGO_PKG_VERSION"))));
        Ok(request.into_parts().0)
    }
}

impl Endpoint {
    /// Opens a connection. With TLS 1.3 the server may still refuse our certificate after this returns.
    ///
    /// # Errors
    /// TCP or TLS failed, or the server does not speak the wanted HTTP/2.
    pub async fn connect(&self) -> Result<TlsStream<TcpStream>, Broken> {
        let socket = TcpStream::connect(self.addresses.as_slice()).await.map_err(|error| self.unreachable(&error))?;
        socket.set_nodelay(true).map_err(|error| Broken::of(&error))?;
        let stream = self.tls.connect(self.name.clone(), socket).await.map_err(|error| Broken::of(&error))?;
        if self.http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(Broken::tls("the server does not speak HTTP/2", "leave --http2 out"));
        }
        Ok(stream)
    }

    fn unreachable(&self, error: &io::Error) -> Broken {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let remedy = (error.kind() == io::ErrorKind::ConnectionRefused)
            .then_some("is `causeway dev`, or the bridge at --url, running?");
        Broken::connect(format!("{}: {error}", addresses.join(", ")), remedy)
    }
}
