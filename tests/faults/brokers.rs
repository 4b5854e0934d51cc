//! Brokers that die, stand still, come back.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    event::Feed,
    load::{Fate, Plan, Reply},
    rig::{Case, Rig, Trial},
    support::{kafka::Broker, wait_until},
    verdict::{Copies, Expect, Kind, NO_COMMIT_IN_TIME, Outcome, RECOVERY_MAX, Violation},
};

pub fn cases() -> Vec<Case> {
    vec![
        Case::fast("row_01_leader_killed", leader_killed),
        Case::slow("row_02_leader_stopped_for_30_s", leader_stopped),
        Case::slow("row_03_rolling_restart_of_all_brokers", rolling_restart),
        Case::slow("row_05_in_sync_replicas_below_the_minimum", too_few_in_sync),
        Case::fast("row_06_all_brokers_down_shorter_than_the_deadline", all_down_briefly),
        Case::fast("row_07_all_brokers_down_longer_than_the_deadline", all_down_past_the_deadline),
        Case::fast("row_08_all_brokers_down_past_message_timeout", all_down_past_message_timeout),
    ]
}

/// A sender that waits longer than what is broken takes to heal: everything must be answered 200.
pub fn patient() -> Plan {
    Plan { timeout: Duration::from_secs(60), ..Plan::default() }
}

/// A sender that gives up soon.
pub fn hasty() -> Plan {
    Plan { timeout: Duration::from_secs(2), retries: 1, pause: Duration::from_secs(1), ..Plan::default() }
}

/// Held until the fault heals, which is before the deadline; perhaps produced twice.
pub fn held_and_200() -> Expect {
    Expect::all_200().copies(Copies::Redelivered)
}

fn leader_killed(trial: &Trial) -> Outcome {
    let rig = trial.rig(patient(), &[]);
    let load = rig.load();
    let leader = rig.leaders(Feed::Journey)[0];
    rig.kafka.broker(leader).kill();
    rig.wait_led_without(leader);
    let healed = Instant::now();
    load.wait_seconds(2);
    // It comes back under the load, which must not see it.
    rig.kafka.broker(leader).start();
    rig.kafka.wait_ready();
    rig.wait_in_sync();
    rig.verdict(load, &held_and_200().healed(healed))
}

fn leader_stopped(trial: &Trial) -> Outcome {
    let rig = trial.rig(hasty(), &[]);
    let load = rig.load();
    let leader = rig.leaders(Feed::Journey)[0];
    let stopped = Instant::now();
    rig.kafka.broker(leader).pause();
    rig.wait_led_without(leader);
    let led = Instant::now();
    let failover = load.recovered(led, Duration::from_secs(2), RECOVERY_MAX);
    sleep(Duration::from_secs(30).saturating_sub(stopped.elapsed()));
    rig.kafka.broker(leader).resume();
    let healed = Instant::now();
    rig.wait_in_sync();
    rig.verdict_with(load, &Expect::held().healed(healed), |_, _| match failover {
        true => Vec::new(),
        false => vec![Violation::new(Kind::Late, "other brokers led, and not all was 200 within 15 s")],
    })
}

fn rolling_restart(trial: &Trial) -> Outcome {
    let rig = trial.rig(Plan::default(), &[]);
    let load = rig.load();
    for broker in rig.kafka.brokers() {
        broker.stop();
        broker.start();
        rig.kafka.wait_ready();
        rig.wait_in_sync();
    }
    let healed = Instant::now();
    rig.verdict(load, &Expect::all_200().healed(healed))
}

/// Two of three replicas are enough for Kafka's quorum of controllers; with a minimum of three they are not for a record.
fn too_few_in_sync(trial: &Trial) -> Outcome {
    let rig = trial.rig(patient(), &[]);
    for feed in Feed::ALL {
        rig.kafka.alter_topic_config(&rig.topic(feed), &[("min.insync.replicas", "3")]);
    }
    let load = rig.load();
    let broker = &rig.kafka.brokers()[0];
    broker.kill();
    rig.wait_led_without(broker.id);
    // Nothing is committed now.
    let acked = load.acked();
    let enough = 2 * load.plan.rate as usize;
    wait_until("requests are held", || load.open() >= enough);
    let while_too_few = load.acked() - acked;
    broker.start();
    rig.kafka.wait_ready();
    rig.wait_in_sync();
    let healed = Instant::now();
    rig.verdict_with(load, &held_and_200().healed(healed), |_, _| match while_too_few {
        0 => Vec::new(),
        count => vec![Violation::new(Kind::Other, format!("{count} answered 200 with two replicas of three"))],
    })
}

fn all_down_briefly(trial: &Trial) -> Outcome {
    let rig = trial.rig(patient(), &[]);
    let load = rig.load();
    rig.each_broker(Broker::kill);
    rig.each_broker(Broker::start);
    rig.kafka.wait_ready();
    rig.wait_led_without(0);
    let healed = Instant::now();
    rig.verdict(load, &Expect::all_200().healed(healed))
}

fn all_down_past_the_deadline(trial: &Trial) -> Outcome {
    let rig = trial.rig(hasty(), &[]);
    let load = rig.load();
    let stopped = Instant::now();
    rig.each_broker(Broker::pause);
    load.wait_reply("an attempt is answered 503", stopped, |reply| matches!(reply, Reply::Refused(503, _)));
    sleep(Duration::from_millis(2500).saturating_sub(stopped.elapsed()));
    rig.each_broker(Broker::resume);
    let healed = Instant::now();
    // What was answered 503 is still on its way: the retry joins it.
    rig.verdict_with(load, &Expect::held().healed(healed), |_, fates| joined(fates))
}

/// At least one event was answered 503 first and 200 at its retry.
fn joined(fates: &[Fate]) -> Vec<Violation> {
    let any = fates.iter().any(|fate| fate.attempts.len() > 1 && fate.acked().is_some());
    if any { Vec::new() } else { vec![Violation::new(Kind::Other, "no retry was answered 200")] }
}

fn all_down_past_message_timeout(trial: &Trial) -> Outcome {
    // (retries + 1) x T + pause = 4.5 s
    let plan = Plan { pause: Duration::from_millis(500), ..hasty() };
    let rig = trial.rig(plan, &[]);
    let load = rig.load();
    rig.each_broker(Broker::pause);
    let given_up = || rig.bridge.metric("causeway_undelivered_total", &[]);
    // A broker that stands still has requests in its sockets, and commits them afterwards, given up or not. Two seconds'
    // worth of records is more than they hold: the rest of it is nowhere.
    let enough = f64::from(2 * load.plan.rate);
    wait_until("records are given up", || given_up() >= enough);
    rig.each_broker(Broker::resume);
    let healed = Instant::now();
    let expect = Expect::held().healed(healed);
    rig.verdict(load, &expect)
}

/// The deadline and then some: what is held is answered by then.
pub fn wait_refusals(rig: &Rig, count: f64) {
    let (status, code) = (format!("status=\"{}\"", NO_COMMIT_IN_TIME.0), format!("code=\"{}\"", NO_COMMIT_IN_TIME.1));
    wait_until("requests are answered 503", || rig.bridge.metric("causeway_answers_total", &[&status, &code]) >= count);
}
