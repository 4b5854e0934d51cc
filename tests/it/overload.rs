//! Ten times what the limits can hold, with retries: memory stays within what `check` says, and what was accepted arrives.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};
use tokio::task::JoinSet;

use crate::{
    outage::{kafka, wait_held},
    sending::{BOTH, Raw, assert_refused, copies, event, head, journey, noise},
    support::{
        self,
        bridge::{Bridge, Setup},
        client::{Http, Sender},
        stopwatch::Stopwatch,
        wait_until,
    },
};

const QUEUE_BYTES_MAX: usize = 8_000_000;

fn memory(bridge: &Bridge) -> f64 {
    bridge.metric("process_resident_memory_bytes", &[])
}

/// Posts an event until it is answered 200 or `retries` are over; tells whether it was, and the longest attempt.
async fn post(sender: &Sender, body: &str, retries: usize) -> (bool, Duration) {
    let mut longest = Duration::ZERO;
    for _ in 0..=retries {
        let asked = Instant::now();
        let answer = sender.post("/", &[], body.to_owned()).await.unwrap();
        longest = longest.max(asked.elapsed());
        match answer.status {
            200 => return (true, longest),
            503 if answer.body["code"] == json!("overload") => assert!(answer.headers.contains_key("retry-after")),
            status => assert_eq!((status, &answer.body["code"]), (503, &json!("no_commit_in_time"))),
        }
    }
    (false, longest)
}

/// Posts events of another feed, one at a time, at least 20 and as long as there is `more`: each is answered 200 at its first attempt.
/// Gives how long they took, the shortest first.
async fn posted_beside(bridge: &Bridge, label: &str, more: impl Fn() -> bool) -> Vec<Duration> {
    let sender = bridge.sender(BOTH[0]);
    let mut took = Vec::new();
    while took.len() < 20 || more() {
        let asked = Instant::now();
        let (acked, _) =
            post(&sender, &event("com.asapp.event.queue", &format!("{label}-{}", took.len()), ""), 0).await;
        assert!(acked, "event {} of a feed that is well, {label}: refused after {:?}", took.len(), asked.elapsed());
        took.push(asked.elapsed());
    }
    took.sort_unstable();
    took
}

/// No room is taken for them, so there must be none of theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_that_wait_with_their_first_attempt_keep_no_body() {
    const RETRIES: usize = 80;
    let kafka = kafka();
    let bridge = Setup::new(&kafka, None).set("sender.timeout_ms", "60000").start();
    kafka.brokers()[0].pause();
    let body = event("com.asapp.event.journey", "id", &noise(850_000));
    let before = memory(&bridge);
    let mut posts = JoinSet::new();
    // One by one: those that are being read do have one.
    for number in 0..=RETRIES {
        let (sender, body) = (bridge.sender(BOTH[0]), body.clone());
        posts.spawn(async move { sender.post("/", &[], body).await.unwrap().status });
        wait_held(&bridge, number as f64 + 1.0);
    }
    let grown = memory(&bridge) - before;
    kafka.brokers()[0].resume();
    assert!(posts.join_all().await.iter().all(|status| *status == 200));
    assert_eq!(copies(&kafka, &bridge, "journey")["id"], 1);
    assert!(grown < 0.4 * (RETRIES * body.len()) as f64, "{grown} bytes more than before");
}

