//! The bridge itself: told to stop, killed, and started again.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    brokers::{hasty, patient, wait_refusals},
    load::{Fate, Load, Plan, RATE, Reply},
    rig::{Case, Rig, Trial},
    sender::sender_through,
    support::{
        client::Http,
        kafka::{Broker, Kafka, KafkaOptions},
        pool::Lease,
        process::{Child, Signal},
        proxy::Proxy,
        scratch,
        stopwatch::Stopwatch,
        wait_until,
    },
    verdict::{Copies, Expect, Kind, NO_COMMIT_IN_TIME, Outcome, STOPPING, Summary, Violation},
};

pub fn cases() -> Vec<Case> {
    vec![
        Case::fast("row_39_sigterm_under_load", sigterm),
        Case::fast("row_40_sigterm_while_kafka_is_down", sigterm_without_kafka),
        Case::fast("row_41_sigkill_under_load", sigkill),
        Case::slow("rolling_restart_of_two_instances_behind_one_address", rolling_restart),
        Case::slow("upgrade_of_two_instances_as_the_chart_does_it", upgrade),
    ]
}

/// While requests are held: they are answered 200 before the process ends.
fn sigterm(trial: &Trial) -> Outcome {
    let plan = Plan { retries: 0, ..patient() };
    let mut rig = trial.rig(plan, &[]);
    let load = rig.load();
    rig.each_broker(Broker::pause);
    let enough = load.plan.rate as usize / 2;
    wait_until("requests are held", || load.open() >= enough);
    rig.bridge.child.signal(Signal::Terminate);
    wait_until("new connections are refused", || TcpStream::connect(rig.bridge.ingress).is_err());
    rig.each_broker(Broker::resume);
    let status = rig.bridge.child.wait();
    let fates = load.stop();
    let mut found = Vec::new();
    if status.code() != Some(0) {
        found.push(Violation::new(Kind::WrongExit, format!("{status}\n{}", rig.bridge.child.tail())));
    }
    let expect = Expect { broken: true, ..Expect::all_200() };
    let content = |summary: Summary| match summary.unacked_there {
        0 => Ok(summary),
        // What was accepted is answered before the end.
        left => Err(vec![Violation::new(Kind::WrongAnswer, format!("{left} events are there and were not answered"))]),
    };
    rig.judge_ended(&fates, &expect, found).and_then(content)
}

fn sigterm_without_kafka(trial: &Trial) -> Outcome {
    // Nothing is given up before the end of the drain.
    let plan = Plan { retries: 0, pause: Duration::from_secs(30), ..hasty() };
    let mut rig = trial.rig(plan, &[("ingress.drain_ms_max", "2500")]);
    let load = rig.load();
    rig.each_broker(Broker::pause);
    wait_refusals(&rig, 10.0);
    rig.bridge.child.signal(Signal::Terminate);
    let watch = Stopwatch::start();
    let status = rig.bridge.child.wait();
    let drained = watch.elapsed();
    let fates = load.stop();
    rig.each_broker(Broker::resume);
    rig.wait_in_sync();
    let mut found = Vec::new();
    if status.code() != Some(4) {
        found.push(Violation::new(Kind::WrongExit, format!("{status}\n{}", rig.bridge.child.tail())));
    }
    if drained > watch.allowed(Duration::from_secs(6)) {
        found.push(Violation::new(Kind::Late, format!("the drain took {drained:?}\n{}", rig.bridge.child.tail())));
    }
    let given_up = given_up(&rig);
    let unknown = fates.iter().filter(|fate| refused(fate)).count();
    // Those were accepted, and nothing was committed since the brokers stood still.
    if given_up < unknown {
        let what = format!("{given_up} said to be given up, {unknown} answered 503");
        found.push(Violation::new(Kind::WrongMetric, what));
    }
    let expect = Expect { broken: true, late: true, refusals: vec![NO_COMMIT_IN_TIME, STOPPING], ..Expect::all_200() };
    rig.judge_ended(&fates, &expect, found)
}

fn refused(fate: &Fate) -> bool {
    fate.attempts.iter().any(|it| matches!(it.reply, Reply::Refused(503, _)))
}

/// What the last lines of the log say.
fn given_up(rig: &Rig) -> usize {
    let log = rig.bridge.child.stderr();
    let line = log.lines().rev().find(|line| line.contains("\"given_up\":")).unwrap_or_default();
    let number = line.split("\"given_up\":").nth(1).unwrap_or_default();
    number.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
}

/// Killed twice, and started again each time on the same port.
fn sigkill(trial: &Trial) -> Outcome {
    let plan = Plan { pause: Duration::from_secs(2), ..Plan::default() };
    let listen = format!("127.0.0.1:{}", scratch::port());
    let mut rig = trial.rig(plan, &[("ingress.listen", &listen)]);
    let load: Load = rig.load();
    for _ in 0..2 {
        rig.bridge.child.signal(Signal::Kill);
        rig.bridge.child.wait();
        rig = rig.restarted();
        load.wait_seconds(3);
    }
    let healed = Instant::now();
    sleep(Duration::from_millis(500));
    let expect = Expect { broken: true, late: true, ..Expect::all_200().copies(Copies::Restarted).healed(healed) };
    rig.verdict(load, &expect)
}

