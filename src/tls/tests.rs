use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber,
};
use rustls::{CertificateError, pki_types::pem::PemObject};
use temp_dir::TempDir;
use time::{Duration, OffsetDateTime};

use super::*;

mod crls;

/// A CA of this name, and its certificate in PEM.
fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    authority_until(name, Duration::days(1))
}

fn authority_until(name: &str, end: Duration) -> (Issuer<'static, KeyPair>, String) {
    let (params, key) = (authority_params(name, end, OWN_SERIAL), KeyPair::generate().unwrap());
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

/// A CA of this name and serial number below another one, and its certificate in PEM.
fn intermediate(ca: &Issuer<'static, KeyPair>, name: &str, serial: u64) -> (Issuer<'static, KeyPair>, String) {
    let (params, key) = (authority_params(name, Duration::days(1), serial), KeyPair::generate().unwrap());
    let pem = params.signed_by(&key, ca).unwrap().pem();
    (Issuer::new(params, key), pem)
}

/// The serial number of a CA's certificate that the CA signed itself.
const OWN_SERIAL: u64 = 99;

fn authority_params(name: &str, end: Duration, serial: u64) -> CertificateParams {
    let mut params = valid_for(name, end);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

#[test]
fn an_item_behind_a_byte_order_mark_is_read() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("ca.crt");
    let section = section(&Tls { private_key: file.clone(), ..files(&dir, "", "") }, Clients::Required);
    let pems = ["one", "two"].map(|name| authority(name).1);
    std::fs::write(&file, pems.map(|pem| format!("\u{FEFF}{pem}")).concat()).unwrap();
    assert_eq!(files::read_certificates(&section, "client_ca", &file).unwrap().len(), 2);
    std::fs::write(&file, format!("\u{FEFF}{}", KeyPair::generate().unwrap().serialize_pem())).unwrap();
    assert!(files::read_key(&section).is_ok());
}

/// A certificate that has been valid for ten days and ends this long after now.
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
    sender_at(ca, serial, None)
}

/// A sender's certificate that names the distribution point of its CRL.
fn sender_at(ca: &Issuer<'static, KeyPair>, serial: u64, point: Option<&str>) -> CertificateDer<'static> {
    let mut params = valid_for("sender", Duration::days(1));
    params.crl_distribution_points =
        point.map(|uri| CrlDistributionPoint { uris: vec![uri.to_owned()] }).into_iter().collect();
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

fn section(tls: &Tls, clients: Clients) -> Section {
    Section { name: "ingress.tls", tls: tls.clone(), clients }
}

fn load(tls: &Tls) -> Result<(ServerTls, Vec<Expiry>), Vec<TlsError>> {
    ServerTls::load(&section(tls, Clients::Required))
}

fn faults(tls: &Tls) -> Vec<String> {
    load(tls).err().unwrap_or_default().iter().map(ToString::to_string).collect()
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
        found[0].contains("two CRLs of one CA, CN=one, and only the first would count; keep that CA's newest"),
        "{found:?}"
    );

    let (loaded, _) = load(&files(&dir, &cas, &(new + &crl(&other, &[3], None)))).unwrap();
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
        assert!(found[0].contains("two CAs with the name of its CRL 1 of 1, CN=one, and different keys"), "{found:?}");
        assert!(found[0].contains("leave ingress.tls.crl out while both are needed"), "{found:?}");
    }
    // Without a CRL both are let in; with one, a certificate that is there twice is no other key.
    let (loaded, _) = load(&files(&dir, &format!("{old_pem}{new_pem}"), "")).unwrap();
    assert!([&old, &new].iter().all(|ca| loaded.verify_again(&[sender(ca, 1)]).is_ok()));
    assert_eq!(faults(&files(&dir, &format!("{old_pem}{old_pem}"), &crl(&old, &[], None))), [""; 0]);
}

