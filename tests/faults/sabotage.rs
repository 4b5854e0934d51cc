//! The suite proves itself: a bridge that is broken on purpose is caught, each way by the case that is there for it.
//!
//! A bridge without the feature `sabotage` cannot be broken: with `-p causeway` there are none of these.

use std::time::Instant;

use libtest_mimic::{Failed, Trial as Test};

use crate::{
    brokers::{held_and_200, patient},
    event::Feed,
    load::{Load, Plan},
    rig::{Case, Trial},
    sender::events,
    support::{client::Http, wait_until},
    verdict::{Expect, Kind, NO_COMMIT_IN_TIME, Outcome, Violation, describe},
};

/// What is broken, the row that must notice, and as what it must.
const WAYS: [(&str, &str, Kind); 7] = [
    ("ack-before-report", "row_08_all_brokers_down_past_message_timeout", Kind::Lost),
    ("remember-before-commit", "row_08_all_brokers_down_past_message_timeout", Kind::Lost),
    ("failure-ignored", "row_20_a_record_larger_than_its_topic_allows", Kind::Lost),
    ("dead-letter-failure-ignored", "row_30_the_dead_letter_topic_is_unavailable", Kind::Lost),
    ("producer-closed-first", "row_39_sigterm_under_load", Kind::WrongAnswer),
    // The process may end before its 503s are written: its exit code is what is sure.
    ("drain-without-flush", "row_39_sigterm_under_load", Kind::WrongExit),
    ("key-hashed-another-way", "row_11_reset_inside_a_produce_request", Kind::WrongPartition),
];

pub fn tests(cases: &[Case]) -> Vec<Test> {
    if !cfg!(feature = "sabotage") {
        return Vec::new();
    }
    let tests = WAYS.into_iter().map(|(sabotage, row, kind)| {
        let body = cases.iter().find(|case| case.name == row).expect("a row of this name").body;
        let name = format!("sabotage_{}_is_caught", sabotage.replace('-', "_"));
        Test::test(name, move || caught(&body(&Trial { sabotage: Some(sabotage) }), row, kind))
    });
    let dies = Test::test("row_42_a_producers_thread_dies", || match thread_dies() {
        Ok(_) => Ok(()),
        Err(violations) => Err(describe(&violations).into()),
    });
    tests.chain([dies]).collect()
}

/// Faults that only a switch can make, and by which the bridge must do right.
pub fn cases() -> Vec<Case> {
    let cases = [Case::fast("a_producer_sends_nothing", sends_nothing), Case::fast("no_producer_sends", none_sends)];
    if cfg!(feature = "sabotage") { cases.into() } else { Vec::new() }
}

/// No fault from outside ends one thread of a process: here the switch is the fault, and the bridge must do right by it.
fn thread_dies() -> Outcome {
    let plan = Plan { retries: 0, ..patient() };
    let mut rig = Trial { sabotage: Some("producer-thread-dies") }.rig(plan, &[]);
    let fates = rig.deliver(&rig.bridge.sender(Http::Two), events(1));
    let status = rig.bridge.child.wait();
    let wrong = (status.code() != Some(5)).then(|| Violation::new(Kind::WrongExit, status.to_string()));
    let expect = Expect { broken: true, refusals: vec![NO_COMMIT_IN_TIME], ..Expect::all_200() };
    rig.judge_ended(&fates, &expect, wrong.into_iter().collect()).and_then(|summary| match summary.acked {
        0 => Ok(summary),
        _ => Err(vec![Violation::new(Kind::WrongAnswer, "200 without the thread that reports")]),
    })
}

/// A fault that nobody named: records are taken, and never sent.
fn sends_nothing(_: &Trial) -> Outcome {
    let rig = Trial { sabotage: Some("first-producer-sends-nothing") }.rig(patient(), &[]);
    let load = Load::start(&rig.bridge, rig.plan.clone());
    let replaced = |feed: &Feed| {
        let labels = ["reason=\"stands_still\"", &format!("feed=\"{}\"", feed.label())];
        rig.bridge.metric("causeway_producer_replaced_total", &labels)
    };
    wait_until("each producer is replaced", || Feed::ALL.iter().all(|feed| replaced(feed) > 0.0));
    let healed = Instant::now();
    wait_until("it is ready", || rig.bridge.metric("causeway_ready", &[]) == 1.0);
    let twice = Feed::ALL.iter().filter(|feed| replaced(feed) > 1.0).map(|feed| feed.label().to_owned());
    let twice = twice
        .map(|feed| Violation::new(Kind::Other, format!("{feed}'s producer was replaced again")))
        .collect::<Vec<_>>();
    let expect = Expect { own_fault: true, ..held_and_200().healed(healed) };
    rig.verdict_with(load, &expect, |_, _| twice)
}

/// The new producer is no better: the process says that it is its own fault, then ends itself.
fn none_sends(_: &Trial) -> Outcome {
    let mut rig = Trial { sabotage: Some("producers-send-nothing") }.rig(patient(), &[]);
    let load = Load::start(&rig.bridge, rig.plan.clone());
    wait_until("it is not ready", || rig.bridge.metric("causeway_ready", &[]) == 0.0);
    let status = rig.bridge.child.wait();
    let mut wrong = Vec::new();
    if status.code() != Some(5) {
        wrong.push(Violation::new(Kind::WrongExit, status.to_string()));
    }
    let fates = load.stop();
    let expect = Expect { broken: true, refusals: vec![NO_COMMIT_IN_TIME], ..Expect::all_200() };
    rig.judge_ended(&fates, &expect, wrong).and_then(|summary| match summary.acked {
        0 => Ok(summary),
        _ => Err(vec![Violation::new(Kind::WrongAnswer, "200 without a producer that sends")]),
    })
}

fn caught(outcome: &Outcome, row: &str, kind: Kind) -> Result<(), Failed> {
    match outcome {
        Ok(summary) => Err(format!("{row} found nothing wrong: {summary}").into()),
        Err(violations) if violations.iter().any(|it| it.kind == kind) => Ok(()),
        Err(violations) => Err(format!("{row} did not find {kind:?}, but\n{}", describe(violations)).into()),
    }
}
