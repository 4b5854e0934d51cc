//! Kafka behind TLS and SASL, what `[kafka.client]` may not say, and what no output may ever show.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output},
    sync::OnceLock,
    time::Duration,
};

use serde_json::json;

use crate::{
    sending::{Load, assert_all_there, copies},
    support::{
        self,
        bridge::{Bridge, Setup},
        certs::ClientOptions,
        client::Http,
        kafka::{Kafka, KafkaOptions},
        process::Child,
        starting::Starting,
        stopwatch, wait_until,
    },
};

/// Stands where no output may show it.
const CANARY: &str = "canary-5f1c9a";

/// The broker that asks who its clients are.
pub fn secured() -> &'static Kafka {
    static KAFKA: OnceLock<Kafka> = OnceLock::new();
    KAFKA.get_or_init(|| Kafka::start(KafkaOptions { secured: true, ..KafkaOptions::default() }))
}

pub fn client(properties: &[(&str, String)]) -> String {
    let lines = properties.iter().map(|(name, value)| format!("\"{name}\" = {}\n", json!(value)));
    format!("[kafka.client]\n{}", lines.collect::<String>())
}

fn assert_nowhere(secret: &str, child: &Child) {
    for (stream, text) in [("standard output", child.stdout()), ("standard error", child.stderr())] {
        assert!(!text.contains(secret), "{secret:?} in {stream}:\n{text}");
    }
}

fn event(event_id: &str) -> String {
    json!({"api_version": "v1.3.0", "name": "com.asapp.event.journey", "event_id": event_id, "event_type": "T"})
        .to_string()
}