#[test]
fn which_certificate_of_many_cannot_be_used_is_said() {
    let dir = TempDir::new().unwrap();
    let good: Vec<String> = (0..5).map(|number| authority(&number.to_string()).1).collect();
    let short = "-----BEGIN CERTIFICATE-----\nMAoGCCqGSM49BAMC\n-----END CERTIFICATE-----\n";
    let torn = good[3].replacen("MII", "M!I", 1);
    for (third, expected) in [
        (short, "its certificate 3 of 5 is no X.509 certificate"),
        (torn.as_str(), "its certificate 3 cannot be read: it is not PEM"),
    ] {
        let cas = [&good[0], &good[1], third, &good[3], &good[4]].concat();
        let found = faults(&files(&dir, &cas, ""));
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
    }
}

/// A CA may give both in one file, as clients want them together.
#[test]
fn a_crl_of_an_intermediate_that_only_its_senders_show_is_said_to_need_it() {
    let dir = TempDir::new().unwrap();
    let (root, root_pem) = authority("root");
    let (below, below_pem) = intermediate(&root, "below", 7);
    let both = crl(&root, &[], None) + &crl(&below, &[1], None);
    let found = faults(&files(&dir, &root_pem, &both));
    assert!(
        found[0].contains("its CRL 2 of 2, of CN=below, is not signed by a certificate of ingress.tls.client_ca"),
        "{found:?}"
    );
    assert!(found[0].contains("an intermediate CA's beside its root's"), "{found:?}");
    // So told, so done.
    let (loaded, _) = load(&files(&dir, &(root_pem + &below_pem), &both)).unwrap();
    let judged = |serial| loaded.verify_again(&[sender(&below, serial), der(&below_pem)]);
    assert_eq!((judged(1), judged(2)), (REVOKED, Ok(())));
}

const REVOKED: Result<(), TlsFault> = Err(TlsFault::InvalidCertificate(CertificateError::Revoked));

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn a_revoked_intermediate_that_stands_in_client_ca_lets_nobody_in() {
    let dir = TempDir::new().unwrap();
    let (root, root_pem) = authority("root");
    let [(good, good_pem), (bad, bad_pem)] =
        [("good", 7), ("bad", 8)].map(|(name, serial)| intermediate(&root, name, serial));
    let cas = format!("{root_pem}{good_pem}{bad_pem}");
    let judged = |crls: &str, ca, pem| {
        let (loaded, _) = load(&files(&dir, &cas, crls)).unwrap();
        let leaf = sender(ca, 1);
        (loaded.verify_again(std::slice::from_ref(&leaf)), loaded.verify_again(&[leaf, der(pem)]))
    };
    assert_eq!(judged("", &bad, &bad_pem), (Ok(()), Ok(())));
    let own = crl(&bad, &[], None);
    for crls in [crl(&root, &[8], None), crl(&root, &[8], None) + &own, crl(&root, &[8], Some("http://ca/a.crl"))] {
        assert_eq!(judged(&crls, &good, &good_pem), (Ok(()), Ok(())));
        let (alone, with_it) = judged(&crls, &bad, &bad_pem);
        assert_eq!((alone, with_it), (Err(TlsFault::InvalidCertificate(CertificateError::UnknownIssuer)), REVOKED));
    }
}

#[test]
fn where_every_client_ca_is_revoked_that_is_a_fault() {
    let dir = TempDir::new().unwrap();
    let (ca, pem) = authority("one");
    let found = faults(&files(&dir, &pem, &crl(&ca, &[OWN_SERIAL], None)));
    assert!(found[0].contains("ingress.tls.client_ca") && found[0].contains("revoked"), "{found:?}");
}

#[test]
fn a_chain_that_is_padded_is_refused() {
    let dir = TempDir::new().unwrap();
    let (ca, pem) = authority("one");
    let (loaded, _) = load(&files(&dir, &pem, "")).unwrap();
    let leaf = sender(&ca, 1);
    let padded = |by: usize| {
        let filling = [by / 2, by - by / 2].map(|bytes| CertificateDer::from(vec![0x30; bytes]));
        loaded.verify_again(&[std::slice::from_ref(&leaf), &filling[..]].concat())
    };
    let room = 16 * 1024 - leaf.len();
    assert_eq!(padded(room), Ok(()));
    let fault = padded(room + 1).unwrap_err();
    assert!(fault.to_string().contains("more than 16 KiB"), "{fault}");
    assert_eq!(reason_of(&fault), "bad_certificate");
}

