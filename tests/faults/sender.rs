//! What happens between sender and bridge: clients that go away, answers that get lost, events that come twice, too many.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::{
    brokers::patient,
    event::{Event, Feed},
    load::{Attempt, Fate, Load, Plan, Reply, attempt, block_on},
    rig::{Case, Rig, Trial},
    support::{
        bridge::SENDER,
        certs::ClientOptions,
        client::{Http, Sender},
        proxy::{Proxy, runtime},
        wait_until,
    },
    verdict::{Expect, Kind, NO_COMMIT_IN_TIME, OVERLOAD, Outcome, Summary, Violation},
};

pub fn cases() -> Vec<Case> {
    vec![
        Case::fast("row_23_client_gone_while_its_request_is_held", client_gone),
        Case::fast("row_25_our_200_is_lost_on_the_way", answer_lost),
        Case::fast("row_26_the_same_event_twice_at_once", twice_at_once),
        Case::slow("row_38_ten_times_the_load_with_retries", ten_times_the_load),
    ]
}

const LIMIT: Duration = Duration::from_secs(30);

/// Events of every feed, dead letters included.
pub fn events(count: usize) -> Vec<Event> {
    (0..count).map(|number| Event::new(u32::MAX, number, Feed::ALL[number % 5], 10, 100)).collect()
}

pub fn wait_held(rig: &Rig, requests: f64) {
    wait_until("requests are held", LIMIT, || rig.bridge.metric("causeway_in_flight_requests", &[]) == requests);
}

/// Through a wire of our own.
fn sender_through(rig: &Rig, wire: &Proxy, http: Http) -> Sender {
    let identity = rig.bridge.setup.identity(ClientOptions::dns(SENDER));
    Sender::new(wire.address, &rig.bridge.setup.authority.pem(), Some(&identity), http)
}

fn client_gone(trial: &Trial) -> Outcome {
    let rig = trial.rig(patient(), &[]);
    rig.each_broker(|broker| broker.pause());
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
    wait_held(&rig, 0.0);
    rig.each_broker(|broker| broker.resume());
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
    let plan = Plan { timeout: Duration::from_secs(3), ..Plan::default() };
    let rig = trial.rig(plan, &[]);
    let wire = Proxy::start(rig.bridge.ingress);
    let mut fates = Vec::new();
    for http in [Http::One, Http::Two] {
        let sender = sender_through(&rig, &wire, http);
        let event = |number: usize| Event::new(http as u32, number, Feed::ALL[number % 5], 10, 100);
        // The connection is there before the answers get lost on it.
        fates.extend(rig.deliver(&sender, [event(0)]));
        wire.change(|wire| wire.down.silent = true);
        let lost: Vec<Fate> = (1..11)
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
    dropped.map(|fate| Violation::new(Kind::WrongAnswer, format!("{:?}", fate.attempts))).collect()
}

fn twice_at_once(trial: &Trial) -> Outcome {
    let rig = trial.rig(patient(), &[]);
    let senders = [Http::One, Http::Two].map(|http| std::sync::Arc::new(rig.bridge.sender(http)));
    rig.each_broker(|broker| broker.pause());
    let mut posts = JoinSet::new();
    let events = events(20);
    for (number, event) in events.iter().enumerate() {
        for sender in &senders {
            let (sender, event) = (std::sync::Arc::clone(sender), event.clone());
            let post = async move { (number, attempt(&sender, &event, Duration::from_secs(60)).await) };
            posts.spawn_on(post, runtime().handle());
        }
    }
    wait_held(&rig, 40.0);
    rig.each_broker(|broker| broker.resume());
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
        rate: 1000,
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
    rig.each_wire(|wire| wire.heal());
    let expect = Expect { refusals: vec![NO_COMMIT_IN_TIME, OVERLOAD], memory_mb_max: 256, ..Expect::held() };
    let fates = load.stop();
    rig.judge(&fates, &expect, Vec::new(), |_, fates| {
        let mut found = Vec::new();
        if acked < 200 {
            found.push(Violation::new(Kind::Other, format!("{acked} events answered 200 in 20 s")));
        }
        let attempts = || fates.iter().flat_map(|fate| &fate.attempts);
        let overload = |it: &&Attempt| it.reply == Reply::Refused(503, "overload".to_owned());
        let refused = attempts().filter(overload).count();
        if refused < attempts().count() / 2 {
            found.push(Violation::new(Kind::Other, format!("{refused} refused for overload: that was no overload")));
        }
        let told: std::collections::BTreeSet<_> =
            attempts().filter(overload).map(|it| it.retry_after.clone()).collect();
        if told.contains(&None) || told.len() < 2 {
            found.push(Violation::new(Kind::WrongAnswer, format!("Retry-After does not spread: {told:?}")));
        }
        found
    })
}
