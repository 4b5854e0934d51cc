//! Certificates: the server's own, the CA and CRL that the sender's must satisfy, and the names that may send.
//!
//! `files` reads them, `crls` says which CRLs a handshake can go by, `names` compares names, `reasons` says why a handshake
//! failed, `reload` takes up what changed, `verifier` judges what a client presents.

mod crls;
mod files;
mod names;
mod reasons;
mod reload;
mod verifier;

use std::{path::Path, sync::Arc, time::Duration};

use rustls::{
    CertificateError, Error as TlsFault, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use x509_parser::prelude::{FromDer, X509Certificate};

use self::{
    crls::{check_crls, crl_expiry},
    files::{expiry, place, read_certificates, read_crls, read_key},
    verifier::{Revoked, Verifier},
};
pub use self::{
    files::not_after,
    reasons::{TIMED_OUT, failure_reason, reason_of},
    reload::{CurrentTls, Reload, publish},
};
use crate::config::{ClientName, Tls};

/// The TLS of one listener: the section of the configuration that names its files, and what it asks of clients.
#[derive(Debug, Clone)]
pub struct Section {
    /// The section's name, for faults: `ingress.tls`.
    pub name: &'static str,
    pub tls: Tls,
    pub clients: Clients,
}

/// The demand on clients for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// Clients are not asked for a certificate.
    None,
    /// A client without one is let in; one that cannot be verified fails the handshake.
    Optional,
    Required,
}

/// A client's identity by its certificate.
#[derive(Debug)]
pub enum Client {
    /// The name by which the allow-list knows it.
    Allowed(Arc<str>),
    NotAllowed(NotAllowed),
    /// The client showed no certificate, and need not.
    Unknown,
}

/// The longest time of a handshake.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Everything that a handshake needs.
pub struct ServerTls {
    pub config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    names: Vec<ClientName>,
    /// The end of the server's own certificate, whatever stands behind it in its file; seconds since 1970.
    certificate_end: Option<i64>,
}

/// A certificate file that cannot be used, with the reason and the remedy.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{key} = \"{file}\": {reason}; {remedy}")]
pub struct TlsError {
    pub key: String,
    pub file: String,
    pub reason: String,
    pub remedy: String,
}

/// The earliest end of a file's certificates or CRLs.
#[derive(Debug, Clone)]
pub struct Expiry {
    /// `server`, `client_ca` or `crl`.
    pub what: &'static str,
    pub file: String,
    /// Seconds since 1970.
    pub at: i64,
}

/// A sender's certificate that is not on the allow-list; the name is its subject, for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("certificate {subject} is not among client_names")]
pub struct NotAllowed {
    pub subject: String,
}

impl ServerTls {
    /// Reads every file that the section names, but not the CA and CRLs of clients if the listener asks for no
    /// certificate.
    ///
    /// # Errors
    /// All files that cannot be used, each with its remedy.
    pub fn load(section: &Section) -> Result<(Self, Vec<Expiry>), Vec<TlsError>> {
        let (tls, mut faults) = (&section.tls, Vec::new());
        let certificate = noted(read_certificates(section, "certificate", &tls.certificate), &mut faults);
        let key = noted(read_key(section), &mut faults);
        let ends = certificate.as_ref().map(|chain| expiry("server", &tls.certificate, chain));
        let mut expiries = ends.unwrap_or_default();
        let asks = section.clients != Clients::None;
        let authorities = if asks { read_authorities(section, &mut faults, &mut expiries) } else { None };
        let identity = certificate.zip(key).and_then(|(chain, key)| noted(identity(section, chain, key), &mut faults));
        let verifier = match authorities {
            Some((cas, crls)) => noted(verifier(section, cas, crls), &mut faults),
            None => (!asks).then(WebPkiClientVerifier::no_client_auth),
        };
        match (identity, verifier) {
            (Some(identity), Some(verifier)) if faults.is_empty() => {
                let built = Self::new(tls, identity, verifier).map_err(|fault| vec![key_fault(section, &fault)])?;
                Ok((built, expiries))
            }
            _ => Err(faults),
        }
    }

