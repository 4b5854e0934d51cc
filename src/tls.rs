//! Certificates: the server's own, the CA and CRL that the sender's must satisfy, and the names that may send.

use std::{path::Path, sync::Arc, time::Duration};

use prometheus::IntGaugeVec;
use rustls::{
    CertificateError, Error as TlsFault, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use x509_parser::prelude::{CertificateRevocationList, FromDer, GeneralName, X509Certificate};

use crate::config::{ClientName, Tls};

/// Everything that a handshake needs.
pub struct ServerTls {
    pub config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    names: Vec<ClientName>,
}

/// A certificate file that cannot be used: which, why, and what to do.
#[derive(Debug, thiserror::Error)]
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
        let built =
            Self::build(tls, certificate, client_ca, key, crls.unwrap_or_default()).map_err(|fault| vec![fault])?;
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
                TlsError::of(
                    "ingress.tls.crl",
                    tls.crl.as_deref().unwrap_or(&tls.client_ca),
                    error,
                    "give a CRL in PEM that the client CA signed",
                )
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

    /// Checks a certificate again, as rustls does not when a session is resumed: it may have been revoked since.
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
        let allowed = self.names.iter().find_map(|name| matching(name, &certificate, &subject));
        allowed.map(Arc::from).ok_or(NotAllowed { subject })
    }
}

impl Clone for TlsError {
    fn clone(&self) -> Self {
        Self { key: self.key, file: self.file.clone(), reason: self.reason.clone(), remedy: self.remedy }
    }
}

impl TlsError {
    fn of(key: &'static str, file: &Path, reason: impl ToString, remedy: &'static str) -> Self {
        Self { key, file: file.display().to_string(), reason: reason.to_string(), remedy }
    }
}

fn read_certificates(key: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fault = |reason: String| TlsError::of(key, file, reason, "give a readable file with certificates in PEM");
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| fault(pem_reason(&error)))?;
    if certificates.is_empty() { Err(fault("it holds no certificate".to_owned())) } else { Ok(certificates) }
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let remedy = "give a readable file with an unencrypted private key in PEM (PKCS #8, PKCS #1 or SEC 1)";
    PrivateKeyDer::from_pem_file(file)
        .map_err(|error| TlsError::of("ingress.tls.private_key", file, pem_reason(&error), remedy))
}

fn read_crls(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let fault = |reason: String| {
        TlsError::of("ingress.tls.crl", file, reason, "give a readable file with CRLs in PEM, or leave the key out")
    };
    let crls = CertificateRevocationListDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| fault(pem_reason(&error)))?;
    if crls.is_empty() { Err(fault("it holds no CRL".to_owned())) } else { Ok(crls) }
}

fn pem_reason(error: &rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::Io(error) => error.to_string(),
        rustls::pki_types::pem::Error::NoItemsFound => "it holds nothing of the kind".to_owned(),
        // Its Display would print the bytes that it did not understand, which may be a key's.
        _ => "it is not PEM".to_owned(),
    }
}

