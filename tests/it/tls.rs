//! Who may connect: certificates, TLS versions, names, resumption.

use std::{sync::OnceLock, time::Duration};

use rcgen::DnType;
use serde_json::Value as Json;
use time::OffsetDateTime;

use crate::{
    sending::{BOTH, Raw, copies, journey, records},
    support::{
        self,
        bridge::{Bridge, SENDER, Setup},
        certs::{Authority, ClientOptions, Identity},
        client::{Http, Sender, Tls},
        stopwatch, wait_until,
    },
};

/// As a cautious operator sets it up: TLS 1.3, a CRL, four names. With the certificate that the CRL names.
fn strict() -> &'static (Bridge, Identity) {
    static STRICT: OnceLock<(Bridge, Identity)> = OnceLock::new();
    STRICT.get_or_init(|| {
        let setup = Setup::new(support::kafka(), None).set("sender.timeout_ms", "30000").set(
            "ingress.tls.client_names",
            &format!(r"['dns:{SENDER}', 'uri:spiffe://asapp.example/sender', 'cn:sender-7', 'subject:C=US,O=ASAPP\, Inc.,CN=sender-8']"),
        );
        let revoked = setup.identity(ClientOptions::dns(SENDER));
        let crl = setup.dir.join("crl.pem");
        std::fs::write(&crl, setup.authority.crl(&[&revoked.serial])).unwrap();
        (setup.set("ingress.tls.crl", crl.to_str().unwrap()).start(), revoked)
    })
}

/// As permissive as it gets: TLS 1.2, any name.
fn open() -> &'static Bridge {
    static OPEN: OnceLock<Bridge> = OnceLock::new();
    OPEN.get_or_init(|| {
        let setup = Setup::new(support::kafka(), None).set("sender.timeout_ms", "30000");
        setup.set("ingress.tls.client_names", "*").set("ingress.tls.min_version", "1.2").start()
    })
}

/// How many handshakes have failed for this reason.
fn failures(bridge: &Bridge, reason: &str) -> f64 {
    bridge.metric("causeway_handshake_failures_total", &[&format!("reason=\"{reason}\"")])
}

fn with_tls(bridge: &Bridge, identity: &Identity, http: Http, version: Tls) -> Sender {
    Sender::with_tls(bridge.ingress, &bridge.setup.authority.pem(), Some(identity), http, &[version])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_without_a_good_certificate_fails_and_is_counted_by_reason() {
    let (bridge, revoked) = strict();
    let setup = &bridge.setup;
    let elsewhere = Authority::new("Another CA").client(ClientOptions::dns(SENDER));
    let expired = setup.identity(ClientOptions::dns(SENDER).expired());
    let now = OffsetDateTime::now_utc();
    let early =
        setup.identity(ClientOptions { not_before: now + Duration::from_secs(3600), ..ClientOptions::dns(SENDER) });
    let server = setup.identity(ClientOptions { client_auth: false, ..ClientOptions::dns(SENDER) });
    for (reason, identity) in [
        ("no_certificate", None),
        ("unknown_ca", Some(&elsewhere)),
        ("expired", Some(&expired)),
        ("not_valid_yet", Some(&early)),
        ("revoked", Some(revoked)),
        ("wrong_purpose", Some(&server)),
    ] {
        let before = failures(bridge, reason);
        for http in BOTH {
            let sender = Sender::new(bridge.ingress, &setup.authority.pem(), identity, http);
            let answer = sender.post("/", &[], journey(reason)).await;
            assert!(answer.is_err(), "{reason}: {answer:?}");
        }
        wait_until(reason, || failures(bridge, reason) == before + 2.0);
    }
    assert!(copies(support::kafka(), bridge, "journey").keys().all(|id| id.starts_with("served-")));
}

/// Else it would be counted as one without a certificate, and no alert would name the reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_looks_for_its_ca_in_the_servers_list_shows_its_certificate() {
    for (bridge, version) in [(&strict().0, Tls::V13), (open(), Tls::V12)] {
        let elsewhere = Authority::new("A CA that is not known").client(ClientOptions::dns(SENDER));
        let before = (failures(bridge, "unknown_ca"), failures(bridge, "no_certificate"));
        let sender = with_tls(bridge, &elsewhere, Http::One, version).picky();
        assert!(sender.post("/", &[], journey("picky")).await.is_err());
        wait_until("it is counted", || {
            failures(bridge, "unknown_ca") > before.0 || failures(bridge, "no_certificate") > before.1
        });
        assert_eq!(failures(bridge, "no_certificate"), before.1, "{version:?}");
    }
}

