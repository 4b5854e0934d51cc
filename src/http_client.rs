//! A client of other servers over HTTP: its proxy, its trusted CA, and its own certificate.

mod proxy;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use ureq::{
    Agent,
    tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig},
};

use crate::files::read_pem;

/// The files for TLS, if any.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trust<'a> {
    /// The CA of the server's certificate, unless a public CA issued it.
    pub ca: Option<&'a Path>,
    /// Our own certificate, with its chain, and its private key.
    pub identity: Option<(&'a Path, &'a Path)>,
}

/// A client of one server. It follows no redirection, and takes every status as an answer.
pub struct Client {
    /// The agent, which holds the proxy, the trust and the timeout.
    pub agent: Agent,
    /// " through the proxy HOST:PORT of VARIABLE", empty where there is none.
    pub through: String,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("{} {reason}", .file.display())]
    File { file: PathBuf, reason: String },
    #[error("{0}")]
    Proxy(String),
}

impl Client {
    /// Makes a client for `url`, each of whose requests takes `timeout` at most.
    ///
    /// # Errors
    /// When a file cannot be used, or a variable names a proxy that is none.
    pub fn new(url: &str, trust: Trust<'_>, timeout: Duration) -> Result<Self, Unusable> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
        if let Some(file) = trust.ca {
            let roots: Vec<_> = certificates(file)?.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
            tls = tls.root_certs(RootCerts::new_with_certs(&roots));
        }
        if let Some((certificate, key)) = trust.identity {
            tls = tls.client_cert(Some(identity(certificate, key)?));
        }
        let through = proxy::of(url, &environment).map_err(Unusable::Proxy)?;
        let agent = Agent::config_builder()
            .proxy(through.as_ref().map(|through| through.proxy.clone()))
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .tls_config(tls.build())
            .build()
            .new_agent();
        Ok(Self { agent, through: through.map(|through| through.to_string()).unwrap_or_default() })
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let fault = |reason: String| Unusable::File { file: file.to_owned(), reason };
    let certificates = read_pem(file)
        .and_then(|text| CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>())
        .map_err(|error| fault(format!("cannot be read: {error}")))?;
    if certificates.is_empty() {
        return Err(fault("holds no certificate".to_owned()));
    }
    Ok(certificates)
}

/// Certificate and key belong together: half of a pair that is being renewed is no identity.
fn identity(certificate: &Path, key: &Path) -> Result<ClientCert, Unusable> {
    let fault = |reason: String| Unusable::File { file: key.to_owned(), reason };
    let chain = certificates(certificate)?;
    let unreadable = |reason: String| fault(format!("holds no private key that can be read: {reason}"));
    let text = read_pem(key).map_err(|error| unreadable(error.to_string()))?;
    let der = PrivateKeyDer::from_pem_slice(&text).map_err(|error| unreadable(error.to_string()))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain.clone(), der, &provider)
        .map_err(|error| fault(format!("is not the key of {}: {error}", certificate.display())))?;
    let key = PrivateKey::from_pem(&text).map_err(|error| unreadable(error.to_string()))?;
    let chain: Vec<_> = chain.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    Ok(ClientCert::new_with_certs(&chain, key))
}

#[allow(clippy::disallowed_methods, reason = "not of the configuration: variables that many programs share")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
