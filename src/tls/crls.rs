//! CRLs that were read: whether the handshake's verifier can go by them, and when they are renewed.
//!
//! webpki says only `ParseError` of a CRL that it cannot read, and checks a CRL's signature only in a handshake, which
//! then fails for each sender of that CA. This module therefore checks both before.

use std::path::Path;

use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, CertificateRevocationListDer},
};
use x509_parser::{
    asn1_rs::Oid,
    oid_registry::{
        OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_CRL_NUMBER, OID_X509_EXT_DELTA_CRL_INDICATOR,
        OID_X509_EXT_ISSUER_DISTRIBUTION_POINT,
    },
    prelude::{CertificateRevocationList, FromDer, X509Certificate, X509Version},
};

use super::{Expiry, Section, TlsError, files::place, names::written};

/// The remedy for a CRL that its CA has signed and webpki cannot read.
pub(super) const KINDS: &str = "have the CA issue one as RFC 5280 has it, complete: no delta, not indirect, not for some reasons only, and with the full name of its distribution point if it is one's";

const EXTENSIONS: &str = "have the CA issue it with extensions (RFC 5280, section 5.2): with `openssl ca -gencrl` that is `crlnumber = FILE` in the CA's section, and `crl_extensions = SECTION` with `authorityKeyIdentifier = keyid` in that section";

const NEXT_UPDATE: &str = "have the CA issue it with the time of its next update (RFC 5280, section 5.1.2.5): with `openssl ca -gencrl` that is `default_crl_days = 7` in the CA's section";

const DELTA: &str = "give the CA's complete CRL in its place";

const CRITICAL: &str = "have the CA issue one without that extension";

const SIGNATURE: &str = "have the CA sign its CRLs with SHA-256 or more: with `openssl ca -gencrl` that is `default_md = sha256` in the CA's section";

/// Each CRL must come from a CA that we trust: of one from elsewhere the verifier would take no notice. It looks at no
/// more than one CRL for a certificate, the first of its issuer's name, and makes every handshake fail whose issuer has
/// not signed that one.
pub(super) fn check_crls(
    section: &Section,
    file: &Path,
    crls: &[CertificateRevocationListDer<'_>],
    client_ca: &[CertificateDer<'_>],
) -> Result<(), TlsError> {
    let name = section.name;
    let fault = |reason: String, remedy: &str| section.fault("crl", file, reason, remedy);
    let elsewhere = format!(
        "give CRLs in PEM, each with the certificate of its CA in {name}.client_ca, an intermediate CA's beside its root's; or take it out"
    );
    let authorities: Vec<X509Certificate<'_>> =
        client_ca.iter().filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1)).collect();
    let mut before: Vec<CertificateRevocationList<'_>> = Vec::new();
    for (at, der) in crls.iter().enumerate() {
        let place = place("CRL", at, crls.len());
        let (_, crl) = CertificateRevocationList::from_der(der)
            .map_err(|_| fault(format!("its {place} is no CRL"), &elsewhere))?;
        let issuer = written(crl.issuer());
        if let Some((why, remedy)) = unread(&crl) {
            return Err(fault(format!("its {place}, of {issuer}, {why}"), remedy));
        }
        if !authorities.iter().any(|ca| signed_by(&crl, ca)) {
            let reason = format!("its {place}, of {issuer}, is not signed by a certificate of {name}.client_ca");
            return Err(fault(reason, &elsewhere));
        }
        if has_two_keys(&crl, &authorities) {
            return Err(fault(
                format!(
                    "{name}.client_ca has two CAs with the name of its {place}, {issuer}, and different keys: whom the CRL's own did not sign would be refused"
                ),
                &format!("keep one of the two CAs, or leave {name}.crl out while both are needed"),
            ));
        }
        if before.iter().any(|other| other.issuer() == crl.issuer() && !are_parts(other, &crl)) {
            let reason = format!("it holds two CRLs of one CA, {issuer}, and only the first would count");
            return Err(fault(reason, "keep that CA's newest"));
        }
        before.push(crl);
    }
    Ok(())
}

/// Why no handshake could go by this CRL, whoever signed it, and what to do.
fn unread(crl: &CertificateRevocationList<'_>) -> Option<(String, &'static str)> {
    let fault = |why: &str, remedy| Some((why.to_owned(), remedy));
    if crl.version() != Some(X509Version::V2) {
        return fault("is of version 1, which has no extensions", EXTENSIONS);
    }
    if crl.next_update().is_none() {
        return fault("does not say when its next update is due", NEXT_UPDATE);
    }
    if crl.extensions().is_empty() {
        return fault("has no extensions, neither its number nor its CA's key identifier", EXTENSIONS);
    }
    for extension in crl.extensions() {
        if extension.oid == OID_X509_EXT_DELTA_CRL_INDICATOR {
            return fault("is a delta CRL, which names only what changed since another one", DELTA);
        }
        if extension.critical && !EXTENSIONS_KNOWN.contains(&extension.oid) {
            return Some((
                format!("has a critical extension that is not known here (OID {})", extension.oid),
                CRITICAL,
            ));
        }
    }
    // Behind the list's head and its version, inside of another head, stands the algorithm's identifier.
    let head = crl.tbs_cert_list.as_ref();
    let takes = |id: &[u8]| head.windows(id.len()).take(16).any(|bytes| bytes == id);
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    if !algorithms.iter().any(|one| takes(one.signature_alg_id().as_ref())) {
        let kind = crl.signature_algorithm.algorithm.to_id_string();
        return Some((format!("is signed in a way that no handshake here takes (OID {kind})"), SIGNATURE));
    }
    None
}

/// Those that webpki knows. It takes any other that is not critical.
const EXTENSIONS_KNOWN: [Oid<'static>; 3] =
    [OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_CRL_NUMBER, OID_X509_EXT_ISSUER_DISTRIBUTION_POINT];

/// By the algorithms of the handshake's verifier.
fn signed_by(crl: &CertificateRevocationList<'_>, ca: &X509Certificate<'_>) -> bool {
    let (key, text) = (&ca.public_key().subject_public_key.data, crl.tbs_cert_list.as_ref());
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    let good = || algorithms.iter().any(|one| one.verify_signature(key, text, &crl.signature_value.data).is_ok());
    ca.subject() == crl.issuer() && good()
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

pub(super) fn crl_expiry(file: Option<&Path>, crls: &[CertificateRevocationListDer<'_>]) -> Vec<Expiry> {
    let next_updates = crls.iter().filter_map(|der| CertificateRevocationList::from_der(der).ok()?.1.next_update());
    let at = next_updates.map(|time| time.timestamp()).min();
    let file = file.map(|file| file.display().to_string()).unwrap_or_default();
    at.map(|at| Expiry { what: "crl", file, at }).into_iter().collect()
}
