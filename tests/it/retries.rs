//! The same event again: it joins the first attempt, or gets its receipt.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    outage::{kafka, post, wait_held},
    sending::{BOTH, assert_refused, copies, journey},
    support::{
        self,
        bridge::{Bridge, Setup},
        client::{Answer, Http},
        stopwatch, wait_until,
    },
};

async fn ask(bridge: &Bridge, body: &str) -> Answer {
    bridge.sender(Http::One).post("/", &[], body.to_owned()).await.unwrap()
}

fn joined(bridge: &Bridge, first_attempt: &str) -> f64 {
    bridge.metric("causeway_joined_total", &[&format!("first_attempt=\"{first_attempt}\"")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_event_many_times_at_once_is_one_record_and_one_receipt() {
    let kafka = kafka();
    let bridge = Setup::new(&kafka, None).set("sender.timeout_ms", "30000").start();
    kafka.brokers()[0].pause();
    let mut posts = JoinSet::new();
    for body in [journey("one"), "no event".to_owned()] {
        for http in BOTH {
            for _ in 0..4 {
                post(&mut posts, bridge.sender(http), body.clone());
            }
        }
    }
    wait_held(&bridge, 16.0);
    kafka.brokers()[0].resume();
    let mut receipts: Vec<String> = Vec::new();
    for (answer, _) in posts.join_all().await {
        assert_eq!(answer.status, 200, "{answer:?}");
        receipts.push(answer.body.to_string());
    }
    receipts.sort();
    receipts.dedup();
    assert_eq!(receipts.len(), 2, "{receipts:?}");
    assert_eq!(copies(&kafka, &bridge, "journey")["one"], 1);
    assert_eq!(kafka.read(&bridge.topic("dead-letter")).len(), 1);
    assert_eq!(joined(&bridge, "under_way"), 14.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_joins_an_attempt_that_was_answered_503() {
    let kafka = kafka();
    let bridge =
        Setup::new(&kafka, None).set("sender.timeout_ms", &stopwatch::lately_ms(Duration::from_secs(3))).start();
    kafka.brokers()[0].pause();
    assert_refused(&ask(&bridge, &journey("slow")).await, 503, "no_commit_in_time");
    let mut retry = JoinSet::new();
    post(&mut retry, bridge.sender(Http::Two), journey("slow"));
    wait_held(&bridge, 1.0);
    kafka.brokers()[0].resume();
    let (answer, _) = retry.join_next().await.unwrap().unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    // And so does one that comes when all is over.
    assert_eq!(ask(&bridge, &journey("slow")).await.body, answer.body);
    assert_eq!((joined(&bridge, "under_way"), joined(&bridge, "committed")), (1.0, 1.0));
    assert_eq!(copies(&kafka, &bridge, "journey")["slow"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_id_with_another_body_or_on_another_feed_is_another_event() {
    let kafka = support::kafka();
    let bridge = Setup::new(kafka, None).start();
    let first = ask(&bridge, &journey("id")).await;
    let spaced = ask(&bridge, &format!(" {}", journey("id"))).await;
    let other = ask(&bridge, &journey("id").replace("event.journey", "event.queue")).await;
    assert_eq!([first.status, spaced.status, other.status], [200; 3]);
    assert_eq!(copies(kafka, &bridge, "journey")["id"], 2);
    assert_eq!(copies(kafka, &bridge, "queue")["id"], 1);
    assert_eq!(bridge.metric("causeway_event_ids_reused_total", &[]), 1.0);
    assert_eq!(joined(&bridge, "committed"), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_forgotten_early_and_counted() {
    let kafka = support::kafka();
    // Room for a handful of events.
    let bridge = Setup::new(kafka, None).set("dedupe.bytes_max", "400").start();
    for id in 0..20 {
        assert_eq!(ask(&bridge, &journey(&format!("id-{id}"))).await.status, 200);
    }
    let remembered = bridge.metric("causeway_dedupe_events", &[]);
    assert!((1.0..10.0).contains(&remembered), "{remembered}");
    assert_eq!(bridge.metric("causeway_dedupe_forgotten_early_total", &[]), 20.0 - remembered);
    for id in ["id-0", "id-19"] {
        assert_eq!(ask(&bridge, &journey(id)).await.status, 200);
    }
    let copies = copies(kafka, &bridge, "journey");
    assert_eq!((copies["id-0"], copies["id-19"]), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_dedupe_warm_an_earlier_runs_receipts_are_known() {
    let kafka = support::kafka();
    let mut before = Setup::new(kafka, None).start();
    let mut answers = Vec::new();
    for body in [journey("early"), "no event".to_owned()] {
        answers.push((ask(&before, &body).await.body, body));
    }
    assert!(before.stop().success());
    let Bridge { setup, .. } = before;
    let mut cold = setup.start();
    let (receipt, body) = &answers[0];
    assert_ne!(&ask(&cold, body).await.body, receipt);
    assert!(cold.stop().success());
    let Bridge { setup, .. } = cold;
    let warm = setup.set("dedupe.warm", "true").start();
    for (receipt, body) in &answers {
        let answer = ask(&warm, body).await;
        let partition = &receipt["partition"];
        assert_eq!((answer.status, &answer.body["partition"]), (200, partition), "{answer:?}");
    }
    assert_eq!(joined(&warm, "committed"), 2.0);
    assert_eq!(warm.metric("causeway_dedupe_events", &[]), 3.0);
    assert_eq!(copies(kafka, &warm, "journey")["early"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_is_stuck_leaves_room_for_the_others() {
    let kafka = support::kafka();
    let bridge = Setup::new(kafka, None)
        .set("sender.timeout_ms", &stopwatch::lately_ms(Duration::from_secs(2)))
        .set("ingress.body_bytes_max", "65536")
        .set("ingress.queue_bytes_max", "1000000")
        .start();
    kafka.delete_topic(&bridge.topic("journey"));
    let filling = "x".repeat(10_000);
    let stuck = |id: usize| crate::sending::event("com.asapp.event.journey", &format!("stuck-{id}"), &filling);
    let mut accepted = 0;
    let mut posts = JoinSet::new();
    for id in 0..120 {
        post(&mut posts, bridge.sender(BOTH[id % 2]), stuck(id));
    }
    let mut codes: Vec<_> = Vec::new();
    for (answer, _) in posts.join_all().await {
        assert_eq!(answer.status, 503, "{answer:?}");
        accepted += usize::from(answer.body["code"] == json!("no_commit_in_time"));
        codes.push(answer);
    }
    assert!((10..110).contains(&accepted), "{accepted} of 120 were accepted");
    let refused = codes.iter().find(|answer| answer.body["code"] == json!("overload")).unwrap();
    assert!(refused.headers.contains_key("retry-after"));
    for id in 0..20 {
        let answer = ask(&bridge, &journey(&format!("well-{id}")).replace("event.journey", "event.queue")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    kafka.create_topic(&bridge.topic("journey"), 3, &[]);
    wait_until("all is committed", || bridge.metric("causeway_queue_records", &[]) == 0.0);
    let copies = copies(kafka, &bridge, "journey");
    assert_eq!(copies.len(), accepted);
    assert!(copies.values().all(|copies| *copies == 1), "{copies:?}");
    assert_eq!(bridge.metric("causeway_queue_bytes", &[]), 0.0);
}
