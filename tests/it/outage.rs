//! Kafka stands still, dies, refuses: what is held, what is answered, what is in Kafka afterwards.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

use crate::{
    attacks::frames::{self, frame},
    sending::{BOTH, HalfClose, Load, Raw, assert_all_there, assert_refused, copies, event, journey, noise},
    support::{
        self, HANG,
        bridge::{Bridge, Setup},
        client::{Answer, Http, Sender},
        kafka::{Kafka, KafkaOptions},
        pool::{Lease, Pool},
        process::Signal,
        stopwatch::Stopwatch,
        wait_until,
    },
};

/// How late an answer at the deadline may be.
const SLACK: Duration = Duration::from_millis(800);

/// A Kafka of one's own, to stop it and start it.
pub fn kafka() -> Lease {
    static POOL: Pool = Pool::new(2, || Kafka::start(KafkaOptions::default()));
    POOL.lease()
}

/// RFC 8446, section 6.1: what one side says of its writing does not end the other's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sends_no_more_after_its_request_gets_its_answer() {
    let kafka = kafka();
    let bridge = Setup::new(&kafka, None).set("sender.timeout_ms", "30000").start();
    // Whoever opens a connection to a cluster that stands still waits for it.
    let first = bridge.sender(Http::One).post("/", &[], journey("first")).await.unwrap();
    assert_eq!(first.status, 200);
    kafka.brokers()[0].pause();
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for how in HalfClose::ALL {
        let mut raw = Raw::open(&bridge.sender(Http::One)).await;
        raw.post("/", &journey(&format!("one-{how:?}"))).await;
        one.push((how, raw));
        let (mut writer, reader) = frames::open(&bridge, &[]).await;
        let body = journey(&format!("two-{how:?}"));
        let request = [
            frame(frames::HEADERS, frames::END_HEADERS, 1, &frames::post()),
            frame(frames::DATA, frames::END_STREAM, 1, body.as_bytes()),
        ];
        assert!(writer.write(&request.concat()).await);
        two.push((how, writer, reader));
    }
    wait_held(&bridge, 6.0);
    for (how, raw) in &mut one {
        raw.half_close(*how).await;
    }
    let mut readers = Vec::new();
    for (how, writer, reader) in two {
        readers.push((how, frames::half_close(writer, reader, how).await));
    }
    // Time to take it for a client that is gone.
    tokio::time::sleep(Duration::from_millis(500)).await;
    kafka.brokers()[0].resume();
    for (how, mut raw) in one {
        let answer = raw.answer().await.unwrap_or_else(|| panic!("{how:?}: no answer"));
        assert_eq!(answer.status, 200, "{how:?}");
    }
    for (how, mut reader) in readers {
        let of_the_answer: Vec<_> = reader.rest().await.into_iter().filter(|frame| frame.stream == 1).collect();
        let kinds: Vec<u8> = of_the_answer.iter().map(|frame| frame.kind).collect();
        assert_eq!(kinds, [frames::HEADERS, frames::DATA], "{how:?}");
        // `:status: 200` in the static table.
        assert!(of_the_answer[0].payload.contains(&0x88), "{how:?}");
    }
    wait_until("none is left", || bridge.metric("causeway_connections", &[]) <= 1.0);
}

/// Posts in the background.
pub fn post(posts: &mut JoinSet<(Answer, Duration)>, sender: Sender, body: String) {
    posts.spawn(async move {
        let started = Instant::now();
        (sender.post("/", &[], body).await.unwrap(), started.elapsed())
    });
}

/// Waits until so many requests are held.
pub fn wait_held(bridge: &Bridge, requests: f64) {
    wait_until("the requests are held", || bridge.metric("causeway_in_flight_requests", &[]) == requests);
}

fn wait_committed(bridge: &Bridge) {
    wait_until("all is committed", || bridge.metric("causeway_queue_records", &[]) == 0.0);
}