/// Left unread, what still comes of a body would cost its sender the connection, and the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_unknown_length_that_finds_no_more_room_is_read_to_its_end_and_answered() {
    let setup = Setup::new(support::kafka(), None).set("sender.timeout_ms", "30000");
    let bridge = setup.set("ingress.body_bytes_max", "200000").set("ingress.queue_bytes_max", "866000").start();
    let sender = bridge.sender(Http::One);
    let mut awaited = Vec::new();
    for _ in 0..4 {
        let mut raw = Raw::open(&sender).await;
        raw.write(head("/", 190_000)).await;
        awaited.push(raw);
    }
    wait_until("the room is taken", || bridge.metric("causeway_queue_bytes", &[]) >= 760_000.0);
    let mut raw = Raw::open(&sender).await;
    raw.write("POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n").await;
    for _ in 0..190 {
        raw.write(format!("3e8\r\n{}\r\n", "x".repeat(1000))).await;
    }
    raw.write("0\r\n\r\n").await;
    let answer = raw.answer().await.unwrap();
    assert_refused(&answer, 503, "overload");
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    raw.post("/nowhere", "").await;
    assert_eq!(raw.answer().await.map(|answer| answer.status), Some(404));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_times_the_load_with_retries_stays_within_the_memory_that_check_tells() {
    let kafka = kafka();
    let setup = Setup::new(&kafka, None)
        .set("sender.timeout_ms", "2000")
        .set("sender.retries", "2")
        .set("sender.retry_pause_ms_max", "60000")
        .set("ingress.body_bytes_max", "65536")
        .set("ingress.queue_bytes_max", &QUEUE_BYTES_MAX.to_string())
        .set("ingress.in_flight_max", "512")
        .set("ingress.connections_max", "256")
        .set("dedupe.bytes_max", "1000000");
    let checked = setup.command(&["check", "--quiet", "--json"]).output().unwrap();
    let report: Json = serde_json::from_slice(&checked.stdout).unwrap();
    let memory_max = report["budget"]["memory_bytes_max"].as_f64().unwrap();
    let bridge = setup.start();
    let before = memory(&bridge);
    // One feed's topic is gone, and ten times what fits comes for it; the other feed's events come one by one.
    let alone = posted_beside(&bridge, "alone", || false).await;
    kafka.delete_topic(&bridge.topic("journey"));
    // Some 16 kB each, twice that in the queue.
    let filling = noise(16_000);
    let mut senders = JoinSet::new();
    for sender in 0..64 {
        let (client, filling) = (bridge.sender(BOTH[sender % 2]), filling.clone());
        senders.spawn(async move {
            let mut accepted = Vec::new();
            for number in 0..20 {
                let id = format!("{sender}-{number}");
                let (acked, _) = post(&client, &event("com.asapp.event.journey", &id, &filling), 2).await;
                accepted.extend(acked.then_some(id));
            }
            accepted
        });
    }
    let loaded = AtomicBool::new(true);
    let beside = posted_beside(&bridge, "beside", || loaded.load(Ordering::Relaxed));
    let mut peak = before;
    let mut acked = BTreeSet::new();
    let load = async {
        loop {
            match tokio::time::timeout(Duration::from_millis(100), senders.join_next()).await {
                Ok(Some(ids)) => acked.extend(ids.unwrap()),
                Ok(None) => break,
                Err(_) => peak = peak.max(memory(&bridge)),
            }
            assert!(bridge.metric("causeway_queue_bytes", &[]) <= QUEUE_BYTES_MAX as f64);
        }
        loaded.store(false, Ordering::Relaxed);
    };
    let ((), beside) = tokio::join!(load, beside);
    let middle = |times: &[Duration]| times[times.len() / 2];
    assert!(
        middle(&beside) < 10 * middle(&alone) + Duration::from_millis(50),
        "{:?} alone, {:?} beside a feed that is stuck",
        middle(&alone),
        middle(&beside)
    );
    assert!(bridge.metric("causeway_answers_total", &["code=\"overload\""]) > 1000.0);
    assert!(peak > before + QUEUE_BYTES_MAX as f64 / 2.0, "the queue was not filled: {before} -> {peak}");
    assert!(peak < memory_max, "{peak} bytes, and `check` says at most {memory_max}");
    kafka.create_topic(&bridge.topic("journey"), 3, &[]);
    wait_until("all is committed", || bridge.metric("causeway_queue_records", &[]) == 0.0);
    // Well again: nobody waits long.
    let sender = bridge.sender(BOTH[0]);
    let watch = Stopwatch::start();
    let (ok, took) = post(&sender, &event("com.asapp.event.journey", "after", ""), 0).await;
    assert!(ok, "refused after {took:?}");
    watch.assert_allows(took, Duration::from_secs(2));
    let copies = copies(&kafka, &bridge, "journey");
    assert!(acked.iter().all(|id| copies.contains_key(id)));
    assert!(copies.values().all(|copies| *copies == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_refused_as_none_is_idle_is_counted_and_warned_of() {
    let bridge = Setup::new(support::kafka(), None).set("ingress.connections_max", "1").start();
    let mut held = Raw::open(&bridge.sender(Http::One)).await;
    let body = journey("held");
    held.write(head("/", body.len())).await;
    wait_until("it has a request", || bridge.metric("causeway_requests_received_total", &[]) == 1.0);
    assert!(bridge.sender(Http::One).connect().await.is_err());
    assert_eq!(bridge.metric("causeway_connections_refused_total", &[]), 1.0);
    assert_eq!(bridge.metric("causeway_connections_evicted_total", &[]), 0.0);
    wait_until("it is warned of", || bridge.child.stderr().contains("ingress.connections_max (1) are open"));
    held.write(body).await;
    assert_eq!(held.answer().await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_keeps_little_of_the_large_bodies_that_came_on_it() {
    const CONNECTIONS: usize = 150;
    let bridge = Setup::new(support::kafka(), None).set("sender.timeout_ms", "30000").start();
    let sender = bridge.sender(Http::One);
    let body = event("com.asapp.event.journey", "large", &noise(900_000));
    let mut kept = Vec::new();
    let mut before = 0.0;
    for number in 0..2 * CONNECTIONS {
        // What the first half takes is the bodies', too.
        if number == CONNECTIONS {
            before = memory(&bridge);
        }
        let mut raw = Raw::open(&sender).await;
        raw.post("/", &body).await;
        assert_eq!(raw.answer().await.unwrap().status, 200);
        kept.push(raw);
    }
    let each = (memory(&bridge) - before) / CONNECTIONS as f64;
    // What TLS and HTTP read into, besides the 23 KiB of one that had small bodies only; in a build without optimization.
    assert!(each < 96.0 * 1024.0, "{each} bytes");
}

#[test]
fn the_threads_that_talk_to_kafka_wait_for_a_cpu_and_those_that_talk_to_senders_do_not() {
    const SCHED_OTHER: &str = "0";
    const SCHED_BATCH: &str = "3";
    let bridge = Setup::new(support::kafka(), None).start();
    let mut policies: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{}/task", bridge.child.pid())).unwrap() {
        // One that has just ended is gone.
        let Ok(stat) = fs::read_to_string(thread.unwrap().path().join("stat")) else { continue };
        // proc_pid_stat(5): the name stands in parentheses, the policy is field 41.
        let (name, rest) = stat.split_once('(').and_then(|(_, named)| named.rsplit_once(") ")).unwrap();
        let kind = ["rdk:broker", "pace", "tokio"].into_iter().find(|kind| name.starts_with(kind));
        policies.entry(kind.unwrap_or("other")).or_default().push(rest.split(' ').nth(38).unwrap().to_owned());
    }
    assert!(policies["tokio"].iter().all(|policy| policy == SCHED_OTHER), "{policies:?}");
    assert_eq!(policies["pace"], [SCHED_BATCH]);
    // The feeds' producers and the dead letters'; clients that only look at topics may be there too.
    let patient = policies["rdk:broker"].iter().filter(|policy| *policy == SCHED_BATCH);
    assert!(patient.count() >= 5, "{policies:?}");
}
