//! Certificates, key and CRL that change on disk while the bridge runs.

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use time::OffsetDateTime;

use crate::{
    sending::{BOTH, Load, Raw, assert_all_there, copies, journey},
    support::{
        self,
        bridge::{Bridge, SENDER, Setup},
        certs::{Authority, ClientOptions, Identity},
        client::{Http, Sender, Tls},
        wait_until,
    },
};

/// A bridge with a CRL that names nobody, in a file `crl.pem`.
fn setup() -> Setup {
    let setup = Setup::new(support::kafka(), None).set("sender.timeout_ms", "30000").set("ingress.tls.crl", "crl.pem");
    revoke(&setup, &[]);
    setup
}

fn revoke(setup: &Setup, identities: &[&Identity]) {
    let serials: Vec<_> = identities.iter().map(|identity| &identity.serial).collect();
    fs::write(setup.dir.join("crl.pem"), setup.authority.crl(&serials)).unwrap();
}

fn reloads(bridge: &Bridge, result: &str) -> f64 {
    bridge.metric("causeway_tls_reloads_total", &[&format!("result=\"{result}\"")])
}

/// Changes files, and waits until the bridge has looked at them.
fn change(bridge: &Bridge, result: &str, change: impl FnOnce(&Path)) {
    let before = reloads(bridge, result);
    change(&bridge.setup.dir);
    wait_until(&format!("the change is {result}"), || reloads(bridge, result) > before);
}

/// The certificate that the server shows to a new connection.
async fn shown(sender: &Sender) -> CertificateDer<'static> {
    let stream = sender.connect().await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// Every request of the load was answered 200, on connections that were never lost, and is in Kafka.