/// Another process with the same configuration on a port of its own.
fn second(rig: &Rig, listen: &str) -> Child {
    let setup = &rig.bridge.setup;
    let file = setup.dir.join("second.json");
    let _ = fs::remove_file(&file);
    let mut command = setup.command(&["serve", "--ready-file", "second.json"]);
    command.env("CAUSEWAY_INGRESS__LISTEN", listen);
    let mut child = Child::spawn("second", &command, &setup.dir);
    child.wait_ready(|| file.exists());
    child
}

/// Nothing is lost and nothing is dropped by ASAPP's rules.
fn rolling_restart(trial: &Trial) -> Outcome {
    let addresses = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], scratch::port())));
    let listen = addresses.map(|it| it.to_string());
    let mut rig = trial.rig(Plan::default(), &[("ingress.listen", &listen[0])]);
    let mut other = second(&rig, &listen[1]);
    let balancer = Proxy::balance(addresses.into());
    let senders = [Http::One, Http::Two, Http::One, Http::Two].map(|http| sender_through(&rig, &balancer, http));
    let load = Load::with(senders.into(), rig.plan.clone());
    load.wait_seconds(2);
    let mut found = Vec::new();
    for _ in 0..2 {
        let first = rig.bridge.stop();
        rig = rig.restarted();
        load.wait_seconds(2);
        other.signal(Signal::Terminate);
        let then = other.wait();
        other = second(&rig, &listen[1]);
        load.wait_seconds(2);
        if !first.success() || !then.success() {
            found.push(Violation::new(Kind::WrongExit, format!("{first}, {then}")));
        }
    }
    let healed = Instant::now();
    let expect = Expect { broken: true, ..Expect::all_200().copies(Copies::Restarted).healed(healed) };
    rig.verdict_with(load, &expect, |_, fates| {
        found.extend(dropped(fates));
        found
    })
}

fn dropped(fates: &[Fate]) -> impl Iterator<Item = Violation> {
    let dropped = fates.iter().filter(|fate| fate.acked().is_none());
    dropped.map(|fate| Violation::of_fate(fate, "dropped"))
}

/// For how long a pod goes on after it was taken out of the address (`shutdown.endpointsSeconds`).
const PRE_STOP_SECONDS: usize = 5;

/// A new instance is ready before an old one goes (surge 1, unavailable 0). The old one is first taken out of the address, so
/// that only connections that it has go on (preStop), and then drains.
fn upgrade(trial: &Trial) -> Outcome {
    // What a debug build of sender and bridges bears.
    let rate = if cfg!(debug_assertions) { 2 * RATE } else { 1000 };
    let plan = Plan { rate, keys: 100, ..Plan::default() };
    // Kafka does not fail here, and two cores bear the rate with one broker only.
    let kafka = Lease::own(Kafka::start(KafkaOptions { proxied: true, ..KafkaOptions::default() }));
    let brokers = kafka.bootstrap();
    let drain_ms = (plan.timeout * 9 / 10 + Duration::from_secs(5)).as_millis().to_string();
    let [first, second_one, third] = [(); 3].map(|()| SocketAddr::from(([127, 0, 0, 1], scratch::port())));
    let mut rig = trial.rig_on(kafka, plan, |setup| {
        setup
            .set("kafka.brokers", &brokers)
            .set("kafka.topics.replication", "1")
            .set("ingress.listen", &first.to_string())
            .set("ingress.drain_ms_max", &drain_ms)
    });
    let mut other = second(&rig, &second_one.to_string());
    let address = Proxy::balance(vec![first, second_one]);
    // Over HTTP/1.1 each event that is under way has a connection, and each connection a handshake: not for all of them.
    let senders = [Http::One, Http::Two, Http::Two, Http::Two].map(|http| sender_through(&rig, &address, http));
    let load = Load::with(senders.into(), rig.plan.clone());
    load.wait_seconds(5);

    let newer = second(&rig, &third.to_string());
    address.send_to(vec![second_one, third]);
    load.wait_seconds(PRE_STOP_SECONDS);
    let one = rig.bridge.stop();
    rig = rig.restarted();
    address.send_to(vec![third, first]);
    load.wait_seconds(PRE_STOP_SECONDS);
    other.signal(Signal::Terminate);
    let two = other.wait();
    let rolled = Instant::now();
    load.wait_seconds(5);

    let expect = Expect { broken: true, late: true, ..Expect::all_200().copies(Copies::Restarted).healed(rolled) };
    let outcome = rig.verdict_with(load, &expect, |_, fates| {
        let wrong = [one, two].into_iter().filter(|status| !status.success());
        let wrong = wrong.map(|status| Violation::new(Kind::WrongExit, status.to_string()));
        let retried = fates.iter().filter(|fate| fate.attempts.len() > 1).count();
        eprintln!("    {retried} of {} events were tried again", fates.len());
        wrong.chain(dropped(fates)).collect()
    });
    drop(newer);
    outcome
}
