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

/// How long a handshake may take.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Everything that a handshake needs.
pub struct ServerTls {
    pub config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    names: Vec<ClientName>,
    /// The end of the server's own certificate, whatever stands behind it in its file; seconds since 1970.
    certificate_end: Option<i64>,
}

/// A certificate file that cannot be used: which, why, and what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{key} = \"{file}\": {reason}; {remedy}")]
pub struct TlsError {
    pub key: &'static str,
    pub file: String,
    pub reason: String,
    pub remedy: &'static str,
}

/// When the first certificate or CRL of a file ends.
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
    /// Reads every file that `[ingress.tls]` names.
    ///
    /// # Errors
    /// All files that cannot be used, each with its remedy.
    pub fn load(tls: &Tls) -> Result<(Self, Vec<Expiry>), Vec<TlsError>> {
        let mut faults = Vec::new();
        let certificate = noted(read_certificates("ingress.tls.certificate", &tls.certificate), &mut faults);
        let key = noted(read_key(&tls.private_key), &mut faults);
        let client_ca = noted(read_certificates("ingress.tls.client_ca", &tls.client_ca), &mut faults);
        let crls = noted(tls.crl.as_deref().map_or(Ok(Vec::new()), read_crls), &mut faults);
        let ends = [
            certificate.as_ref().map(|chain| expiry("server", &tls.certificate, chain)),
            client_ca.as_ref().map(|chain| expiry("client_ca", &tls.client_ca, chain)),
            crls.as_ref().map(|crls| crl_expiry(tls.crl.as_deref(), crls)),
        ];
        let expiries = ends.into_iter().flatten().flatten().collect();
        let identity = certificate.zip(key).and_then(|(chain, key)| noted(identity(tls, chain, key), &mut faults));
        let verifier = client_ca.zip(crls).and_then(|(cas, crls)| noted(verifier(tls, cas, crls), &mut faults));
        match (identity, verifier) {
            (Some(identity), Some(verifier)) if faults.is_empty() => {
                let built = Self::new(tls, identity, verifier).map_err(|fault| vec![key_fault(tls, &fault)])?;
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

    /// Checks a certificate again: rustls does not when a session is resumed, and what it is checked against may have
    /// changed since it was let in.
    ///
    /// # Errors
    /// What the verifier has against it.
    pub fn verify_again(&self, chain: &[CertificateDer<'_>]) -> Result<(), TlsFault> {
        let (leaf, rest) = chain.split_first().ok_or(TlsFault::NoCertificatesPresented)?;
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

    /// An allowed sender's name as a metric's label. Where any name is let in, the label is `*`: senders choose no labels.
    pub fn label<'a>(&self, sender: &'a str) -> &'a str {
        if self.names.contains(&ClientName::Any) { "*" } else { sender }
    }
}

/// The value, or its fault among the others.
fn noted<T>(result: Result<T, TlsError>, faults: &mut Vec<TlsError>) -> Option<T> {
    result.map_err(|fault| faults.push(fault)).ok()
}

/// What the server shows of itself.
fn identity(
    tls: &Tls,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, TlsError> {
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|fault| key_fault(tls, &fault))
}

/// What judges a sender's certificate.
fn verifier(
    tls: &Tls,
    client_ca: Vec<CertificateDer<'static>>,
    crls: Vec<CertificateRevocationListDer<'static>>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let crl_file = tls.crl.as_deref().unwrap_or(&tls.client_ca);
    check_crls(crl_file, &crls, &client_ca)?;
    let revoked = Revoked::of(&crls);
    let fault = |reason: String, remedy| TlsError::of("ingress.tls.client_ca", &tls.client_ca, reason, remedy);
    let mut roots = RootCertStore::empty();
    let count = client_ca.len();
    for (at, ca) in client_ca.into_iter().enumerate() {
        if revoked.check(&ca) == Err(CertificateError::Revoked) {
            tracing::warn!(
                certificate = X509Certificate::from_der(&ca).map(|(_, ca)| names::subject(&ca)).unwrap_or_default(),
                "a certificate of ingress.tls.client_ca is revoked by ingress.tls.crl: it lets nobody in"
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
        return Err(fault(
            "ingress.tls.crl revokes all of its certificates".to_owned(),
            "give a CA that is not revoked",
        ));
    }
    let webpki = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(aws_lc_rs::default_provider()))
        .with_crls(crls)
        .allow_unknown_revocation_status()
        .build()
        .map_err(|error| TlsError::of("ingress.tls.crl", crl_file, error, crls::KINDS))?;
    Ok(Arc::new(Verifier { webpki, revoked }))
}

fn key_fault(tls: &Tls, fault: &TlsFault) -> TlsError {
    let remedy = "give the key that belongs to ingress.tls.certificate";
    TlsError::of("ingress.tls.private_key", &tls.private_key, fault, remedy)
}

impl TlsError {
    fn of(key: &'static str, file: &Path, reason: impl ToString, remedy: &'static str) -> Self {
        Self { key, file: file.display().to_string(), reason: reason.to_string(), remedy }
    }
}

#[cfg(test)]
mod tests;
