//! `check --sender`: certificates that `openssl verify` passes and the handshake refuses, and those that it takes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value as Json;

use crate::{
    commands::{code, run, stdout},
    support::{self, bridge::Setup},
};

/// A name that the bridge lets in.
const NAME: &str = "subjectAltName=DNS:sender.asapp.example";

fn openssl(dir: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A CA, and `other.crt` of the same name with another key.
fn authority(dir: &Path) {
    for name in ["ca", "other"] {
        let ca = "-subj /O=ASAPP/CN=Senders -addext basicConstraints=critical,CA:TRUE";
        openssl(
            dir,
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout {name}.key -out {name}.crt {ca}"
            ),
        );
    }
}

/// A certificate of that CA: a key by `genpkey`'s words, and the lines of its extensions; none make it one of version 1.
fn issue(dir: &Path, key: &str, extensions: &str, by: &str) -> PathBuf {
    fs::write(dir.join("extensions"), extensions.replace(';', "\n")).unwrap();
    openssl(dir, &format!("genpkey {key} -out sender.key"));
    openssl(dir, "req -new -key sender.key -subj /CN=sender -out sender.csr");
    let file = if extensions.is_empty() { "" } else { " -extfile extensions" };
    openssl(dir, &format!("x509 -req -in sender.csr {by} -days 30{file} -out sender.crt"));
    dir.join("sender.crt")
}

/// Whether it is let in, and what is said of it.
fn judged(setup: &Setup, file: &Path) -> (bool, String) {
    let told = run(setup, &["check", "--json", "--sender", file.to_str().unwrap()]);
    let report: Json = serde_json::from_str(&stdout(&told)).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let about = |finding: &&Json| finding["about"].as_str().unwrap().starts_with("sender ");
    let said: Vec<_> = findings.iter().filter(about).map(Json::to_string).collect();
    assert!(!said.is_empty(), "{report}");
    (code(&told) == 0, said.join("\n"))
}

#[test]
fn check_judges_a_senders_certificate_as_the_handshake_does_and_says_what_to_do() {
    const EC: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";
    const CA: &str = "-CA ca.crt -CAkey ca.key -CAcreateserial";
    let setup = Setup::new(support::kafka(), None);
    let dir = setup.dir.join("senders");
    fs::create_dir_all(&dir).unwrap();
    authority(&dir);
    let setup = setup
        .set("ingress.tls.client_ca", dir.join("ca.crt").to_str().unwrap())
        .set("ingress.tls.client_names", r#"["dns:sender.asapp.example"]"#);
    let with = |more: &str| format!("{NAME};{more}");
    // Key, extensions, by whom -> what is said; nothing where it is let in.
    for (key, extensions, by, words) in [
        (EC, NAME.to_owned(), CA, None),
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:2048", with("extendedKeyUsage=clientAuth"), CA, None),
        ("-algorithm ED25519", NAME.to_owned(), CA, None),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-384", NAME.to_owned(), CA, None),
        (EC, NAME.to_owned(), "-CA other.crt -CAkey other.key -CAcreateserial", Some("has another key")),
        (EC, NAME.to_owned(), "-key sender.key", Some("a self-signed certificate is never its own CA")),
        (EC, String::new(), CA, Some("X.509 version 3")),
        (EC, with("extendedKeyUsage=serverAuth"), CA, Some("with clientAuth in its extendedKeyUsage")),
        (EC, with("basicConstraints=critical,CA:TRUE"), CA, Some("no CA's")),
        (EC, with("certificatePolicies=critical,1.2.3.4"), CA, Some("not critical")),
        (EC, with("1.2.3.4=critical,DER:0500"), CA, Some("not critical")),
        ("-algorithm ED448", NAME.to_owned(), CA, Some("have it issued for a key of ECDSA")),
        (
            "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048",
            NAME.to_owned(),
            CA,
            Some("have it issued for a key of ECDSA"),
        ),
        (
            EC,
            "subjectAltName=DNS:another.example".to_owned(),
            CA,
            Some(r#"client_names: \"dns:another.example\", \"cn:sender\""#),
        ),
    ] {
        let file = issue(&dir, key, &extensions, by);
        let (taken, said) = judged(&setup, &file);
        assert_eq!(taken, words.is_none(), "{key} {extensions}: {said}");
        assert!(said.contains(words.unwrap_or("knows it as dns:sender.asapp.example")), "{key} {extensions}: {said}");
    }
    fs::write(dir.join("empty.crt"), "no certificate").unwrap();
    let (taken, said) = judged(&setup, &dir.join("empty.crt"));
    assert!(!taken && said.contains("holds no certificate"), "{said}");
}