/// The earliest end of a chain: that is when handshakes begin to fail.
fn expiry(
    what: &'static str,
    key: &'static str,
    file: &Path,
    chain: &[CertificateDer<'_>],
) -> Result<Vec<Expiry>, TlsError> {
    let ends = chain
        .iter()
        .map(|der| X509Certificate::from_der(der).map(|(_, certificate)| certificate.validity().not_after.timestamp()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| TlsError::of(key, file, "it holds what is no X.509 certificate", "give certificates in PEM"))?;
    Ok(ends.into_iter().min().map(|at| Expiry { what, file: file.display().to_string(), at }).into_iter().collect())
}

fn crl_expiry(file: Option<&Path>, crls: &[CertificateRevocationListDer<'_>]) -> Vec<Expiry> {
    let next_updates = crls.iter().filter_map(|der| CertificateRevocationList::from_der(der).ok()?.1.next_update());
    let at = next_updates.map(|time| time.timestamp()).min();
    let file = file.map(|file| file.display().to_string()).unwrap_or_default();
    at.map(|at| Expiry { what: "crl", file, at }).into_iter().collect()
}

/// The end of a sender's certificate, seconds since 1970.
pub fn not_after(leaf: &CertificateDer<'_>) -> Option<i64> {
    X509Certificate::from_der(leaf).ok().map(|(_, certificate)| certificate.validity().not_after.timestamp())
}

/// Publishes when each certificate ends.
pub fn publish(expiries: &[Expiry], gauge: &IntGaugeVec) {
    for expiry in expiries {
        gauge.with_label_values(&[expiry.what]).set(expiry.at);
    }
}

fn matching(name: &ClientName, certificate: &X509Certificate<'_>, subject: &str) -> Option<String> {
    let alternative = |wanted: &dyn Fn(&GeneralName<'_>) -> bool| {
        let names = certificate.subject_alternative_name().ok().flatten();
        names.is_some_and(|names| names.value.general_names.iter().any(wanted))
    };
    match name {
        ClientName::Any => Some(format!("subject:{subject}")),
        ClientName::Dns(dns) => {
            alternative(&|name| matches!(name, GeneralName::DNSName(found) if found.eq_ignore_ascii_case(dns)))
                .then(|| format!("dns:{dns}"))
        }
        ClientName::Uri(uri) => {
            alternative(&|name| matches!(name, GeneralName::URI(found) if found == uri)).then(|| format!("uri:{uri}"))
        }
        ClientName::CommonName(cn) => {
            let found = certificate.subject().iter_common_name().any(|found| found.as_str() == Ok(cn));
            found.then(|| format!("cn:{cn}"))
        }
        ClientName::Subject(wanted) => same_name(wanted, &rfc4514(certificate)).then(|| format!("subject:{wanted}")),
    }
}

/// RFC 4514 writes a name's parts in reverse order, most specific first.
fn rfc4514(certificate: &X509Certificate<'_>) -> Vec<String> {
    let mut parts: Vec<String> = certificate
        .subject()
        .iter_rdn()
        .map(|rdn| {
            let attributes = rdn.iter().map(|attribute| {
                let kind =
                    x509_parser::objects::oid2abbrev(attribute.attr_type(), x509_parser::objects::oid_registry());
                let kind = kind.map_or_else(|_| attribute.attr_type().to_id_string(), str::to_owned);
                format!("{kind}={}", escape(attribute.as_str().unwrap_or_default()))
            });
            attributes.collect::<Vec<_>>().join("+")
        })
        .collect();
    parts.reverse();
    parts
}

/// RFC 4514, section 2.4.
fn escape(value: &str) -> String {
    let mut escaped = String::new();
    let last = value.chars().count().saturating_sub(1);
    for (position, c) in value.chars().enumerate() {
        let edge = position == 0 && matches!(c, '#' | ' ') || position == last && c == ' ';
        if edge || matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Compares a written name with a certificate's parts: white space around the separators does not count, nor does the case of types.
fn same_name(written: &str, parts: &[String]) -> bool {
    let written = split_name(written);
    written.len() == parts.len()
        && written.iter().zip(parts).all(|(a, b)| match (a.split_once('='), b.split_once('=')) {
            (Some((a_kind, a)), Some((b_kind, b))) => a_kind.trim().eq_ignore_ascii_case(b_kind) && a.trim() == b,
            _ => false,
        })
}

/// Splits at commas that no backslash escapes.
fn split_name(written: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in written.chars() {
        if c == ',' && !escaped {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    parts.iter().map(|part| part.trim_start().to_owned()).collect()
}

/// Why a handshake failed, as a metric's label: a fixed word.
pub fn failure_reason(error: &std::io::Error) -> &'static str {
    let Some(fault) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsFault>()) else {
        return if error.kind() == std::io::ErrorKind::UnexpectedEof { "closed" } else { "io" };
    };
    reason_of(fault)
}

/// The same for rustls' own error.
pub fn reason_of(fault: &TlsFault) -> &'static str {
    match fault {
        TlsFault::NoCertificatesPresented => "no_certificate",
        TlsFault::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => "expired",
        TlsFault::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "not_valid_yet"
        }
        TlsFault::InvalidCertificate(CertificateError::Revoked) => "revoked",
        TlsFault::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => "unknown_ca",
        TlsFault::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        ) => "wrong_purpose",
        TlsFault::InvalidCertificate(_) => "bad_certificate",
        TlsFault::PeerIncompatible(_) | TlsFault::NoApplicationProtocol => "incompatible",
        TlsFault::AlertReceived(_) => "refused_by_client",
        TlsFault::InvalidMessage(_)
        | TlsFault::PeerMisbehaved(_)
        | TlsFault::InappropriateMessage { .. }
        | TlsFault::InappropriateHandshakeMessage { .. } => "not_tls",
        _ => "other",
    }
}

/// How long a handshake may take.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: rcgen::DistinguishedName, alternatives: Vec<rcgen::SanType>) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = names;
        params.subject_alt_names = alternatives;
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn a_sender_is_known_by_any_of_its_names() {
        let mut names = rcgen::DistinguishedName::new();
        names.push(rcgen::DnType::CountryName, "US");
        names.push(rcgen::DnType::OrganizationName, "ASAPP, Inc.");
        names.push(rcgen::DnType::CommonName, "sender-7");
        let leaf = certificate(
            names,
            vec![
                rcgen::SanType::DnsName("Sender.asapp.example".try_into().unwrap()),
                rcgen::SanType::URI("spiffe://asapp/sender".try_into().unwrap()),
            ],
        );
        let (_, parsed) = X509Certificate::from_der(&leaf).unwrap();
        for (name, expected) in [
            (ClientName::Any, true),
            (ClientName::Dns("sender.asapp.example".into()), true),
            (ClientName::Dns("asapp.example".into()), false),
            (ClientName::Uri("spiffe://asapp/sender".into()), true),
            (ClientName::Uri("spiffe://asapp".into()), false),
            (ClientName::CommonName("sender-7".into()), true),
            (ClientName::CommonName("sender".into()), false),
            (ClientName::Subject("CN=sender-7,O=ASAPP\\, Inc.,C=US".into()), true),
            (ClientName::Subject("cn=sender-7, o=ASAPP\\, Inc., c=US".into()), true),
            (ClientName::Subject("CN=sender-7".into()), false),
        ] {
            assert_eq!(matching(&name, &parsed, "").is_some(), expected, "{name:?}");
        }
    }

    #[test]
    fn every_unusable_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
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
