//! What alerts are made of: the metrics that say how near the promise is to being broken.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use causeway::{
    config,
    kafka::{Connection, durability},
    metrics::Metrics,
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    outage::{kafka, post, wait_held},
    sending::{BOTH, assert_refused, event, journey, noise},
    support::{
        self,
        bridge::{Bridge, Setup},
        client::Http,
        wait_until,
    },
};

fn refused(bridge: &Bridge, feed: &str, code: &str) -> f64 {
    bridge.metric("causeway_refused_total", &[&format!("feed=\"{feed}\""), &format!("code=\"{code}\"")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_503_is_counted_by_its_events_feed() {
    let kafka = kafka();
    let setup = Setup::new(&kafka, None).set("sender.timeout_ms", "3000").set("ingress.in_flight_max", "1");
    let setup = setup.set("ingress.body_bytes_max", "1024");
    let bridge = setup.start();
    assert_eq!(refused(&bridge, "activity", "stopping"), 0.0, "there from the start");
    kafka.brokers()[0].pause();
    let mut posts = JoinSet::new();
    for body in [journey("held"), event("com.asapp.event.queue", "held", ""), "no event".to_owned()] {
        post(&mut posts, bridge.sender(Http::One), body);
    }
    wait_held(&bridge, 3.0);
    let more = bridge.sender(Http::One).post("/", &[], journey("too many")).await.unwrap();
    assert_refused(&more, 503, "overload");
    // For their stubs there is no room either: they are answered as ever, and the log has its ceiling.
    let sender = bridge.sender(Http::Two);
    for _ in 0..60 {
        assert_refused(&sender.post("/", &[], "x".repeat(2000)).await.unwrap(), 413, "body_too_large");
    }
    let told = bridge.child.stderr().matches("no stub was kept").count();
    assert!((1..=30).contains(&told), "{told} of 60");
    for (answer, _) in posts.join_all().await {
        assert_refused(&answer, 503, "no_commit_in_time");
    }
    for (feed, code) in [
        ("journey", "overload"),
        ("journey", "no_commit_in_time"),
        ("queue", "no_commit_in_time"),
        ("dead-letter", "no_commit_in_time"),
    ] {
        assert_eq!(refused(&bridge, feed, code), 1.0, "{feed} {code}");
    }
    assert_eq!(bridge.metric("causeway_refused_total", &[]), 4.0);
    kafka.brokers()[0].resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_503_for_want_of_room_is_counted_whether_the_feed_was_read_or_not() {
    let kafka = kafka();
    let queue_bytes_max = 4 * (1024 + 16384);
    let setup = Setup::new(&kafka, None).set("sender.timeout_ms", "30000").set("ingress.body_bytes_max", "1024");
    let bridge = setup.set("ingress.queue_bytes_max", &queue_bytes_max.to_string()).start();
    kafka.brokers()[0].pause();
    let mut posts = JoinSet::new();
    let filling = noise(800);
    for number in 0..60 {
        let name = ["journey", "queue", "activity"][number % 3];
        let body = event(&format!("com.asapp.event.{name}"), &format!("{number}"), &filling);
        post(&mut posts, bridge.sender(BOTH[number % 2]), body);
    }
    let overloads = || bridge.metric("causeway_answers_total", &["503", "overload"]);
    wait_until("each is held or refused", || bridge.metric("causeway_in_flight_requests", &[]) + overloads() == 60.0);
    assert!(overloads() >= 1.0);
    assert_eq!(bridge.metric("causeway_refused_total", &["overload"]), overloads());
    kafka.brokers()[0].resume();
    posts.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limits_are_told() {
    let setup = Setup::new(support::kafka(), None).set("sender.timeout_ms", "3000").set("sender.retries", "2");
    let bridge = setup
        .set("ingress.in_flight_max", "7")
        .set("ingress.queue_bytes_max", "5000000")
        .set("ingress.connections_max", "77")
        .start();
    for (name, value) in [
        ("causeway_sender_timeout_seconds", 3.0),
        ("causeway_answer_by_seconds", 2.7),
        ("causeway_sender_attempts_max", 3.0),
        ("causeway_in_flight_requests_max", 7.0),
        ("causeway_queue_bytes_max", 5_000_000.0),
        ("causeway_connections_max", 77.0),
    ] {
        assert_eq!(bridge.metric(name, &[]), value, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_cannot_be_used_are_told_until_they_can() {
    let bridge = Setup::new(support::kafka(), None).start();
    let refused = || bridge.metric("causeway_reload_refused", &["files=\"tls\""]);
    assert_eq!(refused(), 0.0);
    let file = bridge.setup.dir.join("server.crt");
    let good = fs::read(&file).unwrap();
    fs::write(&file, "no certificate").unwrap();
    wait_until("the change is refused", || refused() == 1.0);
    fs::write(&file, good).unwrap();
    wait_until("the files are right again", || refused() == 0.0);
}

fn faults(text: &str) -> Vec<(String, String, String)> {
    let mut found: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix("causeway_topic_fault{fault=\"")?;
            let (fault, rest) = rest.split_once("\",topic=\"")?;
            let (topic, value) = rest.split_once("\"} ")?;
            let feed = topic.rsplit('.').next().unwrap();
            Some((feed.to_owned(), fault.to_owned(), value.to_owned()))
        })
        .collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_bridge_says_what_its_topics_do_not_keep() {
    let kafka = support::kafka();
    let setup = Setup::new(kafka, None);
    kafka.create_topic(&setup.topic("queue"), 1, &[("cleanup.policy", "compact")]);
    let bridge = setup.start();
    let seen = || faults(&bridge.get("/metrics").1);
    // One of each of seven for each of five topics.
    wait_until("the topics were looked at", || seen().len() == 35);
    let broken: Vec<_> = seen().into_iter().filter(|(.., value)| value != "0").collect();
    let with = |feed: &str, fault: &str| (feed.to_owned(), fault.to_owned(), "1".to_owned());
    let mut expected: Vec<_> =
        ["activity", "journey", "queue", "other", "dead-letter"].map(|feed| with(feed, "replication")).into();
    expected.push(with("queue", "cleanup.policy"));
    expected.sort();
    assert_eq!(broken, expected, "this cluster has a single broker");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_topics_are_looked_at_again_and_again() {
    let kafka = support::kafka();
    let setup = Setup::new(kafka, None);
    let topics: Vec<_> = ["one", "two"].map(|topic| setup.topic(topic)).into();
    kafka.create_topic(&topics[0], 1, &[("unclean.leader.election.enable", "false")]);
    let toml = json!({"brokers": [kafka.bootstrap()]});
    let config = config::from_toml(&format!(
        "[ingress.tls]\ncertificate='a'\nprivate_key='a'\nclient_ca='a'\nclient_names=['*']\n[kafka]\nbrokers={}\n",
        toml["brokers"]
    ));
    let metrics = Arc::new(Metrics::new().unwrap());
    let connection = Connection::new(&config.unwrap());
    let watching = durability::watch(&connection, topics.clone(), &metrics, Duration::from_millis(50));
    let is = |topic: &str, fault: &str, value: &str| {
        let all = faults(&String::from_utf8(metrics.text()).unwrap());
        let found = all.iter().find(|(feed, known, _)| feed == topic && known == fault);
        found.map_or("unknown", |(.., value)| value) == value
    };
    let unclean = "unclean.leader.election.enable";
    wait_until("one is well", || is("one", unclean, "0") && is("one", "missing", "0"));
    wait_until("two is missing", || is("two", "missing", "1") && is("two", unclean, "unknown"));
    kafka.alter_topic_config(&topics[0], &[(unclean, "true")]);
    kafka.create_topic(&topics[1], 1, &[]);
    wait_until("the change is seen", || is("one", unclean, "1") && is("two", "missing", "0"));
    kafka.delete_topic(&topics[0]);
    wait_until("one is gone", || is("one", "missing", "1") && is("one", unclean, "unknown"));
    watching.end(Instant::now() + Duration::from_secs(60));
    assert_eq!(Arc::strong_count(&metrics), 1, "the thread has ended");
}