/// Starts a bridge with these properties, has an event committed, and reads it back on the plain listener.
async fn commits_through(brokers: &str, toml: &str, files: &[(&str, &str)]) {
    let setup = Setup::new(secured(), None).set("kafka.brokers", brokers).set("log", "debug").toml(toml);
    for (name, text) in files {
        fs::write(setup.dir.join(name), text).unwrap();
    }
    let mut bridge = setup.start();
    let answer = bridge.sender(Http::Two).post("/", &[], event("1")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let records = secured().read(&bridge.topic("journey"));
    assert_eq!(records.iter().map(|record| record.header("ce_id")).collect::<Vec<_>>(), [Some("1")]);
    // `tail` comes to the broker by the same properties.
    let arguments = ["tail", "--beginning", "--no-follow", "--log", "debug"];
    let tail = output(bridge.setup.command(&arguments));
    assert_eq!(tail.0, Some(0), "{}", tail.1);
    assert!(tail.1.contains("com.asapp.event.journey"), "{}", tail.1);
    assert!(!tail.1.contains(secured().security().password), "{}", tail.1);
    assert!(bridge.stop().success());
    assert_nowhere(secured().security().password, &bridge.child);
}

pub fn wait_for_more(load: &Load) {
    let before = load.acked();
    wait_until("events are committed", || load.acked() >= before + 50);
}

pub fn renewals(bridge: &Bridge, result: &str) -> f64 {
    bridge.metric("causeway_kafka_renewals_total", &[&format!("result=\"{result}\"")])
}

/// Exit code, and both outputs as one text.
fn output(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code(), text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_committed_over_tls_as_a_user_with_scram_sha_512() {
    let security = secured().security();
    commits_through(&security.sasl_ssl_bootstrap(), &client(&security.sasl_ssl("SCRAM-SHA-512")), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_committed_as_a_user_whose_password_stands_in_a_file() {
    let security = secured().security();
    let mut properties = security.sasl_ssl("PLAIN");
    properties.retain(|(name, _)| *name != "sasl.password");
    properties.push(("sasl.password_file", "password".to_owned()));
    let password = format!("{}\n", security.password);
    commits_through(&security.sasl_ssl_bootstrap(), &client(&properties), &[("password", &password)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_put_right_before_the_bridge_is_ready_is_used() {
    let security = secured().security();
    let mut properties = security.sasl_ssl("PLAIN");
    properties.retain(|(name, _)| *name != "sasl.password");
    properties.push(("sasl.password_file", "password".to_owned()));
    let setup =
        Setup::new(secured(), None).set("kafka.brokers", &security.sasl_ssl_bootstrap()).toml(&client(&properties));
    let file = setup.dir.join("password");
    fs::write(&file, "wrong").unwrap();
    let mut starting = Starting::new(setup);
    starting.waits_for("topics");
    fs::write(&file, security.password).unwrap();
    let bridge = starting.ready();
    let answer = bridge.sender(Http::Two).post("/", &[], event("1")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_that_changes_on_disk_is_taken_up_without_a_503() {
    let security = secured().security();
    let setup = Setup::new(secured(), None).set("kafka.brokers", &security.ssl_bootstrap());
    let renew = |dir: &Path| security.authority().client(ClientOptions::cn("causeway")).write(dir, "kafka");
    let files = renew(&setup.dir);
    let mut properties = security.ssl();
    for (name, value) in &mut properties {
        match *name {
            "ssl.certificate.location" => *value = files.certificate.display().to_string(),
            "ssl.key.location" => *value = files.private_key.display().to_string(),
            _ => {}
        }
    }
    let mut bridge = setup.toml(&client(&properties)).start();
    let load = Load::start(&bridge, 4, true);
    wait_for_more(&load);
    // A key without its certificate lets nobody in.
    let other = security.authority().client(ClientOptions::cn("causeway"));
    fs::write(&files.private_key, &other.private_key).unwrap();
    wait_until("a key that is not the certificate's is refused", || renewals(&bridge, "refused") > 0.0);
    wait_for_more(&load);
    renew(&bridge.setup.dir);
    wait_until("the new certificate is in use", || renewals(&bridge, "ok") > 0.0);
    wait_for_more(&load);
    let posted = load.stop().await;
    assert_all_there(secured(), &bridge, &posted);
    assert_eq!(posted.others, BTreeMap::new());
    assert!(copies(secured(), &bridge, "journey").values().all(|copies| *copies == 1));
    assert!(bridge.stop().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_changes_in_kafka_and_then_on_disk_is_taken_up_without_a_503() {
    let set_password = |password: &str| {
        let config = format!("SCRAM-SHA-512=[password={password}]");
        let user = ["--alter", "--entity-type", "users", "--entity-name", "rotating", "--add-config", &config];
        secured().tool("kafka.admin.ConfigCommand", &user);
    };
    set_password("canary-first");
    let mut properties = secured().security().sasl_ssl("SCRAM-SHA-512");
    properties.retain(|(name, _)| !["sasl.password", "sasl.username"].contains(name));
    properties.push(("sasl.username", "rotating".to_owned()));
    properties.push(("sasl.password_file", "password".to_owned()));
    let brokers = secured().security().sasl_ssl_bootstrap();
    let setup =
        Setup::new(secured(), None).set("kafka.brokers", &brokers).set("log", "debug").toml(&client(&properties));
    let file = setup.dir.join("password");
    fs::write(&file, "canary-first").unwrap();
    let mut bridge = setup.start();
    let load = Load::start(&bridge, 4, true);
    wait_for_more(&load);
    fs::write(&file, "canary-wrong").unwrap();
    wait_until("the wrong password is refused", || renewals(&bridge, "refused") > 0.0);
    let not_in_use = || bridge.metric("causeway_reload_refused", &["files=\"kafka\""]);
    wait_until("and said not to be in use", || not_in_use() == 1.0);
    wait_for_more(&load);
    assert_eq!(renewals(&bridge, "ok"), 0.0);
    set_password("canary-second");
    fs::write(&file, "canary-second").unwrap();
    wait_until("the new password is in use", || renewals(&bridge, "ok") > 0.0);
    wait_until("and said to be", || not_in_use() == 0.0);
    wait_for_more(&load);
    let posted = load.stop().await;
    assert_all_there(secured(), &bridge, &posted);
    assert_eq!(posted.others, BTreeMap::new());
    assert!(copies(secured(), &bridge, "journey").values().all(|copies| *copies == 1));
    assert!(bridge.stop().success());
    assert_nowhere("canary-", &bridge.child);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_committed_over_tls_as_the_name_in_our_certificate() {
    let security = secured().security();
    commits_through(&security.ssl_bootstrap(), &client(&security.ssl()), &[]).await;
}

/// RFC 6066, section 3: TLS knows no name that ends in a dot, and neither does a certificate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_committed_over_tls_where_the_name_of_a_broker_ends_in_a_dot() {
    let security = secured().security();
    let brokers = security.ssl_bootstrap().replace("127.0.0.1", "localhost.");
    commits_through(&brokers, &client(&security.ssl()), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_committed_without_tls_as_a_user_with_scram_sha_256() {
    let security = secured().security();
    commits_through(&security.sasl_plaintext_bootstrap(), &client(&security.sasl_plaintext("SCRAM-SHA-256")), &[])
        .await;
}

#[test]
fn a_wrong_password_keeps_the_bridge_unready_and_says_why_without_the_password() {
    let security = secured().security();
    for mechanism in ["SCRAM-SHA-256", "PLAIN"] {
        let mut properties = security.sasl_ssl(mechanism);
        properties.retain(|(name, _)| *name != "sasl.password");
        properties.push(("sasl.password", CANARY.to_owned()));
        let setup = Setup::new(secured(), None)
            .set("kafka.brokers", &security.sasl_ssl_bootstrap())
            .set("sender.timeout_ms", "1500")
            .set("log", "debug")
            .toml(&client(&properties));
        let mut starting = Starting::new(setup);
        let why = starting.waits_for("topics: ");
        assert!(why.to_lowercase().contains("authentication"), "{mechanism}: {why}\n{}", starting.child.tail());
        let log = starting.child.stderr();
        assert!(log.contains("Authentication failed"), "{mechanism}: {log}");
        assert_nowhere(CANARY, &starting.child);
    }
}

#[test]
fn a_broker_that_our_ca_did_not_sign_keeps_the_bridge_unready_and_says_why() {
    let security = secured().security();
    let mut properties = security.sasl_ssl("PLAIN");
    properties.retain(|(name, _)| *name != "ssl.ca.location");
    // The CA of the senders is not the brokers'.
    properties.push(("ssl.ca.location", "ca.crt".to_owned()));
    let setup = Setup::new(secured(), None)
        .set("kafka.brokers", &security.sasl_ssl_bootstrap())
        .set("sender.timeout_ms", "1500")
        .toml(&client(&properties));
    let mut starting = Starting::new(setup);
    let why = starting.waits_for("topics: ");
    assert!(why.contains("certificate verify failed") || why.contains("SSL handshake failed"), "{why}");
    assert_nowhere(security.password, &starting.child);
}

#[test]
fn properties_that_would_break_the_promise_are_refused_at_start_each_with_its_reason() {
    let refused = [
        ("acks", "acks=all"),
        ("request.required.acks", "acks=all"),
        ("enable.idempotence", "idempotence"),
        ("max.in.flight", "idempotence"),
        ("max.in.flight.requests.per.connection", "idempotence"),
        ("retries", "idempotence"),
        ("message.send.max.retries", "idempotence"),
        ("enable.gapless.guarantee", "failed event"),
        ("queuing.strategy", "order"),
        ("partitioner", "murmur2_random"),
        ("transactional.id", "transaction"),
        ("message.timeout.ms", "sender.timeout_ms"),
        ("delivery.timeout.ms", "sender.timeout_ms"),
        ("request.timeout.ms", "sender.timeout_ms"),
        ("socket.timeout.ms", "sender.timeout_ms"),
        ("delivery.report.only.error", "report"),
        ("produce.offset.report", "report"),
        ("bootstrap.servers", "kafka.brokers"),
        ("metadata.broker.list", "kafka.brokers"),
        ("queue.buffering.max.messages", "ingress.queue_bytes_max"),
        ("queue.buffering.max.kbytes", "ingress.queue_bytes_max"),
        ("allow.auto.create.topics", "kafka.create_topics"),
        ("reconnect.backoff.max.ms", "outage"),
        ("retry.backoff.ms", "outage"),
        ("statistics.interval.ms", "metrics"),
        ("plugin.library.paths", "foreign code"),
        ("test.mock.num.brokers", "keeps nothing"),
        ("group.id", "consumer"),
    ];
    let mut properties: Vec<(&str, String)> = refused.iter().map(|(name, _)| (*name, "1".to_owned())).collect();
    properties.push(("sasl.password", CANARY.to_owned()));
    let setup = Setup::new(support::kafka(), None).toml(&client(&properties));
    let (code, text) = output(setup.command(&["serve"]));
    assert_eq!(code, Some(3), "{text}");
    for (name, reason) in refused {
        let said = text.lines().any(|line| line.contains(&format!("kafka.client.{name} ")) && line.contains(reason));
        assert!(said, "{name}: no {reason:?} in\n{text}");
    }
    assert!(!text.contains(CANARY), "{text}");
    // As a variable they are the same properties.
    let setup =
        Setup::new(support::kafka(), None).set("kafka.client.acks", "1").set("kafka.client.enable_idempotence", "0");
    let (code, text) = output(setup.command(&["serve"]));
    assert_eq!(code, Some(3), "{text}");
    assert!(
        text.contains("CAUSEWAY_KAFKA__CLIENT__ACKS") && text.contains("kafka.client.enable.idempotence"),
        "{text}"
    );
}

#[test]
fn no_mistake_in_a_configuration_shows_a_secret() {
    for (what, toml) in [
        ("an open string", format!("[kafka.client]\n\"sasl.password\" = \"{CANARY}\n")),
        ("given twice", format!("[kafka.client]\n\"sasl.password\" = \"a\"\n\"sasl.password\" = \"{CANARY}\"\n")),
        ("a bare word", format!("[kafka.client]\n\"sasl.password\" = {CANARY}\n")),
        ("a list", format!("[kafka.client]\n\"sasl.password\" = [\"{CANARY}\"]\n")),
        ("a table", format!("[kafka.client]\n\"sasl.password\" = {{ word = \"{CANARY}\" }}\n")),
        ("a misspelt name", format!("[kafka.client]\n\"sasl.pasword\" = \"{CANARY}\"\n")),
        ("no PEM", format!("[kafka.client]\n\"security.protocol\" = \"SSL\"\n\"ssl.key.pem\" = \"{CANARY}\"\n")),
        ("no value of it", format!("[kafka.client]\n\"sasl.oauthbearer.method\" = \"{CANARY}\"\n")),
        (
            "beside its file",
            format!("[kafka.client]\n\"sasl.password\" = \"{CANARY}\"\n\"sasl.password_file\" = \"ca.crt\"\n"),
        ),
        ("in the address", format!("[registry]\nurl = \"http://user:{CANARY}@127.0.0.1:1\"\n")),
        ("without a user", format!("[registry]\nurl = \"http://127.0.0.1:1\"\npassword = \"{CANARY}\"\n")),
        (
            "a list of the registry",
            format!("[registry]\nurl = \"http://127.0.0.1:1\"\nuser = \"u\"\npassword = [\"{CANARY}\"]\n"),
        ),
        ("a misspelt key", format!("[registry]\nurl = \"http://127.0.0.1:1\"\nuser = \"u\"\npasword = \"{CANARY}\"\n")),
        ("with a fault elsewhere", format!("[registry]\nurl = \"x\"\nuser = \"u\"\npassword = \"{CANARY}\"\n")),
    ] {
        let setup = Setup::new(support::kafka(), None).set("kafka.brokers", "127.0.0.1:1").toml(&toml);
        let (code, text) = output(setup.command(&["serve", "--log", "debug"]));
        assert!(!text.contains(CANARY), "{what}: {text}");
        assert_eq!(code, Some(3), "{what}: {text}");
    }
    let number = "48151623";
    let registry = format!("[registry]\nurl = \"http://127.0.0.1:1\"\nuser = \"u\"\npassword = {number}\n");
    let (code, text) = output(Setup::new(support::kafka(), None).toml(&registry).command(&["serve"]));
    assert!(code == Some(3) && !text.contains(number), "a number: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_payload_gets_into_the_log() {
    let timeout = stopwatch::lately(Duration::from_secs(2));
    // What is held to the end is cut off by it.
    let drain = timeout + Duration::from_millis(500);
    let mut bridge = Setup::new(support::kafka(), None)
        .set("log", "debug")
        .set("sender.timeout_ms", &timeout.as_millis().to_string())
        .set("ingress.drain_ms_max", &drain.as_millis().to_string())
        .set("ingress.body_bytes_max", "4096")
        .start();
    support::kafka().delete_topic(&bridge.topic("queue"));
    let identity = format!("\"api_version\":\"v9.{CANARY}\",\"event_id\":\"1\",\"event_type\":\"T\"");
    let named = |feed: &str| format!("{identity},\"name\":\"com.asapp.event.{feed}\"");
    let everywhere =
        format!("\"{CANARY}\":{{\"{CANARY}\":[\"{CANARY}\"]}},\"meta_data\":{{\"issue_id\":\"{CANARY}\"}}");
    let bodies = [
        ("committed, with unknown members", 200, format!("{{{},{everywhere}}}", named("journey"))),
        (
            "not committed in time",
            503,
            format!("{{{},{everywhere},\"data\":{{\"queue_id\":\"{CANARY}\"}}}}", named("queue")),
        ),
        ("too large", 413, format!("{{{},{everywhere},\"x\":\"{}\"}}", named("journey"), CANARY.repeat(400))),
        ("no JSON", 200, CANARY.to_owned()),
        ("broken JSON", 200, format!("{{\"a\":\"{CANARY}\\q\"}}")),
        ("no object", 200, format!("[\"{CANARY}\"]")),
        ("a duplicate member", 200, format!("{{{},\"{CANARY}\":1,\"{CANARY}\":2}}", named("journey"))),
        ("no event", 200, format!("{{\"event_id\":[\"{CANARY}\"]}}")),
        ("too deep", 200, format!("{}\"{CANARY}\"{}", "[".repeat(200), "]".repeat(200))),
        ("a number beyond", 200, format!("{{{},\"{CANARY}\":1e999}}", named("journey"))),
    ];
    for http in [Http::One, Http::Two] {
        let sender = bridge.sender(http);
        for (what, status, body) in &bodies {
            let answer = sender.post("/", &[], body.clone()).await.unwrap();
            assert_eq!(answer.status, *status, "{what}: {}", answer.body);
            assert!(!answer.body.to_string().contains(CANARY), "{what}: {}", answer.body);
        }
        let wrong_path = sender.post(&format!("/{CANARY}?{CANARY}"), &[("x-token", CANARY)], bodies[0].2.clone()).await;
        assert_eq!(wrong_path.unwrap().status, 404);
        let stranger = bridge.sender_as(&bridge.setup.identity(ClientOptions::cn("stranger")), http);
        assert_eq!(stranger.post("/", &[], bodies[0].2.clone()).await.unwrap().status, 403);
    }
    wait_until("the refusals are logged", || {
        ["no_commit_in_time", "body_too_large", "not_found", "certificate_not_allowed"]
            .iter()
            .all(|code| bridge.child.stderr().matches(&format!("\"code\":\"{code}\"")).count() == 2)
    });
    assert!(!bridge.get("/metrics").1.contains(CANARY));
    stop_with_records_left(&mut bridge);
    assert_nowhere(CANARY, &bridge.child);
}

/// The events of the topic that is gone are given up.
fn stop_with_records_left(bridge: &mut Bridge) {
    assert_eq!(bridge.stop().code(), Some(4), "{}", bridge.child.tail());
}
