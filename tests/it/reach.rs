//! Brokers that take a connection and let nobody in: each is asked with the client's own TLS and SASL.

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use serde_json::Value as Json;
use tokio::{
    sync::{Mutex, MutexGuard},
    task::JoinSet,
};

use crate::{
    security::{client, renewals, wait_for_more},
    sending::{Load, assert_all_there, journey},
    support::{
        bridge::Setup,
        certs::{Authority, Identity},
        client::Http,
        kafka::{Kafka, KafkaOptions},
        security::Security,
        starting::Starting,
        stopwatch, wait_until,
    },
};

const FEEDS: [&str; 5] = ["activity", "journey", "queue", "other", "dead-letter"];

/// Three brokers whose certificates a test changes, and puts right at its end: one test at a time.
async fn cluster() -> MutexGuard<'static, Option<Kafka>> {
    static KAFKA: Mutex<Option<Kafka>> = Mutex::const_new(None);
    let mut kafka = KAFKA.lock().await;
    let options = KafkaOptions { brokers: 3, secured: true, proxied: true, ..KafkaOptions::default() };
    // A proxy is started by a runtime of its own, which a test's thread may not wait for.
    kafka.get_or_insert_with(|| std::thread::spawn(|| Kafka::start(options)).join().unwrap());
    kafka
}

/// A usual sender's timeout, as far as this machine is a usual one.
fn patience() -> String {
    stopwatch::lately_ms(Duration::from_secs(5))
}

/// A certificate as each broker has it at first.
fn good(kafka: &Kafka) -> Identity {
    kafka.security().authority().server(&["localhost"], [[127, 0, 0, 1]])
}

