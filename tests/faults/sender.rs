//! What happens between sender and bridge: clients that go away, answers that get lost, events that come twice, too many.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    brokers::patient,
    event::{Event, Feed},
    load::{Attempt, Fate, Load, Plan, RATE, Reply, attempt, block_on},
    rig::{Case, Rig, Trial},
    support::{
        bridge::SENDER,
        certs::ClientOptions,
        client::{Http, Sender},
        kafka::Broker,
        proxy::{Proxy, runtime},
        stopwatch::{self, Stopwatch},
        wait_until,
    },
    verdict::{Expect, Kind, NO_COMMIT_IN_TIME, OVERLOAD, Outcome, Summary, Violation},
};

pub fn cases() -> Vec<Case> {
    vec![
        Case::fast("row_22_no_room_left", no_room),
        Case::fast("row_23_client_gone_while_its_request_is_held", client_gone),
        Case::fast("row_25_our_200_is_lost_on_the_way", answer_lost),
        Case::fast("row_26_the_same_event_twice_at_once", twice_at_once),
        Case::fast("row_29_and_32_bodies_of_no_event_and_events_without_a_key", odd_bodies),
        Case::slow("row_38_ten_times_the_load_with_retries", ten_times_the_load),
    ]
}

/// Events of every feed, dead letters included.
pub fn events(count: usize) -> Vec<Event> {
    (0..count).map(|number| Event::new(u32::MAX, number, Feed::ALL[number % 5], 10, 100)).collect()
}

pub fn wait_held(rig: &Rig, requests: f64) {
    wait_until("requests are held", || rig.bridge.metric("causeway_in_flight_requests", &[]) == requests);
}

/// Through a wire of our own.
pub fn sender_through(rig: &Rig, wire: &Proxy, http: Http) -> Sender {
    let identity = rig.bridge.setup.identity(ClientOptions::dns(SENDER));
    Sender::new(wire.address, &rig.bridge.setup.authority.pem(), Some(&identity), http)
}

/// Librdkafka's own queue has no limit that is reached before the bridge's are: those are tried here.
fn no_room(trial: &Trial) -> Outcome {
    let plan = Plan { retries: 0, ..patient() };
    let rig = trial.rig(plan, &[("ingress.in_flight_max", "5")]);
    let sender = Arc::new(rig.bridge.sender(Http::Two));
    rig.each_broker(Broker::pause);
    let event = |number: usize| Event::new(u32::MAX, number, Feed::Queue, 10, 100);
    let mut held = JoinSet::new();
    for event in (0..5).map(event) {
        let sender = Arc::clone(&sender);
        let post = async move {
            let attempts = vec![attempt(&sender, &event, Duration::from_secs(60)).await];
            Fate { event, attempts }
        };
        held.spawn_on(post, runtime().handle());
    }
    wait_held(&rig, 5.0);
    let watch = Stopwatch::start();
    let refused = rig.deliver(&sender, (5..30).map(event));
    let slowest = refused.iter().map(|fate| fate.attempts[0].ended - fate.attempts[0].sent).max().unwrap_or_default();
    rig.each_broker(Broker::resume);
    let fates = [block_on(held.join_all()), refused].concat();
    let expect = Expect { refusals: vec![OVERLOAD], ..Expect::all_200() };
    rig.judge(&fates, &expect, Vec::new(), |_, _| {
        // At once, and not at a deadline: 54 s here.
        let late = slowest > watch.allowed(Duration::from_secs(5));
        if late { vec![Violation::new(Kind::Late, format!("503 after {slowest:?}"))] } else { Vec::new() }
    })
    .and_then(|summary| match (summary.acked, summary.unacked_there) {
        (5, 0) => Ok(summary),
        other => Err(vec![Violation::new(Kind::Other, format!("5 acked, none of the refused there: {other:?}"))]),
    })
}

