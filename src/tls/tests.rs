use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber,
};
use temp_dir::TempDir;
use time::{Duration, OffsetDateTime};

use super::*;

/// A CA of this name, and its certificate in PEM.
fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    authority_until(name, Duration::days(1))
}

fn authority_until(name: &str, end: Duration) -> (Issuer<'static, KeyPair>, String) {
    let mut params = valid_for(name, end);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

/// What begins ten days ago and ends so long after now.
fn valid_for(name: &str, end: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = OffsetDateTime::now_utc() - Duration::days(10);
    params.not_after = OffsetDateTime::now_utc() + end;
    params
}

/// A sender's certificate with this serial number.
fn sender(ca: &Issuer<'static, KeyPair>, serial: u64) -> CertificateDer<'static> {
    let mut params = valid_for("sender", Duration::days(1));
    params.serial_number = Some(SerialNumber::from(serial));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.signed_by(&KeyPair::generate().unwrap(), ca).unwrap().der().clone()
}

/// A CRL that names `serials`, for all of its CA's certificates or those of a distribution point.
fn crl(ca: &Issuer<'static, KeyPair>, serials: &[u64], point: Option<&str>) -> String {
    let now = OffsetDateTime::now_utc();
    let revoked = serials.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: now,
        reason_code: None,
        invalidity_date: None,
    });
    let point = point.map(|uri| CrlIssuingDistributionPoint {
        distribution_point: CrlDistributionPoint { uris: vec![uri.to_owned()] },
        scope: None,
    });
    let params = CertificateRevocationListParams {
        this_update: now - Duration::hours(1),
        next_update: now + Duration::days(1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: point,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(ca).unwrap().pem().unwrap()
}

/// Files with a server's certificate and key, this CA and these CRLs.
fn files(dir: &TempDir, client_ca: &str, crls: &str) -> Tls {
    let write = |name: &str, text: &str| -> PathBuf {
        let path = dir.child(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let key = KeyPair::generate().unwrap();
    let server = valid_for("server", Duration::days(1)).self_signed(&key).unwrap();
    Tls {
        certificate: write("tls.crt", &server.pem()),
        private_key: write("tls.key", &key.serialize_pem()),
        client_ca: write("ca.crt", client_ca),
        crl: Some(write("crl.pem", crls)).filter(|_| !crls.is_empty()),
        client_names: vec![ClientName::Any],
        tls_1_2: false,
    }
}

fn faults(tls: &Tls) -> Vec<String> {
    ServerTls::load(tls).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[test]
fn every_unusable_file_is_named() {
    let dir = TempDir::new().unwrap();
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
    let text = faults(&tls).join("\n");
    for key in ["ingress.tls.certificate", "ingress.tls.private_key", "ingress.tls.client_ca", "ingress.tls.crl"] {
        assert!(text.contains(key), "{key} in {text}");
    }
}

#[test]
fn what_does_not_belong_together_is_named_each() {
    let dir = TempDir::new().unwrap();
    let ((_, pem), (other, _)) = (authority("one"), authority("other"));
    let tls = files(&dir, &pem, &crl(&other, &[], None));
    std::fs::write(&tls.private_key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let found = faults(&tls);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].contains("ingress.tls.private_key") && found[1].contains("ingress.tls.crl"), "{found:#?}");
}

#[test]
fn of_two_crls_of_one_ca_the_second_would_not_count() {
    let dir = TempDir::new().unwrap();
    let ((ca, pem), (other, other_pem)) = (authority("one"), authority("other"));
    let (cas, old, new) = (pem + &other_pem, crl(&ca, &[1], None), crl(&ca, &[1, 2], None));
    let found = faults(&files(&dir, &cas, &(old + &new)));
    assert!(
        found[0].contains("two CRLs of one CA, and only the first would count; keep that CA's newest"),
        "{found:?}"
    );

    let (loaded, _) = ServerTls::load(&files(&dir, &cas, &(new + &crl(&other, &[3], None)))).unwrap();
    let good = |ca, serial| loaded.verify_again(&[sender(ca, serial)]).is_ok();
    assert!(!good(&ca, 1) && !good(&ca, 2) && good(&ca, 3) && !good(&other, 3) && good(&other, 1));
}

#[test]
fn a_ca_may_have_a_crl_for_each_of_its_distribution_points() {
    let dir = TempDir::new().unwrap();
    let (ca, pem) = authority("one");
    let [a, b] = ["http://ca/a.crl", "http://ca/b.crl"].map(|point| crl(&ca, &[], Some(point)));
    assert_eq!(faults(&files(&dir, &pem, &format!("{a}{b}"))), [""; 0]);
    for two in [format!("{a}{a}"), a + &crl(&ca, &[], None)] {
        assert!(faults(&files(&dir, &pem, &two))[0].contains("two CRLs of one CA"));
    }
}

#[test]
fn a_crl_beside_two_keys_of_its_issuer_would_shut_the_other_ones_senders_out() {
    let dir = TempDir::new().unwrap();
    let ((old, old_pem), (new, new_pem)) = (authority("one"), authority("one"));
    for ca in [&old, &new] {
        let found = faults(&files(&dir, &format!("{old_pem}{new_pem}"), &crl(ca, &[], None)));
        assert!(found[0].contains("two CAs of its issuer's name with different keys"), "{found:?}");
        assert!(found[0].contains("leave ingress.tls.crl out while both are needed"), "{found:?}");
    }
    // Without a CRL both are let in; with one, a certificate that is there twice is no other key.
    let (loaded, _) = ServerTls::load(&files(&dir, &format!("{old_pem}{new_pem}"), "")).unwrap();
    assert!([&old, &new].iter().all(|ca| loaded.verify_again(&[sender(ca, 1)]).is_ok()));
    assert_eq!(faults(&files(&dir, &format!("{old_pem}{old_pem}"), &crl(&old, &[], None))), [""; 0]);
}

#[test]
fn an_expired_ca_still_lets_its_senders_in() {
    let dir = TempDir::new().unwrap();
    let (ca, pem) = authority_until("one", -Duration::days(1));
    let (loaded, expiries) = ServerTls::load(&files(&dir, &pem, "")).unwrap();
    assert!(loaded.verify_again(&[sender(&ca, 1)]).is_ok());
    let end = expiries.iter().find(|expiry| expiry.what == "client_ca").unwrap().at;
    assert!(end < OffsetDateTime::now_utc().unix_timestamp());
}