/// A bridge that begins with broker 1.
fn setup(kafka: &Kafka, bootstrap: &str, properties: &[(&'static str, String)]) -> Setup {
    let brokers = Security::address(bootstrap, 1);
    Setup::new(kafka, None)
        .set("kafka.brokers", &brokers)
        .set("sender.timeout_ms", &patience())
        .set("kafka.topics.replication", "3")
        .toml(&client(properties))
}

/// What `check` finds about brokers: level, finding and remedy.
fn check(setup: &Setup) -> Vec<[String; 3]> {
    let output = setup.command(&["check", "--quiet", "--json"]).output().unwrap();
    let report: Json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let findings = report["findings"].as_array().unwrap().iter().filter(|finding| finding["about"] == "brokers");
    let text = |finding: &Json, member: &str| finding[member].as_str().unwrap_or_default().to_owned();
    findings.map(|finding| ["level", "what", "remedy"].map(|member| text(finding, member))).collect()
}

/// One error names this broker, and has these words in its finding and its remedy.
#[track_caller]
fn assert_named(findings: &[[String; 3]], address: &str, reason: &str, remedy: &str) {
    let found: Vec<_> = findings.iter().filter(|[level, what, _]| level == "error" && what.contains(address)).collect();
    assert_eq!(found.len(), 1, "{address}: {findings:#?}");
    assert!(found[0][1].contains(reason) && found[0][2].contains(remedy), "{address}: {findings:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_names_each_broker_that_lets_nobody_in_with_reason_and_remedy() {
    let guard = cluster().await;
    let kafka = guard.as_ref().unwrap();
    let security = kafka.security();
    let (tls, plain) = (security.sasl_ssl_bootstrap(), security.sasl_plaintext_bootstrap());
    let over_tls = setup(kafka, &tls, &security.sasl_ssl("PLAIN"));
    let without = setup(kafka, &plain, &security.sasl_plaintext("PLAIN"));
    let mut first = security.sasl_plaintext("PLAIN");
    first.retain(|(name, _)| *name != "sasl.username");
    first.push(("sasl.username", security.user_of_first.to_owned()));
    let first = setup(kafka, &plain, &first);
    let all_reached = |findings: &[[String; 3]]| {
        findings.iter().any(|[level, what, _]| level == "ok" && what.contains("3 in the cluster, all reached"))
    };
    for setup in [&over_tls, &without] {
        let findings = check(setup);
        assert!(all_reached(&findings), "{findings:#?}");
    }
    kafka.show_certificate(2, &security.authority().server(&["elsewhere.example"], [[127, 0, 0, 9]]));
    kafka.show_certificate(3, &Authority::new("Another CA").server(&["localhost"], [[127, 0, 0, 1]]));
    let findings = check(&over_tls);
    assert_named(&findings, &Security::address(&tls, 2), "certificate", "does not name 127.0.0.1");
    assert_named(&findings, &Security::address(&tls, 3), "certificate", "ssl.ca.location");
    assert!(!all_reached(&findings) && findings.len() == 2, "{findings:#?}");
    let findings = check(&first);
    for broker in [2, 3] {
        assert_named(&findings, &Security::address(&plain, broker), "uthentication", "sasl.password");
    }
    assert!(!all_reached(&findings) && findings.len() == 2, "{findings:#?}");
    // A broker of kafka.brokers that lets nobody in is no help when the others are away.
    let both = [1, 3].map(|broker| Security::address(&tls, broker)).join(",");
    let findings = check(&over_tls.set("kafka.brokers", &both));
    assert_named(&findings, &Security::address(&tls, 3), "certificate", "ssl.ca.location");
    [2, 3].iter().for_each(|broker| kafka.show_certificate(*broker, &good(kafka)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_is_ready_once_a_leader_of_each_topic_has_let_it_in_and_stays_so() {
    let guard = cluster().await;
    let kafka = guard.as_ref().unwrap();
    let security = kafka.security();
    let bootstrap = security.sasl_ssl_bootstrap();
    let setup = setup(kafka, &bootstrap, &security.sasl_ssl("PLAIN"));
    for feed in FEEDS {
        kafka.create_topic_on(&setup.topic(feed), if feed == "queue" { 2 } else { 1 });
    }
    let queue = setup.topic("queue");
    kafka.show_certificate(2, &security.authority().server(&["elsewhere.example"], [[127, 0, 0, 9]]));
    let mut starting = Starting::new(setup);
    let why = starting.waits_for("topics: ");
    for words in [&queue, &Security::address(&bootstrap, 2), "certificate"] {
        assert!(why.contains(words), "{words}: {why}");
    }
    assert!(!starting.accepts_connections());
    kafka.show_certificate(2, &good(kafka));
    let bridge = starting.ready();
    let answer = bridge.sender(Http::Two).post("/", &[], journey("1")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    kafka.broker(2).stop();
    assert_eq!(bridge.get("/readyz").0, 200, "an outage of Kafka is no reason to send events elsewhere");
    kafka.restore();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_ca_is_in_use_once_the_last_leader_is_known_by_it_and_no_event_waits_for_that() {
    let guard = cluster().await;
    let kafka = guard.as_ref().unwrap();
    let security = kafka.security();
    let bootstrap = security.sasl_ssl_bootstrap();
    let by_folder = || {
        let mut properties = security.sasl_ssl("PLAIN");
        properties.retain(|(name, _)| *name != "ssl.ca.location");
        properties.push(("ssl.ca.location", "authorities".to_owned()));
        let setup = setup(kafka, &bootstrap, &properties);
        fs::create_dir(setup.dir.join("authorities")).unwrap();
        setup
    };
    let setup = by_folder();
    let authorities = setup.dir.join("authorities");
    security.authority().write(&authorities, "ca");
    let bridge = setup.start();
    let load = Load::start(&bridge, 4, true);
    wait_for_more(&load);
    // The brokers are given certificates of another CA one after the other.
    let next = Authority::new("The next Kafka CA");
    let renew = |broker| kafka.show_certificate(broker, &next.server(&["localhost"], [[127, 0, 0, 1]]));
    [1, 2].into_iter().for_each(renew);
    next.write(&authorities, "ca");
    wait_until("the new CA is not enough", || renewals(&bridge, "refused") > 1.0);
    wait_for_more(&load);
    assert_eq!(renewals(&bridge, "ok"), 0.0, "broker 3 is known by the old CA alone");
    assert!(bridge.child.stderr().contains(&Security::address(&bootstrap, 3)), "{}", bridge.child.tail());
    // Both CAs in a folder are enough for all.
    let both = by_folder();
    next.write(&both.dir.join("authorities"), "ca");
    security.authority().write(&both.dir.join("authorities"), "ca-2018-07-06T17-54-49Z");
    let findings = check(&both);
    assert!(findings.iter().any(|[_, what, _]| what.contains("3 in the cluster, all reached")), "{findings:#?}");
    renew(3);
    wait_until("the new CA is in use", || renewals(&bridge, "ok") == 1.0);
    wait_for_more(&load);
    // A file that comes into the folder is a change.
    security.authority().write(&authorities, "ca-2018-07-06T17-54-49Z");
    wait_until("both are in use", || renewals(&bridge, "ok") == 2.0);
    wait_for_more(&load);
    let posted = load.stop().await;
    assert_all_there(kafka, &bridge, &posted);
    assert_eq!((posted.errors, posted.others), (0, BTreeMap::new()));
    (1..=3).for_each(|broker| kafka.show_certificate(broker, &good(kafka)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_events_after_a_quiet_time_are_committed_though_a_firewall_has_forgotten_all_quiet_connections() {
    let guard = cluster().await;
    let kafka = guard.as_ref().unwrap();
    let setup = Setup::new(kafka, None)
        .set("kafka.brokers", &kafka.proxied_bootstrap())
        .set("kafka.topics.replication", "3")
        .set("sender.timeout_ms", &patience());
    let forgets_after = Duration::from_secs(30);
    kafka.proxies().iter().for_each(|proxy| proxy.change(|wire| wire.forgets_after = Some(forgets_after)));
    let bridge = setup.start();
    let sender = Arc::new(bridge.sender(Http::Two));
    let post_some = async |time: &str| {
        let mut posts = JoinSet::new();
        for number in 0..24 {
            let (sender, event) = (Arc::clone(&sender), journey(&format!("{time}-{number}")));
            posts.spawn(async move { sender.post("/", &[], event).await.unwrap().status });
        }
        posts.join_all().await
    };
    assert_eq!(post_some("before").await, [200; 24]);
    tokio::time::sleep(forgets_after + Duration::from_secs(3)).await;
    assert_eq!(post_some("after").await, [200; 24]);
    kafka.proxies().iter().for_each(|proxy| proxy.change(|wire| wire.forgets_after = None));
}