async fn assert_undisturbed(bridge: &Bridge, load: Load) {
    let so_far = load.acked();
    wait_until("the load goes on", || load.acked() > so_far + 10);
    let posted = load.stop().await;
    assert_eq!((posted.errors, &posted.others), (0, &Default::default()));
    assert_all_there(support::kafka(), bridge, &posted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_files_are_used_for_new_connections_and_open_ones_go_on() {
    let bridge = setup().start();
    let load = Load::start(&bridge, 4, false);
    // A certificate and its key, written one after the other; what stands behind it, and has expired, is for senders to judge.
    let renewed = bridge.setup.authority.server(&["localhost"], [[127, 0, 0, 1]]);
    let behind = bridge.setup.identity(ClientOptions::dns("behind").expired()).certificate;
    let chain = Identity { certificate: format!("{}{behind}", renewed.certificate), ..renewed };
    change(&bridge, "ok", |dir| drop(chain.write(dir, "server")));
    let renewed = bridge.setup.authority.server(&["localhost"], [[127, 0, 0, 1]]);
    change(&bridge, "ok", |dir| drop(renewed.write(dir, "server")));
    let sender = bridge.sender(Http::One).fresh();
    assert_eq!(shown(&sender).await, der(&renewed.certificate));
    assert_eq!(sender.post("/", &[], journey("renewed")).await.unwrap().status, 200);
    // A second CA beside the first, as for a rotation.
    let second = Authority::new("The next CA");
    let next = second.client(ClientOptions::dns(SENDER));
    assert!(bridge.sender_as(&next, Http::One).post("/", &[], journey("early")).await.is_err());
    change(&bridge, "ok", |dir| fs::write(dir.join("ca.crt"), bridge.setup.authority.pem() + &second.pem()).unwrap());
    for http in BOTH {
        let answer = bridge.sender_as(&next, http).post("/", &[], journey("next")).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    // A link that is turned, as Kubernetes does.
    let crl = bridge.setup.authority.crl(&[]);
    fs::write(bridge.setup.dir.join("crl-2.pem"), crl).unwrap();
    change(&bridge, "ok", |dir| {
        symlink("crl-2.pem", dir.join("new")).unwrap();
        fs::rename(dir.join("new"), dir.join("crl.pem")).unwrap();
    });
    assert_eq!(reloads(&bridge, "refused"), 0.0);
    assert_undisturbed(&bridge, load).await;
    assert!(!copies(support::kafka(), &bridge, "journey").contains_key("early"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_revoked_is_shut_out_also_from_its_open_connections_and_sessions() {
    let bridge = setup().set("ingress.tls.min_version", "1.2").start();
    let load = Load::start(&bridge, 4, false);
    let revoked = bridge.setup.identity(ClientOptions::dns(SENDER));
    let sender = |http, version| {
        Sender::with_tls(bridge.ingress, &bridge.setup.authority.pem(), Some(&revoked), http, &[version])
    };
    let open = BOTH.map(|http| sender(http, Tls::V13));
    for sender in &open {
        assert_eq!(sender.post("/", &[], journey("served")).await.unwrap().status, 200);
    }
    let sessions = [Tls::V12, Tls::V13].map(|version| sender(Http::One, version));
    for session in &sessions {
        for resumed in [false, true] {
            let mut raw = Raw::open(session).await;
            raw.post("/", &journey("served")).await;
            assert_eq!(raw.answer().await.unwrap().status, 200);
            assert_eq!(raw.resumed(), resumed);
        }
    }
    let mut held = Raw::open(&open[0]).await;
    change(&bridge, "ok", |_| revoke(&bridge.setup, &[&revoked]));
    // The two that are kept, and this one.
    wait_until("its open connections are closed", || {
        bridge.metric("causeway_connections_closed_total", &["certificate"]) == 3.0
    });
    held.post("/", &journey("revoked")).await;
    assert!(held.answer().await.is_none());
    for sender in open.iter().chain(&sessions) {
        let answer = sender.post("/", &[], journey("revoked")).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    wait_until("they are counted", || bridge.metric("causeway_handshake_failures_total", &["revoked"]) == 4.0);
    assert_undisturbed(&bridge, load).await;
    assert!(!copies(support::kafka(), &bridge, "journey").contains_key("revoked"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_from_a_ca_that_is_gone_is_shut_out() {
    let second = Authority::new("The old CA");
    let setup = setup();
    fs::write(setup.dir.join("ca.crt"), setup.authority.pem() + &second.pem()).unwrap();
    let bridge = setup.start();
    let load = Load::start(&bridge, 2, false);
    let sender = bridge.sender_as(&second.client(ClientOptions::dns(SENDER)), Http::Two);
    assert_eq!(sender.post("/", &[], journey("old")).await.unwrap().status, 200);
    change(&bridge, "ok", |dir| drop(bridge.setup.authority.write(dir, "ca")));
    wait_until("its connection is closed", || {
        bridge.metric("causeway_connections_closed_total", &["certificate"]) == 1.0
    });
    assert!(sender.post("/", &[], journey("gone")).await.is_err());
    assert_undisturbed(&bridge, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_from_an_intermediate_that_is_revoked_is_shut_out_though_it_stands_in_client_ca() {
    let setup = setup();
    let (below, serial) = setup.authority.below("A CA below it");
    fs::write(setup.dir.join("ca.crt"), setup.authority.pem() + &below.pem()).unwrap();
    let bridge = setup.start();
    let load = Load::start(&bridge, 2, false);
    let identity = below.client(ClientOptions::dns(SENDER));
    let identity = Identity { certificate: identity.certificate.clone() + &below.pem(), ..identity };
    let sender = bridge.sender_as(&identity, Http::Two);
    assert_eq!(sender.post("/", &[], journey("below")).await.unwrap().status, 200);
    change(&bridge, "ok", |dir| fs::write(dir.join("crl.pem"), bridge.setup.authority.crl(&[&serial])).unwrap());
    wait_until("its connection is closed", || {
        bridge.metric("causeway_connections_closed_total", &["certificate"]) == 1.0
    });
    assert!(sender.post("/", &[], journey("revoked")).await.is_err());
    wait_until("it is counted", || bridge.metric("causeway_handshake_failures_total", &["revoked"]) == 1.0);
    assert!(bridge.child.stderr().contains("\"certificate\":\"CN=A CA below it\""), "{}", bridge.child.tail());
    assert_undisturbed(&bridge, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_file_leaves_all_the_old_ones_in_use() {
    let setup = setup();
    let revoked = setup.identity(ClientOptions::dns(SENDER));
    revoke(&setup, &[&revoked]);
    let bridge = setup.start();
    let load = Load::start(&bridge, 2, false);
    let sender = bridge.sender(Http::One).fresh();
    let before = shown(&sender).await;
    let good: Vec<_> = ["server.crt", "server.key", "ca.crt", "crl.pem"]
        .map(|name| (name, fs::read(bridge.setup.dir.join(name)).unwrap()))
        .into();
    let other = bridge.setup.authority.server(&["localhost"], [[127, 0, 0, 1]]);
    let mut expired = ClientOptions::dns("localhost").expired();
    expired.client_auth = false;
    let expired = bridge.setup.identity(expired);
    let elsewhere = Authority::new("Test sender CA");
    let two_crls = bridge.setup.authority.crl(&[]) + &bridge.setup.authority.crl(&[&revoked.serial]);
    // What is wrong, the files that make it so, and the word by which the log tells.
    type Broken<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
    let broken: &[Broken<'_>] = &[
        ("the key of another certificate", &[("server.key", &other.private_key)], "ingress.tls.private_key"),
        ("half a certificate", &[("server.crt", &other.certificate[..200])], "ingress.tls.certificate"),
        ("no CA", &[("ca.crt", "")], "ingress.tls.client_ca"),
        // Of the same name, but not of the same key.
        ("a CRL of another CA", &[("crl.pem", &elsewhere.crl(&[]))], "ingress.tls.crl"),
        ("a second CRL of one CA", &[("crl.pem", &two_crls)], "two CRLs of one CA"),
        (
            "an expired certificate",
            &[("server.crt", &expired.certificate), ("server.key", &expired.private_key)],
            "it has expired",
        ),
        // What is right by itself is not taken up beside what is broken.
        ("a new CA beside no key", &[("ca.crt", &elsewhere.pem()), ("server.key", "")], "ingress.tls.private_key"),
    ];
    let told = || {
        let log = bridge.child.stderr();
        log.lines().filter(|line| line.contains("all the old ones stay")).map(str::to_owned).collect::<Vec<_>>()
    };
    for (number, (what, files, word)) in broken.iter().enumerate() {
        let before_it = told().len();
        change(&bridge, "refused", |dir| {
            files.iter().for_each(|(name, text)| fs::write(dir.join(name), text).unwrap());
        });
        assert_eq!(shown(&sender).await, before, "{what}");
        assert_eq!(sender.post("/", &[], journey("old files")).await.unwrap().status, 200, "{what}");
        let answer = bridge.sender_as(&revoked, Http::One).post("/", &[], journey("revoked")).await;
        assert!(answer.is_err(), "{what}: {answer:?}");
        let lines = told();
        assert!(lines[before_it..].iter().any(|line| line.contains(word)), "{what}: {lines:#?}");
        assert_eq!(reloads(&bridge, "refused"), (number + 1) as f64, "{what}: once for each change");
        change(&bridge, "ok", |dir| {
            good.iter().for_each(|(name, text)| fs::write(dir.join(name), text).unwrap());
        });
    }
    change(&bridge, "refused", |dir| fs::remove_file(dir.join("server.key")).unwrap());
    assert_eq!(shown(&sender).await, before);
    assert_undisturbed(&bridge, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crl_whose_time_is_over_is_warned_of_and_goes_on_to_hold() {
    let bridge = setup().start();
    let revoked = bridge.setup.identity(ClientOptions::dns(SENDER));
    let now = OffsetDateTime::now_utc();
    let hour = Duration::from_secs(3600);
    change(&bridge, "ok", |dir| {
        let crl = bridge.setup.authority.crl_until(&[&revoked.serial], now - 2 * hour, now - hour);
        fs::write(dir.join("crl.pem"), crl).unwrap();
    });
    wait_until("it is warned of", || bridge.child.stderr().contains("a newer CRL was due"));
    let at = bridge.metric("causeway_certificate_expiry_timestamp_seconds", &["\"crl\""]);
    assert_eq!(at, (now - hour).unix_timestamp() as f64);
    assert_eq!(bridge.sender(Http::One).post("/", &[], journey("good")).await.unwrap().status, 200);
    assert!(bridge.sender_as(&revoked, Http::One).post("/", &[], journey("revoked")).await.is_err());
}
