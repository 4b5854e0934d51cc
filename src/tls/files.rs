//! The files of a listener's TLS: PEM in, certificates, key and CRLs out, with when they end.

use std::path::Path;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Expiry, Section, TlsError};
use crate::files::read_pem;

pub(super) fn read_certificates(
    section: &Section,
    key: &str,
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fault = |reason: String| section.fault(key, file, reason, "give a readable file with certificates in PEM");
    let certificates: Vec<CertificateDer<'static>> = read_all(file, "certificate").map_err(fault)?;
    for (at, der) in certificates.iter().enumerate() {
        let place = place("certificate", at, certificates.len());
        X509Certificate::from_der(der).map_err(|_| fault(format!("its {place} is no X.509 certificate")))?;
    }
    if certificates.is_empty() { Err(fault("it holds no certificate".to_owned())) } else { Ok(certificates) }
}

/// All items of this kind in a PEM file, or which of them cannot be read.
fn read_all<Item: PemObject>(file: &Path, kind: &str) -> Result<Vec<Item>, String> {
    let text = read_pem(file).map_err(|error| pem_reason(&error))?;
    let mut items = Vec::new();
    for item in Item::pem_slice_iter(&text) {
        items.push(item.map_err(|error| match error {
            pem::Error::Io(error) => error.to_string(),
            error => format!("its {kind} {} cannot be read: {}", items.len() + 1, pem_reason(&error)),
        })?);
    }
    Ok(items)
}

/// Which of a file's items it is.
pub(super) fn place(kind: &str, at: usize, of: usize) -> String {
    format!("{kind} {} of {of}", at + 1)
}

pub(super) fn read_key(section: &Section) -> Result<PrivateKeyDer<'static>, TlsError> {
    let file = &section.tls.private_key;
    let remedy = "give a readable file with an unencrypted private key in PEM (PKCS #8, PKCS #1 or SEC 1)";
    read_pem(file)
        .and_then(|text| PrivateKeyDer::from_pem_slice(&text))
        .map_err(|error| section.fault("private_key", file, pem_reason(&error), remedy))
}

pub(super) fn read_crls(
    section: &Section,
    file: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let fault = |reason: String| {
        section.fault("crl", file, reason, "give a readable file with CRLs in PEM, or leave the key out")
    };
    let crls: Vec<CertificateRevocationListDer<'static>> = read_all(file, "CRL").map_err(fault)?;
    if crls.is_empty() { Err(fault("it holds no CRL".to_owned())) } else { Ok(crls) }
}

fn pem_reason(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "it holds nothing of the kind".to_owned(),
        // Its Display would print the bytes that it did not understand, which may be a key's.
        _ => "it is not PEM".to_owned(),
    }
}

/// The earliest end of a file's certificates: by then somebody should have looked. Handshakes fail when the server's own
/// ends; one behind it may have another way to a root. A client CA's own end webpki does not look at (RFC 5280, section 6.1:
/// a trust anchor is a name and a key).
pub(super) fn expiry(what: &'static str, file: &Path, chain: &[CertificateDer<'_>]) -> Vec<Expiry> {
    let end = chain.iter().filter_map(not_after).min();
    end.map(|at| Expiry { what, file: file.display().to_string(), at }).into_iter().collect()
}

/// The end of a certificate, seconds since 1970.
pub fn not_after(leaf: &CertificateDer<'_>) -> Option<i64> {
    X509Certificate::from_der(leaf).ok().map(|(_, certificate)| certificate.validity().not_after.timestamp())
}
