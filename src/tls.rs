//! Certificates: the server's own, the CA and CRL that the sender's must satisfy, and the names that may send.
//!
//! `files` reads them, `names` compares names, `reasons` says why a handshake failed, `reload` takes up what changed.

mod files;
mod names;
mod reasons;
mod reload;

use std::{path::Path, sync::Arc, time::Duration};

use rustls::{
    Error as TlsFault, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use x509_parser::prelude::{FromDer, X509Certificate};

use self::files::{check_crls, crl_expiry, expiry, read_certificates, read_crls, read_key};
pub use self::{
    files::not_after,
    reasons::{failure_reason, reason_of},
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

/// When a certificate or CRL ends.
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
        let mut expiries = Vec::new();
        let mut keep = |result: Result<Vec<Expiry>, TlsError>| match result {
            Ok(found) => expiries.extend(found),
            Err(fault) => faults.push(fault),
        };
        let certificate = read_certificates("ingress.tls.certificate", &tls.certificate);
        let client_ca = read_certificates("ingress.tls.client_ca", &tls.client_ca);
        let key = read_key(&tls.private_key);
        let crls = tls.crl.as_deref().map(read_crls).transpose();
        keep(
            certificate
                .as_ref()
                .map_err(TlsError::clone)
                .and_then(|chain| expiry("server", "ingress.tls.certificate", &tls.certificate, chain)),
        );
        keep(
            client_ca
                .as_ref()
                .map_err(TlsError::clone)
                .and_then(|chain| expiry("client_ca", "ingress.tls.client_ca", &tls.client_ca, chain)),
        );
        keep(key.as_ref().map(|_| Vec::new()).map_err(TlsError::clone));
        keep(
            crls.as_ref()
                .map_err(TlsError::clone)
                .map(|crls| crl_expiry(tls.crl.as_deref(), crls.as_deref().unwrap_or_default())),
        );
        let (Ok(certificate), Ok(client_ca), Ok(key), Ok(crls)) = (certificate, client_ca, key, crls) else {
            return Err(faults);
        };
        let crls = crls.unwrap_or_default();
        if let Some(file) = &tls.crl {
            check_crls(file, &crls, &client_ca).map_err(|fault| vec![fault])?;
        }
        let built = Self::build(tls, certificate, client_ca, key, crls).map_err(|fault| vec![fault])?;
        if faults.is_empty() { Ok((built, expiries)) } else { Err(faults) }
    }

    fn build(
        tls: &Tls,
        certificate: Vec<CertificateDer<'static>>,
        client_ca: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        crls: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Self, TlsError> {
        let provider: Arc<CryptoProvider> = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        for ca in client_ca {
            roots.add(ca).map_err(|error| {
                TlsError::of("ingress.tls.client_ca", &tls.client_ca, error, "give a CA certificate in PEM")
            })?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .with_crls(crls)
            .allow_unknown_revocation_status()
            .build()
            .map_err(|error| {
                TlsError::of("ingress.tls.crl", tls.crl.as_deref().unwrap_or(&tls.client_ca), error, files::CRL_REMEDY)
            })?;
        let versions: &[_] = if tls.tls_1_2 { &[&TLS13, &TLS12] } else { &[&TLS13] };
        let fault = |error: TlsFault| {
            TlsError::of(
                "ingress.tls.private_key",
                &tls.private_key,
                error,
                "give the key that belongs to ingress.tls.certificate",
            )
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(fault)?
            .with_client_cert_verifier(Arc::clone(&verifier))
            .with_single_cert(certificate, key)
            .map_err(fault)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), verifier, names: tls.client_names.clone() })
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
        let subject = certificate.subject().to_string();
        let allowed = self.names.iter().find_map(|name| names::matching(name, &certificate, &subject));
        allowed.map(Arc::from).ok_or(NotAllowed { subject })
    }

    /// An allowed sender's name as a metric's label. Where any name is let in, the label is `*`: senders choose no labels.
    pub fn label<'a>(&self, sender: &'a str) -> &'a str {
        if self.names.contains(&ClientName::Any) { "*" } else { sender }
    }
}

impl TlsError {
    fn of(key: &'static str, file: &Path, reason: impl ToString, remedy: &'static str) -> Self {
        Self { key, file: file.display().to_string(), reason: reason.to_string(), remedy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unusable_file_is_named() {
        let dir = temp_dir::TempDir::new().unwrap();
        let missing = |name: &str| dir.path().join(name);
        std::fs::write(missing("key.pem"), "not a key").unwrap();
        let tls = Tls {
            certificate: missing("no.crt"),
            private_key: missing("key.pem"),
            client_ca: missing("no-ca.crt"),
            crl: Some(missing("no-crl.pem")),
            client_names: vec![ClientName::Any],
            tls_1_2: false,
        };
        let faults = ServerTls::load(&tls).err().unwrap();
        let text = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        for key in ["ingress.tls.certificate", "ingress.tls.private_key", "ingress.tls.client_ca", "ingress.tls.crl"] {
            assert!(text.contains(key), "{key} in {text}");
        }
    }
}