/// The names of so many would be more than 64 KiB, which no client reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_client_cas_are_none_too_many() {
    let setup = Setup::new(support::kafka(), None).set("sender.timeout_ms", "30000");
    let others = (0..1000).map(|number| Authority::new(&format!("{number} {}", "x".repeat(60))).pem());
    let cas = std::iter::once(setup.authority.pem()).chain(others).collect::<String>();
    std::fs::write(setup.dir.join("all.crt"), cas).unwrap();
    let bridge = setup.set("ingress.tls.client_ca", "all.crt").start();
    assert_eq!(bridge.sender(Http::One).post("/", &[], journey("many")).await.unwrap().status, 200);
}

/// As a balancer's health check does it, with FIN or with RST.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_a_byte_is_no_failed_handshake() {
    let bridge = Setup::new(support::kafka(), None).set("sender.timeout_ms", "30000").start();
    for reset in [false, true, false, true] {
        let tcp = tokio::net::TcpStream::connect(bridge.ingress).await.unwrap();
        wait_until("it is there", || bridge.metric("causeway_connections", &[]) == 1.0);
        if reset {
            tcp.set_zero_linger().unwrap();
        }
        drop(tcp);
        wait_until("it is gone", || bridge.metric("causeway_connections", &[]) == 0.0);
    }
    assert_eq!(bridge.metric("causeway_handshake_failures_total", &[]), 0.0);
    assert!(!bridge.child.stderr().contains("handshake"), "{}", bridge.child.tail());
    assert_eq!(bridge.sender(Http::One).post("/", &[], journey("served-after")).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_tls_is_counted_and_closed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (bridge, _) = strict();
    let mut tcp = tokio::net::TcpStream::connect(bridge.ingress).await.unwrap();
    tcp.write_all(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = tcp.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    wait_until("it is counted", || failures(bridge, "not_tls") >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_is_let_in_by_each_form_of_its_name() {
    let (bridge, _) = strict();
    let full = ClientOptions {
        subject: vec![(DnType::OrganizationName, "ASAPP, Inc.".to_owned()), (DnType::CountryName, "US".to_owned())],
        ..ClientOptions::cn("sender-8")
    };
    for (options, status) in [
        (ClientOptions::dns(SENDER), 200),
        (ClientOptions::dns(&SENDER.to_uppercase()), 200),
        (ClientOptions::uri("spiffe://asapp.example/sender"), 200),
        (ClientOptions::cn("sender-7"), 200),
        (full.clone(), 200),
        (ClientOptions::dns("asapp.example"), 403),
        (ClientOptions::dns(&format!("a.{SENDER}")), 403),
        // The CN is no DNS name: only `cn:` looks at it.
        (ClientOptions::cn(SENDER), 403),
        (ClientOptions::uri("spiffe://asapp.example/sender/2"), 403),
        (ClientOptions::cn("sender-8"), 403),
        (ClientOptions { cn: Some("sender-9".to_owned()), ..full }, 403),
        (ClientOptions::default(), 403),
    ] {
        for http in BOTH {
            let sender = bridge.sender_as(&bridge.setup.identity(options.clone()), http);
            let answer = sender.post("/", &[], journey("served-by-name")).await.unwrap();
            assert_eq!(answer.status, status, "{options:?}: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_is_copied_from_the_log_to_the_allow_list() {
    // One of its own: of many refusals at once not all are logged.
    let bridge = Setup::new(support::kafka(), None).set("sender.timeout_ms", "30000").start();
    let subject = vec![
        (DnType::OrganizationName, r#"Zürich, "A" + B"#.to_owned()),
        (DnType::CustomDnType(vec![1, 2, 3, 4]), "custom".to_owned()),
        (DnType::CountryName, "US".to_owned()),
    ];
    let refused = bridge.setup.identity(ClientOptions { subject, ..ClientOptions::cn("copied") });
    let answer = bridge.sender_as(&refused, Http::One).post("/", &[], journey("copied")).await.unwrap();
    assert_eq!(answer.status, 403);
    let mut told = None;
    wait_until("it is logged", || {
        let log = bridge.child.stderr();
        let senders = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Json>(line).ok()?["sender"].as_str().map(str::to_owned));
        told = senders.into_iter().find(|sender| sender.contains("copied"));
        told.is_some()
    });
    let told = told.unwrap();
    assert_eq!(told, r#"subject:C=US,1.2.3.4=#0C06637573746F6D,O=Z\C3\BCrich\, \"A\" \+ B,CN=copied"#);
    // By the CA of this one, as the other's certificate is.
    let setup = Setup::new(support::kafka(), None).set("sender.timeout_ms", "30000");
    std::fs::write(setup.dir.join("sender-ca.crt"), bridge.setup.authority.pem()).unwrap();
    let setup =
        setup.set("ingress.tls.client_ca", "sender-ca.crt").set("ingress.tls.client_names", &format!("['{told}']"));
    let bridge = setup.start();
    let answer = bridge.sender_as(&refused, Http::One).post("/", &[], journey("copied")).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_star_lets_in_every_certificate_of_the_ca() {
    for options in [ClientOptions::default(), ClientOptions::cn("anybody"), ClientOptions::dns("any.example")] {
        let sender = open().sender_as(&open().setup.identity(options), Http::One);
        assert_eq!(sender.post("/", &[], journey("served-star")).await.unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_1_2_is_refused_unless_it_is_asked_for() {
    let (strict, _) = strict();
    for (bridge, version, served) in
        [(strict, Tls::V12, false), (strict, Tls::V13, true), (open(), Tls::V12, true), (open(), Tls::V13, true)]
    {
        for http in BOTH {
            let sender = with_tls(bridge, &bridge.setup.identity(ClientOptions::dns(SENDER)), http, version);
            let answer = sender.post("/", &[], journey("served-version")).await;
            assert_eq!(answer.as_ref().is_ok_and(|answer| answer.status == 200), served, "{version:?}: {answer:?}");
        }
    }
    wait_until("it is counted", || failures(strict, "incompatible") == 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_session_is_served_until_its_certificate_expires() {
    let bridge = open();
    // Certificates know no less than seconds. Four handshakes come before.
    let not_after = OffsetDateTime::now_utc() + stopwatch::lately(Duration::from_secs(4));
    let identity = bridge.setup.identity(ClientOptions { not_after, ..ClientOptions::dns(SENDER) });
    let senders = [Tls::V12, Tls::V13].map(|version| with_tls(bridge, &identity, Http::One, version));
    for sender in &senders {
        for resumed in [false, true] {
            let mut raw = Raw::open(sender).await;
            raw.post("/", &journey("served-resumed")).await;
            assert_eq!(raw.answer().await.unwrap().status, 200);
            assert_eq!(raw.resumed(), resumed);
        }
    }
    wait_until("the certificate has expired", || OffsetDateTime::now_utc() > not_after + Duration::from_secs(1));
    for (sender, count) in senders.iter().zip([1.0, 2.0]) {
        let mut raw = Raw::open(sender).await;
        assert!(raw.resumed());
        raw.post("/", &journey("expired")).await;
        assert!(raw.answer().await.is_none());
        wait_until("it is counted", || failures(bridge, "expired") == count);
    }
    assert!(records(support::kafka(), bridge).iter().all(|record| record.header("ce_id") != Some("expired")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_certificates_expire_is_a_metric() {
    let (bridge, _) = strict();
    bridge.sender(Http::One).post("/", &[], journey("served-metrics")).await.unwrap();
    let now = OffsetDateTime::now_utc().unix_timestamp() as f64;
    let name = format!("dns:{SENDER}");
    for (certificate, name, days) in
        [("server", "", 365.0), ("client_ca", "", 365.0), ("crl", "", 1.0), ("sender", name.as_str(), 365.0)]
    {
        let labels = format!("certificate=\"{certificate}\",name=\"{name}\"");
        let at = bridge.metric("causeway_certificate_expiry_timestamp_seconds", &[&labels]);
        let expected = now + days * 86400.0;
        assert!((expected - 600.0..=expected).contains(&at), "{certificate}: {at}, not {expected}");
    }
}
