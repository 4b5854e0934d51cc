//! The files of a listener's TLS: PEM in, certificates, key and CRLs out, with when they end.

use std::path::Path;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem, pem::PemObject};
use x509_parser::{
    error::X509Error,
    oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT,
    prelude::{CertificateRevocationList, FromDer, X509Certificate},
};

use super::{Expiry, Section, TlsError, names::written};
use crate::files::read_pem;

/// What to do about one that its CA has signed and webpki does not read.
pub(super) const CRL_KINDS: &str = "have the CA issue one as RFC 5280 has it, complete: no delta, not indirect, not for some reasons only, and with the full name of its distribution point if it is one's";

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

/// Each CRL must come from a CA that we trust: of one from elsewhere the verifier would take no notice. It looks at no more
/// than one CRL for a certificate, the first of its issuer's name, and makes every handshake fail whose issuer has not
/// signed that one.
pub(super) fn check_crls(
    section: &Section,
    file: &Path,
    crls: &[CertificateRevocationListDer<'_>],
    client_ca: &[CertificateDer<'_>],
) -> Result<(), TlsError> {
    let name = section.name;
    let fault = |reason: String, remedy| section.fault("crl", file, reason, remedy);
    let unusable = |reason: String| {
        fault(
            reason,
            format!(
                "give CRLs in PEM, each with the certificate of its CA in {name}.client_ca, an intermediate CA's beside its root's; or take it out"
            ),
        )
    };
    let authorities: Vec<X509Certificate<'_>> =
        client_ca.iter().filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1)).collect();
    let mut before: Vec<CertificateRevocationList<'_>> = Vec::new();
    for (at, der) in crls.iter().enumerate() {
        let place = place("CRL", at, crls.len());
        let (_, crl) =
            CertificateRevocationList::from_der(der).map_err(|_| unusable(format!("its {place} is no CRL")))?;
        let issuer = written(crl.issuer());
        if !authorities.iter().any(|ca| signed_by(&crl, ca)) {
            let reason = format!("its {place}, of {issuer}, is not signed by a certificate of {name}.client_ca");
            return Err(unusable(reason));
        }
        if has_two_keys(&crl, &authorities) {
            return Err(fault(
                format!(
                    "{name}.client_ca has two CAs with the name of its {place}, {issuer}, and different keys: whom the CRL's own did not sign would be refused"
                ),
                format!("keep one of the two CAs, or leave {name}.crl out while both are needed"),
            ));
        }
        if before.iter().any(|other| other.issuer() == crl.issuer() && !are_parts(other, &crl)) {
            let reason = format!("it holds two CRLs of one CA, {issuer}, and only the first would count");
            return Err(fault(reason, "keep that CA's newest".to_owned()));
        }
        before.push(crl);
    }
    Ok(())
}

fn signed_by(crl: &CertificateRevocationList<'_>, ca: &X509Certificate<'_>) -> bool {
    let verified = crl.verify_signature(ca.public_key());
    // An algorithm that only the handshake's verifier knows is left to it.
    ca.subject() == crl.issuer() && matches!(verified, Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm))
}

/// The CRL's issuer is a CA that was given a new key and kept its name.
fn has_two_keys(crl: &CertificateRevocationList<'_>, authorities: &[X509Certificate<'_>]) -> bool {
    let mut keys = authorities.iter().filter(|ca| ca.subject() == crl.issuer()).map(|ca| ca.public_key().raw);
    let first = keys.next();
    keys.any(|key| Some(key) != first)
}

/// Each of the two is for other certificates of its CA, those that name its distribution point.
fn are_parts(one: &CertificateRevocationList<'_>, other: &CertificateRevocationList<'_>) -> bool {
    let point = |crl: &CertificateRevocationList<'_>| {
        let mut extensions = crl.extensions().iter();
        let point = extensions.find(|extension| extension.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT);
        point.map(|extension| extension.value.to_vec())
    };
    matches!((point(one), point(other)), (Some(one), Some(other)) if one != other)
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

pub(super) fn crl_expiry(file: Option<&Path>, crls: &[CertificateRevocationListDer<'_>]) -> Vec<Expiry> {
    let next_updates = crls.iter().filter_map(|der| CertificateRevocationList::from_der(der).ok()?.1.next_update());
    let at = next_updates.map(|time| time.timestamp()).min();
    let file = file.map(|file| file.display().to_string()).unwrap_or_default();
    at.map(|at| Expiry { what: "crl", file, at }).into_iter().collect()
}

/// The end of a certificate, seconds since 1970.
pub fn not_after(leaf: &CertificateDer<'_>) -> Option<i64> {
    X509Certificate::from_der(leaf).ok().map(|(_, certificate)| certificate.validity().not_after.timestamp())
}
