//! Between bridge and brokers: cut, silent, slow, narrow, broken off in mid-request.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    brokers::{hasty, held_and_200, patient},
    event::Feed,
    load::Plan,
    rig::{Case, Trial},
    support::{process::Child, proxy::Proxy, wait_until},
    topics::client,
    verdict::{Expect, Kind, OVERLOAD, Outcome, Violation},
};

pub fn cases() -> Vec<Case> {
    vec![
        Case::fast("row_09_cut_off_both_ways", cut_off),
        Case::fast("row_10_only_the_answers_are_lost", answers_lost),
        Case::fast("row_11_reset_inside_a_produce_request", reset_in_request),
        Case::slow("row_12_half_a_second_of_latency_with_jitter", slow_wire),
        Case::slow("row_13_64_kb_a_second_under_load", narrow_wire),
        Case::fast("row_21_fatal_producer_error", fatal_error),
        Case::fast("an_epoch_is_refused", epoch_refused),
        Case::fast("a_sequence_is_refused_again_and_again", sequence_refused),
        Case::fast("the_cluster_names_no_broker", no_broker_named),
    ]
}

/// First as packets that nobody answers, then as resets and refused connections.
fn cut_off(trial: &Trial) -> Outcome {
    let rig = trial.rig(patient(), &[]);
    let load = rig.load();
    rig.each_wire(|wire| {
        wire.change(|wire| {
            wire.up.silent = true;
            wire.down.silent = true;
        });
    });
    sleep(Duration::from_secs(4));
    rig.each_wire(Proxy::heal);
    load.wait_seconds(2);
    rig.each_wire(|wire| wire.change(|wire| wire.cut = true));
    sleep(Duration::from_secs(4));
    rig.each_wire(Proxy::heal);
    let healed = Instant::now();
    rig.verdict(load, &held_and_200().healed(healed))
}

/// The broker has the records, and their connections end before its answers arrive: to be produced again, once.
fn answers_lost(trial: &Trial) -> Outcome {
    let rig = trial.rig(patient(), &[]);
    let load = rig.load();
    for _ in 0..3 {
        rig.each_wire(|wire| wire.change(|wire| wire.down.silent = true));
        let mut acked = load.acked();
        wait_until("what the brokers had answered before has arrived", || {
            sleep(Duration::from_millis(300));
            std::mem::replace(&mut acked, load.acked()) == acked
        });
        wait_until("records are committed and not answered", || rig.records() > acked as i64 + 3);
        assert_eq!(load.acked(), acked, "answers still come");
        rig.each_wire(|wire| {
            wire.reset();
            wire.heal();
        });
        load.wait_seconds(1);
    }
    let healed = Instant::now();
    rig.verdict(load, &Expect::all_200().healed(healed))
}

fn reset_in_request(trial: &Trial) -> Outcome {
    let rig = trial.rig(patient(), &[]);
    let load = rig.load();
    rig.each_wire(|wire| wire.break_requests(5));
    wait_until("each wire has broken its requests", || {
        rig.kafka.proxies().iter().all(|wire| wire.requests_to_break() == 0)
    });
    let healed = Instant::now();
    rig.verdict(load, &Expect::all_200().healed(healed))
}

fn slow_wire(trial: &Trial) -> Outcome {
    let rig = trial.rig(Plan::default(), &[]);
    let load = rig.load();
    rig.each_wire(|wire| {
        wire.change(|wire| {
            for link in [&mut wire.up, &mut wire.down] {
                link.latency = Duration::from_millis(200);
                link.jitter = Duration::from_millis(100);
            }
        });
    });
    load.wait_seconds(6);
    rig.each_wire(Proxy::heal);
    let healed = Instant::now();
    rig.verdict_with(load, &Expect::all_200().healed(healed), |_, fates| {
        let slow =
            fates.iter().flat_map(|fate| &fate.attempts).filter(|it| it.ended - it.sent >= Duration::from_millis(400));
        if slow.count() > 100 { Vec::new() } else { vec![Violation::new(Kind::Other, "the wire was not slow")] }
    })
}