    fn new(tls: &Tls, identity: CertifiedKey, verifier: Arc<dyn ClientCertVerifier>) -> Result<Self, TlsFault> {
        let certificate_end = identity.cert.first().and_then(not_after);
        let versions: &[_] = if tls.tls_1_2 { &[&TLS13, &TLS12] } else { &[&TLS13] };
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(Arc::clone(&verifier))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), verifier, names: tls.client_names.clone(), certificate_end })
    }

    /// Verifies a chain again: rustls does not when a session is resumed, and the CA or CRLs may have changed since the
    /// handshake.
    ///
    /// # Errors
    /// The verifier's reason against the chain.
    pub fn verify_again(&self, chain: &[CertificateDer<'_>]) -> Result<(), TlsFault> {
        let Some((leaf, rest)) = chain.split_first() else {
            let required = self.verifier.client_auth_mandatory();
            return if required { Err(TlsFault::NoCertificatesPresented) } else { Ok(()) };
        };
        self.verifier.verify_client_cert(leaf, rest, UnixTime::now()).map(|_| ())
    }

    /// The name by which a certificate is allowed to send, in the form of the configuration.
    ///
    /// # Errors
    /// [`NotAllowed`].
    pub fn allow(&self, leaf: &CertificateDer<'_>) -> Result<Arc<str>, NotAllowed> {
        let Ok((_, certificate)) = X509Certificate::from_der(leaf) else {
            return Err(NotAllowed { subject: "(unreadable)".to_owned() });
        };
        let allowed = self.names.iter().find_map(|name| names::matching(name, &certificate));
        allowed.map(Arc::from).ok_or_else(|| NotAllowed { subject: names::subject(&certificate) })
    }

    /// Identifies the client by its certificate.
    pub fn client(&self, leaf: &CertificateDer<'_>) -> Client {
        self.allow(leaf).map_or_else(Client::NotAllowed, Client::Allowed)
    }

    /// An allowed sender's name as a metric's label: `*` if any name is allowed, because senders choose no labels.
    pub fn label<'a>(&self, sender: &'a str) -> &'a str {
        if self.names.contains(&ClientName::Any) { "*" } else { sender }
    }
}

/// The value, or its fault among the others.
fn noted<T>(result: Result<T, TlsError>, faults: &mut Vec<TlsError>) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}

/// The server's own certificate chain and key.
fn identity(
    section: &Section,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, TlsError> {
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|fault| key_fault(section, &fault))
}

/// The CAs of clients, and their CRLs.
type Authorities = (Vec<CertificateDer<'static>>, Vec<CertificateRevocationListDer<'static>>);

fn read_authorities(section: &Section, faults: &mut Vec<TlsError>, expiries: &mut Vec<Expiry>) -> Option<Authorities> {
    let Tls { client_ca, crl, .. } = &section.tls;
    let cas = noted(read_certificates(section, "client_ca", client_ca), faults);
    let crls = noted(crl.as_deref().map_or(Ok(Vec::new()), |file| read_crls(section, file)), faults);
    expiries.extend(cas.iter().flat_map(|chain| expiry("client_ca", client_ca, chain)));
    expiries.extend(crls.iter().flat_map(|crls| crl_expiry(crl.as_deref(), crls)));
    cas.zip(crls)
}

/// The verifier of clients' certificates.
fn verifier(
    section: &Section,
    client_ca: Vec<CertificateDer<'static>>,
    crls: Vec<CertificateRevocationListDer<'static>>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let (tls, name) = (&section.tls, section.name);
    let crl_file = tls.crl.as_deref().unwrap_or(&tls.client_ca);
    check_crls(section, crl_file, &crls, &client_ca)?;
    let revoked = Revoked::of(&crls);
    let fault = |reason: String, remedy| section.fault("client_ca", &tls.client_ca, reason, remedy);
    let mut roots = RootCertStore::empty();
    let count = client_ca.len();
    for (at, ca) in client_ca.into_iter().enumerate() {
        if revoked.check(&ca) == Err(CertificateError::Revoked) {
            tracing::warn!(
                certificate = X509Certificate::from_der(&ca).map(|(_, ca)| names::subject(&ca)).unwrap_or_default(),
                "a certificate of {name}.client_ca is revoked by {name}.crl: it lets nobody in"
            );
        } else {
            roots.add(ca).map_err(|error| {
                fault(
                    format!("its {} cannot be used: {error}", place("certificate", at, count)),
                    "give CA certificates in PEM",
                )
            })?;
        }
    }
    if roots.is_empty() {
        return Err(fault(format!("{name}.crl revokes all of its certificates"), "give a CA that is not revoked"));
    }
    let webpki = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(aws_lc_rs::default_provider()))
        .with_crls(crls)
        .allow_unknown_revocation_status();
    let webpki = if section.clients == Clients::Optional { webpki.allow_unauthenticated() } else { webpki };
    let webpki = webpki.build().map_err(|error| section.fault("crl", crl_file, error, crls::KINDS))?;
    Ok(Arc::new(Verifier { webpki, revoked }))
}

fn key_fault(section: &Section, fault: &TlsFault) -> TlsError {
    let remedy = format!("give the key that belongs to {}.certificate", section.name);
    section.fault("private_key", &section.tls.private_key, fault, remedy)
}

impl Section {
    fn fault(&self, key: &str, file: &Path, reason: impl ToString, remedy: impl Into<String>) -> TlsError {
        let (key, file) = (format!("{}.{key}", self.name), file.display().to_string());
        TlsError { key, file, reason: reason.to_string(), remedy: remedy.into() }
    }
}

#[cfg(test)]
mod tests;