#[test]
fn who_is_in_a_crl_is_refused_whatever_distribution_point_either_has() {
    let dir = TempDir::new().unwrap();
    let ((ca, pem), (other, other_pem)) = (authority("one"), authority("other"));
    let (loaded, _) = load(&files(&dir, &(pem + &other_pem), &crl(&ca, &[1], Some("http://ca/a.crl")))).unwrap();
    for point in [None, Some("http://ca/a.crl"), Some("http://ca/b.crl")] {
        let judged = |ca, serial| loaded.verify_again(&[sender_at(ca, serial, point)]);
        assert_eq!((judged(&ca, 1), judged(&ca, 2), judged(&other, 1)), (REVOKED, Ok(()), Ok(())), "{point:?}");
    }
}

#[test]
fn the_name_of_a_sender_is_of_bounded_length() {
    let dir = TempDir::new().unwrap();
    let mut tls = files(&dir, &authority("one").1, "");
    let leaf = valid_for(&"x".repeat(5000), Duration::days(1)).self_signed(&KeyPair::generate().unwrap()).unwrap();
    let told = format!("CN={}", "x".repeat(253));
    let (loaded, _) = load(&tls).unwrap();
    assert_eq!(loaded.allow(leaf.der()).as_deref(), Ok(format!("subject:{told}").as_str()));
    tls.client_names = vec![ClientName::Dns("sender.example".into())];
    let (loaded, _) = load(&tls).unwrap();
    assert_eq!(loaded.allow(leaf.der()), Err(NotAllowed { subject: told }));
}

#[test]
fn an_expired_ca_still_lets_its_senders_in() {
    let dir = TempDir::new().unwrap();
    let (ca, pem) = authority_until("one", -Duration::days(1));
    let (loaded, expiries) = load(&files(&dir, &pem, "")).unwrap();
    assert!(loaded.verify_again(&[sender(&ca, 1)]).is_ok());
    let end = expiries.iter().find(|expiry| expiry.what == "client_ca").unwrap().at;
    assert!(end < OffsetDateTime::now_utc().unix_timestamp());
}

#[test]
fn a_client_without_a_certificate_is_let_in_where_none_is_required() {
    let dir = TempDir::new().unwrap();
    let ((ca, pem), (stranger, _)) = (authority("one"), authority("other"));
    let tls = files(&dir, &pem, "");
    for (clients, without) in [(Clients::Required, false), (Clients::Optional, true), (Clients::None, true)] {
        let (loaded, _) = ServerTls::load(&section(&tls, clients)).unwrap();
        assert_eq!(loaded.verifier.client_auth_mandatory(), clients == Clients::Required, "{clients:?}");
        assert_eq!(loaded.verifier.offer_client_auth(), clients != Clients::None, "{clients:?}");
        assert_eq!(loaded.verify_again(&[]).is_ok(), without, "{clients:?}");
        if clients != Clients::None {
            assert!(loaded.verify_again(&[sender(&ca, 1)]).is_ok(), "{clients:?}");
            assert!(loaded.verify_again(&[sender(&stranger, 1)]).is_err(), "{clients:?}");
        }
    }
}

#[test]
fn a_fault_names_the_section_and_the_files_that_nobody_asks_for_are_left_alone() {
    let dir = TempDir::new().unwrap();
    let tls = Tls { client_ca: dir.path().join("no-ca.crt"), ..files(&dir, "", "") };
    let load = |clients| ServerTls::load(&Section { name: "other.tls", ..section(&tls, clients) });
    assert!(load(Clients::None).is_ok());
    let found = load(Clients::Optional).err().unwrap();
    assert_eq!(found.iter().map(|fault| fault.key.as_str()).collect::<Vec<_>>(), ["other.tls.client_ca"]);
    std::fs::write(&tls.private_key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let found = load(Clients::None).err().unwrap();
    assert_eq!(found.len(), 1);
    assert!(found[0].to_string().starts_with("other.tls.private_key = "), "{}", found[0]);
    assert!(found[0].to_string().ends_with("; give the key that belongs to other.tls.certificate"), "{}", found[0]);
}
