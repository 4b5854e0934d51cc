//! Every alert, fired by the fault that it is for, and every query of the dashboard and the runbooks, on a real
//! Prometheus, a real bridge and a real cluster. The test needs Debian's `prometheus`: `cargo test --test monitoring`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails here has failed"
)]

mod prometheus;
mod queries;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use harness as support;
use serde_json::{Value as Json, json};
use time::OffsetDateTime;
use tokio::io::AsyncWriteExt;

use self::{
    prometheus::Prometheus,
    support::{
        bridge::{Bridge, SENDER, Setup},
        certs::{ClientOptions, Identity},
        client::{Http, Sender},
        kafka::{Kafka, KafkaOptions},
        process::{Child, Signal},
        scratch, wait_until,
    },
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder for the measured values, of which the dashboard's picture is made.
fn results() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("monitoring");
    fs::create_dir_all(&dir).unwrap();
    dir
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_alert_fires_by_its_fault_and_every_query_returns_data() {
    // The proxies have a runtime of their own, so this one's thread is given up while they start.
    let kafka = tokio::task::block_in_place(|| {
        Kafka::start(KafkaOptions { brokers: 3, proxied: true, ..KafkaOptions::default() })
    });
    let (setup, identity) = setup(&kafka);
    let bridge = setup.start();
    // A cluster that has just started is slow for a while.
    let warm = Child::spawn("warm", &load(&bridge, 1, 8, 100), &bridge.setup.dir);
    wait_until("the cluster is warm", || bridge.metric("causeway_committed_total", &[]) > 3000.0);
    drop(warm);
    let prometheus = Prometheus::start(&rules(), bridge.admin);
    let load = Child::spawn("send", &load(&bridge, 2, 8, 100), &bridge.setup.dir);

    // Three alerts fire all the time, as the sender's certificate ends in two days and a newer CRL is due in an hour.
    let standing = ["CausewayCertificateExpiring", "CausewayCertificateExpiringNow", "CausewayCrlExpiring"];
    prometheus.wait_for(&standing);
    wait_until("events are committed", || bridge.metric("causeway_committed_total", &[]) > 6000.0);
    assert_eq!(prometheus.fired(), standing.map(str::to_owned).into(), "while all is well: {}", prometheus.firing());

    bad_events(&bridge, &identity, &prometheus).await;
    strangers(&bridge, &prometheus).await;
    broken_files(&bridge, &prometheus);
    wrong_answers(&kafka, &prometheus);
    no_broker(&kafka, &bridge, &prometheus);
    let bridge = ended_and_started_again(&kafka, bridge, &prometheus);
    drop(load);
    prometheus.wait_for(&["CausewayFeedSilent"]);
    not_ready(&kafka, bridge, &prometheus);

    let (all, fired) = (prometheus.alerts(), prometheus.fired());
    assert_eq!(fired, all, "each was waited for");
    queries::run(&prometheus);
}

/// Settings with limits that a few events a second come near to, and with short times.
fn setup(kafka: &Kafka) -> (Setup, Identity) {
    let mut setup = Setup::new(kafka, None).set("kafka.brokers", &kafka.proxied_bootstrap());
    for (key, value) in [
        ("sender.timeout_ms", "5000"),
        ("sender.retries", "1"),
        ("sender.retry_pause_ms_max", "0"),
        ("ingress.body_bytes_max", "8192"),
        ("ingress.queue_bytes_max", "160000"),
        ("ingress.in_flight_max", "10"),
        ("ingress.connections_max", "64"),
        ("ingress.head_ms_max", "1000"),
        ("ingress.tls.crl", "crl.pem"),
        ("ingress.listen", &format!("127.0.0.1:{}", scratch::port())),
        ("admin.listen", &format!("127.0.0.1:{}", scratch::port())),
    ] {
        setup = setup.set(key, value);
    }
    let now = OffsetDateTime::now_utc();
    let (hour, days) = (time::Duration::hours(1), time::Duration::days(2));
    fs::write(setup.dir.join("crl.pem"), setup.authority.crl_until(&[], now - hour, now + hour)).unwrap();
    let identity = setup.identity(ClientOptions { not_after: now + days, ..ClientOptions::dns(SENDER) });
    identity.write(&setup.dir, "sender");
    (setup, identity)
}

/// `causeway send` for an hour, or until it is stopped.
fn load(bridge: &Bridge, seed: u32, connections: u32, rate: u32) -> Command {
    let url = format!("https://localhost:{}/", bridge.ingress.port());
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
    command.args(["send", "--generate", "--seconds", "3600", "--url", &url]).current_dir(&bridge.setup.dir);
    command.args(["--seed", &seed.to_string(), "--connections", &connections.to_string(), "--rate", &rate.to_string()]);
    command.args(["--ca", "ca.crt", "--cert", "sender.crt", "--key", "sender.key"]);
    command.args(["--timeout-ms", "5000", "--retries", "1", "--retry-pause-ms", "200"]);
    command
}

/// The rules with their times divided by 120, but not so short that a scrape each second leaves them without data, and
/// not above a minute.
fn rules() -> String {
    let text = fs::read_to_string(root().join("deploy/chart/causeway/files/alerts.yaml")).unwrap();
    let seconds = |unit: Option<char>| match unit? {
        's' => Some(1.0),
        'm' => Some(60.0),
        'h' => Some(3600.0),
        'd' => Some(86_400.0),
        'w' => Some(604_800.0),
        _ => None,
    };
    let shortened = |text: String, before: &str, least: f64| {
        let mut parts = text.split(before);
        let mut short = parts.next().unwrap().to_owned();
        for part in parts {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap();
            // Words may stand there, too; these stay.
            let number = part[..digits].parse::<f64>().ok().zip(seconds(part[digits..].chars().next()));
            short += &match number {
                Some((number, unit)) => {
                    let millis = (number * unit / 120.0).clamp(least, 60.0) * 1000.0;
                    format!("{before}{millis:.0}ms{}", &part[digits + 1..])
                }
                None => format!("{before}{part}"),
            };
        }
        short
    };
    let text = shortened(text, " for: ", 1.0);
    let text = shortened(text, " offset ", 5.0);
    shortened(text, "[", 5.0)
}

fn event(name: &str, event_id: &str, members: Json) -> String {
    let mut event = json!({"api_version": "v1.3.0", "name": name, "event_id": event_id, "event_type": "T"});
    event.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    event.to_string()
}

async fn bad_events(bridge: &Bridge, identity: &Identity, prometheus: &Prometheus) {
    let sender = bridge.sender_as(identity, Http::One);
    for (body, status) in [
        (event("com.asapp.event.journey", "drift", json!({"newer": {"member": 1}})), 200),
        (event("com.asapp.event.queue", "major", json!({"api_version": "v2.0.0"})), 200),
        (event("com.asapp.event.else", "else", json!({})), 200),
        ("no event".to_owned(), 200),
        ("x".repeat(10_000), 413),
    ] {
        assert_eq!(sender.post("/", &[], body.clone()).await.unwrap().status, status, "{body}");
    }
    // The sender stops in the middle of a head: the bridge closes such a connection.
    let mut slow = sender.connect().await.unwrap();
    slow.write_all(b"POST / HTTP/1.1\r\n").await.unwrap();
    slow.flush().await.unwrap();
    wait_until("it is closed", || bridge.metric("causeway_connections_closed_total", &["slow_head"]) == 1.0);
    prometheus.wait_for(&[
        "CausewayUnknownMembers",
        "CausewayNewMajorVersion",
        "CausewayDeadLetters",
        "CausewayBodyTooLarge",
    ]);
}

async fn strangers(bridge: &Bridge, prometheus: &Prometheus) {
    let expired = bridge.setup.identity(ClientOptions::dns(SENDER).expired());
    let post = |sender: Sender| async move { sender.post("/", &[], "{}").await };
    assert!(post(bridge.sender_as(&expired, Http::One)).await.is_err());
    prometheus.wait_for(&["CausewaySenderRefused"]);
    let stranger = bridge.setup.identity(ClientOptions::dns("stranger.example"));
    assert_eq!(post(bridge.sender_as(&stranger, Http::One)).await.unwrap().status, 403);
}

fn broken_files(bridge: &Bridge, prometheus: &Prometheus) {
    let file = bridge.setup.dir.join("server.crt");
    let good = fs::read(&file).unwrap();
    fs::write(&file, "no certificate").unwrap();
    prometheus.wait_for(&["CausewayReloadRefused"]);
    fs::write(&file, good).unwrap();
    wait_until("the files are right again", || bridge.metric("causeway_reload_refused", &["tls"]) == 0.0);
}

/// Gives the answers of a broker that has lost count of a producer's records.
fn wrong_answers(kafka: &Kafka, prometheus: &Prometheus) {
    const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
    kafka.proxies().iter().for_each(|wire| wire.answer_wrongly(1, OUT_OF_ORDER_SEQUENCE_NUMBER));
    prometheus.wait_for(&["CausewayProducerReplaced"]);
}

fn no_broker(kafka: &Kafka, bridge: &Bridge, prometheus: &Prometheus) {
    kafka.brokers().iter().for_each(support::kafka::Broker::kill);
    let more = Child::spawn("more", &load(bridge, 3, 54, 150), &bridge.setup.dir);
    prometheus.wait_for(&[
        "CausewayProducerWithoutBroker",
        "CausewayHeldLong",
        "CausewayInFlightNearLimit",
        "CausewayQueueNearLimit",
        "CausewayConnectionsNearLimit",
        "CausewayErrorBudgetBurnsFast",
        "CausewayErrorBudgetBurnsSlowly",
        "CausewayDropsProbable",
    ]);
    drop(more);
    kafka.brokers().iter().for_each(support::kafka::Broker::start);
    kafka.wait_ready();
    let committed = bridge.metric("causeway_committed_total", &[]);
    wait_until("it goes on", || bridge.metric("causeway_committed_total", &[]) > committed + 1000.0);
}

/// Kills the bridge and starts it again when its topics are less safe than before.
fn ended_and_started_again(kafka: &Kafka, bridge: Bridge, prometheus: &Prometheus) -> Bridge {
    let topic = bridge.topic("queue");
    kafka.alter_topic_config(&topic, &[("min.insync.replicas", "1")]);
    kafka.brokers()[2].kill();
    wait_until("a replica is out of sync", || kafka.in_sync(&topic) == Some(2));
    let Bridge { setup, child, .. } = bridge;
    drop(child);
    prometheus.wait_for(&["CausewayDown", "CausewayNoneReady"]);
    let bridge = setup.start();
    prometheus.wait_for(&["CausewayRestarted", "CausewayTopicNotDurable", "CausewayTopicUnderReplicated"]);
    let committed = || bridge.metric("causeway_committed_total", &[]);
    wait_until("there are events of each feed to be missed", || committed() > 3000.0);
    bridge
}

fn not_ready(kafka: &Kafka, mut bridge: Bridge, prometheus: &Prometheus) {
    assert!(bridge.stop().success());
    kafka.delete_topic(&bridge.topic("other"));
    let setup = bridge.setup.set("kafka.create_topics", "false");
    let child = Child::spawn("causeway", &setup.command(&["serve"]), &setup.dir);
    prometheus.wait_for(&["CausewayNotReady"]);
    child.signal(Signal::Terminate);
}