fn odd_bodies(trial: &Trial) -> Outcome {
    let rig = trial.rig(patient(), &[]);
    let letters: [Vec<u8>; 10] = [
        b"not JSON".into(),
        b"\xff\xfe{}".into(),
        b"".into(),
        [b"[".repeat(10_000), b"]".repeat(10_000)].concat(),
        b"{\"name\":\"n\",\"event_id\":\"i\",\"event_type\":\"t\",\"api_version\":\"v1\",\"x\":1e400}".into(),
        b"{\"name\":\"n\",\"event_id\":\"i\",\"event_type\":\"t\",\"api_version\":\"v1\",\"x\":1,\"x\":2}".into(),
        b"{\"name\":\"n\",\"event_id\":\"\",\"event_type\":\"t\",\"api_version\":\"v1\"}".into(),
        b"{\"event_id\":\"i\"}".into(),
        b"[1, 2]".into(),
        b"{\"x\":\"\\ud800\"}".into(),
    ];
    let keyless = [
        r#"{"api_version":"v1","name":"com.asapp.event.journey","event_id":"no-key","event_type":"T"}"#,
        r#"{"api_version":"v1","name":"com.asapp.event.journey","event_id":"empty","event_type":"T","meta_data":{"issue_id":""}}"#,
        r#"{"api_version":"v1","name":"com.asapp.event.journey","event_id":"no-text","event_type":"T","meta_data":{"issue_id":{}}}"#,
    ];
    let letters = letters.into_iter().enumerate().map(|(number, body)| Event::of(number, Feed::DeadLetter, None, body));
    let keyless = keyless.into_iter().enumerate().map(|(at, body)| Event::of(100 + at, Feed::Journey, None, body));
    let fates = rig.deliver(&rig.bridge.sender(Http::One), letters.chain(keyless));
    rig.judge(&fates, &Expect::all_200(), Vec::new(), |bridge, _| {
        match bridge.metric("causeway_null_keys_total", &["feed=\"journey\""]) {
            3.0 => Vec::new(),
            other => vec![Violation::new(Kind::WrongMetric, format!("{other} null keys"))],
        }
    })
}

fn client_gone(trial: &Trial) -> Outcome {
    let rig = trial.rig(patient(), &[]);
    rig.each_broker(Broker::pause);
    let (mut posts, mut fates) = (JoinSet::new(), Vec::new());
    for (number, event) in events(10).into_iter().enumerate() {
        let sender = rig.bridge.sender([Http::One, Http::Two][number / 5]);
        let sent = Instant::now();
        let body = event.body.clone();
        posts.spawn_on(async move { sender.post("/", &[], body).await }, runtime().handle());
        let gone = Attempt { sent, ended: sent, reply: Reply::Broken("gone".to_owned()), retry_after: None };
        fates.push(Fate { event, attempts: vec![gone] });
    }
    wait_held(&rig, 10.0);
    block_on(posts.shutdown());
    // Over HTTP/2 it is known that their clients are gone.
    wait_held(&rig, 5.0);
    rig.each_broker(Broker::resume);
    let expect = Expect { broken: true, ..Expect::all_200() };
    let all_there = |summary| every_one_there(summary, 10);
    rig.judge(&fates, &expect, Vec::new(), |_, _| Vec::new()).and_then(all_there)
}

/// Nobody was told, and all are there.
fn every_one_there(summary: Summary, count: usize) -> Outcome {
    if summary.unacked_there == count {
        return Ok(summary);
    }
    Err(vec![Violation::new(Kind::Other, format!("{} of {count} are there", summary.unacked_there))])
}

fn answer_lost(trial: &Trial) -> Outcome {
    let plan = Plan { timeout: stopwatch::lately(Duration::from_secs(3)), ..Plan::default() };
    let rig = trial.rig(plan, &[]);
    let wire = Proxy::start(rig.bridge.ingress);
    let mut fates = Vec::new();
    for http in [Http::One, Http::Two] {
        let sender = sender_through(&rig, &wire, http);
        let event = |number: usize| Event::new(http as u32, number, Feed::ALL[number % 5], 10, 100);
        // The connection is there before the answers get lost on it.
        fates.extend(rig.deliver(&sender, [event(0)]));
        wire.change(|wire| wire.down.silent = true);
        let lost: Vec<Fate> = (1..6)
            .map(|number| {
                let event = event(number);
                let lost = block_on(attempt(&sender, &event, Duration::from_millis(500)));
                Fate { event, attempts: vec![lost] }
            })
            .collect();
        wire.reset();
        wire.heal();
        for mut fate in lost {
            let again = rig.deliver(&sender, [fate.event.clone()]).remove(0);
            fate.attempts.extend(again.attempts);
            fates.push(fate);
        }
    }
    let expect = Expect { broken: true, late: true, ..Expect::all_200() };
    rig.judge(&fates, &expect, Vec::new(), |_, fates| all_acked(fates))
}

