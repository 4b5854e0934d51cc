//! CRLs of every kind that a CA may issue: taken and gone by, or refused at the start with the reason and what to do.

use rcgen::{PKCS_ECDSA_P521_SHA512, SigningKey};

use super::*;

const NUMBER: &[u8] = &[0x30, 0x0a, 0x06, 0x03, 0x55, 0x1d, 0x14, 0x04, 0x03, 0x02, 0x01, 0x01];
const AUTHORITY_KEY: &[u8] =
    &[0x30, 0x0d, 0x06, 0x03, 0x55, 0x1d, 0x23, 0x04, 0x06, 0x30, 0x04, 0x80, 0x02, 0x01, 0x02];
/// Critical, as it must be.
const DELTA: &[u8] = &[0x30, 0x0d, 0x06, 0x03, 0x55, 0x1d, 0x1b, 0x01, 0x01, 0xff, 0x04, 0x03, 0x02, 0x01, 0x01];
/// The extension 1.2.3.4, and the same critical.
const UNKNOWN: &[u8] = &[0x30, 0x09, 0x06, 0x03, 0x2a, 0x03, 0x04, 0x04, 0x02, 0x05, 0x00];
const UNKNOWN_CRITICAL: &[u8] = &[0x30, 0x0c, 0x06, 0x03, 0x2a, 0x03, 0x04, 0x01, 0x01, 0xff, 0x04, 0x02, 0x05, 0x00];

const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];

const EVER: Option<&str> = Some("20991231000000Z");

/// The parts of a CRL that rcgen writes always or never.
struct Parts<'a> {
    second_version: bool,
    next_update: Option<&'a str>,
    extensions: &'a [&'a [u8]],
    algorithm: &'a [u8],
}

/// An element of DER, of less than 64 KiB.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let head = match content.len() {
        0..128 => vec![tag, low],
        128..256 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [&head, content].concat()
}

/// A CRL of these parts, which names the serial number 1.
fn handmade(ca: &Issuer<'static, KeyPair>, pem: &str, parts: &Parts<'_>) -> CertificateRevocationListDer<'static> {
    let (der, sequence) = (der(pem), |parts: &[Vec<u8>]| element(0x30, &parts.concat()));
    let algorithm = sequence(&[element(0x06, parts.algorithm)]);
    let time = |text: &str| element(0x18, text.as_bytes());
    let mut text = vec![
        algorithm.clone(),
        X509Certificate::from_der(&der).unwrap().1.subject().as_raw().to_vec(),
        time("20240101000000Z"),
    ];
    if parts.second_version {
        text.insert(0, vec![0x02, 0x01, 0x01]);
    }
    text.extend(parts.next_update.map(time));
    text.push(sequence(&[sequence(&[vec![0x02, 0x01, 0x01], time("20240101000000Z")])]));
    if !parts.extensions.is_empty() {
        text.push(element(0xa0, &element(0x30, &parts.extensions.concat())));
    }
    let text = sequence(&text);
    let signature = element(0x03, &[&[0], &*ca.key().sign(&text).unwrap()].concat());
    sequence(&[text, algorithm, signature]).into()
}

#[test]
fn a_crl_is_taken_and_gone_by_or_refused_with_the_reason_and_what_to_do() {
    let dir = TempDir::new().unwrap();
    let (ca, pem) = authority("one");
    let tls = section(&files(&dir, &pem, &crl(&ca, &[], None)), Clients::Required);
    let full = [NUMBER, AUTHORITY_KEY];
    let whole = || Parts { second_version: true, next_update: EVER, extensions: &full, algorithm: ECDSA_SHA256 };
    for (what, parts) in [
        ("as RFC 5280 has it", whole()),
        ("no authority key identifier", Parts { extensions: &[NUMBER], ..whole() }),
        ("no number", Parts { extensions: &[AUTHORITY_KEY], ..whole() }),
        ("an unknown extension", Parts { extensions: &[NUMBER, UNKNOWN], ..whole() }),
        ("its next update was due", Parts { next_update: Some("20240102000000Z"), ..whole() }),
    ] {
        let verifier = verifier(&tls, vec![der(&pem)], vec![handmade(&ca, &pem, &parts)]).expect(what);
        let judged = |serial| verifier.verify_client_cert(&sender(&ca, serial), &[], UnixTime::now()).map(|_| ());
        assert_eq!((judged(1), judged(2)), (REVOKED, Ok(())), "{what}");
    }
    for (parts, why, remedy) in [
        (Parts { second_version: false, extensions: &[], ..whole() }, "is of version 1, which", "`crlnumber = FILE`"),
        (
            Parts { extensions: &[], ..whole() },
            "has no extensions, neither its number nor",
            "`crl_extensions = SECTION`",
        ),
        (Parts { next_update: None, ..whole() }, "does not say when its next update is due", "`default_crl_days = 7`"),
        (Parts { extensions: &[NUMBER, DELTA], ..whole() }, "is a delta CRL", "the CA's complete CRL"),
        (
            Parts { extensions: &[NUMBER, UNKNOWN_CRITICAL], ..whole() },
            "has a critical extension that is not known here (OID 1.2.3.4)",
            "without that extension",
        ),
        (
            Parts { algorithm: ECDSA_SHA1, ..whole() },
            "is signed in a way that no handshake here takes (OID 1.2.840.10045.4.1)",
            "`default_md = sha256`",
        ),
    ] {
        let fault = verifier(&tls, vec![der(&pem)], vec![handmade(&ca, &pem, &parts)]).expect_err(why).to_string();
        let said = format!("its CRL 1 of 1, of CN=one, {why}");
        assert!(fault.contains(&said) && fault.contains(remedy), "{said}, {remedy}: {fault}");
    }
}

/// A CRL that only webpki can check: were it taken unseen, no sender of its CA would be let in.
#[test]
fn the_handshakes_own_algorithms_check_who_signed_a_crl() {
    let dir = TempDir::new().unwrap();
    let make = || {
        let (params, key) =
            (authority_params("one", Duration::days(1), OWN_SERIAL), KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512));
        let pem = params.self_signed(key.as_ref().unwrap()).unwrap().pem();
        (Issuer::new(params, key.unwrap()), pem)
    };
    let ((ca, pem), (other, _)) = (make(), make());
    let (loaded, _) = load(&files(&dir, &pem, &crl(&ca, &[1], None))).unwrap();
    let judged = |serial| loaded.verify_again(&[sender(&ca, serial)]);
    assert_eq!((judged(1), judged(2)), (REVOKED, Ok(())));
    let found = faults(&files(&dir, &pem, &crl(&other, &[1], None)));
    assert!(found[0].contains("of CN=one, is not signed by a certificate of ingress.tls.client_ca"), "{found:?}");
}

/// A CA, and a CRL of it whose distribution point has no name:
/// `openssl ca -gencrl` with `issuingDistributionPoint = critical, @point` and `onlyuser = TRUE`.
const UNREAD_CRL: &str = include_str!("../../../tests/data/unread-crl.pem");

#[test]
fn a_crl_of_a_kind_that_is_not_read_is_not_said_to_be_of_another_ca() {
    let dir = TempDir::new().unwrap();
    let found = faults(&files(&dir, UNREAD_CRL, UNREAD_CRL));
    assert!(found[0].contains("UnsupportedCrlIssuingDistributionPoint"), "{found:?}");
    assert!(found[0].contains("full name of its distribution point") && !found[0].contains("signed"), "{found:?}");
}