#[track_caller]
fn assert_one_copy(kafka: &Kafka, bridge: &Bridge, ids: &[&str]) {
    let copies: Vec<_> = copies(kafka, bridge, "journey").into_iter().collect();
    let mut expected: Vec<_> = ids.iter().map(|id| ((*id).to_owned(), 1)).collect();
    expected.sort();
    assert_eq!(copies, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_held_while_kafka_stands_still_and_then_answered_200() {
    let kafka = kafka();
    let bridge = Setup::new(&kafka, None).set("sender.timeout_ms", "30000").start();
    kafka.brokers()[0].pause();
    let mut posts = JoinSet::new();
    post(&mut posts, bridge.sender(Http::One), journey("one"));
    post(&mut posts, bridge.sender(Http::Two), journey("two"));
    wait_held(&bridge, 2.0);
    assert_eq!(bridge.get("/readyz").0, 200, "a load balancer must not take away what can be held");
    kafka.brokers()[0].resume();
    for (answer, _) in posts.join_all().await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_one_copy(&kafka, &bridge, &["one", "two"]);
    assert_eq!(bridge.metric("causeway_committed_late_total", &[]), 0.0);
}

/// A machine that stands still for longer than its sender waits: all that was posted meanwhile is reset before it is looked
/// at, and that is no attack.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_whose_streams_timed_out_together_keeps_its_connection() {
    let bridge = Setup::new(support::kafka(), None).set("sender.timeout_ms", "30000").start();
    let sender = Arc::new(bridge.sender(Http::Two));
    assert_eq!(sender.post("/", &[], journey("before")).await.unwrap().status, 200);
    bridge.child.signal(Signal::Stop);
    let mut posts = JoinSet::new();
    let patience = |number: usize| if number == 0 { HANG } else { Duration::from_millis(500) };
    for number in 0..200 {
        let sender = Arc::clone(&sender);
        let post = async move { sender.post("/", &[], journey(&format!("while-still-{number}"))).await };
        posts.spawn(timeout(patience(number), post));
    }
    let mut answers = Vec::new();
    while posts.len() > 1 {
        answers.push(posts.join_next().await.unwrap().unwrap());
    }
    assert!(answers.iter().all(Result::is_err), "nobody is answered: {answers:?}");
    bridge.child.signal(Signal::Continue);
    // The one that still waits was sent on the same connection.
    let held = posts.join_next().await.unwrap().unwrap().expect("an answer").expect("the connection is kept");
    assert_eq!(held.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kafka_does_not_commit_in_time_is_503_at_the_deadline_and_committed_later() {
    let kafka = kafka();
    // D = T - T/10
    let deadline = Duration::from_millis(7200);
    let bridge = Setup::new(&kafka, None).set("sender.timeout_ms", "8000").start();
    kafka.brokers()[0].pause();
    let watch = Stopwatch::start();
    let mut posts = JoinSet::new();
    post(&mut posts, bridge.sender(Http::Two), journey("http-2"));
    let mut pooled = Raw::open(&bridge.sender(Http::One)).await;
    let connected = Instant::now();
    let mut raw = Raw::open(&bridge.sender(Http::One)).await;
    // The sender's clock runs since it connected: this time is taken from what is left for the first request.
    tokio::time::sleep(Duration::from_millis(500)).await;
    raw.post("/", &journey("first")).await;
    let first = (raw.answer().await.unwrap(), connected.elapsed());
    // A later request has all its time, and so has the first on a connection that was opened long before.
    let asked = Instant::now();
    raw.post("/", &journey("second")).await;
    pooled.post("/", &journey("pooled")).await;
    let second = (raw.answer().await.unwrap(), asked.elapsed());
    let third = (pooled.answer().await.unwrap(), asked.elapsed());
    for (answer, elapsed) in [first, second, third].into_iter().chain(posts.join_all().await) {
        assert_refused(&answer, 503, "no_commit_in_time");
        assert!(elapsed >= deadline, "{elapsed:?}");
        watch.assert_allows(elapsed - deadline, SLACK);
    }
    kafka.brokers()[0].resume();
    wait_committed(&bridge);
    assert_one_copy(&kafka, &bridge, &["first", "second", "pooled", "http-2"]);
    assert_eq!(bridge.metric("causeway_committed_late_total", &["feed=\"journey\""]), 4.0);
    raw.post("/", &journey("kept")).await;
    assert_eq!(raw.answer().await.expect("the connection is kept after 503").status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_client_went_away_is_committed_all_the_same() {
    let kafka = kafka();
    let bridge = Setup::new(&kafka, None).set("sender.timeout_ms", "30000").start();
    kafka.brokers()[0].pause();
    let mut posts = JoinSet::new();
    for http in BOTH {
        let sender = bridge.sender(http);
        posts.spawn(async move { sender.post("/", &[], journey(&format!("gone-{http:?}"))).await });
    }
    wait_held(&bridge, 2.0);
    posts.shutdown().await;
    // Over HTTP/2 it says so; over HTTP/1.1 it may be one that sends no more and waits for its answer.
    wait_held(&bridge, 1.0);
    kafka.brokers()[0].resume();
    wait_committed(&bridge);
    assert_one_copy(&kafka, &bridge, &["gone-One", "gone-Two"]);
    assert_eq!(bridge.metric("causeway_committed_late_total", &["feed=\"journey\""]), 1.0);
    wait_held(&bridge, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_in_flight_max_a_feeds_requests_are_refused_at_once_and_the_held_ones_go_on() {
    let kafka = kafka();
    let bridge = Setup::new(&kafka, None).set("sender.timeout_ms", "30000").set("ingress.in_flight_max", "2").start();
    kafka.brokers()[0].pause();
    let mut posts = JoinSet::new();
    post(&mut posts, bridge.sender(Http::One), journey("one"));
    post(&mut posts, bridge.sender(Http::Two), journey("two"));
    wait_held(&bridge, 2.0);
    for http in BOTH {
        // While Kafka stands still nothing else than a refusal can be answered.
        let answer = bridge.sender(http).post("/", &[], journey("refused")).await.unwrap();
        assert_refused(&answer, 503, "overload");
        let retry_after: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=3).contains(&retry_after), "{retry_after}");
    }
    // Another feed has its own limit.
    post(&mut posts, bridge.sender(Http::One), event("com.asapp.event.queue", "queue", ""));
    wait_held(&bridge, 3.0);
    kafka.brokers()[0].resume();
    for (answer, _) in posts.join_all().await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_one_copy(&kafka, &bridge, &["one", "two"]);
    assert_eq!(bridge.sender(Http::One).post("/", &[], journey("three")).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_queue_bytes_max_requests_are_refused_at_once_and_the_queue_stays_within_it() {
    let kafka = kafka();
    let queue_bytes_max = 4 * (1024 + 16384);
    let setup = Setup::new(&kafka, None).set("sender.timeout_ms", "30000").set("ingress.body_bytes_max", "1024");
    let bridge = setup.set("ingress.queue_bytes_max", &queue_bytes_max.to_string()).start();
    kafka.brokers()[0].pause();
    let mut posts = JoinSet::new();
    let count = 60;
    for number in 0..count {
        let body = event("com.asapp.event.journey", &format!("{number}"), &noise(800));
        post(&mut posts, bridge.sender(BOTH[number % 2]), body);
    }
    let refused = || bridge.metric("causeway_answers_total", &["503", "overload"]);
    wait_until("each is held or refused", || {
        bridge.metric("causeway_in_flight_requests", &[]) + refused() == count as f64
    });
    let (refused, queued) = (refused(), bridge.metric("causeway_queue_bytes", &[]));
    assert!(refused >= 1.0 && refused < count as f64, "{refused} of {count} are refused");
    assert!(queued > queue_bytes_max as f64 / 2.0 && queued <= queue_bytes_max as f64, "{queued} bytes in the queue");
    kafka.brokers()[0].resume();
    let (good, bad): (Vec<_>, Vec<_>) =
        posts.join_all().await.into_iter().map(|(answer, _)| answer).partition(|answer| answer.status == 200);
    assert_eq!(bad.len() as f64, refused);
    for answer in &bad {
        assert_refused(answer, 503, "overload");
        assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    }
    assert_eq!(copies(&kafka, &bridge, "journey").len(), good.len());
    wait_until("the room is given back", || bridge.metric("causeway_queue_bytes", &[]) == 0.0);
    assert_eq!(bridge.sender(Http::One).post("/", &[], journey("last")).await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_kafka_never_takes_is_given_up_and_its_room_given_back() {
    let kafka = kafka();
    // message.timeout.ms = (retries + 1) x T + retry_pause_ms_max = 2 s
    let setup = Setup::new(&kafka, None).set("sender.timeout_ms", "2000").set("sender.retries", "0");
    let bridge = setup.set("sender.retry_pause_ms_max", "0").start();
    kafka.brokers()[0].pause();
    let deadline = Duration::from_millis(1750);
    for _ in 0..2 {
        // The second comes shortly before the first is given up, and has its whole time all the same.
        let asked = Instant::now();
        let answer = bridge.sender(Http::One).post("/", &[], journey("never")).await.unwrap();
        assert_refused(&answer, 503, "no_commit_in_time");
        assert!(asked.elapsed() > deadline - SLACK, "answered after {:?}", asked.elapsed());
    }
    wait_committed(&bridge);
    let given_up = bridge.metric("causeway_undelivered_total", &["feed=\"journey\""]);
    assert_eq!(given_up + bridge.metric("causeway_joined_total", &["first_attempt=\"under_way\""]), 2.0);
    wait_until("the room is given back", || bridge.metric("causeway_queue_bytes", &[]) == 0.0);
    kafka.brokers()[0].resume();
    let resumed = Stopwatch::start();
    while bridge.sender(Http::One).post("/", &[], journey("next")).await.unwrap().status != 200 {
        assert!(resumed.elapsed() < HANG, "never healed");
    }
    resumed.assert_within(Duration::from_secs(15));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_whose_time_its_topic_refuses_gets_the_time_of_its_next_attempt() {
    let kafka = kafka();
    let bridge = Setup::new(&kafka, None).set("sender.timeout_ms", "30000").start();
    kafka.alter_topic_config(&bridge.topic("journey"), &[("message.timestamp.before.max.ms", "2000")]);
    kafka.brokers()[0].pause();
    let mut posts = JoinSet::new();
    post(&mut posts, bridge.sender(Http::One), journey("old"));
    wait_held(&bridge, 1.0);
    tokio::time::sleep(Duration::from_secs(3)).await;
    kafka.brokers()[0].resume();
    for (answer, _) in posts.join_all().await {
        assert_eq!((answer.status, &answer.body["topic"]), (200, &json!(bridge.topic("journey"))), "{answer:?}");
    }
    assert_eq!(bridge.metric("causeway_redelivered_total", &["feed=\"journey\""]), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_its_topic_refuses_becomes_a_dead_letter_and_holds_up_no_other() {
    let kafka = support::kafka();
    let bridge = Setup::new(kafka, None).set("sender.timeout_ms", "30000").start();
    kafka.alter_topic_config(&bridge.topic("journey"), &[("max.message.bytes", "10000")]);
    let large = |id: usize| event("com.asapp.event.journey", &format!("large-{id}"), &noise(100_000));
    let (mut posts, mut larges) = (JoinSet::new(), JoinSet::new());
    for number in 0..100 {
        if number % 25 == 10 {
            post(&mut larges, bridge.sender(BOTH[number % 2]), large(number));
        }
        post(&mut posts, bridge.sender(BOTH[number % 2]), journey(&format!("small-{number}")));
    }
    for (answer, _) in posts.join_all().await {
        assert_eq!((answer.status, &answer.body["topic"]), (200, &json!(bridge.topic("journey"))), "{answer:?}");
    }
    for (answer, _) in larges.join_all().await {
        assert_eq!((answer.status, &answer.body["topic"]), (200, &json!(bridge.topic("dead-letter"))), "{answer:?}");
    }
    assert_eq!(copies(kafka, &bridge, "journey").len(), 100);
    let letters = kafka.read(&bridge.topic("dead-letter"));
    assert_eq!(letters.len(), 4);
    let topic = bridge.topic("journey");
    for letter in letters {
        let key = std::str::from_utf8(letter.key.as_deref().unwrap()).unwrap();
        let number = key.strip_prefix("large-").unwrap().parse().unwrap();
        assert_eq!(letter.value.as_deref(), Some(large(number).as_bytes()));
        for (header, expected) in [
            ("__connect.errors.stage", "PRODUCE"),
            ("__connect.errors.topic", topic.as_str()),
            ("causeway_feed", "journey"),
        ] {
            assert_eq!(letter.header(header), Some(expected), "{header}");
        }
        assert!(letter.header("__connect.errors.exception.message").unwrap().contains("MessageSizeTooLarge"));
    }
    assert_eq!(bridge.metric("causeway_dead_letters_total", &["feed=\"journey\"", "stage=\"PRODUCE\""]), 4.0);
    // The topic takes small ones at once, and large ones again as soon as it may.
    kafka.alter_topic_config(&bridge.topic("journey"), &[("max.message.bytes", "1048588")]);
    let answer = bridge.sender(Http::One).post("/", &[], large(100)).await.unwrap();
    assert_eq!(answer.body["topic"], json!(bridge.topic("journey")), "{answer:?}");
}

/// A small body's record can be gigabytes, as each entry of `extras` has its whole pointer; and a key can be as long as the body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_any_size_within_the_limit_is_kept_whatever_its_record_would_take() {
    let bridge = Setup::new(support::kafka(), None).set("ingress.queue_bytes_max", "5000000").start();
    let members: Vec<_> = (0..6500).map(|number| format!("\"{number}\":1")).collect();
    let inputs = format!("{{\"{}\":{{{}}}}}", "k".repeat(40_000), members.join(","));
    let details = |event: String| {
        event.replacen('{', &format!("{{\"details\":{{\"last_flow_action_called_inputs\":{inputs}}},"), 1)
    };
    let body = details(event("com.asapp.event.journey", "large", ""));
    let answer = bridge.sender(Http::One).post("/", &[], body.clone()).await.unwrap();
    assert_eq!((answer.status, &answer.body["topic"]), (200, &json!(bridge.topic("dead-letter"))), "{answer:?}");
    let letter = support::kafka().read(&bridge.topic("dead-letter")).remove(0);
    assert_eq!(letter.value.as_deref(), Some(body.as_bytes()));
    assert_eq!(letter.key.as_deref(), Some(&b"large"[..]));
    assert_eq!(letter.header("__connect.errors.stage"), Some("PRODUCE"));
    assert_eq!(letter.header("causeway_feed"), Some("journey"));
    let long = journey("long").replace("\"issue_id\":\"long\"", &format!("\"issue_id\":\"{}\"", "i".repeat(560_000)));
    let answer = bridge.sender(Http::Two).post("/", &[], long).await.unwrap();
    assert_eq!((answer.status, &answer.body["topic"]), (200, &json!(bridge.topic("journey"))), "{answer:?}");
    let record = support::kafka().read(&bridge.topic("journey")).remove(0);
    assert_eq!((record.header("ce_id"), &record.key), (Some("long"), &None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_and_comes_back_costs_nothing_that_was_answered_200() {
    let kafka = kafka();
    // One holds its requests longer than the broker is away, the other has to answer before.
    let patient = Setup::new(&kafka, None).set("sender.timeout_ms", "60000").start();
    let hasty = Setup::new(&kafka, None).set("sender.timeout_ms", "2000").start();
    let loads = [(&patient, Load::start(&patient, 4, true)), (&hasty, Load::start(&hasty, 4, true))];
    let wait_for_more = |count: usize| {
        let before = loads.each_ref().map(|(_, load)| load.acked());
        wait_until("events are committed", || {
            loads.iter().zip(before).all(|((_, load), before)| load.acked() >= before + count)
        });
    };
    wait_for_more(100);
    kafka.brokers()[0].kill();
    kafka.brokers()[0].start();
    kafka.wait_ready();
    let ready = Stopwatch::start();
    wait_for_more(100);
    ready.assert_within(Duration::from_secs(15));
    for (bridge, load) in loads {
        let posted = load.stop().await;
        assert_eq!(posted.errors, 0);
        assert!(posted.others.keys().all(|status| *status == 503), "{:?}", posted.others);
        if bridge.setup.prefix == patient.setup.prefix {
            assert!(posted.others.is_empty(), "{:?}", posted.others);
        }
        assert_all_there(&kafka, bridge, &posted);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_file_descriptor_left_open_connections_are_served_and_accepting_recovers() {
    let bridge = Setup::new(support::kafka(), None).set("sender.timeout_ms", "30000").start();
    let mut raw = Raw::open(&bridge.sender(Http::One)).await;
    raw.post("/", &journey("before")).await;
    assert_eq!(raw.answer().await.unwrap().status, 200);
    let pid = bridge.child.pid();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let limit = format!("--nofile={}", open + 5);
    let limited =
        Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status().expect("prlimit (util-linux)");
    assert!(limited.success());
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(TcpStream::connect(bridge.ingress).await.unwrap());
    }
    wait_until("the descriptors are used up", || bridge.child.stderr().contains("no connection could be accepted"));
    raw.post("/", &journey("meanwhile")).await;
    assert_eq!(raw.answer().await.unwrap().status, 200);
    drop(idle);
    assert_eq!(bridge.sender(Http::Two).post("/", &[], journey("after")).await.unwrap().status, 200);
}