fn all_acked(fates: &[Fate]) -> Vec<Violation> {
    let dropped = fates.iter().filter(|fate| fate.acked().is_none());
    dropped.map(|fate| Violation::of_fate(fate, "dropped")).collect()
}

fn twice_at_once(trial: &Trial) -> Outcome {
    let rig = trial.rig(patient(), &[]);
    let senders = [Http::One, Http::Two].map(|http| Arc::new(rig.bridge.sender(http)));
    rig.each_broker(Broker::pause);
    let mut posts = JoinSet::new();
    let events = events(20);
    for (number, event) in events.iter().enumerate() {
        for sender in &senders {
            let (sender, event) = (Arc::clone(sender), event.clone());
            let post = async move { (number, attempt(&sender, &event, Duration::from_secs(60)).await) };
            posts.spawn_on(post, runtime().handle());
        }
    }
    wait_held(&rig, 40.0);
    rig.each_broker(Broker::resume);
    let mut fates: Vec<Fate> = events.into_iter().map(|event| Fate { event, attempts: Vec::new() }).collect();
    for (number, attempt) in block_on(posts.join_all()) {
        fates[number].attempts.push(attempt);
    }
    rig.judge(&fates, &Expect::all_200(), Vec::new(), |_, fates| {
        let differ = fates.iter().filter(|fate| fate.attempts[0].reply != fate.attempts[1].reply);
        differ.map(|fate| Violation::new(Kind::WrongReceipt, format!("{:?}", fate.attempts))).collect()
    })
}

/// The wires are so slow that a tenth of the load would fit.
fn ten_times_the_load(trial: &Trial) -> Outcome {
    let plan = Plan {
        rate: 5 * RATE,
        timeout: Duration::from_secs(2),
        retries: 1,
        pause: Duration::from_millis(500),
        keys: 100,
        padding: 2000,
        senders: 16,
        ..Plan::default()
    };
    let limits =
        [("ingress.in_flight_max", "64"), ("ingress.body_bytes_max", "65536"), ("ingress.queue_bytes_max", "4194304")];
    let rig = trial.rig(plan.clone(), &limits);
    rig.each_wire(|wire| wire.change(|wire| wire.up.bytes_per_second = Some(70 * 1024)));
    let load = Load::start(&rig.bridge, plan);
    std::thread::sleep(Duration::from_secs(20));
    let acked = load.acked();
    rig.each_wire(Proxy::heal);
    let expect = Expect { refusals: vec![NO_COMMIT_IN_TIME, OVERLOAD], ..Expect::held() }.healed(Instant::now());
    rig.verdict_with(load, &expect, |_, fates| {
        let mut found = Vec::new();
        // The wire carries some 60 records a second: a part of them comes too late for whoever sent them.
        if acked < 50 {
            found.push(Violation::new(Kind::Other, format!("{acked} events answered 200 in 20 s")));
        }
        let attempts = || fates.iter().flat_map(|fate| &fate.attempts);
        let overload = |it: &&Attempt| it.reply == Reply::Refused(503, "overload".to_owned());
        let refused = attempts().filter(overload).count();
        if refused < attempts().count() / 2 {
            found.push(Violation::new(Kind::Other, format!("{refused} refused for overload: that was no overload")));
        }
        let told: BTreeSet<_> = attempts().filter(overload).map(|it| it.retry_after.clone()).collect();
        if told.contains(&None) || told.len() < 2 {
            found.push(Violation::new(Kind::WrongAnswer, format!("Retry-After does not spread: {told:?}")));
        }
        found
    })
    .and_then(|summary| match summary.acked {
        // What comes too late for its sender takes the wire from what would be in time: it must not take most of it.
        acked if acked >= summary.unacked_there / 2 => Ok(summary),
        _ => Err(vec![Violation::new(Kind::Other, format!("most was committed too late: {summary}"))]),
    })
}
