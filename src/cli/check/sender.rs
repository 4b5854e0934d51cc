//! `check --sender FILE`: would a sender with these certificates be let in? The handshake's own verifier decides.

use std::path::Path;

use rustls::{
    CertificateError, Error as TlsFault,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::{
    cli::findings::{Findings, Level},
    config::Config,
    files::read_pem,
    ingress,
    tls::ServerTls,
};

/// Judges the certificates of `file`, the sender's own first, as the handshake would.
pub fn look_at_sender(file: &Path, config: &Config, findings: &mut Findings) {
    let about = format!("sender {}", file.display());
    let read = read_pem(file).and_then(|text| CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>());
    let chain = match read {
        Ok(chain) if !chain.is_empty() => chain,
        Ok(_) => return findings.add(Level::Error, &about, "holds no certificate", PEM),
        Err(error) => return findings.add(Level::Error, &about, error.to_string(), PEM),
    };
    // A fault of our own files is reported by the check of the certificates.
    let Ok((tls, _)) = ServerTls::load(&ingress::tls(config)) else { return };
    match tls.verify_again(&chain) {
        Ok(()) => findings.ok(&about, "a CA of ingress.tls.client_ca signed it, and its extensions allow a client"),
        Err(fault) => findings.add(Level::Error, &about, reason(&fault), remedy(&fault)),
    }
    if let Some((_, leaf)) = chain.first().and_then(|leaf| X509Certificate::from_der(leaf).ok()) {
        judge_key(&leaf, &about, findings);
        judge_names(&tls, &chain, &leaf, &about, findings);
    }
}

const PEM: &str = "give the certificate that the sender presents, in PEM, its intermediates after it";

/// The remedy for a key of a kind that cannot sign the handshake.
const KEYS: &str =
    "have it issued for a key of ECDSA on P-256, P-384 or P-521, RSA from 2048 bits (rsaEncryption), or Ed25519";

/// Checks that the certificate's key is of a kind whose handshake signature we can verify.
fn judge_key(leaf: &X509Certificate<'_>, about: &str, findings: &mut Findings) {
    let key = leaf.public_key().raw;
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    // In DER the algorithm's identifier follows two short headers, so it begins within the first bytes.
    let known = algorithms.iter().any(|one| {
        let id = one.public_key_alg_id();
        key.windows(id.as_ref().len()).take(12).any(|bytes| bytes == id.as_ref())
    });
    if !known {
        let kind = leaf.public_key().algorithm.algorithm.to_id_string();
        findings.add(
            Level::Error,
            about,
            format!("its key is of a kind that no handshake here takes (OID {kind})"),
            KEYS,
        );
    }
}

fn judge_names(
    tls: &ServerTls,
    chain: &[CertificateDer<'_>],
    leaf: &X509Certificate<'_>,
    about: &str,
    findings: &mut Findings,
) {
    match chain.first().map(|leaf| tls.allow(leaf)) {
        Some(Ok(name)) => findings.ok(about, format!("ingress.tls.client_names knows it as {name}")),
        Some(Err(refused)) => {
            let names = names(leaf);
            let remedy = if names.is_empty() {
                "add its subject to ingress.tls.client_names: `openssl x509 -noout -subject -nameopt RFC2253 -in FILE` prints it".to_owned()
            } else {
                format!("add one of its names to ingress.tls.client_names: {}", names.join(", "))
            };
            findings.add(Level::Error, about, format!("{refused}: each event would be answered 403"), remedy);
        }
        None => {}
    }
}

/// The certificate's names in the form of the configuration: alternative names first, then common names.
fn names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let alternatives = leaf.subject_alternative_name().ok().flatten();
    let alternatives = alternatives.iter().flat_map(|names| &names.value.general_names);
    let alternatives = alternatives.filter_map(|name| match name {
        GeneralName::DNSName(dns) => Some(format!("\"dns:{dns}\"")),
        GeneralName::URI(uri) => Some(format!("\"uri:{uri}\"")),
        _ => None,
    });
    let common = leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let common = common.filter(|name| !name.chars().any(char::is_control)).map(|name| format!("\"cn:{name}\""));
    alternatives.chain(common).collect()
}

fn reason(fault: &TlsFault) -> String {
    format!("the handshake fails: {fault}")
}

/// The remedy for each reason that a handshake fails for.
fn remedy(fault: &TlsFault) -> &'static str {
    use CertificateError as Why;
    let TlsFault::InvalidCertificate(why) = fault else { return OTHER };
    match why {
        Why::Expired | Why::ExpiredContext { .. } => "ask the sender for the one that it uses now",
        Why::NotValidYet | Why::NotValidYetContext { .. } => "look at this machine's clock, or wait until it is valid",
        Why::Revoked => "ask the sender for another one, or its CA for a CRL that does not have it",
        Why::UnknownIssuer => {
            "give the CA that signed it as ingress.tls.client_ca, and the intermediates in the sender's file; the issuer's name must equal the CA's byte for byte, in kind of string and letter case too; a self-signed certificate is never its own CA"
        }
        Why::BadSignature => {
            "the CA of this name has another key: give the one that signed it as ingress.tls.client_ca"
        }
        Why::InvalidPurpose | Why::InvalidPurposeContext { .. } => {
            "have it issued with clientAuth in its extendedKeyUsage, or without that extension"
        }
        Why::UnhandledCriticalExtension => "have it issued without that extension, or with it not critical",
        Why::BadEncoding => "have it issued anew: it is not what DER and RFC 5280 ask for",
        Why::Other(_) => of_webpki(&format!("{why:?}")),
        _ if format!("{why:?}").contains("Unsupported") => {
            "have it, and each CA above it, signed with ECDSA, RSA (PKCS#1 or PSS with SHA-256, SHA-384 or SHA-512) or Ed25519"
        }
        _ => OTHER,
    }
}

/// The remedy for errors that rustls only passes on from webpki, in words.
fn of_webpki(why: &str) -> &'static str {
    let known = [
        ("UnsupportedCertVersion", "have it issued as X.509 version 3"),
        ("UnsupportedCriticalExtension", "have it issued without that extension, or with it not critical"),
        ("CaUsedAsEndEntity", "have one issued that is no CA's (basicConstraints CA:FALSE)"),
        ("EndEntityUsedAsCa", "have the CA above it issued as one (basicConstraints CA:TRUE)"),
        (
            "NameConstraintViolation",
            "have it issued under a CA whose name constraints it keeps; a constraint on a directoryName lets nobody in",
        ),
        (
            "PathLenConstraintViolated",
            "have it issued by a CA higher up: the pathlen of a CA above it allows no further CA below",
        ),
        ("more than 16 KiB", "let the sender present its own certificate and the intermediates alone"),
    ];
    known.into_iter().find(|(word, _)| why.contains(word)).map_or(OTHER, |(_, remedy)| remedy)
}

const OTHER: &str = "ask the CA for a certificate as RFC 5280 describes it, with nothing unusual in it";