fn narrow_wire(trial: &Trial) -> Outcome {
    let plan = Plan { padding: if cfg!(debug_assertions) { 12_000 } else { 3000 }, ..hasty() };
    let limits = [("ingress.body_bytes_max", "65536"), ("ingress.queue_bytes_max", "2097152")];
    let rig = trial.rig(plan, &limits);
    let load = rig.load();
    rig.each_wire(|wire| wire.change(|wire| wire.up.bytes_per_second = Some(64 * 1024)));
    sleep(Duration::from_secs(15));
    rig.each_wire(Proxy::heal);
    let healed = Instant::now();
    let expect = Expect::held().refusal(OVERLOAD).healed(healed);
    rig.verdict_with(load, &expect, |bridge, _| match bridge.metric("causeway_answers_total", &["code=\"overload\""]) {
        0.0 => vec![Violation::new(Kind::Other, "the wire was wide enough")],
        _ => Vec::new(),
    })
}

/// The broker's word for a gap in the sequence, which librdkafka takes for the end of the producer.
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;

fn fatal_error(trial: &Trial) -> Outcome {
    let rig = trial.rig(patient(), &[]);
    let load = rig.load();
    rig.each_wire(|wire| wire.answer_wrongly(2, OUT_OF_ORDER_SEQUENCE_NUMBER));
    wait_until("each wire has answered wrongly", || {
        rig.kafka.proxies().iter().all(|wire| wire.wrong_answers_left() == 0)
    });
    let healed = Instant::now();
    rig.verdict_with(load, &held_and_200().healed(healed), |bridge, _| {
        let replaced = bridge.child.stderr().contains("the producer is replaced");
        if replaced { Vec::new() } else { vec![Violation::new(Kind::Other, "no producer was replaced")] }
    })
}

/// The broker's word for an epoch that is over: of a producer that has used up all of its own, or that the broker knows otherwise.
const INVALID_PRODUCER_EPOCH: i16 = 47;

/// Nothing of a producer is stored any more, as librdkafka's epochs begin with 0 again: until it has a new producer id.
fn epoch_refused(trial: &Trial) -> Outcome {
    let rig = trial.rig(patient(), &[]);
    let load = rig.load();
    rig.each_wire(|wire| wire.refuse(u32::MAX, INVALID_PRODUCER_EPOCH));
    let reason = "reason=\"epoch_refused\"";
    wait_until("each producer is replaced", || {
        Feed::ALL.iter().all(|feed| {
            let feed = format!("feed=\"{}\"", feed.label());
            rig.bridge.metric("causeway_producer_replaced_total", &[reason, &feed]) > 0.0
        })
    });
    rig.each_wire(Proxy::heal);
    let healed = Instant::now();
    rig.verdict(load, &held_and_200().healed(healed))
}

/// As in row 21, but for records that are not stored, and for those of the new producers too.
fn sequence_refused(trial: &Trial) -> Outcome {
    let rig = trial.rig(patient(), &[]);
    let load = rig.load();
    rig.each_wire(|wire| wire.refuse(8, OUT_OF_ORDER_SEQUENCE_NUMBER));
    wait_until("each wire has refused as often", || rig.kafka.proxies().iter().all(|wire| wire.refusals_left() == 0));
    let healed = Instant::now();
    rig.verdict(load, &held_and_200().healed(healed))
}

/// A broker's answer while the whole cluster is fenced: librdkafka believes it, and forgets all brokers. Mostly it then begins
/// with `bootstrap.servers` again, but not when another answer comes at that moment (its issue 5301). That moment cannot be
/// timed, so here it is told never to do so. A `tail` is no better off, and goes on too.
fn no_broker_named(trial: &Trial) -> Outcome {
    let stays_lost = client(&[("metadata.recovery.strategy", "none".to_owned())]);
    let rig = trial.rig_with(patient(), |setup| setup.toml(&stays_lost));
    let tail =
        Child::spawn("tail", &rig.bridge.setup.command(&["tail", "--beginning", "--json"]), &rig.bridge.setup.dir);
    let load = rig.load();
    wait_until("what is committed is shown", || !tail.stdout().is_empty());
    rig.each_wire(|wire| wire.change(|wire| wire.nameless = true));
    // Whoever connects anew asks for metadata at once.
    rig.each_wire(Proxy::reset);
    wait_until("a producer that knows no broker is replaced", || {
        rig.bridge.child.stderr().contains("the cluster named none of its brokers")
    });
    wait_until("a consumer that knows no broker is replaced", || tail.stderr().contains("a new consumer goes on"));
    rig.each_wire(Proxy::heal);
    let healed = Instant::now();
    load.wait_seconds(2);
    let committed = rig.bridge.metric("causeway_committed_total", &[]);
    wait_until("all that is committed is shown", || tail.stdout().lines().count() as f64 >= committed);
    rig.verdict(load, &held_and_200().healed(healed))
}
